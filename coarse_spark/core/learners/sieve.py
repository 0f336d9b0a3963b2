"""The sieve: ridge regression of the outcome on features ⊗ treatment basis.

E[y | x, t] = z(t)·C f(x). Every feature has a penalty of its own in every coefficient function, one
for its line and one for its hinges, and the products share one; empirical Bayes finds them. The
average response is not penalised. Cross-validation in closed form then decides whether the effects'
penalties are those of the treatment's columns or of their principal axes (``axes``), and how far
the effects are shrunk beyond that, up to the constant effect: coefficients and held-out losses both
come from sums over rows (``gram``), never from the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum

import numpy as np

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray
from coarse_spark.core.evidence import detectable
from coarse_spark.core.learners.encoding.preparation import Preparation
from coarse_spark.core.learners.ridge.axes import principal_axes, turned, turned_statistics
from coarse_spark.core.learners.ridge.gram import GramStatistics, total
from coarse_spark.core.learners.ridge.penalties import (
    EXCLUDED,
    FREE,
    RidgeFit,
    empirical_bayes,
    expand,
    ridge,
)

_MULTIPLIERS = ((3.0, 10.0), (0.3,))  # beside 1, as far as they predict better and better


@dataclass(frozen=True)
class Layout:
    """The design's columns: z_j f_i at j·m + i, then the nuisance columns.

    Parameters
    ----------
    m, p, s : columns of features, basis and nuisance.
    groups : (q,) penalty group of every column.
    clustered : whether rows shared clusters.
    """

    m: int
    p: int
    s: int
    groups: IntArray
    clustered: bool = False

    @staticmethod
    def of(preparation: Preparation, fold: int) -> Layout:
        """Return the layout of the model that leaves out a fold."""
        m, p, s = preparation.shape
        groups = preparation.encoder.groups
        within = np.where(preparation.excluded(fold), EXCLUDED, groups)
        blocks = np.where(within >= 0, within + (groups.max() + 1) * np.arange(p)[:, None], within)
        nuisance = np.where(preparation.strata_groups >= 0, blocks.max(initial=-1) + 1, FREE)
        every = np.concatenate([blocks.ravel(), nuisance])
        return Layout(m, p, s, every, preparation.clustered)

    @property
    def baseline(self) -> BoolArray:
        """(q,) columns that do not involve the treatment."""
        return np.concatenate([np.arange(self.m * self.p) < self.m, np.ones(self.s, dtype=bool)])

    @property
    def blocks(self) -> IntArray:
        """(q,) the treatment column that a column multiplies; nuisance belongs to the baseline."""
        return np.concatenate(
            [np.repeat(np.arange(self.p), self.m), np.zeros(self.s, dtype=np.int64)]
        )

    @property
    def effect_constants(self) -> IntArray:
        """(p − 1,) columns of the average effects."""
        return np.arange(1, self.p) * self.m

    def effects(self, coefficients: FloatArray) -> FloatArray:
        """Return the coefficient functions C (p, m) of coefficients (q,)."""
        return coefficients[: self.m * self.p].reshape(self.p, self.m)


@dataclass(frozen=True)
class SieveFit:
    """A fit and what it predicts for held-out rows.

    Parameters
    ----------
    functions : C (p, m) on all rows. The baseline is that of E[y | x], whatever the stratum.
    constant_effect : (p − 1,) of the model with constant effects.
    held_out, held_out_constant : (parts, p, m) and (parts, p − 1) the same, fitted without each
        part.
    multiplier : factor on the effects' penalties.
    principal : whether they are penalties of principal axes.
    r_loss, r_loss_constant : mean held-out squared errors given the same held-out baseline.
    gain_error : standard error of their difference.
    """

    functions: FloatArray
    constant_effect: FloatArray
    held_out: FloatArray
    held_out_constant: FloatArray
    multiplier: float
    principal: bool
    r_loss: float
    r_loss_constant: float
    gain_error: float

    @property
    def heterogeneous(self) -> bool:
        """Whether the effects beat constant ones by more than chance."""
        return detectable(self.r_loss_constant - self.r_loss, self.gain_error)

    def shown(self, *, constant: bool = False) -> SieveFit:
        """Return the fit with constant effects where no others are detectable, or none wanted."""
        if self.heterogeneous and not constant:
            return self
        held_out = zip(self.held_out, self.held_out_constant, strict=True)
        return replace(
            self,
            functions=with_constant_effect(self.functions, self.constant_effect),
            held_out=np.stack([with_constant_effect(*fits) for fits in held_out]),
        )


@dataclass(frozen=True)
class FoldSieve:
    """The sieve of the rows outside a fold.

    Attributes
    ----------
    fold : ``ALL_FOLDS`` for the sieve of all rows.
    layout : of the design.
    parts : sums of the validation parts, by number.
    fit : what they give.
    """

    fold: int
    layout: Layout
    parts: Mapping[int, GramStatistics]
    fit: SieveFit


def with_constant_effect(functions: FloatArray, effect: FloatArray) -> FloatArray:
    """Return coefficient functions C (p, m) with their baseline and a constant effect (p − 1,)."""
    return np.vstack([functions[:1], np.eye(1, functions.shape[1]) * effect[:, None]])


def fit_sieve(parts: Sequence[GramStatistics], layout: Layout) -> SieveFit:
    """Find the penalties and fit on all parts and on all but each.

    The R-loss of effects is their squared error given ONE held-out baseline, so that fitting the
    baseline well earns effects nothing.

    Parameters
    ----------
    parts : statistics of disjoint parts of the rows, at least two.
    layout : of the design.
    """
    sums = total(dict(enumerate(parts)))
    factor = sums.rows_a_weight
    scaled = {number: part.scaled(factor) for number, part in enumerate(parts)}
    everything, base = total(scaled), layout.baseline
    final = _shrunk(everything, layout)
    # penalties that saw a part would make its held-out loss too small: they are found anew without
    # it
    rest = [_shrunk(total(scaled, without={number}), layout) for number in scaled]

    # fsum, here and elsewhere: the last digits of sum depend on the version of Python
    def held_out_loss(coefficients: FloatArray) -> float:
        return (
            fsum(part.loss(b) for part, b in zip(scaled.values(), coefficients, strict=True))
            / everything.weight
        )

    def gain_error(better: FloatArray, worse: FloatArray) -> float:
        # Σ w (e² − (e − δ)²) has the standard error 2 σ sqrt(Σ w δ²), δ being what held-out
        # predictions differ by
        moved = fsum(
            float(shift @ part.gram @ shift)
            for part, shift in zip(scaled.values(), better - worse, strict=True)
        )
        error = 2 * float(np.sqrt(max(held_out_loss(better) * moved, 0.0))) / everything.weight
        if not layout.clustered:
            return error
        # rows of a cluster are not independent; parts, which hold whole clusters, are
        gains = np.array(
            [
                part.loss(b) - part.loss(a)
                for part, a, b in zip(scaled.values(), better, worse, strict=True)
            ]
        )
        sizes = np.array([part.weight for part in scaled.values()])
        deviation = gains - sizes * (gains.sum() / sizes.sum())
        count = len(gains)
        between = np.sqrt(count / (count - 1) * (deviation**2).sum()) / everything.weight
        return max(error, float(between))

    first = np.stack([found[0].fit(1.0) for found in rest])
    constant = np.where(base, first, np.stack([found[0].fit(np.inf) for found in rest]))
    r_loss_constant = held_out_loss(constant)

    def held_out_fits(axes: int, multiplier: float) -> FloatArray:
        return np.where(base, first, np.stack([found[axes].fit(multiplier) for found in rest]))

    candidates = {(axes, 1.0): held_out_fits(axes, 1.0) for axes in range(len(final))}
    losses = {candidate: held_out_loss(fits) for candidate, fits in candidates.items()}
    chosen = min(losses, key=lambda candidate: losses[candidate])
    for direction in _MULTIPLIERS:
        for multiplier in direction if chosen[1] == 1.0 else ():
            further = chosen[0], multiplier
            candidates[further] = held_out_fits(*further)
            losses[further] = held_out_loss(candidates[further])
            if losses[further] >= losses[chosen]:
                break
            chosen = further
    return SieveFit(
        functions=_functions(everything, layout, final[chosen[0]].fit(chosen[1])),
        constant_effect=final[0].fit(np.inf)[layout.effect_constants],
        held_out=np.stack(
            [
                _functions(found[0].statistics, layout, coefficients)
                for found, coefficients in zip(rest, candidates[chosen], strict=True)
            ]
        ),
        held_out_constant=constant[:, layout.effect_constants],
        multiplier=chosen[1],
        principal=chosen[0] > 0,
        r_loss=losses[chosen],
        r_loss_constant=r_loss_constant,
        gain_error=gain_error(candidates[chosen], constant),
    )


def _functions(statistics: GramStatistics, layout: Layout, coefficients: FloatArray) -> FloatArray:
    """C (p, m) of coefficients (q,).

    With strata, the baseline is fitted anew without them: units to be served have none.
    """
    functions = layout.effects(coefficients).copy()
    if layout.s:
        effects = np.flatnonzero(~layout.baseline)
        moment = (
            statistics.moment[: layout.m]
            - statistics.gram[: layout.m, effects] @ coefficients[effects]
        )
        explained = (
            2 * statistics.moment[effects]
            - statistics.gram[np.ix_(effects, effects)] @ coefficients[effects]
        )
        alone = replace(
            statistics,
            gram=statistics.gram[: layout.m, : layout.m],
            moment=moment,
            square=statistics.square - float(coefficients[effects] @ explained),
        )
        functions[0] = empirical_bayes(
            alone, layout.groups[: layout.m], np.zeros(layout.m, dtype=np.int64)
        ).coefficients
    return functions


@dataclass(frozen=True)
class _Shrunk:
    """Penalties of largest marginal likelihood, on the columns of a design or on turned ones.

    Attributes
    ----------
    statistics : of the turned design.
    bayes : penalties and the fit they give.
    axes : (p − 1, p − 1) by which effect columns are turned.
    """

    statistics: GramStatistics
    layout: Layout
    bayes: RidgeFit
    axes: FloatArray

    def fit(self, multiplier: float) -> FloatArray:
        """Return the coefficients (q,) for a factor on the effects' penalties."""
        coefficients = self.bayes.coefficients
        if multiplier != 1.0:
            layout = self.layout
            penalty = expand(self.bayes.penalties, layout.groups)
            penalty[~layout.baseline & (layout.groups != FREE)] *= multiplier
            coefficients = ridge(self.statistics, penalty)
        return turned(coefficients, self.axes.T, self.layout.m)


def _shrunk(statistics: GramStatistics, layout: Layout) -> list[_Shrunk]:
    """Find the penalties of the treatment's columns and, of several effects, of their axes."""
    bayes = empirical_bayes(statistics, layout.groups, layout.blocks)
    plain = _Shrunk(statistics, layout, bayes, np.eye(layout.p - 1))
    effects = layout.effects(bayes.coefficients)[1:]
    if len(effects) < 2:
        return [plain]
    if not effects[:, 1:].any():
        return [plain, plain]
    axes = principal_axes(effects, statistics)
    along = turned_statistics(statistics, axes, layout.m)
    near = replace(bayes, coefficients=turned(bayes.coefficients, axes, layout.m))
    found = empirical_bayes(along, layout.groups, layout.blocks, near=near)
    return [plain, _Shrunk(along, layout, found, axes)]
