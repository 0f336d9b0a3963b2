"""A menu: ``PricedMenu`` while it is searched and assigned, ``Menu`` as the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

import numpy as np
import numpy.typing as npt
import pandas as pd

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray, numbers
from coarse_spark.core.menu.assignment.assign import AssignmentProblem
from coarse_spark.core.menu.assignment.transport import exact_assignment
from coarse_spark.core.menu.problem.limits import BUDGET, SizeLimits
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.problem.rules import UnitRules
from coarse_spark.core.menu.units import KnownUnits, SegmentSums, WeightedUnits, assign
from coarse_spark.core.profit import ProfitCoefficients, profit_matrix
from coarse_spark.errors import InvalidInputError


@dataclass(frozen=True, eq=False)
class PricedMenu:
    """K treatments with the limits of their places and the prices that keep these.

    The dual of the limits has one price λ_k a treatment and one price μ_l a limit on what the menu
    comes to, such as a budget: unit i takes the first treatment that maximizes
    π_ik − Σ_l μ_l c_ikl − λ_k (power cells). Where many units respond
    alike, no price can divide them. A tie-break can: a number u_i in [0, 1) of the unit times ε k /
    K, far too small to matter between unlike units.

    Attributes
    ----------
    treatments : (K, d) encoded.
    psi : (K, p + 1) their rows ψ of profit.
    counted : (L, K, p + 1) their rows of what counts against the limits on totals.
    required : (K,) whether a treatment has to stay on the menu.
    limits : of the places; ``lower`` and ``upper`` are those of these treatments.
    prices : (K,) λ per unit of weight.
    limit_prices : (L,) μ per unit of what counts.
    tie_break : ε.
    found_by : the solver that found it.
    """

    treatments: FloatArray
    psi: FloatArray
    counted: FloatArray
    required: BoolArray
    limits: SizeLimits
    lower: FloatArray
    upper: FloatArray
    prices: FloatArray
    limit_prices: tuple[float, ...] = ()
    tie_break: float = 0.0
    found_by: str = "lloyd"

    @staticmethod
    def build(
        problem: MenuProblem,
        treatments: FloatArray,
        *,
        required: FloatArray | None = None,
        limits: SizeLimits | None = None,
        found_by: str = "lloyd",
    ) -> PricedMenu:
        """Build a menu at prices 0.

        Parameters
        ----------
        treatments : (K, d) encoded.
        required : (f, d) encoded treatments that stay wherever they are on the menu; so do
            candidates with a minimum share of their own.
        limits : of its places; none by default.
        """
        k = len(treatments)
        kept = np.empty((0, treatments.shape[1])) if required is None else required
        limits = SizeLimits.none(k) if limits is None else limits
        kept = np.vstack([kept, problem.candidates[limits.required]])
        stays = np.array([problem.space.same(kept, row).any() for row in treatments], dtype=bool)
        none = np.zeros(k)
        menu = PricedMenu(treatments, none, none[None], stays, limits, none, none, none)
        return replace(menu.moved(problem, treatments), found_by=found_by)

    @property
    def k(self) -> int:
        """Number of treatments."""
        return len(self.treatments)

    @property
    def free(self) -> bool:
        """Whether every assignment keeps the limits."""
        return self.limits.free

    @property
    def net_psi(self) -> FloatArray:
        """(K, p + 1) rows of profit less what counts against limits, at its prices."""
        net: FloatArray = self.psi
        for price, counted in zip(self.limit_prices, self.counted, strict=False):
            net = net - price * counted if price else net
        return np.asarray(net)

    @property
    def prices_of_totals(self) -> FloatArray:
        """(L,) μ, which are 0 before any are found."""
        return np.array(self.limit_prices or (0.0,) * len(self.counted), dtype=np.float64)

    @property
    def priced_psi(self) -> FloatArray:
        """(K, p + 1) rows that units maximize: profit less all prices, and the tie-break."""
        priced = self.net_psi.copy()
        priced[:, -1] -= self.prices
        if self.tie_break:
            # the tie-break is the last of the coefficients
            priced[:, -2] += self.tie_break * np.arange(self.k) / self.k
        return priced

    def moved(self, problem: MenuProblem, treatments: FloatArray) -> PricedMenu:
        """Return the menu with other treatments (K, d) at the same prices."""
        return all_moved(problem, [self], [treatments])[0]

    def at(self, prices: FloatArray, limit_prices: tuple[float, ...]) -> PricedMenu:
        """Return the menu at other prices."""
        return replace(self, prices=prices, limit_prices=limit_prices)

    def ordered(self) -> tuple[PricedMenu, IntArray]:
        """Return the menu with its treatments in ascending order, and that order."""
        rows = np.lexsort(self.treatments.T[::-1])
        names = ("treatments", "psi", "required", "lower", "upper", "prices")
        sorted_ = {name: getattr(self, name)[rows] for name in names}
        counted, limits = self.counted[:, rows], self.limits.ordered(rows)
        return replace(self, **sorted_, counted=counted, limits=limits), rows

    def posed_to(self, units: WeightedUnits) -> AssignmentProblem:
        """Return what the treatments earn with units, and the limits that assignments keep."""
        total, psi = units.total, self.psi
        if self.tie_break:
            psi = replace(self, limit_prices=(), prices=np.zeros(self.k)).priced_psi
        counted = [profit_matrix(units.theta, rows) for rows in self.counted]
        return AssignmentProblem(
            profit_matrix(units.theta, psi),
            np.array(counted).reshape(len(counted), len(units), self.k),
            units.weights,
            self.lower * total,
            self.upper * total,
            self.limits.most * total,
        )

    def used(self, sums: SegmentSums) -> FloatArray:
        """Return what counts against limits (L,), per unit weight of segments with these sums."""
        return np.array([sums.value(rows) for rows in self.counted])

    def totals_kept(self, problem: MenuProblem, sums: SegmentSums) -> tuple[TotalKept, ...]:
        """Return what segments with these sums come to beside the limits on totals."""
        used, prices = self.used(sums), self.prices_of_totals.tolist()
        result = []
        for limit, count, price in zip(self.limits.totals, used, prices, strict=True):
            control = 0.0
            if limit.relative_to:
                control = limit.bound * sums.value_of_all(problem.amounts_of_control(limit))
            allowed = control if limit.relative_to else limit.bound
            comes_to = control + limit.sign * float(count)
            result.append(TotalKept(limit.name, limit.sign > 0, allowed, comes_to, price))
        return tuple(result)

    def used_in_all(self, sums: SegmentSums) -> FloatArray:
        """Return what segments with these sums count against limits (L,), in all."""
        return np.array([float((sums.rows * rows).sum()) for rows in self.counted])

    @property
    def paid_back(self) -> float:
        """What prices of limits on totals pay back at the limits, per unit weight."""
        most = self.limits.most
        return float(sum(p * m for p, m in zip(self.limit_prices, most, strict=False) if p))

    def lagrangian(self, sums: SegmentSums) -> float:
        """Return profit per unit weight less prices, plus what prices pay back at the limits.

        Where the sums are those of what units prefer at these prices, no assignment to these
        treatments within the limits earns more, up to the tie-break. Without limits it is the
        profit.
        """
        value, prices = sums.value(self.psi), self.prices
        if prices.any():
            back = np.maximum(prices, 0) @ self.upper + np.minimum(prices, 0) @ self.lower
            value += float(back - prices @ sums.shares)
        for price, room in zip(self.limit_prices, self.limits.most - self.used(sums), strict=False):
            value += price * float(room) if price else 0.0
        return value

    def shortfall(self, sums: SegmentSums) -> float:
        """Return how far sums are off what limits and prices ask for.

        The largest of shares, and of what counts in shares of its limit.
        """
        shares, prices = sums.shares, self.prices
        inside = np.clip(shares, self.lower, self.upper)
        wanted = np.where(prices > 0, self.upper, np.where(prices < 0, self.lower, inside))
        off = float(np.abs(shares - wanted).max())
        binding = [bool(price) for price in self.limit_prices]
        for place, over in enumerate(self.used(sums) - self.limits.most):
            apart = abs(over) if binding and binding[place] else max(over, 0.0)
            off = max(off, float(apart) / self.sizes(sums)[place])
        return off

    def sizes(self, sums: SegmentSums) -> FloatArray:
        """Return what is much (L,) of what counts: the limits, of 0 what one treatment comes to."""
        most = np.abs(self.limits.most)
        one = [max(abs(sums.value_of_all(row)) for row in rows) for rows in self.counted]
        return np.asarray(np.maximum(np.where(most > 0, most, one), 1e-300))


def all_moved(
    problem: MenuProblem, menus: Sequence[PricedMenu], treatments: Sequence[FloatArray]
) -> list[PricedMenu]:
    """Return menus with other treatments (K, d) each, at the same prices."""
    if not menus:
        return []
    ends = np.cumsum([len(rows) for rows in treatments])[:-1]
    # the rows of all menus are computed at once: one call costs more than its numbers
    every = np.vstack(treatments)
    psi = np.split(problem.psi_at(every), ends)
    counted = np.split(problem.counted_at(every), ends, axis=1)
    result = []
    for menu, own, rows, of_limits in zip(menus, treatments, psi, counted, strict=True):
        limits = menu.limits
        lower, upper = limits.of_places([problem.position(r) for r in own] if limits.named else [])
        moved = replace(
            menu,
            treatments=own,
            psi=rows,
            counted=of_limits if limits.totals else of_limits[:0],
            lower=lower,
            upper=np.maximum(lower, upper),
        )
        result.append(moved)
    return result


@dataclass(frozen=True)
class Pass:
    """One line of the history: what a pass found for the menu of k, and what it changed then.

    Attributes
    ----------
    k : size of the menu.
    number : of the pass, from 1.
    value : mean profit per unit weight, less prices where there are any.
    gain : over the previous pass.
    moved : how many treatments the update then changed.
    step : the largest move, in shares of its dimension's range.
    what : the treatment that gained most by its move, in words.
    """

    k: int
    number: int
    value: float
    gain: float
    moved: int
    step: float
    what: str


@dataclass(frozen=True)
class TotalKept:
    """A limit on what a menu comes to, and what it comes to. All are per unit weight.

    Attributes
    ----------
    name : of the limit.
    at_most : whether more is what the limit forbids, not less.
    allowed : the limit.
    used : what counts.
    price : what one more, or one less, that is allowed would earn; 0 where it does not bind.
    """

    name: str
    at_most: bool
    allowed: float
    used: float
    price: float

    def __str__(self) -> str:
        if self.name == BUDGET:
            return (
                f"spending {self.used:.6g} of {self.allowed:.6g}; "
                f"one more of budget is worth {self.price:.6g}"
            )
        side, way = ("at most", "more") if self.at_most else ("at least", "less")
        return (
            f"{self.name} {self.used:.6g} of {side} {self.allowed:.6g}; "
            f"one {way} is worth {self.price:.6g}"
        )


@dataclass(frozen=True, eq=False)
class LimitsKept:
    """The limits that a menu keeps.

    Attributes
    ----------
    lower, upper : (K,) shares of the treatments.
    totals : the limits on what it comes to, the budget first.
    """

    lower: FloatArray
    upper: FloatArray
    totals: tuple[TotalKept, ...] = ()

    @property
    def budget(self) -> float:
        """Most that may be spent per unit weight."""
        return self.total(BUDGET).allowed if self._has_budget else inf

    @property
    def budget_price(self) -> float:
        """What one more unit of budget is worth, 0 where it does not bind."""
        return self.total(BUDGET).price if self._has_budget else 0.0

    @property
    def spending(self) -> float:
        """What counts against the budget, per unit weight."""
        return self.total(BUDGET).used if self._has_budget else 0.0

    @property
    def _has_budget(self) -> bool:
        return any(limit.name == BUDGET for limit in self.totals)

    def total(self, name: str) -> TotalKept:
        """Return the limit of a name.

        Raises
        ------
        KeyError : there is none.
        """
        found = {limit.name: limit for limit in self.totals}
        return found[name]

    @property
    def of_shares(self) -> bool:
        """Whether any share is limited."""
        return bool((self.lower > 0).any() or (self.upper < 1).any())


@dataclass(frozen=True, eq=False)
class Menu:
    """K treatments and the rule that assigns units to them. All values are per unit of weight.

    Attributes
    ----------
    treatments : K rows in the user's values, one column a treatment dimension.
    encoded : (K, d) the same as floats.
    psi : (K, p + 1) their profit rows.
    shares : (K,) share of the weight that takes each treatment.
    prices : (K,) what one more unit of capacity of each treatment is worth; 0 where no limit binds.
    value : profit of the menu on the units it was chosen for.
    upper_bound : no menu of as many treatments within the same limits earns more.
    uniform_value : of the best single treatment, within limits on totals where one keeps them.
    control_value : of the control for everyone.
    granular_value : of every unit's own best treatment, without limits.
    found_by : the search that found it: exact, lloyd or transport.
    priced : the menu in the form that passes over a population use.
    of_profit : what coefficients of units its profit is linear in.
    limits : that it keeps, where there are any.
    rules : eligibility and switching, where there are any.
    known : units whose treatment prices do not tell, with their treatment: those that limits
        divide.
    changed_share : share of the weight that gets another treatment than from the earlier menu,
        where one was given.
    history : the passes of its refinement.
    """

    treatments: pd.DataFrame
    encoded: FloatArray
    psi: FloatArray
    shares: FloatArray
    prices: FloatArray
    value: float
    upper_bound: float
    uniform_value: float
    control_value: float
    granular_value: float
    found_by: str
    priced: PricedMenu = field(repr=False)
    of_profit: ProfitCoefficients = field(repr=False)
    limits: LimitsKept | None = None
    rules: UnitRules = field(default_factory=UnitRules, repr=False)
    known: KnownUnits | None = field(default=None, repr=False)
    changed_share: float | None = None
    history: tuple[Pass, ...] = field(default=(), repr=False)

    @property
    def k(self) -> int:
        """Number of treatments."""
        return len(self.encoded)

    @property
    def gap(self) -> float:
        """(upper_bound − value) / (granular − control).

        No menu is better by more than this share of what is there to gain.
        """
        whole = self.granular_value - self.control_value
        return _ratio(self.upper_bound - self.value, whole, flat=0.0)

    @property
    def captured_of_control(self) -> float:
        """(value − control) / (granular − control); 1 where there is nothing to gain."""
        whole = self.granular_value - self.control_value
        return _ratio(self.value - self.control_value, whole, flat=1.0)

    @property
    def captured_of_uniform(self) -> float:
        """(value − uniform) / (granular − uniform); 1 where there is nothing to gain."""
        whole = self.granular_value - self.uniform_value
        return _ratio(self.value - self.uniform_value, whole, flat=1.0)

    def assign(
        self,
        theta: npt.ArrayLike | pd.DataFrame | Mapping[str, npt.ArrayLike],
        *,
        units: pd.DataFrame | None = None,
        weights: npt.ArrayLike | None = None,
        eligible: Mapping[str, npt.ArrayLike] | None = None,
        previous_rows: npt.ArrayLike | None = None,
        exact: bool = False,
    ) -> IntArray:
        """Return the row of ``treatments`` for every unit as (n,).

        Units that the menu was chosen on are recognized by their coefficients and get what they
        were given, so that limits hold on them to the unit; others follow the prices.

        Parameters
        ----------
        theta : (n, p) response coefficients, as the menu was chosen with.
        units : n rows with the ``unit_columns`` of its profit.
        weights : (n,) of the units, default 1; they matter only with ``exact``.
        eligible : as the menu was chosen with.
        previous_rows : (n,) as the menu was chosen with, of these units; they matter only under a
            switching cost. Default: what units had that the menu was chosen on; for others what the
            earlier menu assigns them.
        exact : whether shares have to hold on these very units, whoever they are.

        Raises
        ------
        InvalidInputError : another number of coefficients than the menu was chosen with, one
            that is missing or infinite, or eligibility or columns of the units that do not fit.
        """
        array, p = self.of_profit.side_by_side(theta), self.of_profit.responses
        if array.ndim != 2 or array.shape[1] != p:
            raise InvalidInputError(f"theta has shape {array.shape}, expected (n, {p})")
        broken = np.flatnonzero(~np.isfinite(array).all(axis=1))
        if broken.size:
            raise InvalidInputError(
                f"{broken.size} of {len(array)} units have missing or infinite coefficients, the "
                f"first in row {broken[0]}; mend them, or leave them out"
            )
        given = self.of_profit.columns(units, len(array))
        coefficients = self.of_profit.extended(array, self.of_profit.factor_values(given))
        return self.assign_known(
            coefficients,
            weights=weights,
            eligible=eligible,
            previous_rows=previous_rows,
            exact=exact,
        )

    def assign_known(
        self,
        coefficients: FloatArray,
        *,
        weights: npt.ArrayLike | None = None,
        eligible: Mapping[str, npt.ArrayLike] | None = None,
        previous_rows: npt.ArrayLike | None = None,
        exact: bool = False,
    ) -> IntArray:
        """Return what ``assign`` does, of units whose coefficients of profit (n, ·) are known."""
        extended = self.rules.extended(coefficients, eligible, previous_rows)
        chosen = assign(extended, self.priced.priced_psi)
        if exact and self.limits is not None and self.limits.of_shares:
            mass = np.ones(len(chosen)) if weights is None else numbers(weights, "weights", inf)
            total, profits = float(mass.sum()), profit_matrix(extended, self.priced.net_psi)
            lower, upper = self.limits.lower * total, self.limits.upper * total
            return exact_assignment(profits, mass, lower, upper, self.prices)[0]
        known = chosen if self.known is None else self.known.look_up(extended)
        return np.where(known >= 0, known, chosen)

    def __str__(self) -> str:
        table = self.treatments.copy()
        table["share"] = self.shares
        if np.any(self.prices):
            table["price"] = self.prices
        lines = [
            f"Menu of {self.k} treatments ({self.found_by})",
            table.to_string(float_format=lambda v: f"{v:.6g}"),
            f"profit a unit: {self.value:.6g}   control {self.control_value:.6g}, "
            f"best single treatment {self.uniform_value:.6g}, granular {self.granular_value:.6g}",
            # z: a menu of one, which is the best single treatment up to rounding, captured 0.00%
            f"captured: {self.captured_of_control:z.2%} of granular over control, "
            f"{self.captured_of_uniform:z.2%} of granular over best single treatment",
            f"no menu of {self.k} earns more than {self.upper_bound:.6g} (gap {self.gap:.3%})",
        ]
        if self.limits is not None:
            lines += map(str, self.limits.totals)
        if self.changed_share is not None:
            lines.append(f"{self.changed_share:.2%} of the units get another treatment than before")
        return "\n".join(lines)


def _ratio(part: float, whole: float, *, flat: float) -> float:
    # a difference within rounding of nothing is nothing: shares of it would be noise
    scale = 1e-12 * max(abs(part), abs(whole), 1e-300)
    return part / whole if whole > scale else flat
