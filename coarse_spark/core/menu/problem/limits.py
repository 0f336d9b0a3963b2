"""Limits on a menu: as users write them, and of the places of a menu of one size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from coarse_spark.core.arrays import FloatArray, IntArray, number, numbers
from coarse_spark.core.profit import Profit
from coarse_spark.errors import InvalidInputError

if TYPE_CHECKING:
    from coarse_spark.core.menu.problem.problem import MenuProblem

BUDGET = "budget"  # the name of the limit that Budget is

Shares = float | Sequence[float] | Mapping[int, float] | None


@dataclass(frozen=True)
class Limit:
    """What a menu comes to, per unit weight, is at most or at least so much.

    Parameters
    ----------
    name : what messages, summary and page call it.
    amount : what counts, a Profit whose margin and cost are counted:
        Σ margin_o(t)·φ(t)·θ_o + cost(t) by a unit. margin is counted per unit of outcome, cost per
        unit.
    at_most, at_least : one of them, of the mean over all units by weight.
    relative_to : None, or "control": the limit is so many times what all units come to under the
        control.

    Raises
    ------
    InvalidInputError : none or both of ``at_most`` and ``at_least``, or one that is no finite
        number; another ``relative_to``; no name; an amount that is no Profit.

    Examples
    --------
    >>> floor = Limit("redeemed", Profit({"redeemed": "1"}), at_least=0.95, relative_to="control")
    >>> floor.most, floor.bound
    (0.0, 0.95)
    """

    name: str
    amount: Profit
    at_most: float | None = None
    at_least: float | None = None
    relative_to: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise InvalidInputError(f"a limit has the name {self.name!r}, expected a text")
        if not isinstance(self.amount, Profit):
            raise InvalidInputError(
                f"limit '{self.name}': amount is {self.amount!r}, expected a Profit whose margin "
                "and cost are counted"
            )
        if (self.at_most is None) == (self.at_least is None):
            found = "neither" if self.at_most is None else "both"
            raise InvalidInputError(
                f"limit '{self.name}': found {found} of at_most and at_least, expected one"
            )
        number(self._written, f"limit '{self.name}'")
        if self.relative_to not in (None, "control"):
            raise InvalidInputError(
                f"limit '{self.name}': relative_to is {self.relative_to!r}, expected 'control' or "
                "nothing"
            )

    @property
    def bound(self) -> float:
        """The limit as it was written."""
        return float(self._written)

    @property
    def _written(self) -> Any:
        return self.at_least if self.at_most is None else self.at_most

    @property
    def sign(self) -> float:
        """1 where less is allowed, −1 where more is: what counts times this is at most ``most``."""
        return -1.0 if self.at_most is None else 1.0

    @property
    def most(self) -> float:
        """Largest mean of ``sign`` times what counts, beyond the control's part in it."""
        return 0.0 if self.relative_to else self.sign * self.bound

    @cached_property
    def row_profit(self) -> Profit:
        """What counts, in the sign convention of Profit, whose cost is subtracted."""
        amount = self.amount
        return Profit(amount.margin, f"-({amount.cost})", amount.unit_columns)

    def written(self, count: float, control: float) -> float:
        """Return the limit, in the terms it is written in, that a count keeps just so.

        Parameters
        ----------
        count : what is at most ``most``.
        control : what all units come to under the control, not 0 where the limit is relative to it.
        """
        if not self.relative_to:
            return self.sign * count
        return self.bound + self.sign * count / control

    def nearest(self, count: float, control: float) -> str:
        """Return in six digits a limit that a count keeps."""
        # of less than nothing more is less
        up = (self.sign > 0) == (not self.relative_to or control >= 0)
        return _digits(self.written(count, control), up=up)

    def __str__(self) -> str:
        if self.name == BUDGET:
            return f"budget {self.bound:g}"
        side = "at_most" if self.at_least is None else "at_least"
        of_control = " of the control's" if self.relative_to else ""
        return f"limit '{self.name}' ({side} {self.bound:g}{of_control})"


@dataclass(frozen=True)
class Budget:
    """At most ``limit`` is spent per unit weight.

    Parameters
    ----------
    limit : money per unit weight, on average.
    spending : what counts, a Profit whose margin and cost are spent: margin(t)·φ(t)·θ + cost(t) by
        a unit. margin is paid per unit of outcome (an incentive paid on success), cost per unit.

    Examples
    --------
    >>> Budget(0.15, Profit("0", "0.2 * discount")).limit
    0.15
    """

    limit: float
    spending: Profit

    @property
    def as_limit(self) -> Limit:
        """The budget as one of the limits."""
        return Limit(BUDGET, self.spending, at_most=self.limit)


