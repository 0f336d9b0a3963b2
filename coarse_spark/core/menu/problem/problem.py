"""The problem of a menu: the candidates of a space, and every unit's profit under each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray
from coarse_spark.core.basis import Basis
from coarse_spark.core.menu.problem.limits import Limit
from coarse_spark.core.menu.problem.polish import (
    Objective,
    central_differences,
    last_allowed,
    polish,
)
from coarse_spark.core.menu.problem.rules import (
    Eligibility,
    Layout,
    Rule,
    eligibility_rules,
    widest_range,
)
from coarse_spark.core.profit import Profit, ProfitCoefficients, profit_matrix
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError

_BLOCK_CELLS = 100_000  # of a rows x treatments block: it stays in the processor's cache
_GRANULAR_ROWS = 100_000  # own best treatments that are located at once
_BESIDE, _JUMP = 1e-6, 1e-4  # of a dimension's range; of the entries of ψ


def row_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Yield slices of at most so many rows that a block of ``columns`` floats stays in cache."""
    size = max(1, _BLOCK_CELLS // max(columns, 1))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


@dataclass(frozen=True, eq=False)
class MenuProblem:
    """Space, basis, profit and rules, with the rows ψ of all candidates.

    Attributes
    ----------
    space : the treatments that may be offered.
    basis : columns φ of the response.
    profit : margin and cost of a treatment.
    candidates : (J, d) encoded treatments that menus are searched over; continuous dimensions are
        searched between them too.
    psi : (J, p + 1) rows ψ(t) of the candidates: profit is ψ(t)·(θ, 1).
    of_profit : what coefficients of a unit profit and spending are linear in.
    rules : one coefficient each after those of profit (see ``rules``); p counts them.
    totals : limits on what menus come to, such as a budget: what counts is linear as profit is.
    limit_prices : profit is less so many times what counts: a limit is a price of that. Empty where
        nothing costs anything.
    """

    space: TreatmentSpace
    basis: Basis
    profit: Profit
    candidates: FloatArray
    psi: FloatArray
    of_profit: ProfitCoefficients
    rules: tuple[Rule, ...] = ()
    totals: tuple[Limit, ...] = ()
    limit_prices: tuple[float, ...] = ()

    @staticmethod
    def build(
        space: TreatmentSpace,
        basis: Basis | str,
        profit: Profit,
        extra: Sequence[FloatArray] | FloatArray = (),
        rules: Sequence[Rule] = (),
        totals: Sequence[Limit] = (),
    ) -> MenuProblem:
        """Build the problem.

        Parameters
        ----------
        extra : encoded treatments (d,) that are candidates too.
        rules : in the order of their coefficients.
        totals : limits that menus will keep; what counts may need further coefficients of units.

        Raises
        ------
        InvalidInputError : a basis of another space, unknown names or levels in the profit, a
            profit that is not finite somewhere, or limits on outcomes that the profit lacks.
        """
        basis = Basis(basis, space) if isinstance(basis, str) else basis
        if basis.space != space:
            raise InvalidInputError(
                f"basis '{basis.name}' was built on another treatment space; build it on the menu's"
            )
        profit.check(space)
        of_profit = ProfitCoefficients.of(
            basis.size, [profit, *(limit.row_profit for limit in totals)]
        )
        problem = MenuProblem(space, basis, profit, space.candidates, np.empty((0, 0)), of_profit)
        edges: list[FloatArray] = []
        if problem.is_searched and space.is_restricted:
            edges = list(last_allowed(space, space.allowed))
        # an edge is found up to rounding: what equals one is itself the candidate
        problem = problem.with_candidates([*np.atleast_2d(extra), *edges] if len(extra) else edges)
        if problem.is_searched:
            problem = problem._with_sides_of_control()
        return problem.with_rules(rules) if rules else problem

    def with_candidates(self, treatments: Iterable[FloatArray]) -> MenuProblem:
        """Return the problem with encoded treatments (d,) among the candidates."""
        candidates = self.candidates
        for treatment in treatments:
            if not self.space.same(candidates, treatment).any():
                candidates = np.vstack([candidates, treatment])
        problem = replace(self, candidates=candidates)
        return replace(problem, psi=problem.psi_at(candidates))

    def with_rules(
        self, rules: Sequence[Rule], treatments: Sequence[FloatArray] = ()
    ) -> MenuProblem:
        """Return the problem with further rules.

        Parameters
        ----------
        rules : each with the next coefficient.
        treatments : encoded (d,) that they are about, which become candidates.
        """
        problem = replace(self, rules=(*self.rules, *rules))
        edges = list[FloatArray]()
        if self.is_searched:
            for rule in (rule for rule in rules if isinstance(rule, Eligibility)):
                # the last treatments that everybody may get are often the best for many, and so are
                # the corners of several rules
                edges += list(last_allowed(self.space, _open_to_all(rule, self.space), edges))
        return problem.with_candidates([*edges, *treatments])

    def with_eligibility(
        self, expressions: Sequence[str], largest: FloatArray, ineligible: FloatArray
    ) -> MenuProblem:
        """Return the problem with one rule of eligibility an expression.

        Parameters
        ----------
        expressions : in the treatment names: where one is not 0, treatments ask for eligibility.
        largest : (p,) largest absolute coefficients of the units.
        ineligible : share of their weight that is not eligible, by expression. Both tell how much a
            rule has to weigh.

        Raises
        ------
        ExpressionError : an expression outside the safe subset or with unknown names.
        """
        worth = widest_range(largest, self.psi)
        return self.with_rules(
            eligibility_rules(expressions, self.space, worth, ineligible.tolist())
        )

    def with_totals(self, totals: Sequence[Limit]) -> MenuProblem:
        """Return the problem that knows what counts against limits.

        Raises
        ------
        ExpressionError : what counts is in unknown names or levels.
        """
        for limit in totals:
            limit.amount.check(self.space)
        return replace(self, totals=tuple(totals))

    def at_limit_prices(self, prices: tuple[float, ...]) -> MenuProblem:
        """Return the problem in which what counts against each limit costs its price."""
        prices = prices if any(prices) else ()
        if prices == self.limit_prices:
            return self
        problem = replace(self, limit_prices=prices)
        return replace(problem, psi=problem.psi_at(self.candidates))

    def _with_sides_of_control(self) -> MenuProblem:
        """Add what lies just off the control's value of a dimension, where profit jumps there.

        Whether the basis jumps or the margin or the cost: no candidate stands for the limit of the
        profit on that side.
        """
        space, problem, jump = self.space, self, _JUMP * np.abs(self.psi).max(axis=0)
        for axis, sign in product(np.flatnonzero(space.continuous), (1.0, -1.0)):
            low, high = space.bounds[axis]
            beside = problem.candidates.copy()
            beside[:, axis] += sign * _BESIDE * (high - low)
            at_control = problem.candidates[:, axis] == space.control[axis]
            open_ = at_control & (low <= beside[:, axis]) & (beside[:, axis] <= high)
            rows = np.flatnonzero(open_)[space.allowed(beside[open_])]
            limits = problem.psi_at(beside[rows])
            for row, limit in zip(rows, limits, strict=True):
                if (np.abs(problem.psi - limit) > jump).any(axis=1).all():
                    problem = replace(
                        problem,
                        candidates=np.vstack([problem.candidates, beside[row]]),
                        psi=np.vstack([problem.psi, limit]),
                    )
        return problem

    @property
    def coefficients(self) -> int:
        """p, the number of coefficients of a unit, those of rules included."""
        return self.of_profit.size + len(self.rules)

    @cached_property
    def layout(self) -> Layout:
        """Which of a unit's coefficients say what."""
        return Layout.of(self.of_profit.size, self.rules)

    @property
    def is_searched(self) -> bool:
        """Whether the basis has values between candidates: not where each candidate is an arm."""
        return not self.basis.is_arms

    @cached_property
    def searched(self) -> BoolArray:
        """(d,) whether treatments are searched between candidates along a dimension."""
        return self.space.continuous & self.is_searched

    @cached_property
    def spacing(self) -> FloatArray:
        """(d,) distance of neighbouring candidates along searched dimensions, else 0."""
        return np.where(self.searched, self.space.spacing, 0.0)

    @cached_property
    def control_psi(self) -> FloatArray:
        """(p + 1,) row ψ of the control."""
        return np.asarray(self.psi_at(self.space.control[None, :])[0])

    def psi_at(self, treatments: FloatArray) -> FloatArray:
        """Return ψ at encoded treatments (n, d) as (n, p + 1)."""
        amounts = self.of_profit.amounts(self.profit, treatments, self.space)
        priced = [pair for pair in zip(self.totals, self.limit_prices, strict=False) if pair[1]]
        for limit, price in priced:
            counted = self.of_profit.amounts(limit.row_profit, treatments, self.space)
            amounts = amounts - (limit.sign * price) * counted
        effects = [rule.effect(treatments, self.space) for rule in self.rules]
        psi = self.of_profit.psi(amounts, self.basis(treatments), *effects)
        for limit, price in priced:
            if limit.relative_to:
                psi = psi + (limit.sign * price * limit.bound) * self.amounts_of_control(limit)
        return psi

    def counted_at(self, treatments: FloatArray) -> FloatArray:
        """Return the rows of what counts against limits at treatments (n, d) as (L, n, p + 1).

        Signs are those of the limits, and the control's part in it is taken off: of each the mean
        is at most ``Limit.most``.
        """
        rows = np.empty((len(self.totals), len(treatments), self.coefficients + 1))
        for place, limit in enumerate(self.totals):
            rows[place] = limit.sign * self.amounts_at(limit, treatments)
            if limit.relative_to:
                rows[place] -= limit.sign * limit.bound * self.amounts_of_control(limit)
        return rows

    def amounts_of_control(self, limit: Limit) -> FloatArray:
        """Return the row (p + 1,) of what a limit counts under the control."""
        return np.asarray(self.amounts_at(limit, self.space.control[None, :])[0])

    def amounts_at(self, limit: Limit, treatments: FloatArray) -> FloatArray:
        """Return the rows (n, p + 1) of what a limit counts at encoded treatments (n, d)."""
        counted = self.of_profit.amounts(limit.row_profit, treatments, self.space)
        none = [np.zeros(len(treatments))] * len(self.rules)
        return self.of_profit.psi(counted, self.basis(treatments), *none)

    def position(self, treatment: FloatArray) -> int | None:
        """Return the row of the candidates that equals an encoded treatment, or None."""
        rows = np.flatnonzero(self.space.same(self.candidates, treatment))
        return int(rows[0]) if rows.size else None

    def positions(self, treatments: FloatArray | None) -> IntArray:
        """Return the rows of the candidates that encoded treatments (f, d) are."""
        found = [self.position(row) for row in ([] if treatments is None else treatments)]
        return np.array([row for row in found if row is not None], dtype=np.intp)

    def best_candidates(self, theta: FloatArray) -> IntArray:
        """Return the row of the best candidate of every unit (n,)."""
        best = np.empty(len(theta), dtype=np.intp)
        for block in row_blocks(len(theta), len(self.psi)):
            best[block] = profit_matrix(theta[block], self.psi).argmax(axis=1)
        return best

    def granular(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the best treatment (n, d) of every unit and its profit (n,).

        The best candidate is found first; continuous dimensions are then searched around it, up to
        one spacing away. Memory beyond the result is bounded whatever n.
        """
        theta = np.asarray(theta, dtype=np.float64)
        treatments = np.empty((len(theta), self.candidates.shape[1]))
        profit = np.empty(len(theta))
        for start in range(0, len(theta), _GRANULAR_ROWS):
            part = slice(start, start + _GRANULAR_ROWS)
            best = self.best_candidates(theta[part])
            treatments[part], profit[part] = self.polish(theta[part], best, precise=False)
        return treatments, profit

    def polish(
        self, theta: FloatArray, rows: IntArray, *, precise: bool = True
    ) -> tuple[FloatArray, FloatArray]:
        """Maximize profit around candidates, within one spacing of each.

        Parameters
        ----------
        theta : (m, p) responses.
        rows : (m,) a candidate each.
        precise : see ``polish``.

        Returns
        -------
        treatments (m, d) and profit (m,), never less than the candidates'.
        """
        if not self.searched.any():
            return self.candidates[rows], _profit(theta, self.psi[rows])
        slope, bend = self._slopes
        extended = np.column_stack([theta, np.ones(len(theta))])
        derivatives = (
            np.einsum("rap,rp->ra", slope[rows], extended),
            np.einsum("rabp,rp->rab", bend[rows], extended),
        )
        start = self.candidates[rows]
        objective = self._objective(theta, self.psi[rows])
        return self._kept(start, *polish(objective, start, derivatives, precise=precise))

    def polish_from(self, theta: FloatArray, start: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Maximize the profit of responses (m, p) from encoded treatments ``start`` (m, d)."""
        return self._kept(start, *polish(self._objective(theta, self.psi_at(start)), start))

    def _kept(
        self, start: FloatArray, treatments: FloatArray, profit: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        # a rule may single out one treatment, up to rounding: whoever stood there stays there
        if self.rules:
            stayed = self.space.same(treatments, start)
            treatments[stayed] = start[stayed]
        return treatments, profit

    @cached_property
    def _slopes(self) -> tuple[FloatArray, FloatArray]:
        """Gradient (J, d, p + 1) and Hessian (J, d, d, p + 1) of ψ at the candidates.

        Any response's follow linearly.
        """
        return central_differences(
            lambda treatments, _: self.psi_at(treatments),
            self.candidates,
            np.arange(len(self.psi)),
            self.space.bounds,
            self.spacing,
        )

    def _objective(self, theta: FloatArray, psi: FloatArray) -> Objective:
        def value(treatments: FloatArray, rows: IntArray) -> FloatArray:
            return _profit(theta[rows], self.psi_at(treatments))

        noise = 4e-15 * _profit(np.abs(theta), np.abs(psi))
        return Objective(value, self.space.allowed, self.space.bounds, self.spacing, noise)


def _profit(theta: FloatArray, psi: FloatArray) -> FloatArray:
    """Return the profits (n,) of units (n, p), each under its own row (n, p + 1)."""
    return np.asarray(np.einsum("ij,ij->i", theta, psi[:, :-1]) + psi[:, -1])


def _open_to_all(rule: Eligibility, space: TreatmentSpace) -> Callable[[FloatArray], BoolArray]:
    return lambda treatments: ~rule.applies(treatments, space)
