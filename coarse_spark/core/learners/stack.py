"""The stack: sieve, boosting and the pooled model weighed by what they predict for held-out rows.

Baseline and effects are stacked apart. The baseline's members are weighed by squared error. Its
held-out predictions are then taken from the outcome ONCE, and the effects' members are boosted and
weighed on what is left (the R-loss of Nie & Wager 2021 with one common baseline): a learner earns
its weight by the effects alone. Every member's final fit is on all rows, or the average of fits on
all parts but one.

Multiples of a baseline are learned one unit like another, but what all units together do, which the
best single treatment rests on, is a mean weighed by what they are multiples of (m(x) in
``encoding.baseline``). A constant multiple more or less puts it right at last, such that held-out
outcomes are met on average: calibration in the large, or the targeting step of van der Laan & Rubin
(2006) for the mean response. Models of partitions that lean on pooled ones do without: a mean of
few rows is noisier than what it would put right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.evidence import detectable
from coarse_spark.core.learners.blend import Blend, HeldOutTarget, Judgement, Member
from coarse_spark.core.learners.boosting.booster import fit_boosting
from coarse_spark.core.learners.boosting.trees import Binned, Trees
from coarse_spark.core.learners.encoding.preparation import Preparation, PreparedRows
from coarse_spark.core.learners.folds import ALL_FOLDS
from coarse_spark.core.learners.model import AdditiveModel, Functions
from coarse_spark.core.learners.pooled import PooledMember
from coarse_spark.core.learners.record import ModelRecord
from coarse_spark.core.learners.ridge.gram import GramStatistics, total
from coarse_spark.core.learners.ridge.penalties import empirical_bayes
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.learners.shape import shape_constraints
from coarse_spark.core.learners.sieve import FoldSieve, SieveFit

_LEAST_ROWS = 400.0  # boosting below that is all noise
_FIVE_BOOSTERS_ROWS = 20_000  # models of folds only judge: three do; so do they for more rows


def sieve_record(
    preparation: Preparation, sieve: FoldSieve, settings: LearnerSettings
) -> ModelRecord:
    """Return the model row of a sieve alone, which needs no rows.

    It is that of the constant-effect model where the sieve does not beat it.

    Parameters
    ----------
    preparation : of the rows.
    sieve : of the rows without a fold.
    settings : of the learner.
    """
    fit = sieve.fit
    constant = settings.learner == "constant" or not fit.heterogeneous
    functions = fit.shown(constant=constant).functions
    model = AdditiveModel(
        preparation,
        functions,
        fit.constant_effect,
        baseline=preparation.baseline(sieve.fold),
        treatment_mean=preparation.treatment_mean,
    )
    name, judged = (
        "constant" if constant else "sieve",
        Judgement(fit.r_loss, fit.r_loss_constant - fit.r_loss, fit.gain_error),
    )
    return _record(
        model,
        name,
        total(sieve.parts),
        settings,
        judged,
        _penalties(fit),
    )


def stacked_record(
    preparation: Preparation,
    sieve: FoldSieve,
    rows: PreparedRows,
    pooled: PooledMember | None = None,
    *,
    binned: Binned,
    settings: LearnerSettings,
    seed: int,
) -> ModelRecord:
    """Return the model row of a stack: of what ``settings.learner`` names, and the pooled model.

    Effects of the stack that are not detectable give way to those of the pooled model alone:
    heterogeneity that all rows together show needs no proof in every partition. Where the pooled
    effects lose against constant ones, the effect is constant.

    Parameters
    ----------
    preparation : of the rows.
    sieve : of these rows without a fold.
    rows : in random order; those of parts that ``sieve`` does not have are left out.
    pooled : what the pooled model predicts for the rows; None without one.
    binned : the plain features of the rows.
    settings : of the learner.
    seed : of boosting; every fold has its own.
    """
    fit, layout, sums = sieve.fit, sieve.layout, total(sieve.parts)
    with_sieve = settings.learner != "boosting"
    with_boosting = settings.learner == "boosting" or (
        settings.learner == "auto" and sums.effective_rows >= _LEAST_ROWS
    )
    if pooled is None and not with_boosting:
        return sieve_record(preparation, sieve, settings)
    place = np.full(max(int(rows.part.max()), *sieve.parts) + 1, -1)
    place[list(sieve.parts)] = np.arange(len(sieve.parts))
    used = np.flatnonzero(place[rows.part] >= 0)
    part, z = place[rows.part[used]], rows.z[used]
    weight = rows.weight[used] * sums.rows_a_weight
    number = preparation.outcome_number(sieve.fold)
    outcome, multiplied = rows.outcomes[used, number], rows.scaled.multiplier[used, number]
    inputs = binned.take(used)
    # each booster is fitted without a share of the parts
    five = sieve.fold == ALL_FOLDS and len(rows.part) <= _FIVE_BOOSTERS_ROWS
    folded, seed = part % (5 if five else 3), seed + 1000 * (sieve.fold + 1)
    theta, average = np.empty(z.shape), np.empty((len(used), layout.p - 1))
    for number in range(len(fit.held_out)):
        here = np.flatnonzero(part == number)
        theta[here] = rows.features[used[here]] @ fit.held_out[number].T
        average[here] = fit.held_out_constant[number]

    def members(block: slice, Z: FloatArray, target: FloatArray, number: int) -> list[Member]:
        found = [Member("sieve", theta[:, block], fit.functions[block])] if with_sieve else []
        if with_boosting:
            boosted = fit_boosting(inputs, Z, target, weight, folded, seed=2 * seed + number)
            found.append(
                Member(
                    "boosting",
                    boosted.held_out,
                    np.eye(1, layout.m) * boosted.start[:, None],
                    boosted.trees,
                )
            )
        if pooled is not None:
            found.append(
                Member(
                    "pooled",
                    pooled.held_out[used][:, block],
                    pooled=pooled.functions.coefficients[block],
                )
            )
        return found

    moving, ones = z[:, 1:], np.ones((len(used), 1))
    effects = theta[:, 1:] if with_sieve else average
    target = outcome - np.einsum("ij,ij->i", moving, effects)
    center = np.full((len(used), 1), weight @ target / weight.sum())
    explained = HeldOutTarget(ones, target, weight, part, center, center[0], layout.m)
    baseline = explained.blend(members(slice(0, 1), ones, target, 0))

    residual = whole = outcome - baseline.held_out[:, 0]
    if layout.s:
        residual, moving = _within_strata(
            preparation, rows.strata[used], residual, moving, effects, weight
        )
    cluster = None if rows.cluster is None else rows.cluster[used]
    explained = HeldOutTarget(
        moving, residual, weight, part, average, fit.constant_effect, layout.m, cluster
    )
    found = members(slice(1, None), moving, residual, 1)
    blend, judged = _detectable_blend(explained, found)
    if not blend.weights and not with_boosting:
        # a sieve that shows heterogeneity by its own test does not lose it for having been offered
        # company
        return sieve_record(preparation, sieve, settings)
    model = _assembled(preparation, sieve, baseline, blend, pooled)
    if preparation.baselines is not None and pooled is None:
        share = weight * multiplied
        effect = _lacking(moving, residual, blend.held_out, share)
        left = whole - np.einsum("ij,ij->i", z[:, 1:], blend.held_out + effect)
        model.coefficients[:, 0] += np.average(left, weights=share), *effect
    details = {
        **{f"baseline_weight_{name}": value for name, value in baseline.weights.items()},
        **{f"effect_weight_{member.name}": blend.weights.get(member.name, 0.0) for member in found},
        **_penalties(fit),
        "trees": 0.0 if model.trees is None else float(len(model.trees.value)),
    }
    name = "+".join(name for name, value in blend.weights.items() if value > 0) or "constant"
    return _record(model, name, sums, settings, judged, details)


def _detectable_blend(
    explained: HeldOutTarget, members: Sequence[Member]
) -> tuple[Blend, Judgement]:
    """Return the first that holds: a detectable blend, the pooled one if it gains, the constant."""
    blend = explained.blend(members)
    judged = explained.judge(blend)
    if detectable(judged.gain, judged.error):
        return blend, judged
    common = explained.blend([member for member in members if member.pooled is not None])
    if common.weights and (gained := explained.judge(common)).gain > 0:
        return common, gained
    return explained.blend([]), judged


def _assembled(
    preparation: Preparation,
    sieve: FoldSieve,
    baseline: Blend,
    effects: Blend,
    pooled: PooledMember | None,
) -> AdditiveModel:
    """One model of all coefficients from the blends of the baseline and of the effects."""
    p = len(preparation.whitening.matrix)
    trees = [_widen(baseline.trees, 0, p), _widen(effects.trees, 1, p)]
    grown = [ensemble for ensemble in trees if ensemble is not None]
    leaning = None
    if pooled is not None and (baseline.pooled is not None or effects.pooled is not None):
        shares = np.zeros_like(pooled.functions.coefficients)
        for first, blend in ((0, baseline), (1, effects)):
            if blend.pooled is not None:
                shares[first : first + len(blend.pooled)] = blend.pooled
        leaning = Functions(pooled.functions.encoder, shares)
    coefficients = np.vstack([baseline.coefficients, effects.coefficients])
    return AdditiveModel(
        preparation,
        coefficients,
        sieve.fit.constant_effect,
        Trees.concatenate(grown) if grown else None,
        leaning,
        baseline=preparation.baseline(sieve.fold),
        treatment_mean=preparation.treatment_mean,
    )


def _lacking(
    moving: FloatArray, residual: FloatArray, effects: FloatArray, share: FloatArray
) -> FloatArray:
    """Return the constant (p − 1,) that held-out effects (n, p − 1) lack, rows weighed by share."""
    design, root = np.column_stack([np.ones(len(moving)), moving]), np.sqrt(share)
    left = residual - np.einsum("ij,ij->i", moving, effects)
    found = np.linalg.lstsq(design * root[:, None], left * root, rcond=None)[0]
    return np.asarray(found[1:])


def _within_strata(
    preparation: Preparation,
    strata: FloatArray,
    residual: FloatArray,
    moving: FloatArray,
    effects: FloatArray,
    weight: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Return residuals (n,) and treatment columns (n, p − 1) within strata.

    What strata explain is taken from the residuals, their means from the columns: within strata
    treatments do not depend on features, and centred there, they cannot stand in for what the
    baseline missed.
    """
    groups = preparation.strata_groups
    design = np.column_stack([np.ones(len(strata)), strata[:, groups < 0]])
    weighted = design * weight[:, None]
    centred = (
        moving - design @ np.linalg.lstsq(weighted.T @ design, weighted.T @ moving, rcond=None)[0]
    )
    left = GramStatistics.of(strata, residual - np.einsum("ij,ij->i", centred, effects), weight)
    return residual - strata @ empirical_bayes(
        left, groups, np.zeros_like(groups)
    ).coefficients, centred


def _penalties(fit: SieveFit) -> dict[str, float]:
    return {
        "effect_penalty_multiplier": fit.multiplier,
        "effect_penalties_of_axes": float(fit.principal),
    }


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
    judged: Judgement,
    details: dict[str, float],
) -> ModelRecord:
    preparation = model.preparation
    if settings.shape:
        model = replace(
            model,
            constraints=shape_constraints(settings.shape, preparation.basis, preparation.whitening),
        )
    unit = preparation.scale**2
    diagnostics = {
        "rows": sums.rows,
        "weight": sums.weight,
        "effective_rows": sums.effective_rows,
        "r_loss": judged.loss * unit,
        "r_loss_constant": (judged.loss + judged.gain) * unit,
        "r_loss_gain": judged.gain * unit,
        "r_loss_gain_error": judged.error * unit,
        **details,
    }
    warnings = [
        f"feature '{feature}' is constant and was left out"
        for feature in preparation.encoder.dropped
    ]
    if np.isfinite(preparation.clip).all():
        warnings.append(
            f"outcomes were clipped to {preparation.clip[0]:.6g} … {preparation.clip[1]:.6g}"
        )
    return model.to_record(name, diagnostics, warnings)
