"""The learner ``auto``: sieve and boosting stacked by what they predict for held-out rows.

Baseline and effects are stacked apart. The baseline's members are weighed by squared error. Its held-out predictions are then
taken from the outcome ONCE, and the effects' members are boosted and weighed on what is left (the R-loss of Nie & Wager 2021 with
one common baseline): a learner earns its weight by the effects alone. Every member's final fit is on all rows, or the average of
fits on all parts but one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import lsq_linear

from coarse_spark.core.learners.boosting import BoostedFit, fit_boosting
from coarse_spark.core.learners.gram import GramStatistics
from coarse_spark.core.learners.model import AdditiveModel
from coarse_spark.core.learners.penalties import empirical_bayes
from coarse_spark.core.learners.preparation import Preparation, PreparedRows
from coarse_spark.core.learners.record import ModelRecord
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.learners.shape import shape_constraints
from coarse_spark.core.learners.sieve import Layout, SieveFit, detectable
from coarse_spark.core.learners.trees import Trees

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_LEAST_WEIGHT = 0.05  # a member with less is not worth scoring
_MOST_WEIGHT = 1.2  # a member that stopped early is not blown up
_LEAST_ROWS = 400.0  # boosting below that is all noise


@dataclass(frozen=True)
class _Member:
    """A fit of coefficient functions (k of them): held-out values (n, k), linear part (k, m) and trees."""

    name: str
    held_out: FloatArray
    coefficients: FloatArray
    trees: Trees | None = None


@dataclass(frozen=True)
class _Blend:
    """Weighted members around an origin: the same parts as a member, and the weights by name."""

    weights: dict[str, float]
    held_out: FloatArray
    coefficients: FloatArray
    trees: Trees | None


def sieve_record(
    preparation: Preparation, layout: Layout, fit: SieveFit, sums: GramStatistics, settings: LearnerSettings
) -> ModelRecord:
    """Return the model row of a sieve alone, which needs no rows; of its constant-effect model where that is not beaten."""
    constant = settings.learner == "constant" or not detectable(fit.r_loss_constant - fit.r_loss, fit.gain_error)
    functions = fit.functions.copy()
    if constant:
        functions[1:] = np.eye(1, layout.m) * fit.constant_effect[:, None]
    model = AdditiveModel(preparation, functions, fit.constant_effect)
    name = "constant" if constant else "sieve"
    return _record(
        model,
        name,
        sums,
        settings,
        fit.r_loss,
        fit.r_loss_constant,
        fit.gain_error,
        {"effect_penalty_multiplier": fit.multiplier},
    )


def stacked_record(
    preparation: Preparation,
    layout: Layout,
    fit: SieveFit,
    sums: GramStatistics,
    rows: PreparedRows,
    part: IntArray,
    *,
    settings: LearnerSettings,
    boosters: int,
    seed: int,
) -> ModelRecord:
    """Return the model row of the stack ``auto``, or of ``boosting`` alone.

    Parameters
    ----------
    fit, sums : the sieve on these rows and their total statistics.
    rows : (n, ·) in random order.
    part : (n,) number of each row's part in the order that ``fit`` was given them; −1 for rows that are left out.
    boosters : how many boosters are averaged, each fitted without a share of the parts.
    """
    used = np.flatnonzero(part >= 0)
    part, z, plain = part[used], rows.z[used], preparation.encoder.plain
    weight = rows.weight[used] * (sums.effective_rows / sums.weight)
    if sums.effective_rows < _LEAST_ROWS and settings.learner == "auto":
        return sieve_record(preparation, layout, fit, sums, settings)
    inputs = rows.features[np.ix_(used, plain)]
    theta, average, outcome = np.empty(z.shape), np.empty((len(used), layout.p - 1)), rows.outcome[used]
    for number in range(len(fit.held_out)):
        here = np.flatnonzero(part == number)
        theta[here] = rows.features[used[here]] @ fit.held_out[number].T
        average[here] = fit.held_out_constant[number]
    functions = fit.functions
    folded = part % boosters

    ones, with_sieve = np.ones((len(used), 1)), settings.learner == "auto"
    effects = theta[:, 1:] if with_sieve else average
    target = outcome - np.einsum("ij,ij->i", z[:, 1:], effects)
    boosted = fit_boosting(inputs, ones, target, weight, folded, seed=2 * seed)
    members = [_Member("sieve", theta[:, :1], functions[:1])] if with_sieve else []
    center = np.full((len(used), 1), weight @ target / weight.sum())
    baseline = _blend([*members, _boosted_member(boosted, layout.m)], ones, target, weight, part, center, center[0])

    residual, moving = outcome - baseline.held_out[:, 0], z[:, 1:]
    if layout.s:
        residual, moving = _within_strata(preparation, rows.strata[used], residual, moving, effects, weight)
    boosted = fit_boosting(inputs, moving, residual, weight, folded, seed=2 * seed + 1)
    members = [_Member("sieve", theta[:, 1:], functions[1:])] if with_sieve else []
    origin = fit.constant_effect
    blend = _blend([*members, _boosted_member(boosted, layout.m)], moving, residual, weight, part, average, origin)

    loss = (residual - np.einsum("ij,ij->i", moving, blend.held_out)) ** 2
    loss_constant = (residual - np.einsum("ij,ij->i", moving, average)) ** 2
    gain = loss_constant - loss
    mean_gain = float(weight @ gain / weight.sum())
    error = float(np.sqrt(weight**2 @ (gain - mean_gain) ** 2) / weight.sum())
    constant = not detectable(mean_gain, error)
    coefficients = np.vstack([baseline.coefficients, np.eye(1, layout.m) * origin[:, None] if constant else blend.coefficients])
    trees = [_widen(baseline.trees, 0, layout.p), None if constant else _widen(blend.trees, 1, layout.p)]
    grown = [ensemble for ensemble in trees if ensemble is not None]
    model = AdditiveModel(preparation, coefficients, origin, Trees.concatenate(grown) if grown else None)
    details = {
        **{f"baseline_weight_{name}": value for name, value in baseline.weights.items()},
        **{f"effect_weight_{name}": value for name, value in blend.weights.items()},
        "effect_penalty_multiplier": fit.multiplier,
        "boosting_rounds": float(boosted.rounds),
    }
    name = "constant" if constant else "+".join(name for name, value in blend.weights.items() if value > 0)
    mean = float(weight @ loss / weight.sum())
    return _record(model, name, sums, settings, mean, mean + mean_gain, error, details)


def _within_strata(
    preparation: Preparation, strata: FloatArray, residual: FloatArray, moving: FloatArray, effects: FloatArray, weight: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Take from residuals (n,) what strata explain, and from treatment columns (n, p − 1) their means within strata.

    Within strata treatments do not depend on features: centred there, they cannot stand in for what the baseline missed.
    """
    groups = preparation.strata_groups
    design = np.column_stack([np.ones(len(strata)), strata[:, groups < 0]])
    weighted = design * weight[:, None]
    centred = moving - design @ np.linalg.lstsq(weighted.T @ design, weighted.T @ moving, rcond=None)[0]
    left = GramStatistics.of(strata, residual - np.einsum("ij,ij->i", centred, effects), weight)
    return residual - strata @ empirical_bayes(left, groups, np.zeros_like(groups)).coefficients, centred


