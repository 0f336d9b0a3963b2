"""Profit of serving a unit with a treatment, linear in its coefficients: π(t) = ψ(t)·(θ, 1).

Where profit speaks of columns v of the units, or of several outcomes o, it expands into sums of
products a(t)·b(v), and the coefficients of a unit are its responses θ_o, followed by these times
the factors b(v) of the margin, and the factors of the cost (``ProfitCoefficients``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from coarse_spark.core.arrays import FloatArray, numbers
from coarse_spark.core.basis import Basis
from coarse_spark.core.expressions import Expression
from coarse_spark.core.separable import ONE, Term, expanded
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError, nearest

OUTCOME = "outcome"  # the name of the only one


@dataclass(frozen=True)
class Profit:
    """Profit of serving unit i with treatment t: π_i(t) = Σ_o margin_o(t)·φ(t)·θ_io − cost(t).

    Parameters
    ----------
    margin : expression in the treatment names, money per unit of outcome. A cost paid only on
        success belongs here: an incentive d paid when y = 1, worth v, gives ``v - d``. Of several
        outcomes a mapping, outcome to expression.
    cost : expression in the treatment names, money per treated unit whatever the outcome.
    unit_columns : numeric columns of the units that may stand in both, in whatever expands into a
        sum of products of treatments and columns: ``100 * pc_count * tech_support``.

    Raises
    ------
    ExpressionError : an expression outside the safe subset (see ``core.expressions``), or one that
        is no such sum (see ``core.separable``).

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

    margin: str | Mapping[str, str] = field(default="1", hash=False)
    cost: str = "0"
    unit_columns: Sequence[str] = ()
    _margin: Mapping[str, Expression] = field(init=False, repr=False, compare=False)
    _cost: Expression = field(init=False, repr=False, compare=False)
    margin_terms: Mapping[str, tuple[Term, ...]] = field(init=False, repr=False, compare=False)
    cost_terms: tuple[Term, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        margin = self.margin if isinstance(self.margin, Mapping) else {OUTCOME: self.margin}
        if not margin:
            raise InvalidInputError("profit: margin names no outcome, expected one or more")
        columns = self.unit_columns
        names = (columns,) if isinstance(columns, str) else tuple(columns)
        margins = {str(name): Expression(text) for name, text in margin.items()}
        cost = Expression(self.cost)
        terms = {name: expanded(one, names) for name, one in margins.items()}
        object.__setattr__(self, "unit_columns", names)
        object.__setattr__(self, "_margin", margins)
        object.__setattr__(self, "_cost", cost)
        object.__setattr__(self, "margin_terms", terms)
        object.__setattr__(self, "cost_terms", expanded(cost, names))

    @property
    def outcomes(self) -> tuple[str, ...]:
        """What margins are of, in the order of the responses; of one without a name ``outcome``."""
        return tuple(self._margin)

    def check(self, space: TreatmentSpace) -> None:
        """Raise InvalidInputError when margin or cost makes no sense for the treatments."""
        both = [name for name in self.unit_columns if name in space.names]
        if both:
            raise InvalidInputError(
                f"profit: '{both[0]}' is a treatment and among the unit_columns, expected other "
                "names for columns of the units"
            )
        for expression in (*self._margin.values(), self._cost):
            expression.require_names([*space.names, *self.unit_columns])
        for terms in (*self.margin_terms.values(), self.cost_terms):
            for term in terms:
                space.check(term.treatment)

    def terms(self, treatments: FloatArray, space: TreatmentSpace) -> tuple[FloatArray, FloatArray]:
        """Return margin and cost, (n,) each, at encoded treatments (n, d).

        Of one outcome, without columns of the units.

        Raises
        ------
        InvalidInputError : margin or cost is NaN or infinite at one of the treatments.
        ExpressionError : a column of the units.
        """
        (margin,) = self._margin.values()
        return (
            _values(margin, f"margin '{margin.text}'", treatments, space),
            _values(self._cost, f"cost '{self._cost.text}'", treatments, space),
        )

    def psi(self, treatments: FloatArray, basis: Basis) -> FloatArray:
        """Return ψ(t) = [margin(t)·φ(t), −cost(t)] at encoded treatments (n, d) as (n, p + 1).

        See ``ProfitCoefficients`` for what p is of several outcomes and columns of the units.

        Raises
        ------
        InvalidInputError : margin or cost is NaN or infinite at one of the treatments.
        """
        treatments = np.atleast_2d(np.asarray(treatments, dtype=np.float64))
        coefficients = ProfitCoefficients.of(basis.size, [self])
        amounts = coefficients.amounts(self, treatments, basis.space)
        return coefficients.psi(amounts, basis(treatments))


@dataclass(frozen=True)
class ProfitCoefficients:
    """What of a unit its profit is linear in.

    Attributes
    ----------
    basis_size : number of columns of the basis.
    outcomes : in the order of the responses.
    unit_columns : that the factors are expressions in.
    margin : (position of the outcome, factor b) of every block of coefficients b(v)·θ_o. The first
        ones are the responses themselves, whatever is paid for them.
    cost : the factors b of the coefficients after these, b(v) alone.
    """

    basis_size: int
    outcomes: tuple[str, ...]
    unit_columns: tuple[str, ...]
    margin: tuple[tuple[int, Expression], ...]
    cost: tuple[Expression, ...]

    @staticmethod
    def of(basis_size: int, profits: Sequence[Profit]) -> ProfitCoefficients:
        """Return the coefficients of profits, of the outcomes of the first.

        Raises
        ------
        InvalidInputError : a further profit, such as spending, is of another outcome.
        """
        outcomes = profits[0].outcomes
        margin = [(position, ONE) for position in range(len(outcomes))]
        for profit in profits:
            for name, terms in _of_outcomes(profit, outcomes).items():
                margin += [(outcomes.index(name), term.unit) for term in terms]
        cost = dict.fromkeys(term.unit for profit in profits for term in profit.cost_terms)
        return ProfitCoefficients(
            basis_size,
            outcomes,
            tuple(dict.fromkeys(name for profit in profits for name in profit.unit_columns)),
            tuple(dict.fromkeys(margin)),
            tuple(unit for unit in cost if unit != ONE),
        )

    @property
    def responses(self) -> int:
        """Number of response coefficients of a unit, those of all outcomes side by side."""
        return self.basis_size * len(self.outcomes)

    @property
    def size(self) -> int:
        """Number of coefficients of a unit that profit is linear in."""
        return self.basis_size * len(self.margin) + len(self.cost)

    @property
    def plain(self) -> bool:
        """Whether the coefficients are the responses themselves."""
        return self.size == self.responses

    @property
    def factors(self) -> tuple[Expression, ...]:
        """The distinct factors b other than 1."""
        every = dict.fromkeys([*(unit for _, unit in self.margin), *self.cost])
        return tuple(unit for unit in every if unit != ONE)

    @property
    def further(self) -> list[tuple[int | None, int]]:
        """What each coefficient after the responses is the product of.

        The number of a response, None for 1, and that of a factor.
        """
        position, size = {unit: number for number, unit in enumerate(self.factors)}, self.basis_size
        margin = [
            (outcome * size + number, position[unit])
            for outcome, unit in self.margin[len(self.outcomes) :]
            for number in range(size)
        ]
        return [*margin, *((None, position[unit]) for unit in self.cost)]

    def side_by_side(
        self, theta: npt.ArrayLike | pd.DataFrame | Mapping[str, npt.ArrayLike]
    ) -> FloatArray:
        """Return response coefficients as numbers, those of several outcomes side by side.

        Raises
        ------
        InvalidInputError : texts, an outcome that is missing or unknown, or rows that do not match.
        """
        if not isinstance(theta, Mapping):
            return numbers(theta, "theta")
        if set(theta) != set(self.outcomes):
            raise InvalidInputError(
                f"theta is of the outcomes {sorted(map(str, theta))}, expected those of the "
                f"profit's margin: {sorted(self.outcomes)}"
            )
        parts = [numbers(theta[name], f"theta of {name}") for name in self.outcomes]
        for name, part in zip(self.outcomes, parts, strict=True):
            if part.shape != (len(parts[0]), self.basis_size):
                raise InvalidInputError(
                    f"theta of {name} has shape {part.shape}, expected "
                    f"({len(parts[0])}, {self.basis_size})"
                )
        return np.hstack(parts)

    def columns(
        self, units: pd.DataFrame | Mapping[str, npt.ArrayLike] | None, count: int
    ) -> FloatArray:
        """Return the columns of so many units (count, v) as floats, NaN where they are missing.

        Raises
        ------
        InvalidInputError : a column is missing, or no numbers, or not of so many units.
        """
        if not self.unit_columns:
            return np.empty((count, 0))
        if units is None:
            raise InvalidInputError(
                f"units is missing: profit speaks of the columns {list(self.unit_columns)}, "
                "expected a table with them, one row a unit"
            )
        names = [str(name) for name in units]
        for name in self.unit_columns:
            if name not in names:
                raise InvalidInputError(
                    f"units: the column '{name}' of profit is missing{nearest(name, names)}; "
                    f"found {names}"
                )
        found = [numbers(units[name], f"units: column '{name}'") for name in self.unit_columns]
        for name, column in zip(self.unit_columns, found, strict=True):
            if column.shape != (count,):
                raise InvalidInputError(
                    f"units: column '{name}' has shape {column.shape}, expected ({count},), one "
                    "number a unit"
                )
        return np.column_stack(found)

    def factor_values(self, columns: FloatArray) -> FloatArray:
        """Return the factors (n, f) of units whose ``unit_columns`` are (n, v).

        Raises
        ------
        InvalidInputError : a column or a factor is missing or infinite for a unit.
        """
        if not self.factors:
            return np.empty((len(columns), 0))
        for name, column in zip(self.unit_columns, columns.T, strict=True):
            _require_finite(column, f"column '{name}'")
        values = self.factors_of(columns)
        for unit, value in zip(self.factors, values.T, strict=True):
            _require_finite(value, f"'{unit.text}' of profit")
        return values

    def factors_of(self, columns: FloatArray) -> FloatArray:
        """Return what ``factor_values`` does, NaN and infinities too."""
        given = dict(zip(self.unit_columns, columns.T, strict=True))
        values = [unit.evaluate(given, len(columns)) for unit in self.factors]
        return np.column_stack([np.empty((len(columns), 0)), *values])

    def extended(self, theta: FloatArray, factors: FloatArray) -> FloatArray:
        """Return the coefficients (n, size) of units.

        Parameters
        ----------
        theta : (n, responses).
        factors : (n, f), not read where coefficients are the responses.
        """
        if self.plain:
            return theta
        columns = [
            factors[:, factor] * (1.0 if response is None else theta[:, response])
            for response, factor in self.further
        ]
        return np.column_stack([theta, *columns])

    def amounts(self, profit: Profit, treatments: FloatArray, space: TreatmentSpace) -> FloatArray:
        """Return what profit pays and costs at encoded treatments (n, d).

        Returns
        -------
        (n, m) the factors a(t): of the blocks of the margin, of the factors of the cost, and of the
        cost of all units alike.

        Raises
        ------
        InvalidInputError : one of them is NaN or infinite.
        """
        blocks, costs = list(self.margin), [*self.cost, ONE]
        found = np.zeros((len(treatments), len(blocks) + len(costs)))
        for name, terms in _of_outcomes(profit, self.outcomes).items():
            label = f"margin '{profit._margin[name if name in profit._margin else OUTCOME].text}'"
            for term in terms:
                column = blocks.index((self.outcomes.index(name), term.unit))
                found[:, column] = _values(term.treatment, label, treatments, space)
        for term in profit.cost_terms:
            column, label = len(blocks) + costs.index(term.unit), f"cost '{profit._cost.text}'"
            found[:, column] = _values(term.treatment, label, treatments, space)
        return found

    def psi(self, amounts: FloatArray, phi: FloatArray, *rules: FloatArray) -> FloatArray:
        """Return the rows ψ of treatments.

        Parameters
        ----------
        amounts : (n, m) of the treatments.
        phi : (n, basis_size) their rows of the basis.
        rules : (n,) effects of rules, whose coefficients come last.
        """
        blocks = len(self.margin)
        margin = [amounts[:, [block]] * phi for block in range(blocks)]
        cost = amounts[:, blocks:]
        return np.column_stack([*margin, -cost[:, :-1], *rules, -cost[:, -1]])

    def earned(self, amounts: FloatArray, y: FloatArray, factors: FloatArray) -> FloatArray:
        """Return the profit (n,) of units that showed outcomes.

        Parameters
        ----------
        amounts : (n, m) of the treatments that they got.
        y : (n, outcomes).
        factors : (n, f).
        """
        of = {ONE: np.ones(len(y)), **dict(zip(self.factors, factors.T, strict=True))}
        shown = [y[:, position] * of[unit] for position, unit in self.margin]
        held = [-of[unit] for unit in (*self.cost, ONE)]
        return np.asarray((amounts * np.column_stack([*shown, *held])).sum(axis=1))


def _of_outcomes(profit: Profit, outcomes: Sequence[str]) -> Mapping[str, tuple[Term, ...]]:
    """Return the terms of a profit's margins by outcome.

    Raises
    ------
    InvalidInputError : an outcome that is none of these, or a margin of an outcome without a name
        where there are several.
    """
    terms = {name: found for name, found in profit.margin_terms.items() if found}
    if set(terms) <= set(outcomes):
        return terms
    if not isinstance(profit.margin, Mapping):
        if len(outcomes) == 1:
            return {outcomes[0]: terms[OUTCOME]}
        raise InvalidInputError(
            f"profit: '{profit.margin}' is paid per unit of outcome, and there are several, "
            f"expected a mapping with one of {list(outcomes)}"
        )
    unknown = next(name for name in terms if name not in outcomes)
    raise InvalidInputError(
        f"profit: unknown outcome '{unknown}'{nearest(unknown, outcomes)}, expected one of "
        f"{list(outcomes)}"
    )


def _values(
    expression: Expression, label: str, treatments: FloatArray, space: TreatmentSpace
) -> FloatArray:
    value = expression.evaluate(space.columns(treatments), len(treatments))
    if not np.isfinite(value).all():
        bad = int(np.flatnonzero(~np.isfinite(value))[0])
        place = space.describe(treatments[bad])
        raise InvalidInputError(
            f"profit: the {label} is {value[bad]} at {place}, expected a finite number"
        )
    return value


def _require_finite(values: FloatArray, what: str) -> None:
    broken = np.flatnonzero(~np.isfinite(values))
    if broken.size:
        raise InvalidInputError(
            f"units: {what} is missing or infinite for {broken.size} of {len(values)} units, the "
            f"first in row {broken[0]}; mend them, or leave them out"
        )


def profit_matrix(theta: FloatArray, psi: FloatArray) -> FloatArray:
    """Return the profits (n, J) of units under treatments.

    Parameters
    ----------
    theta : (n, p) coefficients.
    psi : (J, p + 1) profit rows of the treatments.
    """
    return theta @ psi[:, :-1].T + psi[:, -1]
