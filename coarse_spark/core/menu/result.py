"""The chosen menu: treatments, prices, shares, what it earns and how much more any menu could earn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.menu.lloyd import Pass, PricedMenu, Refined, assign
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.core.menu.rules import UnitRules
from coarse_spark.core.menu.transport import exact_assignment
from coarse_spark.core.profit import profit_matrix
from coarse_spark.errors import InvalidInputError


@dataclass(frozen=True, eq=False)
class Constraints:
    """The limits that a menu keeps.

    Attributes
    ----------
    lower, upper : (K,) shares of the treatments. budget : most that may be spent per unit weight.
    budget_price : what one more unit of budget is worth, 0 where it does not bind. spending : per unit weight.
    units : how many units the menu was chosen on.
    """

    lower: FloatArray
    upper: FloatArray
    budget: float
    budget_price: float
    spending: float
    units: int

    @property
    def limits_shares(self) -> bool:
        """Whether any share is limited."""
        return bool((self.lower > 0).any() or (self.upper < 1).any())


@dataclass(frozen=True, eq=False)
class Menu:
    """K treatments and the rule that assigns units to them. All values are per unit of weight.

    Attributes
    ----------
    treatments : K rows in the user's values, one column a treatment dimension.
    encoded : (K, d) the same as floats. psi : (K, p + 1) their profit rows.
    shares : (K,) share of the weight that takes each treatment.
    prices : (K,) what one more unit of capacity of each treatment is worth; 0 where no limit binds.
    value : profit of the menu on the units it was chosen for.
    upper_bound : no menu of as many treatments within the same limits earns more.
    uniform_value : of the best single treatment. control_value : of the control for everyone.
    granular_value : of every unit's own best treatment, without limits.
    method : the solver that found it. history : the passes of its refinement.
    constraints : limits and budget, where there are any. rules : eligibility and switching, where there are any.
    changed_share : share of the weight that gets another treatment than from the earlier menu, where one was given.
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
    method: str
    history: tuple[Pass, ...] = field(default=(), repr=False)
    charges: FloatArray | None = field(default=None, repr=False)
    constraints: Constraints | None = None
    rules: UnitRules = field(default_factory=UnitRules, repr=False)
    changed_share: float | None = None

    @property
    def k(self) -> int:
        """Number of treatments."""
        return len(self.encoded)

    @property
    def gap(self) -> float:
        """(upper_bound − value) / (granular − control): no menu is better by more than this share of what is there to gain."""
        return _ratio(
            self.upper_bound - self.value, self.granular_value - self.control_value, flat=0.0
        )

    @property
    def captured_of_control(self) -> float:
        """(value − control) / (granular − control); 1 where there is nothing to gain."""
        return _ratio(
            self.value - self.control_value, self.granular_value - self.control_value, flat=1.0
        )

    @property
    def captured_of_uniform(self) -> float:
        """(value − uniform) / (granular − uniform); 1 where there is nothing to gain."""
        return _ratio(
            self.value - self.uniform_value, self.granular_value - self.uniform_value, flat=1.0
        )

    @property
    def priced(self) -> PricedMenu:
        """The menu in the form that passes over a population use."""
        return PricedMenu(
            self.encoded,
            self.psi,
            self.prices,
            np.zeros(self.k, dtype=bool),
            self.charges,
            self.method,
        )

    def assign(
        self,
        theta: npt.ArrayLike | pd.DataFrame,
        *,
        weights: npt.ArrayLike | None = None,
        eligible: Mapping[str, npt.ArrayLike] | None = None,
        previous_rows: npt.ArrayLike | None = None,
        exact: bool | None = None,
    ) -> IntArray:
        """Return the row of ``treatments`` for every unit with response coefficients ``theta`` (n, p) as (n,).

        Parameters
        ----------
        weights : (n,) of the units, default 1; they matter only where shares are limited.
        eligible : as the menu was chosen with.
        previous_rows : (n,) as the menu was chosen with, of these units; they matter only under a switching cost. Default: the same
            rows for as many units as it was chosen on; for others what the earlier menu assigns them.
        exact : whether shares have to hold on these very units. Default: on as many units as the menu was chosen on; others, such
            as new customers one by one, follow the prices.

        Raises
        ------
        InvalidInputError : another number of coefficients than the menu was chosen with, or eligibility that does not fit.
        """
        array = np.asarray(theta, dtype=np.float64)
        p = self.psi.shape[1] - 1 - len(self.rules.all)
        if array.ndim != 2 or array.shape[1] != p:
            raise InvalidInputError(f"theta has shape {array.shape}, expected (n, {p})")
        mass = np.ones(len(array)) if weights is None else np.asarray(weights, dtype=np.float64)
        return self.assign_extended(
            self.rules.extended(array, eligible, previous_rows), mass, exact
        )

    def assign_extended(
        self, theta: FloatArray, weights: FloatArray, exact: bool | None = None
    ) -> IntArray:
        """Assign units whose coefficients (n, p) include those of the rules; see ``assign``."""
        limits = self.constraints
        if limits is None or not limits.limits_shares:
            return assign(theta, self.priced)
        if exact is None:
            exact = len(theta) == limits.units
        if not exact:
            return assign(theta, self.priced)
        priced = self.psi if self.charges is None else self.psi - self.charges
        total = float(weights.sum())
        return exact_assignment(
            profit_matrix(theta, priced),
            weights,
            limits.lower * total,
            limits.upper * total,
            self.prices,
        )[0]

    def __str__(self) -> str:
        table = self.treatments.copy()
        table["share"] = self.shares
        if np.any(self.prices):
            table["price"] = self.prices
        lines = [
            f"Menu of {self.k} treatments ({self.method})",
            table.to_string(float_format=lambda v: f"{v:.6g}"),
            f"profit a unit: {self.value:.6g}   control {self.control_value:.6g}, best single treatment {self.uniform_value:.6g}, "
            f"granular {self.granular_value:.6g}",
            f"captured: {self.captured_of_control:.2%} of granular over control, "
            f"{self.captured_of_uniform:.2%} of granular over best single treatment",
            f"no menu of {self.k} earns more than {self.upper_bound:.6g} (gap {self.gap:.3%})",
        ]
        if self.constraints is not None and self.charges is not None:
            limits = self.constraints
            lines.append(
                f"spending {limits.spending:.6g} of {limits.budget:.6g}; one more of budget is worth {limits.budget_price:.6g}"
            )
        if self.changed_share is not None:
            lines.append(f"{self.changed_share:.2%} of the units get another treatment than before")
        return "\n".join(lines)


