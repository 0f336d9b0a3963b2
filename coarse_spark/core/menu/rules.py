"""Rules that make a treatment worth less to some units: eligibility, and the cost of switching from an earlier assignment.

A rule is one more coefficient of every unit (1 where it concerns the unit, else 0) and one more entry of ψ (its effect at a
treatment). Profit stays linear in the coefficients, so sketches, segment sums, certificates and assignments need to know nothing
of rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray
from coarse_spark.core.expressions import Expression
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError, nearest

_LEAST_SHARE = (
    1e-5  # of units that are not eligible: profits beside larger penalties would lose digits
)


class Rule(Protocol):
    """The effect of a rule on the profit of the units that it concerns."""

    def effect(self, treatments: FloatArray, space: TreatmentSpace) -> FloatArray:
        """Return what the rule adds to profit at encoded treatments (n, d) as (n,)."""


@dataclass(frozen=True)
class Restriction:
    """Treatments where ``expression`` is not 0 cost more than any profit: units that are not eligible for them never take them."""

    expression: Expression
    penalty: float

    def effect(self, treatments: FloatArray, space: TreatmentSpace) -> FloatArray:
        """Return −penalty at restricted treatments, else 0."""
        return np.where(self.restricts(treatments, space), -self.penalty, 0.0)

    def restricts(self, treatments: FloatArray, space: TreatmentSpace) -> BoolArray:
        """Return (n,) at which encoded treatments the rule asks for eligibility."""
        value = self.expression.evaluate(space.columns(treatments), len(treatments))
        if np.isnan(value).any():
            place = space.describe(treatments[np.flatnonzero(np.isnan(value))[0]])
            raise InvalidInputError(
                f"eligible: the expression '{self.expression.text}' is not a number at {place}"
            )
        return np.asarray(value != 0)

    def leaves(self, space: TreatmentSpace) -> Callable[[FloatArray], BoolArray]:
        """Return the function that tells which encoded treatments (n, d) everybody may get."""
        return lambda treatments: ~self.restricts(treatments, space)


@dataclass(frozen=True, eq=False)
class Loyalty:
    """Units that had ``treatment`` (d,) before cost ``cost`` each when they get another one."""

    treatment: FloatArray
    cost: float

    def effect(self, treatments: FloatArray, space: TreatmentSpace) -> FloatArray:
        """Return −cost at every treatment but the earlier one."""
        widths = np.maximum(space.bounds[:, 1] - space.bounds[:, 0], 1e-300)
        kept = (np.abs(treatments - self.treatment) <= 1e-9 * widths).all(axis=1)
        return np.where(kept, 0.0, -self.cost)


@dataclass(frozen=True)
class Lottery:
    """Without effect on profit: the coefficient is a hash of the unit in [0, 1), which tells units that respond alike apart."""

    def effect(self, treatments: FloatArray, space: TreatmentSpace) -> FloatArray:  # noqa: ARG002  # as of every rule
        """Return zeros."""
        return np.zeros(len(treatments))


@dataclass(frozen=True, eq=False)
class UnitRules:
    """All rules of a menu, and how a unit's coefficients for them are found.

    Attributes
    ----------
    restrictions : by eligibility. loyalty : one for every treatment of the earlier menu.
    previous : returns the row of the earlier menu for every unit's coefficients (n, p).
    """

    restrictions: tuple[Restriction, ...] = ()
    loyalty: tuple[Loyalty, ...] = ()
    previous: Callable[[FloatArray], IntArray] | None = None

    @property
    def all(self) -> tuple[Rule, ...]:
        """The rules in the order of their coefficients."""
        return (*self.restrictions, *self.loyalty)

    def extended(
        self,
        theta: FloatArray,
        eligible: Mapping[str, npt.ArrayLike] | None,
        previous_rows: npt.ArrayLike | None = None,
    ) -> FloatArray:
        """Return response coefficients (n, p) followed by those of the rules; ``previous_rows`` (n,) of the earlier menu, if known.

        Raises
        ------
        InvalidInputError : ``eligible`` does not fit the restrictions, or ``previous_rows`` not the earlier menu.
        """
        if not self.all:
            if eligible:
                barred(eligible, (), len(theta))
            return theta
        parts = [
            theta,
            barred(
                eligible or {}, [rule.expression.text for rule in self.restrictions], len(theta)
            ),
        ]
        if self.previous is not None:
            had = (
                self.previous(theta)
                if previous_rows is None
                else rows_of_menu(previous_rows, len(theta), len(self.loyalty))
            )
            parts.append(np.eye(len(self.loyalty))[had])
        return np.hstack(parts)


def restrictions(
    expressions: Iterable[str], space: TreatmentSpace, worth: float, barred: Iterable[float]
) -> tuple[Restriction, ...]:
    """Return one restriction an expression in the treatment names: where it is not 0, treatments go to eligible units only.

    Their penalties are twice what a unit can gain, and as many times more as units that are not eligible are few: no menu leaves
    them without a treatment because the others gain from that.

    Parameters
    ----------
    worth : the widest range of a unit's profits, see ``widest_range``. barred : share of the weight that is not eligible, by rule.

    Raises
    ------
    ExpressionError : an expression outside the safe subset or with unknown names.
    """
    rules = []
    for text, share in zip(expressions, barred, strict=True):
        expression = Expression(text)
        expression.require_names(space.names)
        rules.append(
            Restriction(expression, 2.0 * worth / max(share if share > 0 else 1.0, _LEAST_SHARE))
        )
    return tuple(rules)


def widest_range(largest: FloatArray, psi: FloatArray) -> float:
    """Return what no unit's choice of treatment can be worth more than.

    Parameters
    ----------
    largest : (p,) largest absolute response coefficients of all units. psi : (J, p + 1) rows of the candidates.
    """
    return max(float(largest @ np.ptp(psi[:, :-1], axis=0) + np.ptp(psi[:, -1])), 1e-9)


def rows_of_menu(rows: npt.ArrayLike, units: int, size: int) -> IntArray:
    """Return ``previous_rows`` as (units,), rows of an earlier menu of ``size`` treatments.

    Raises
    ------
    InvalidInputError : not one row of that menu a unit.
    """
    given = np.asarray(rows)
    if (
        given.shape != (units,)
        or given.dtype.kind not in "iu"
        or not np.isin(given, range(size)).all()
    ):
        expected = f"expected {units} whole numbers from 0 to {size - 1}"
        raise InvalidInputError(
            f"previous_rows has shape {given.shape} and type {given.dtype}, {expected}"
        )
    return given.astype(np.intp)


def barred(eligible: Mapping[str, npt.ArrayLike], names: Sequence[str], units: int) -> FloatArray:
    """Return the units' coefficients (n, rules) of the restrictions ``names``: 1 where a unit is not eligible.

    Raises
    ------
    InvalidInputError : a rule is missing or unknown, or its column is not one boolean a unit.
    """
    for name in eligible:
        if name not in names:
            raise InvalidInputError(
                f"eligible: unknown rule '{name}'{nearest(name, names)}; the menu was chosen with {list(names)}"
            )
    columns = []
    for name in names:
        if name not in eligible:
            raise InvalidInputError(f"eligible: rule '{name}' is missing; give one boolean a unit")
        column = np.asarray(eligible[name])
        if column.shape != (units,) or not np.isin(column, (0, 1)).all():
            raise InvalidInputError(
                f"eligible: rule '{name}' has shape {column.shape} and type {column.dtype}, expected {units} booleans"
            )
        columns.append(1.0 - column.astype(np.float64))
    return np.column_stack(columns) if columns else np.empty((units, 0))


def barred_units(theta: FloatArray, taken: FloatArray, rules: Sequence[Rule]) -> BoolArray:
    """Return (n,) which units got a treatment that they are not eligible for.

    Parameters
    ----------
    theta : (n, p) coefficients with those of ``rules`` last. taken : (n, p + 1) rows ψ of the treatments they got.
    """
    first = theta.shape[1] - len(rules)
    restricted = [
        first + place for place, rule in enumerate(rules) if isinstance(rule, Restriction)
    ]
    return np.asarray(((theta[:, restricted] > 0) & (taken[:, restricted] < 0)).any(axis=1))
