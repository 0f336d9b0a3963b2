"""Profit of serving a unit with a treatment, linear in its response: π(t) = ψ(t)·(θ, 1)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.basis import Basis
from coarse_spark.core.expressions import Expression
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError


@dataclass(frozen=True)
class Profit:
    """Profit of serving unit i with treatment t: π_i(t) = margin(t)·φ(t)·θ_i − cost(t).

    Parameters
    ----------
    margin : expression in the treatment names, money per unit of outcome. A cost paid only on
        success belongs here: an incentive d paid when y = 1, worth v, gives ``v - d``.
    cost : expression in the treatment names, money per treated unit whatever the outcome.

    Raises
    ------
    ExpressionError : an expression outside the safe subset (see ``core.expressions``).

    Examples
    --------
    A sale brings 30, a discount on it costs its depth in per cent, and a letter costs 0.5:

    >>> from coarse_spark import Profit, TreatmentSpace
    >>> from coarse_spark.core.basis import Basis
    >>> depth = {"kind": "continuous", "lower": 0, "upper": 20, "step": 10, "control": 0}
    >>> space = TreatmentSpace.from_dict({"depth": depth})
    >>> profit = Profit(margin="30 * (1 - depth / 100)", cost="where(depth > 0, 0.5, 0)")
    >>> psi = profit.psi(space.candidates, Basis("linear", space))
    >>> theta = np.array([[0.1, 0.01]])  # one in ten buys, and one in a hundred more for each point
    >>> profit_matrix(theta, psi).round(2)
    array([[3. , 4.9, 6.7]])
    """

    margin: str = "1"
    cost: str = "0"
    _margin: Expression = field(init=False, repr=False, compare=False)
    _cost: Expression = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_margin", Expression(self.margin))
        object.__setattr__(self, "_cost", Expression(self.cost))

    def check(self, space: TreatmentSpace) -> None:
        """Raise ExpressionError when margin or cost makes no sense for the treatments."""
        space.check(self._margin)
        space.check(self._cost)

    def terms(self, treatments: FloatArray, space: TreatmentSpace) -> tuple[FloatArray, FloatArray]:
        """Return margin and cost, (n,) each, at encoded treatments (n, d).

        Raises
        ------
        InvalidInputError : margin or cost is NaN or infinite at one of the treatments.
        """
        columns = space.columns(treatments)
        margin, cost = (
            expression.evaluate(columns, len(treatments))
            for expression in (self._margin, self._cost)
        )
        for label, text, value in (("margin", self.margin, margin), ("cost", self.cost, cost)):
            if not np.isfinite(value).all():
                bad = int(np.flatnonzero(~np.isfinite(value))[0])
                place = space.describe(treatments[bad])
                raise InvalidInputError(
                    f"profit: the {label} '{text}' is {value[bad]} at {place}, expected a finite "
                    "number"
                )
        return margin, cost

    def psi(self, treatments: FloatArray, basis: Basis) -> FloatArray:
        """Return ψ(t) = [margin(t)·φ(t), −cost(t)] at encoded treatments (n, d) as (n, p + 1).

        Raises
        ------
        InvalidInputError : margin or cost is NaN or infinite at one of the treatments.
        """
        treatments = np.atleast_2d(np.asarray(treatments, dtype=np.float64))
        margin, cost = self.terms(treatments, basis.space)
        return np.column_stack([margin[:, None] * basis(treatments), -cost])


def profit_matrix(theta: FloatArray, psi: FloatArray) -> FloatArray:
    """Return the profits (n, J) of units under treatments.

    Parameters
    ----------
    theta : (n, p) response coefficients.
    psi : (J, p + 1) profit rows of the treatments.
    """
    return theta @ psi[:, :-1].T + psi[:, -1]
