"""Limits on a menu: shares of its treatments and what it may spend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.profit import Profit
from coarse_spark.errors import InvalidInputError

Shares = float | Sequence[float] | Mapping[int, float] | None


@dataclass(frozen=True)
class Budget:
    """At most ``limit`` is spent per unit weight; ``spending`` is a Profit whose margin and cost say on what.

    Parameters
    ----------
    limit : money per unit weight, on average.
    spending : spending of a unit is margin(t)·φ(t)·θ + cost(t): margin for what is paid per unit of outcome (an incentive paid on
        success), cost for what is paid per treated unit.
    """

    limit: float
    spending: Profit

    @property
    def row_profit(self) -> Profit:
        """Spending in the sign convention of Profit, whose cost is subtracted."""
        return Profit(self.spending.margin, f"-({self.spending.cost})")


@dataclass(frozen=True)
class MenuLimits:
    """What menus of every size keep: the arguments of ``choose_menu`` of the same names."""

    min_share: Shares = None
    max_share: Shares = None
    budget: Budget | None = None

    @property
    def free(self) -> bool:
        """Whether nothing is limited."""
        return self.min_share is None and self.max_share is None and self.budget is None

    def shares(self, k: int, problem: MenuProblem) -> ShareLimits:
        """Return the share limits of a menu of k treatments; raises as ``ShareLimits.parse``."""
        return ShareLimits.parse(self.min_share, self.max_share, k, problem)


@dataclass(frozen=True, eq=False)
class ShareLimits:
    """lower, upper : (K,) shares of the menu's positions. candidate_lower, candidate_upper : (J,) shares of single candidates."""

    lower: FloatArray
    upper: FloatArray
    candidate_lower: FloatArray
    candidate_upper: FloatArray

    @staticmethod
    def parse(min_share: Shares, max_share: Shares, k: int, problem: MenuProblem) -> ShareLimits:
        """Read the limits of a menu of k treatments.

        Raises
        ------
        InvalidInputError : shares outside [0, 1], of another number than k, of unknown candidate rows, or contradictory; the
            message names the nearest limits that can be met.
        """
        size = len(problem.candidates)
        lower, candidate_lower = _shares(
            min_share, "min_share", 0.0, k, size, len(problem.space.candidates)
        )
        upper, candidate_upper = _shares(
            max_share, "max_share", 1.0, k, size, len(problem.space.candidates)
        )
        limits = ShareLimits(lower, upper, candidate_lower, candidate_upper)
        limits._check(k, min_share, max_share)
        return limits

    @staticmethod
    def of_places(
        min_share: float | Sequence[float] | None, max_share: float | Sequence[float] | None, k: int
    ) -> ShareLimits:
        """Read limits that name no candidates; raises as ``parse``."""
        lower, _ = _shares(min_share, "min_share", 0.0, k, 0, 0)
        upper, _ = _shares(max_share, "max_share", 1.0, k, 0, 0)
        limits = ShareLimits(lower, upper, np.zeros(0), np.ones(0))
        limits._check(k, min_share, max_share)
        return limits

    @staticmethod
    def none(k: int, candidates: int) -> ShareLimits:
        """Limits that every menu of k treatments meets."""
        return ShareLimits(np.zeros(k), np.ones(k), np.zeros(candidates), np.ones(candidates))

    @property
    def free(self) -> bool:
        """Whether every assignment meets the limits."""
        return bool(
            (self.lower <= 0).all()
            and (self.candidate_lower <= 0).all()
            and (self.upper >= 1).all()
            and (self.candidate_upper >= 1).all()
        )

    @property
    def forced(self) -> IntArray:
        """Rows of the candidates that a minimum share puts on every menu."""
        return np.flatnonzero(self.candidate_lower > 0)

    @property
    def symmetric(self) -> bool:
        """Whether it does not matter which treatment takes which position."""
        return bool(np.ptp(self.lower) == 0 and np.ptp(self.upper) == 0)

    def bounds(self, candidates: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return lower and upper shares (K,) when position k holds a candidate row, −1 for a treatment between candidates."""
        known = candidates >= 0
        lower, upper = self.lower.copy(), self.upper.copy()
        lower[known] = np.maximum(lower[known], self.candidate_lower[candidates[known]])
        upper[known] = np.minimum(upper[known], self.candidate_upper[candidates[known]])
        return lower, upper

    def _check(self, k: int, min_share: Shares, max_share: Shares) -> None:
        if (self.lower > self.upper + 1e-12).any():
            row = int((self.lower > self.upper + 1e-12).argmax())
            raise InvalidInputError(
                f"position {row}: min_share {self.lower[row]:g} is above max_share {self.upper[row]:g}; "
                f"lower it to {self.upper[row]:g} at most"
            )
        crossed = self.candidate_lower > self.candidate_upper + 1e-12
        if crossed.any():
            row = int(crossed.argmax())
            raise InvalidInputError(
                f"candidate {row}: min_share {self.candidate_lower[row]:g} is above max_share {self.candidate_upper[row]:g}"
            )
        least = max(float(self.lower.sum()), float(self.candidate_lower.sum()))
        if least > 1 + 1e-9:
            raise InvalidInputError(
                f"min_share {min_share} asks for {least:g} of the population in all, more than 1; the nearest feasible minimum is "
                f"{f'{min_share / least:.6g}' if isinstance(min_share, float | int) else f'each times {1 / least:.6g}'}"
            )
        if self.upper.sum() < 1 - 1e-9:
            most = float(self.upper.sum())
            raise InvalidInputError(
                f"max_share {max_share} leaves {1 - most:g} of the population without a treatment; "
                f"the nearest feasible maximum for k = {k} is "
                f"{f'{1 / k:.6g}' if isinstance(max_share, float | int) else f'each times {1 / most:.6g}'}"
            )
        if len(self.forced) > k:
            raise InvalidInputError(
                f"min_share puts {len(self.forced)} candidates on a menu of {k}; choose k of at least {len(self.forced)}"
            )


def _shares(
    given: Shares, name: str, default: float, k: int, size: int, named: int
) -> tuple[FloatArray, FloatArray]:
    position, candidate = np.full(k, default), np.full(size, default)
    if given is None:
        return position, candidate
    if isinstance(given, Mapping):
        for row, share in given.items():
            if not 0 <= int(row) < named:
                raise InvalidInputError(
                    f"{name}: there is no candidate row {row}; rows are 0 to {named - 1}"
                )
            candidate[int(row)] = share
    elif np.ndim(given) == 0:
        position[:] = float(given)  # type: ignore[arg-type]
    else:
        values = np.asarray(given, dtype=np.float64)
        if values.shape != (k,):
            raise InvalidInputError(
                f"{name} has {values.size} numbers, expected one, or {k}: one a position of the menu"
            )
        position = values
    for values in (position, candidate):
        wrong = ~((values >= 0) & (values <= 1))
        if wrong.any():
            raise InvalidInputError(
                f"{name} is {values[wrong][0]:g}, expected a share between 0 and 1"
            )
    return position, candidate