@dataclass(frozen=True)
class Limits:
    """What menus of every size keep: the arguments of ``choose_menu`` of the same names."""

    min_share: Shares = None
    max_share: Shares = None
    budget: Budget | None = None
    limits: tuple[Limit, ...] = ()

    def __post_init__(self) -> None:
        for limit in self.limits:
            if not isinstance(limit, Limit):
                raise InvalidInputError(f"limits: found {limit!r}, expected a Limit")
        names = [limit.name for limit in self.totals]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise InvalidInputError(
                f"limits: the name '{twice[0]}' stands twice, expected another for each"
            )
        if self.budget is None and BUDGET in names:
            raise InvalidInputError(
                f"limits: the name '{BUDGET}' is that of the budget, expected another"
            )

    @staticmethod
    def listed(limits: Limit | Iterable[Limit] | None) -> tuple[Limit, ...]:
        """Return further limits that are given as several, as one, or not at all.

        Raises
        ------
        InvalidInputError : anything else.
        """
        if limits is None or isinstance(limits, Limit):
            return () if limits is None else (limits,)
        if not isinstance(limits, Iterable):
            raise InvalidInputError(f"limits: found {limits!r}, expected a list of Limit")
        return tuple(limits)

    @property
    def totals(self) -> tuple[Limit, ...]:
        """The limits on what a menu comes to, the budget first."""
        return self.limits if self.budget is None else (self.budget.as_limit, *self.limits)

    @property
    def free(self) -> bool:
        """Whether nothing is limited."""
        return self.min_share is None and self.max_share is None and not self.totals

    def of_size(self, k: int, problem: MenuProblem) -> SizeLimits:
        """Return the limits of a menu of k treatments; raises as ``SizeLimits.parse``."""
        limits = SizeLimits.parse(self.min_share, self.max_share, k, len(problem.space.candidates))
        return replace(limits, totals=self.totals) if self.totals else limits


