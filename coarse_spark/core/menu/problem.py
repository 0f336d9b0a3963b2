"""What a menu is chosen from: the candidates of a treatment space and the profit of every unit under each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray
from coarse_spark.core.basis import Basis
from coarse_spark.core.menu.climb import Hills, central_differences, climb
from coarse_spark.core.menu.rules import Restriction, Rule, restrictions, widest_range
from coarse_spark.core.profit import Profit, profit_matrix
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError

_BLOCK_CELLS = 100_000  # of a rows x treatments block: it stays in the processor's cache
_HALVINGS = 45  # of a spacing, to find the edge of an exclusion
_BESIDE, _JUMP = 1e-6, 1e-4  # of a dimension's range; of the entries of ψ


def row_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Yield slices of at most so many rows that a block of ``columns`` floats a row stays in cache."""
    size = max(1, _BLOCK_CELLS // max(columns, 1))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


@dataclass(frozen=True, eq=False)
class MenuProblem:
    """Space, basis and profit, with the rows ψ of all candidates.

    Attributes
    ----------
    candidates : (J, d) encoded treatments that menus are searched over; continuous dimensions are refined between them.
    psi : (J, p + 1) rows ψ(t) of the candidates: profit is ψ(t)·(θ, 1).
    rules : effects that add one coefficient each after those of the basis (see ``rules``); p counts them.
    charge, spend : profit is less ``charge`` times what ``spend``, itself a profit, says is spent (the price of a budget).
    """

    space: TreatmentSpace
    basis: Basis
    profit: Profit
    candidates: FloatArray
    psi: FloatArray
    rules: tuple[Rule, ...] = ()
    charge: float = 0.0
    spend: Profit | None = None

    @staticmethod
    def build(
        space: TreatmentSpace,
        basis: Basis | str,
        profit: Profit,
        extra: FloatArray | None = None,
        rules: Sequence[Rule] = (),
    ) -> MenuProblem:
        """Build the problem; ``extra`` (m, d) adds encoded treatments to the candidates where they are not among them.

        Raises
        ------
        InvalidInputError : a basis of another space, an unknown name in the profit, or a profit that is not finite somewhere.
        """
        basis = Basis(basis, space) if isinstance(basis, str) else basis
        if basis.space != space:
            raise InvalidInputError(
                f"basis '{basis.name}' was built on another treatment space; build it on the menu's"
            )
        profit.require_names(space.names)
        candidates = space.candidates
        added = [] if extra is None else list(np.atleast_2d(extra))
        if _is_searched(basis):
            added = [
                *(_edges(space, space.allowed) if space.exclude is not None else []),
                *_edges_of_rules(space, rules),
                *added,
            ]
        candidates = _with(candidates, added)
        problem = MenuProblem(space, basis, profit, candidates, np.empty((0, 0)), tuple(rules))
        problem = replace(problem, psi=problem.psi_at(candidates))
        return problem._with_sides_of_control() if _is_searched(basis) else problem

    def _with_sides_of_control(self) -> MenuProblem:
        """Offer what lies just off the control's value of a continuous dimension, wherever the profit jumps there.

        Whether the basis jumps or the margin or the cost: no candidate stands for the limit of the profit on that side.
        """
        space, problem, jump = self.space, self, _JUMP * np.abs(self.psi).max(axis=0)
        for axis, sign in product(np.flatnonzero(space.continuous), (1.0, -1.0)):
            low, high = space.bounds[axis]
            beside = problem.candidates.copy()
            beside[:, axis] += sign * _BESIDE * (high - low)
            open_ = (
                (problem.candidates[:, axis] == space.control[axis])
                & (low <= beside[:, axis])
                & (beside[:, axis] <= high)
            )
            rows = np.flatnonzero(open_)[space.allowed(beside[open_])]
            limits = problem.psi_at(beside[rows])
            for row, limit in zip(rows, limits, strict=True):
                if (np.abs(problem.psi - limit) > jump).any(axis=1).all():
                    candidates, psi = (
                        np.vstack([problem.candidates, beside[row]]),
                        np.vstack([problem.psi, limit]),
                    )
                    problem = replace(problem, candidates=candidates, psi=psi)
        return problem

    def charged(self, charge: float, spend: Profit) -> MenuProblem:
        """Return the problem in which every unit of spending costs ``charge`` besides."""
        problem = replace(self, charge=charge, spend=spend)
        return replace(problem, psi=problem.psi_at(self.candidates))

    def restricted(
        self, expressions: Sequence[str], largest: FloatArray, barred: FloatArray
    ) -> MenuProblem:
        """Return the problem with one rule of eligibility an expression (see ``rules``).

        Parameters
        ----------
        largest : (p,) largest absolute coefficients of the units.
        barred : share of their weight that is not eligible, by expression. Both tell how much a rule has to weigh.

        Raises
        ------
        ExpressionError : an expression outside the safe subset or with unknown names.
        """
        worth = widest_range(largest, self.psi)
        return self.with_rules(restrictions(expressions, self.space, worth, barred.tolist()))

    def with_rules(self, rules: Sequence[Rule], extra: Sequence[FloatArray] = ()) -> MenuProblem:
        """Return the problem with further rules, and with encoded treatments (d,) that they are about among the candidates."""
        edges = _edges_of_rules(self.space, rules) if _is_searched(self.basis) else []
        problem = replace(
            self, rules=(*self.rules, *rules), candidates=_with(self.candidates, [*edges, *extra])
        )
        return replace(problem, psi=problem.psi_at(problem.candidates))

    @property
    def coefficients(self) -> int:
        """p, the number of response coefficients of a unit."""
        return int(self.psi.shape[1]) - 1

    @property
    def basis_size(self) -> int:
        """Number of coefficients that belong to the basis."""
        return self.basis.size

    @cached_property
    def searched(self) -> BoolArray:
        """(d,) whether treatments are searched between candidates along a dimension; never where each candidate is an arm."""
        return self.space.continuous & _is_searched(self.basis)

    @cached_property
    def spacing(self) -> FloatArray:
        """(d,) distance of neighbouring candidates along every searched dimension, 0 along the others."""
        return np.where(self.searched, self.space.spacing, 0.0)

    @cached_property
    def control_psi(self) -> FloatArray:
        """(p + 1,) row ψ of the control."""
        return np.asarray(self.psi_at(self.space.control[None, :])[0])

    def psi_at(self, treatments: FloatArray) -> FloatArray:
        """Return ψ at encoded treatments (n, d) as (n, p + 1)."""
        if self.spend is not None and self.charge:
            (margin, cost), (more, paid) = (
                part.terms(treatments, self.space) for part in (self.profit, self.spend)
            )
            margin, cost = margin - self.charge * more, cost - self.charge * paid
            psi = np.column_stack([margin[:, None] * self.basis(treatments), -cost])
        else:
            psi = self.profit.psi(treatments, self.basis)
        if self.rules:
            effects = [rule.effect(treatments, self.space) for rule in self.rules]
            psi = np.column_stack([psi[:, :-1], *effects, psi[:, -1]])
        return psi

    def spend_at(self, treatments: FloatArray, spend: Profit) -> FloatArray:
        """Return the rows of spending at encoded treatments (n, d) as (n, p + 1)."""
        rows = spend.psi(treatments, self.basis)
        return np.column_stack([rows[:, :-1], np.zeros((len(rows), len(self.rules))), rows[:, -1]])

    def position(self, treatment: FloatArray) -> int | None:
        """Return the row of the candidates that equals an encoded treatment, or None."""
        rows = np.flatnonzero(_same(self.candidates, treatment))
        return int(rows[0]) if rows.size else None

    def best_candidates(self, theta: FloatArray) -> IntArray:
        """Return the row of the best candidate of every unit (n,)."""
        best = np.empty(len(theta), dtype=np.intp)
        for block in row_blocks(len(theta), len(self.psi)):
            best[block] = profit_matrix(theta[block], self.psi).argmax(axis=1)
        return best

    def granular(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the best treatment (n, d) of every unit and its profit (n,).

        The best candidate is found first; continuous dimensions are then searched around it, up to one spacing away.
        Memory beyond the result is bounded whatever n.
        """
        theta = np.asarray(theta, dtype=np.float64)
        treatments = np.empty((len(theta), self.candidates.shape[1]))
        profit = np.empty(len(theta))
        for start in range(0, len(theta), 100_000):
            part = slice(start, start + 100_000)
            treatments[part], profit[part] = self.polish(
                theta[part], self.best_candidates(theta[part]), precise=False
            )
        return treatments, profit

    def polish(
        self, theta: FloatArray, rows: IntArray, *, precise: bool = True
    ) -> tuple[FloatArray, FloatArray]:
        """Maximize the profit of responses ``theta`` (m, p) around candidates ``rows`` (m,), within one spacing of each.

        Returns treatments (m, d) and profit (m,), never less than the candidates'. ``precise`` is explained in ``climb``.
        """
        if not self.searched.any():
            return self.candidates[rows], np.einsum(
                "ij,ij->i", theta, self.psi[rows, :-1]
            ) + self.psi[rows, -1]
        slope, bend = self._slopes
        extended = np.column_stack([theta, np.ones(len(theta))])
        derivatives = (
            np.einsum("rap,rp->ra", slope[rows], extended),
            np.einsum("rabp,rp->rab", bend[rows], extended),
        )
        start = self.candidates[rows]
        return self._kept(
            start, *climb(self._hills(theta, self.psi[rows]), start, derivatives, precise=precise)
        )

    def polish_from(self, theta: FloatArray, start: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Maximize the profit of responses ``theta`` (m, p) from encoded treatments ``start`` (m, d)."""
        return self._kept(start, *climb(self._hills(theta, self.psi_at(start)), start))

    def _kept(
        self, start: FloatArray, treatments: FloatArray, profit: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        # a rule may single out one treatment, up to rounding: whoever stood there stays exactly there
        if self.rules:
            widths = self.space.bounds[:, 1] - self.space.bounds[:, 0]
            stayed = (np.abs(treatments - start) <= 2e-9 * widths).all(axis=1)
            treatments[stayed] = start[stayed]
        return treatments, profit

    @cached_property
    def _slopes(self) -> tuple[FloatArray, FloatArray]:
        """Gradient (J, d, p + 1) and Hessian (J, d, d, p + 1) of ψ at the candidates; any response's follow linearly."""
        space = self.space
        return central_differences(
            lambda treatments, _: self.psi_at(treatments),
            self.candidates,
            np.arange(len(self.psi)),
            space.bounds,
            self.spacing,
        )

    def _hills(self, theta: FloatArray, psi: FloatArray) -> Hills:
        def value(treatments: FloatArray, rows: IntArray) -> FloatArray:
            psi = self.psi_at(treatments)
            return np.asarray(np.einsum("ij,ij->i", theta[rows], psi[:, :-1]) + psi[:, -1])

        noise = 4e-15 * (
            np.einsum("ij,ij->i", np.abs(theta), np.abs(psi[:, :-1])) + np.abs(psi[:, -1])
        )
        return Hills(value, self.space.allowed, self.space.bounds, self.spacing, noise)


def _is_searched(basis: Basis) -> bool:
    return basis.terms != ("arms",)


def _edges_of_rules(space: TreatmentSpace, rules: Sequence[Rule]) -> list[FloatArray]:
    """Return the last treatments before those that units need eligibility for, corners of several rules included: often the best
    that a unit may get.
    """
    found = np.empty((0, len(space.dimensions)))
    for rule in rules:
        if isinstance(rule, Restriction):
            found = np.vstack([found, _edges(space, rule.leaves(space), found)])
    return list(found)


def _edges(
    space: TreatmentSpace,
    allowed: Callable[[FloatArray], BoolArray],
    further: FloatArray | None = None,
) -> FloatArray:
    """Return the last allowed treatments between each allowed candidate and its neighbours that are not, along continuous axes.

    ``further`` : (m, d) more treatments to start from.
    """
    edges = [np.empty((0, len(space.dimensions)))]
    inside = (
        (space.candidates >= space.bounds[:, 0]) & (space.candidates <= space.bounds[:, 1])
    ).all(axis=1)
    candidates = (
        space.candidates[inside]
        if further is None
        else np.vstack([space.candidates[inside], further])
    )
    candidates = candidates[allowed(candidates)]
    for axis in np.flatnonzero(space.continuous):
        for sign in (1.0, -1.0):
            far = candidates.copy()
            far[:, axis] = np.clip(far[:, axis] + sign * space.spacing[axis], *space.bounds[axis])
            cut = ~allowed(far)
            near, far = candidates[cut].copy(), far[cut]
            for _ in range(_HALVINGS):
                middle = (near + far) / 2
                open_ = allowed(middle)[:, None]
                near, far = np.where(open_, middle, near), np.where(open_, far, middle)
            edges.append(near)
    return np.unique(np.vstack(edges), axis=0)


def _with(candidates: FloatArray, extra: Iterable[FloatArray]) -> FloatArray:
    for treatment in extra:
        if not _same(candidates, treatment).any():
            candidates = np.vstack([candidates, treatment])
    return candidates


def _same(candidates: FloatArray, treatment: FloatArray) -> BoolArray:
    return np.asarray(
        (np.abs(candidates - treatment) <= 1e-12 * np.maximum(1.0, np.abs(treatment))).all(axis=1)
    )