def _boosted_member(fit: BoostedFit, m: int) -> _Member:
    return _Member("boosting", fit.held_out, np.eye(1, m) * fit.start[:, None], fit.trees)


def _blend(
    members: Sequence[_Member],
    Z: FloatArray,
    target: FloatArray,
    weight: FloatArray,
    part: IntArray,
    held_origin: FloatArray,
    origin: FloatArray,
) -> _Blend:
    """Weigh members by bounded least squares of the target on their held-out Z·(τ − origin), around the origin.

    The held-out values of the blend are weighed without the part they belong to.
    """
    root = np.sqrt(weight)
    moves = np.column_stack([np.einsum("ij,ij->i", Z, member.held_out - held_origin) * root for member in members])
    goal = (target - np.einsum("ij,ij->i", Z, held_origin)) * root
    weights, held_out = _weights(moves, goal), held_origin.copy()
    for number in np.unique(part):
        inside = part == number
        for member, value in zip(members, _weights(moves[~inside], goal[~inside]), strict=True):
            held_out[inside] += value * (member.held_out[inside] - held_origin[inside])
    size = members[0].coefficients.shape[1]
    coefficients = np.eye(1, size) * ((1 - weights.sum()) * origin)[:, None]
    trees = []
    for member, value in zip(members, weights, strict=True):
        coefficients = coefficients + value * member.coefficients
        if value > 0 and member.trees is not None and len(member.trees.value):
            trees.append(member.trees.scaled(value))
    named = {member.name: float(value) for member, value in zip(members, weights, strict=True)}
    return _Blend(named, held_out, coefficients, Trees.concatenate(trees) if trees else None)


def _weights(moves: FloatArray, goal: FloatArray) -> FloatArray:
    weights = np.asarray(lsq_linear(moves, goal, bounds=(0, _MOST_WEIGHT)).x)
    kept = weights >= _LEAST_WEIGHT
    weights = np.where(kept, weights, 0.0)
    if kept.any() and not kept.all():
        weights[kept] = lsq_linear(moves[:, kept], goal, bounds=(0, _MOST_WEIGHT)).x
    return weights


def _widen(trees: Trees | None, first: int, size: int) -> Trees | None:
    """The same trees with values for all ``size`` coefficients, theirs from ``first`` on."""
    if trees is None:
        return None
    value = np.zeros((*trees.value.shape[:2], size))
    value[:, :, first : first + trees.value.shape[2]] = trees.value
    return Trees(trees.feature, trees.threshold, value)


def _record(
    model: AdditiveModel,
    name: str,
    sums: GramStatistics,
    settings: LearnerSettings,
    r_loss: float,
    r_loss_constant: float,
    gain_error: float,
    details: dict[str, float],
) -> ModelRecord:
    preparation = model.preparation
    if settings.shape:
        model = replace(model, constraints=shape_constraints(settings.shape, preparation.basis, preparation.whitening))
    unit = preparation.scale**2
    diagnostics = {
        "rows": sums.rows,
        "weight": sums.weight,
        "effective_rows": sums.effective_rows,
        "r_loss": r_loss * unit,
        "r_loss_constant": r_loss_constant * unit,
        "r_loss_gain": (r_loss_constant - r_loss) * unit,
        "r_loss_gain_error": gain_error * unit,
        **details,
    }
    warnings = [f"feature '{feature}' is constant and was left out" for feature in preparation.encoder.dropped]
    if np.isfinite(preparation.clip).all():
        warnings.append(f"outcomes were clipped to {preparation.clip[0]:.6g} … {preparation.clip[1]:.6g}")
    return model.to_record(name, diagnostics, warnings)
