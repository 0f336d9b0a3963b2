"""The chosen menu: treatments, prices, shares, what it earns and how much more any menu could earn."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from coarse_spark.core.menu.lloyd import Pass, PricedMenu, assign
from coarse_spark.errors import InvalidInputError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Menu:
    """K treatments and the rule that assigns units to them. All values are per unit of weight.

    Attributes
    ----------
    treatments : K rows in the user's values, one column a treatment dimension.
    encoded : (K, d) the same as floats. psi : (K, p + 1) their profit rows.
    shares : (K,) share of the weight that takes each treatment. prices : (K,) 0 where no limit binds.
    value : profit of the menu on the units it was chosen for.
    upper_bound : no menu of as many treatments earns more. gap : (upper_bound − value) / (granular_value − control_value).
    uniform_value : of the best single treatment. control_value : of the control for everyone.
    granular_value : of every unit's own best treatment.
    method : the solver that found it. history : the passes of its refinement.
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

    @property
    def k(self) -> int:
        """Number of treatments."""
        return len(self.encoded)

    @property
    def gap(self) -> float:
        return _ratio(self.upper_bound - self.value, self.granular_value - self.control_value, flat=0.0)

    @property
    def captured_of_control(self) -> float:
        """(value − control) / (granular − control); 1 where there is nothing to gain."""
        return _ratio(self.value - self.control_value, self.granular_value - self.control_value, flat=1.0)

    @property
    def captured_of_uniform(self) -> float:
        """(value − uniform) / (granular − uniform); 1 where there is nothing to gain."""
        return _ratio(self.value - self.uniform_value, self.granular_value - self.uniform_value, flat=1.0)

    @property
    def priced(self) -> PricedMenu:
        """The menu in the form that passes over a population use."""
        return PricedMenu(self.encoded, self.psi, self.prices, np.zeros(self.k, dtype=bool))

    def assign(self, theta: npt.ArrayLike | pd.DataFrame) -> IntArray:
        """Return the row of ``treatments`` for every unit with response coefficients ``theta`` (n, p) as (n,).

        Raises
        ------
        InvalidInputError : another number of coefficients than the menu was chosen with.
        """
        array = np.asarray(theta, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != self.psi.shape[1] - 1:
            raise InvalidInputError(f"theta has shape {array.shape}, expected (n, {self.psi.shape[1] - 1})")
        return assign(array, self.priced)

    def __str__(self) -> str:
        table = self.treatments.copy()
        table["share"] = self.shares
        if np.any(self.prices):
            table["price"] = self.prices
        return (
            f"Menu of {self.k} treatments ({self.method})\n{table.to_string(float_format=lambda v: f'{v:.6g}')}\n"
            f"profit a unit: {self.value:.6g}   control {self.control_value:.6g}, best single treatment {self.uniform_value:.6g}, "
            f"granular {self.granular_value:.6g}\n"
            f"captured: {self.captured_of_control:.2%} of granular over control, {self.captured_of_uniform:.2%} of granular over uniform\n"
            f"no menu of {self.k} earns more than {self.upper_bound:.6g} (gap {self.gap:.3%})"
        )


def _ratio(part: float, whole: float, *, flat: float) -> float:
    # a difference within rounding of nothing is nothing: shares of it would be noise
    scale = 1e-12 * max(abs(part), abs(whole), 1e-300)
    return part / whole if whole > scale else flat
