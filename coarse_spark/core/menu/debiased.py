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

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coarse_spark.core.menu.lloyd import PricedMenu, SegmentSums, assign, update
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

    def corrected(self, share: float) -> SegmentSums:
        """Return segment sums of θ̂ plus a share of the corrections."""
        return SegmentSums(self.plain.weight, self.plain.theta + share * self.correction, self.plain.units)


def correction_sums(theta: FloatArray, debiased: FloatArray, weights: FloatArray, menu: PricedMenu) -> CorrectionSums:
    """Add up units with θ̂ (n, p), θ̃ (n, p) and weights (n,) by the treatment that θ̂ assigns."""
    chosen, k = assign(theta, menu), len(menu.treatments)
    plain = SegmentSums.of(chosen, theta, weights, k)
    correction = (debiased - theta) * weights[:, None]
    squares = np.array([correction[chosen == segment].T @ correction[chosen == segment] for segment in range(k)])
    return CorrectionSums(plain, SegmentSums.of(chosen, correction, np.ones(len(theta)), k).theta, squares)


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
    theta, debiased : (n, p) out-of-fold θ̂ and debiased θ̃ of the experiment's units. weights : (n,).
    share : of the corrections to use; default by James–Stein. 0 is the plain update, 1 the full correction.

    Returns
    -------
    The menu, and the share that was used.
    """
    if theta.shape != debiased.shape or weights.shape != (len(theta),):
        raise InvalidInputError(
            f"theta {theta.shape}, debiased {debiased.shape} and weights {weights.shape} do not belong together"
        )
    metric = profit_metric(theta, problem.psi)
    used = 0.0 if share is None else share
    for _ in range(_ROUNDS):
        sums = correction_sums(theta, debiased, weights, menu)
        used = sums.share(metric) if share is None else share
        fresh = _updated(problem, menu, {0: sums.corrected(used)})
        if np.array_equal(fresh.treatments, menu.treatments):
            break
        menu = fresh
    return menu, used


def _updated(problem: MenuProblem, menu: PricedMenu, sums: Mapping[int, SegmentSums]) -> PricedMenu:
    return update(problem, {0: menu}, sums)[0]
