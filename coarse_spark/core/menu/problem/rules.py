"""Rules of units: eligibility, the cost of switching from an earlier assignment, and a tie-break.

A rule is one more coefficient of every unit and one more entry of ψ, its effect at a treatment.
Profit stays linear in the coefficients, so sketches, segment sums, certificates and assignments
need to know nothing of rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray
from coarse_spark.core.expressions import Expression
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError, nearest

# of units that are not eligible: profits beside larger penalties would lose digits
_LEAST_SHARE = 1e-5


class Rule(Protocol):
    """The effect of a rule on the profit of the units that it concerns."""

    def effect(self, treatments: FloatArray, space: TreatmentSpace) -> FloatArray:
        """Return what the rule adds to profit at encoded treatments (n, d) as (n,)."""


@dataclass(frozen=True)
class Eligibility:
    """Treatments that only eligible units may get; the coefficient is 1 for units that are not.

    Attributes
    ----------
    expression : in the treatment names; where it is not 0 a treatment asks for eligibility.
    penalty : more than any profit, so that units that are not eligible never take such treatments.
    """

    expression: Expression
    penalty: float

    def effect(self, treatments: FloatArray, space: TreatmentSpace) -> FloatArray:
        """Return −penalty at treatments that ask for eligibility, else 0."""
        return np.where(self.applies(treatments, space), -self.penalty, 0.0)

    def applies(self, treatments: FloatArray, space: TreatmentSpace) -> BoolArray:
        """Return (n,) which encoded treatments (n, d) ask for eligibility."""
        value = self.expression.evaluate(space.columns(treatments), len(treatments))
        if np.isnan(value).any():
            place = space.describe(treatments[np.flatnonzero(np.isnan(value))[0]])
            raise InvalidInputError(
                f"eligible: the expression '{self.expression.text}' is not a number at {place}"
            )
        return np.asarray(value != 0)


@dataclass(frozen=True, eq=False)
class Switching:
    """Units that had ``treatment`` (d,), those of coefficient 1, cost ``cost`` at any other one."""

    treatment: FloatArray
    cost: float

    def effect(self, treatments: FloatArray, space: TreatmentSpace) -> FloatArray:
        """Return −cost at every treatment but the earlier one."""
        return np.where(space.same(treatments, self.treatment), 0.0, -self.cost)


@dataclass(frozen=True)
class TieBreak:
    """A number of the unit in [0, 1) that tells units apart which respond alike; no profit."""

    def effect(self, treatments: FloatArray, space: TreatmentSpace) -> FloatArray:  # noqa: ARG002  # as of every rule
        """Return zeros."""
        return np.zeros(len(treatments))


@dataclass(frozen=True)
class Layout:
    """Which of a unit's coefficients say what.

    Attributes
    ----------
    profit : coefficients that profit is linear in.
    eligibility : 1 where a unit is not eligible, a rule each.
    switching : 1 where a unit had a treatment, an earlier treatment each.
    tie_break : a number in [0, 1), or none.
    """

    profit: slice
    eligibility: slice
    switching: slice
    tie_break: slice

    @staticmethod
    def of(profit: int, rules: Sequence[Rule]) -> Layout:
        """Return the layout of so many coefficients of profit and of rules, in the order of kinds.

        Raises
        ------
        InvalidInputError : rules in another order.
        """
        kinds = (Eligibility, Switching, TieBreak)
        numbers = [next(n for n, kind in enumerate(kinds) if isinstance(r, kind)) for r in rules]
        if numbers != sorted(numbers):
            raise InvalidInputError("rules have to be eligibility, switching, tie-break in turn")
        ends = [profit]
        for kind in range(len(kinds)):
            ends.append(ends[-1] + numbers.count(kind))
        return Layout(slice(0, profit), *(slice(a, b) for a, b in pairwise(ends)))


@dataclass(frozen=True, eq=False)
class UnitRules:
    """The rules of a menu, and how a unit's coefficients for them are found.

    Attributes
    ----------
    eligibility : rules in the order of their coefficients.
    switching : one for every treatment of an earlier menu, in its order.
    had : (coefficients of profit (n, p)) -> (n,) row of the earlier menu that units have.
    """

    eligibility: tuple[Eligibility, ...] = ()
    switching: tuple[Switching, ...] = ()
    had: Callable[[FloatArray], IntArray] | None = None

    @property
    def all(self) -> tuple[Rule, ...]:
        """The rules in the order of their coefficients."""
        return (*self.eligibility, *self.switching)

    def extended(
        self,
        theta: FloatArray,
        eligible: Mapping[str, npt.ArrayLike] | None,
        previous_rows: npt.ArrayLike | None = None,
    ) -> FloatArray:
        """Return coefficients of profit (n, p) followed by those of the rules.

        Parameters
        ----------
        eligible : {expression of a rule: (n,) booleans}.
        previous_rows : (n,) row of the earlier menu that each unit has, where that is known.

        Raises
        ------
        InvalidInputError : ``eligible`` or ``previous_rows`` that do not fit the rules.
        """
        names = [rule.expression.text for rule in self.eligibility]
        parts = [theta, ineligible(eligible or {}, names, len(theta))]
        if self.switching and self.had is not None:
            size = len(self.switching)
            if previous_rows is None:
                had = self.had(theta)
            else:
                had = rows_of_menu(previous_rows, len(theta), size)
            parts.append(np.eye(size)[had])
        return np.hstack(parts)


def eligibility_rules(
    expressions: Iterable[str], space: TreatmentSpace, worth: float, ineligible: Iterable[float]
) -> tuple[Eligibility, ...]:
    """Return one rule an expression in the treatment names.

    Their penalties are twice what a unit can gain, and as many times more as units that are not
    eligible are few: no menu leaves them without a treatment because the others gain from that.

    Parameters
    ----------
    worth : the widest range of a unit's profits, see ``widest_range``.
    ineligible : share of the weight that is not eligible, by expression.

    Raises
    ------
    ExpressionError : an expression outside the safe subset or with unknown names or levels.
    """
    rules = []
    for text, share in zip(expressions, ineligible, strict=True):
        expression = Expression(text)
        space.check(expression)
        few = max(share if share > 0 else 1.0, _LEAST_SHARE)
        rules.append(Eligibility(expression, 2.0 * worth / few))
    return tuple(rules)


def widest_range(largest: FloatArray, psi: FloatArray) -> float:
    """Return what no unit's choice of treatment can be worth more than.

    Parameters
    ----------
    largest : (p,) largest absolute response coefficients of all units.
    psi : (J, p + 1) rows of the candidates.
    """
    return max(float(largest @ np.ptp(psi[:, :-1], axis=0) + np.ptp(psi[:, -1])), 1e-9)


def rows_of_menu(rows: npt.ArrayLike, units: int, size: int) -> IntArray:
    """Return ``previous_rows`` as (units,), rows of an earlier menu of ``size`` treatments.

    Raises
    ------
    InvalidInputError : not one row of that menu a unit.
    """
    given = np.asarray(rows)
    whole = given.dtype.kind in "iu"
    if given.shape != (units,) or not whole or not np.isin(given, range(size)).all():
        raise InvalidInputError(
            f"previous_rows has shape {given.shape} and type {given.dtype}, "
            f"expected {units} whole numbers from 0 to {size - 1}"
        )
    return given.astype(np.intp)


def ineligible(
    eligible: Mapping[str, npt.ArrayLike], names: Sequence[str], units: int
) -> FloatArray:
    """Return the units' coefficients (n, rules) of the rules ``names``: 1 where not eligible.

    Raises
    ------
    InvalidInputError : a rule is missing or unknown, or its column is not one boolean a unit.
    """
    for name in eligible:
        if name not in names:
            raise InvalidInputError(
                f"eligible: unknown rule '{name}'{nearest(name, names)}; "
                f"the menu was chosen with {list(names)}"
            )
    columns = []
    for name in names:
        if name not in eligible:
            raise InvalidInputError(f"eligible: rule '{name}' is missing; give one boolean a unit")
        column = np.asarray(eligible[name])
        missing = int(pd.isna(column).sum())
        if missing:
            raise InvalidInputError(
                f"eligible: rule '{name}' is missing for {missing} of {units} units, expected true "
                "or false"
            )
        if column.shape != (units,) or not np.isin(column, (0, 1)).all():
            raise InvalidInputError(
                f"eligible: rule '{name}' has shape {column.shape} and type {column.dtype}, "
                f"expected {units} booleans"
            )
        columns.append(1.0 - column.astype(np.float64))
    return np.column_stack(columns) if columns else np.empty((units, 0))


def refused(theta: FloatArray, taken: FloatArray, layout: Layout) -> BoolArray:
    """Return (n,) which units got a treatment that they are not eligible for.

    Parameters
    ----------
    theta : (n, p) coefficients.
    taken : (n, p + 1) rows ψ of the treatments they got.
    """
    rules = layout.eligibility
    return np.asarray(((theta[:, rules] > 0) & (taken[:, rules] < 0)).any(axis=1))


def allowed(theta: FloatArray, psi: FloatArray, layout: Layout) -> BoolArray:
    """Return (n, K) which treatments with rows ``psi`` (K, p + 1) units (n, p) may get."""
    rules = layout.eligibility
    return np.asarray(theta[:, rules] @ (psi[:, rules] < 0).T <= 0)