@dataclass(frozen=True, eq=False)
class SizeLimits:
    """Limits of the places of a menu.

    Attributes
    ----------
    lower : (K,) least shares of the places.
    upper : (K,) largest shares.
    named : (lower, upper) share of single candidates, by row: they hold besides, on any place.
    totals : limits on what the menu comes to.
    room : (L,) the most of each, where it is not what ``totals`` say: others used some of it.
    """

    lower: FloatArray
    upper: FloatArray
    named: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    totals: tuple[Limit, ...] = ()
    room: FloatArray | None = None

    @property
    def most(self) -> FloatArray:
        """(L,) the most of what counts against each of ``totals``, per unit weight."""
        if self.room is not None:
            return self.room
        return np.array([limit.most for limit in self.totals], dtype=np.float64)

    @staticmethod
    def none(k: int) -> SizeLimits:
        """Limits that every menu of k treatments keeps."""
        return SizeLimits(np.zeros(k), np.ones(k))

    @staticmethod
    def parse(min_share: Shares, max_share: Shares, k: int, candidates: int = 0) -> SizeLimits:
        """Read the share limits of a menu of k treatments; ``candidates`` may be named by row.

        Raises
        ------
        InvalidInputError : shares outside [0, 1], of another number than k, of unknown candidate
            rows, or contradictory; the message names the nearest limits that can be met.
        """
        lower, least = _shares(min_share, "min_share", 0.0, k, candidates)
        upper, most = _shares(max_share, "max_share", 1.0, k, candidates)
        named = {row: (least.get(row, 0.0), most.get(row, 1.0)) for row in sorted({*least, *most})}
        limits = SizeLimits(lower, upper, named)
        limits._check(k, min_share, max_share)
        return limits

    @property
    def shares_free(self) -> bool:
        """Whether every assignment keeps the limits on shares."""
        rows = [*zip(self.lower, self.upper, strict=True), *self.named.values()]
        return all(low <= 0 and high >= 1 for low, high in rows)

    @property
    def free(self) -> bool:
        """Whether every assignment keeps the limits."""
        return self.shares_free and not self.totals

    @property
    def required(self) -> IntArray:
        """Rows of the candidates that a minimum share puts on every menu."""
        return np.array([row for row, (low, _) in self.named.items() if low > 0], dtype=np.intp)

    @property
    def symmetric(self) -> bool:
        """Whether it does not matter which treatment takes which place."""
        return bool(np.ptp(self.lower) == 0 and np.ptp(self.upper) == 0)

    def of_places(self, candidates: Sequence[int | None]) -> tuple[FloatArray, FloatArray]:
        """Return lower and upper shares (K,) of places that hold candidates.

        Parameters
        ----------
        candidates : (K,) row of each treatment among the candidates; None between candidates.
        """
        lower, upper = self.lower.copy(), self.upper.copy()
        for place, row in enumerate(candidates):
            if row is not None and row in self.named:
                least, most = self.named[row]
                lower[place], upper[place] = max(lower[place], least), min(upper[place], most)
        return lower, upper

    def of_candidates(self, rows: int) -> tuple[FloatArray, FloatArray]:
        """Return the widest shares (rows,) that any place allows the first so many candidates."""
        lower, upper = np.full(rows, self.lower.min()), np.full(rows, self.upper.max())
        for row, (least, most) in self.named.items():
            lower[row], upper[row] = max(lower[row], least), min(upper[row], most)
        return lower, upper

    def named_shares(self, rows: int) -> tuple[FloatArray, FloatArray]:
        """Return the shares (rows,) that candidates have to keep by their names alone."""
        lower, upper = np.zeros(rows), np.ones(rows)
        for row, shares in self.named.items():
            lower[row], upper[row] = shares
        return lower, upper

    def ordered(self, rows: IntArray) -> SizeLimits:
        """Return the limits with places in another order."""
        return replace(self, lower=self.lower[rows], upper=self.upper[rows])

    def _check(self, k: int, min_share: Shares, max_share: Shares) -> None:
        if (self.lower > self.upper + 1e-12).any():
            row = int((self.lower > self.upper + 1e-12).argmax())
            raise InvalidInputError(
                f"position {row}: min_share {self.lower[row]:g} is above max_share "
                f"{self.upper[row]:g}; lower it to {self.upper[row]:g} at most"
            )
        for row, (low, high) in self.named.items():
            if low > high + 1e-12:
                raise InvalidInputError(
                    f"candidate {row}: min_share {low:g} is above max_share {high:g}"
                )
        least = max(float(self.lower.sum()), sum(low for low, _ in self.named.values()))
        if least > 1 + 1e-9:
            single = isinstance(min_share, float | int)
            nearest = _digits(min_share / least) if single else f"each times {_digits(1 / least)}"  # type: ignore[operator]
            raise InvalidInputError(
                f"min_share {min_share} asks for {least:g} of the population in all, more than 1; "
                f"the nearest feasible minimum is {nearest}"
            )
        if self.upper.sum() < 1 - 1e-9:
            most = float(self.upper.sum())
            single = isinstance(max_share, float | int)
            nearest = (
                _digits(1 / k, up=True) if single else f"each times {_digits(1 / most, up=True)}"
            )
            raise InvalidInputError(
                f"max_share {max_share} leaves {1 - most:g} of the population without a treatment; "
                f"the nearest feasible maximum for k = {k} is {nearest}"
            )
        if len(self.required) > k:
            raise InvalidInputError(
                f"min_share puts {len(self.required)} candidates on a menu of {k}; "
                f"choose k of at least {len(self.required)}"
            )


def _shares(
    given: Shares, name: str, default: float, k: int, candidates: int
) -> tuple[FloatArray, dict[int, float]]:
    places = np.full(k, default)
    named: dict[int, float] = {}
    if given is None:
        return places, named
    shares = list(given.values()) if isinstance(given, Mapping) else given
    if np.isnan(numbers(shares, name)).any():
        raise InvalidInputError(f"{name} is missing, expected a share between 0 and 1")
    if isinstance(given, Mapping):
        for row, share in given.items():
            if not isinstance(row, int | np.integer) or not 0 <= row < candidates:
                raise InvalidInputError(
                    f"{name}: there is no candidate row {row}; rows are 0 to {candidates - 1}"
                )
            named[int(row)] = float(share)
    elif np.ndim(given) == 0:
        places[:] = float(given)  # type: ignore[arg-type]
    else:
        values = np.asarray(given, dtype=np.float64)
        if values.shape != (k,):
            raise InvalidInputError(
                f"{name} has {values.size} numbers, expected one, or {k}: one a position of the "
                "menu"
            )
        places = values
    for value in (*places.tolist(), *named.values()):
        if not 0 <= value <= 1:
            raise InvalidInputError(f"{name} is {value:g}, expected a share between 0 and 1")
    return places, named


def _digits(value: float, *, up: bool = False) -> str:
    """Return six digits of a number that can be followed: cut, or with ``up`` the next above."""
    if not value:
        return "0"
    scale = 10.0 ** (6 - int(np.ceil(np.log10(abs(value)))))
    near = value * scale
    whole = np.ceil(near - 1e-6) if up else np.floor(near + 1e-6)
    return f"{whole / scale:.6g}"