def menus_of(
    problem: MenuProblem,
    refined: Refined,
    granular_value: float,
    bounds: Mapping[int, float] | None = None,
    constraints: Mapping[int, Constraints] | None = None,
) -> dict[int, Menu]:
    """Return the public results of refined menus, treatments in ascending order.

    Parameters
    ----------
    granular_value : profit per unit weight when every unit gets its own best treatment.
    bounds : upper bounds per unit weight (see ``certificate``); the granular value where there is none.
    """
    result = {}
    for k, unordered in refined.menus.items():
        menu, order = unordered.ordered()
        sums = refined.sums[k].ordered(order)
        mean = sums.theta.sum(axis=0, keepdims=True) / sums.weight.sum()
        uniform = float(problem.polish(mean, problem.best_candidates(mean))[1][0])
        value = sums.value(menu.psi)
        granular = max(granular_value, value, uniform)
        limits = (constraints or {}).get(k)
        if limits is not None:
            limits = Constraints(
                limits.lower[order],
                limits.upper[order],
                limits.budget,
                limits.budget_price,
                limits.spending,
                limits.units,
            )
        result[k] = Menu(
            treatments=problem.space.decode(menu.treatments),
            encoded=menu.treatments,
            psi=menu.psi,
            shares=sums.weight / sums.weight.sum(),
            prices=menu.prices,
            value=value,
            # rounding alone can put an exact bound below the value it proves optimal
            upper_bound=max((bounds or {}).get(k, granular), value),
            uniform_value=uniform,
            control_value=float(sums.value_of_all(problem.control_psi[None, :])[0]),
            granular_value=granular,
            method=menu.found_by,
            history=tuple(line for line in refined.history if line.k == k),
            charges=menu.charges,
            constraints=limits,
        )
    return result


def _ratio(part: float, whole: float, *, flat: float) -> float:
    # a difference within rounding of nothing is nothing: shares of it would be noise
    scale = 1e-12 * max(abs(part), abs(whole), 1e-300)
    return part / whole if whole > scale else flat
