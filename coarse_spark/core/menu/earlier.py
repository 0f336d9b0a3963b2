"""Which treatment of an earlier menu units have: what loyalty to it is measured against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy.typing as npt

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray
from coarse_spark.core.menu.result import Menu
from coarse_spark.core.menu.rules import rows_of_menu


@dataclass(frozen=True, eq=False)
class EarlierRows:
    """Which treatment of an earlier menu units have.

    Attributes
    ----------
    menu : the earlier one. given : its row (n,) for each unit that a menu is chosen on, None where the earlier menu itself tells
        from the units' coefficients. kept : (n,) which of them have weight.
    """

    menu: Menu
    given: IntArray | None
    kept: BoolArray

    @staticmethod
    def of(menu: Menu, rows: npt.ArrayLike | None, kept: BoolArray) -> EarlierRows:
        """Check the rows that a user gives.

        Raises
        ------
        InvalidInputError : not one row of the earlier menu a unit.
        """
        return EarlierRows(
            menu, None if rows is None else rows_of_menu(rows, len(kept), menu.k), kept
        )

    def __call__(self, theta: FloatArray) -> IntArray:
        """Return the earlier row (n,) of units (n, p): the given ones of as many units, else what the earlier menu assigns."""
        if self.given is not None and len(theta) == len(self.given):
            return self.given
        if self.given is not None and len(theta) == self.kept.sum():
            return self.given[self.kept]
        return self.menu.assign(theta)
