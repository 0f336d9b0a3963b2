"""Treatments chosen by debiased segment responses.

Learned responses θ̂ are shrunk towards the middle, and the best treatment of a segment with them. The debiased coefficients
θ̃_i = θ̂(x_i) + Λ(x_i)⁻¹ φ(t_i)(y_i − φ(t_i)·θ̂(x_i)) are right on average but noisy. Segments are still formed by θ̂; each segment's
treatment maximizes profit under its mean θ̂ plus a share of the mean correction θ̃ − θ̂. The share is positive-part James–Stein over
all segments,

    share = max(0, 1 − noise / signal),   signal = Σ_k W_k |c_k|²,   noise = Σ_k W_k E|c_k − E c_k|²,

with c_k the mean correction of segment k in the coordinates of profit differences between treatments, so that corrections which
are mere noise, as after a good learner, move nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coarse_spark.core.menu.lloyd import Aggregate, PricedMenu, SegmentSums, assign, segment_sums, update
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.sketch import profit_metric
from coarse_spark.errors import InvalidInputError

FloatArray = npt.NDArray[np.float64]

_ROUNDS = 5


@dataclass(frozen=True, eq=False)
class CorrectionSums:
    """Additive record of the experiment's units for one menu.

    Attributes
    ----------
    plain : segment sums of θ̂. correction : (K, p) Σ w (θ̃ − θ̂). squares : (K, p, p) Σ w² (θ̃ − θ̂)(θ̃ − θ̂)ᵀ.
    """

    plain: SegmentSums
    correction: FloatArray
    squares: FloatArray

    def __add__(self, other: CorrectionSums) -> CorrectionSums:
        return CorrectionSums(self.plain + other.plain, self.correction + other.correction, self.squares + other.squares)

    def share(self, metric: FloatArray) -> float:
        """Return the share of the corrections to use, 0 to 1; ``metric`` (p, q) maps θ to profit differences."""
        weight = np.where(self.plain.weight > 0, self.plain.weight, 1.0)
        mean = self.correction / weight[:, None]
        signal = float((weight[:, None] * (mean @ metric) ** 2).sum())
        spread = self.squares / weight[:, None, None] ** 2  # of the mean, with the second moment on the safe side of the variance
        noise = float((weight * np.einsum("pq,kpr,rq->k", metric, spread, metric)).sum())
        return max(0.0, 1.0 - noise / signal) if signal > 0 else 0.0

    def corrected(self, share: float, plain: SegmentSums) -> SegmentSums:
        """Return segment sums ``plain`` of θ̂, of the experiment or of another population, plus a share of the mean corrections."""
        mean = self.correction / np.where(self.plain.weight > 0, self.plain.weight, 1.0)[:, None]
        return SegmentSums(plain.weight, plain.theta + share * plain.weight[:, None] * mean, plain.units)

    def to_array(self) -> FloatArray:
        """Return one flat array; arrays of batches add up."""
        plain = np.column_stack([self.plain.weight, self.plain.units, self.plain.theta])
        return np.concatenate([plain.ravel(), self.correction.ravel(), self.squares.ravel()])

    @staticmethod
    def from_array(values: FloatArray, k: int) -> CorrectionSums:
        """Return the record of a menu of k treatments that ``to_array`` described."""
        # 2 + p of θ̂, p of the corrections and p² of their squares, k times
        p = round(np.sqrt(len(values) / k - 1)) - 1
        plain, correction, squares = np.split(values, [k * (p + 2), k * (2 * p + 2)])
        table = plain.reshape(k, p + 2)
        sums = SegmentSums(table[:, 0], table[:, 2:], table[:, 1].astype(np.intp))
        return CorrectionSums(sums, correction.reshape(k, p), squares.reshape(k, p, p))


Corrections = Callable[[Mapping[int, PricedMenu]], Mapping[int, CorrectionSums]]


def correction_sums(theta: FloatArray, debiased: FloatArray, weights: FloatArray, menu: PricedMenu) -> CorrectionSums:
    """Add up units with θ̂ (n, p), θ̃ (n, p) and weights (n,) by the treatment that θ̂ assigns."""
    chosen, k = assign(theta, menu), len(menu.treatments)
    plain = SegmentSums.of(chosen, theta, weights, k)
    correction = (debiased - theta) * weights[:, None]
    squares = np.array([correction[chosen == segment].T @ correction[chosen == segment] for segment in range(k)])
    return CorrectionSums(plain, SegmentSums.of(chosen, correction, np.ones(len(theta)), k).theta, squares)


def debiased_menus(
    problem: MenuProblem,
    menus: Mapping[int, PricedMenu],
    corrections: Corrections,
    plain: Aggregate,
    metric: FloatArray,
    share: float | None = None,
) -> tuple[dict[int, PricedMenu], dict[int, float]]:
    """Move the treatments of menus to where the debiased responses of their segments want them.

    Parameters
    ----------
    menus : by any key. corrections, plain : return under these keys the records of the experiment's units, and the segment sums of
        the population that the menus are for; one call of each a round serves all menus. metric : see ``sketch.profit_metric``.
    share : of the corrections to use; default by James–Stein. 0 is the plain update, 1 the full correction.

    Returns
    -------
    The menus, and the shares that were used.
    """
    current, used = dict(menus), dict.fromkeys(menus, 0.0)
    moving = dict(menus)
    for _ in range(_ROUNDS):
        records, everyone = corrections(moving), plain(moving)
        used |= {key: record.share(metric) if share is None else share for key, record in records.items()}
        fresh = update(problem, moving, {key: records[key].corrected(used[key], everyone[key]) for key in moving})
        current |= fresh
        moving = {key: menu for key, menu in fresh.items() if not np.array_equal(menu.treatments, moving[key].treatments)}
        if not moving:
            break
    return current, used


def debiased_menu(
    problem: MenuProblem,
    menu: PricedMenu,
    theta: FloatArray,
    debiased: FloatArray,
    weights: FloatArray,
    share: float | None = None,
) -> tuple[PricedMenu, float]:
    """Move a menu's treatments to where the debiased responses of its segments want them.

    Parameters
    ----------
    theta, debiased : (n, p) out-of-fold θ̂ and debiased θ̃ of the experiment's units, for which the menu is. weights : (n,).
    share : see ``debiased_menus``.

    Returns
    -------
    The menu, and the share that was used.
    """
    if theta.shape != debiased.shape or weights.shape != (len(theta),):
        raise InvalidInputError(
            f"theta {theta.shape}, debiased {debiased.shape} and weights {weights.shape} do not belong together"
        )

    def corrections(asked: Mapping[int, PricedMenu]) -> dict[int, CorrectionSums]:
        return {key: correction_sums(theta, debiased, weights, one) for key, one in asked.items()}

    def plain(asked: Mapping[int, PricedMenu]) -> dict[int, SegmentSums]:
        return segment_sums(theta, weights, asked)

    menus, used = debiased_menus(problem, {0: menu}, corrections, plain, profit_metric(theta, problem.psi), share)
    return menus[0], used[0]
