"""Populations: whatever answers five questions about its units, such as ``ArrayPopulation``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from coarse_spark.core.additive import Additive, Flat
from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray, numbers, relative
from coarse_spark.core.menu.menu import Menu, PricedMenu
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.problem.rules import TieBreak
from coarse_spark.core.menu.sketch import Sketch, SketchTree
from coarse_spark.core.menu.units import (
    KnownUnits,
    SegmentSums,
    WeightedUnits,
    content_order,
    preferred,
    segment_sums,
)
from coarse_spark.core.profit import ProfitCoefficients
from coarse_spark.errors import InvalidInputError

SAMPLE_UNITS = 40_000  # that prices of limits are found on
BOUNDARY_UNITS = 100_000  # that are looked at one by one
_TREE_ROWS = 100_000  # that place the cuts of a sketch
_GOLDEN = (5**0.5 - 1) / 2  # its multiples are spread evenly over [0, 1), however many there are

Records = Callable[[FloatArray, FloatArray], Mapping[str, Additive]]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PopulationSize:
    """How many units with weight there are, and their least and largest weight."""

    units: int
    lightest: float
    heaviest: float

    @property
    def even(self) -> bool:
        """Whether all units weigh the same, so that shares are whole numbers of units."""
        return self.heaviest - self.lightest <= 1e-12 * self.heaviest


@dataclass(frozen=True, eq=False)
class Boundary:
    """Units near indifference at a menu's prices.

    Attributes
    ----------
    units : those with weight.
    taken : (m,) their treatment at these prices.
    reach : they are all units that prefer it to the next best by less than this.
    ids : (m,) who they are.
    """

    units: WeightedUnits
    taken: IntArray
    reach: float
    ids: npt.NDArray[Any]

    @staticmethod
    def none(coefficients: int) -> Boundary:
        """Return no units."""
        nobody = WeightedUnits.of(np.empty((0, coefficients)), np.empty(0))
        return Boundary(nobody, np.empty(0, dtype=np.intp), 0.0, np.empty(0, dtype=np.intp))


class Population(Protocol):
    """Units with response coefficients and weights, wherever they are.

    ``problem`` is what menus for them are chosen from, with the rules that the coefficients know.
    At most about ``sample_units`` and ``boundary_units`` of them come into one process.
    """

    @property
    def problem(self) -> MenuProblem:
        """What menus are chosen from."""

    @property
    def boundary_units(self) -> int:
        """How many units can be looked at one by one."""

    def told_apart(self) -> Self:
        """Return the population with a tie-break: limits can then divide units alike."""

    def size(self) -> PopulationSize:
        """Return the number of units with weight, and the range of weights."""

    def sample(self) -> WeightedUnits:
        """Return units that stand for all: all of few, else about ``sample_units``."""

    def sketch(self, cells: int) -> Sketch:
        """Return the population as at most so many weighted units."""

    def sums(
        self, menus: Mapping[int, PricedMenu], further: Records | None = None
    ) -> tuple[dict[int, SegmentSums], dict[str, Flat]]:
        """Return the segment sums of menus, by any key, in one read of the population.

        ``further`` makes further records, by name, of units (n, p) with weights (n,).
        """

    def boundary(self, menus: Mapping[int, tuple[PricedMenu, float]]) -> dict[int, Boundary]:
        """Return the units within a reach of indifference, or a smaller one, for every menu."""


@dataclass(frozen=True, eq=False)
class ArrayPopulation:
    """Units in memory.

    Attributes
    ----------
    problem : with the rules that the coefficients know.
    theta : (n, p) coefficients, those of rules after those of the basis.
    weights : (n,).
    sample_units : that prices of limits are found on.
    boundary_units : that are looked at one by one.
    """

    problem: MenuProblem
    theta: FloatArray
    weights: FloatArray
    sample_units: int = SAMPLE_UNITS
    boundary_units: int = BOUNDARY_UNITS

    def told_apart(self) -> ArrayPopulation:
        """Return the population with a tie-break, where not all units can be looked at one by one.

        Numbers follow the order of contents, not of rows: units alike get numbers spread over [0,
        1).
        """
        if len(self.theta) <= self.boundary_units:
            return self
        number = np.empty(len(self.theta))
        number[self._order] = np.arange(len(self.theta)) * _GOLDEN % 1.0
        problem = self.problem.with_rules([TieBreak()])
        return replace(self, problem=problem, theta=np.column_stack([self.theta, number]))

    def size(self) -> PopulationSize:
        """Return the number of units and the range of weights."""
        held = self.weights[self.weights > 0]
        return PopulationSize(len(held), float(held.min()), float(held.max()))

    def sample(self) -> WeightedUnits:
        """Return all of few units, else every so many-th in the order of contents."""
        return self._sampled(self.sample_units)

    def sketch(self, cells: int) -> Sketch:
        """Return the sketch: few units are their own cells, of more all are summed."""
        if len(self.theta) <= cells:
            return Sketch.of_units(self.theta, self.weights)
        tree = SketchTree.build(self._sampled(_TREE_ROWS), self.problem.psi, cells)
        routed = tree.cells(self.theta)
        return Sketch.of_cells(tree, SegmentSums.of(routed, self.theta, self.weights, tree.count))

    def sums(
        self, menus: Mapping[int, PricedMenu], further: Records | None = None
    ) -> tuple[dict[int, SegmentSums], dict[str, Flat]]:
        """Return the segment sums of menus, and the records of ``further``."""
        rows = {k: menu.priced_psi for k, menu in menus.items()}
        more = {} if further is None else further(self.theta, self.weights)
        flat = {name: record.flat() for name, record in more.items()}
        return segment_sums(self.theta, self.weights, rows), flat

    def boundary(self, menus: Mapping[int, tuple[PricedMenu, float]]) -> dict[int, Boundary]:
        """Return the units within reach of indifference, who they are by row."""
        found = {}
        for k, (menu, reach) in menus.items():
            taken, gap = preferred(self.theta, menu.priced_psi)
            rows = np.flatnonzero(((gap < reach) | np.isinf(reach)) & (self.weights > 0))
            units = WeightedUnits.of(self.theta[rows], self.weights[rows])
            found[k] = Boundary(units, taken[rows], reach, rows)
        return found

    @property
    def _order(self) -> IntArray:
        return content_order(self.theta, self.weights)

    def _sampled(self, most: int) -> WeightedUnits:
        if len(self.theta) <= most:
            return WeightedUnits.of(self.theta, self.weights)
        # in the order of contents, not of rows: the sample does not depend on the order of rows
        rows = self._order[:: -(-len(self.theta) // most)]
        return WeightedUnits.of(self.theta[rows], self.weights[rows])


@dataclass(frozen=True, eq=False)
class EarlierTreatments:
    """Which treatment of an earlier menu units have.

    Attributes
    ----------
    menu : the earlier one.
    known : its row for the units that are known; others have what the menu assigns to them.
    of_profit : what coefficients of these units are.
    """

    menu: Menu
    known: KnownUnits | None
    of_profit: ProfitCoefficients

    def __call__(self, theta: FloatArray) -> IntArray:
        """Return the earlier row (n,) of units with coefficients (n, p) of profit.

        Raises
        ------
        InvalidInputError : the earlier menu would have to assign units by other coefficients.
        """
        if self.known is None:
            return self.menu.assign_known(theta)
        rows = self.known.look_up(theta)
        others = rows < 0
        if others.any():
            self.require_alike()
            rows[others] = self.menu.assign_known(theta[others])
        return rows

    def require_alike(self) -> None:
        """Raise InvalidInputError where the earlier menu is of other coefficients."""
        if self.menu.of_profit != self.of_profit:
            raise InvalidInputError(
                "previous_menu was chosen with a profit of other outcomes or columns of the units; "
                "give previous_rows, the row of it that each unit has"
            )


def validated_units(
    problem: MenuProblem,
    theta: npt.ArrayLike | pd.DataFrame | Mapping[str, npt.ArrayLike],
    weights: npt.ArrayLike | None,
    invalid: str = "raise",
    columns: pd.DataFrame | None = None,
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Return coefficients (m, p), ``relative`` weights (m,), and which rows (n,) have weight.

    The coefficients are those that profit is linear in, without those of rules.

    Parameters
    ----------
    theta : (n, ·) coefficients of the basis, for each outcome.
    weights : (n,), default 1.
    columns : n rows with the columns of the units that profit speaks of.
    invalid : "raise" refuses missing or infinite numbers, "drop" leaves their rows out and logs how
        many they are.

    Raises
    ------
    InvalidInputError : another shape, a missing or infinite number, a negative weight, or no weight
        at all.
    """
    if invalid not in ("raise", "drop"):
        raise InvalidInputError(f"invalid is {invalid!r}, expected 'raise' or 'drop'")
    of_profit = problem.of_profit
    units = of_profit.side_by_side(theta)
    mass = np.ones(len(units)) if weights is None else numbers(weights, "weights", largest=inf)
    p = of_profit.responses
    if units.ndim != 2 or units.shape[1] != p:
        raise InvalidInputError(
            f"theta has shape {units.shape}, expected (n, {p}) for basis '{problem.basis.name}'"
            f" with columns {', '.join(problem.basis.columns[:8])}"
        )
    if mass.shape != (len(units),):
        raise InvalidInputError(f"weights have shape {mass.shape}, expected ({len(units)},)")
    numbers_of = of_profit.columns(columns, len(units))
    if invalid == "raise":
        of_profit.factor_values(numbers_of)
    factors = of_profit.factors_of(numbers_of)
    whole = np.isfinite(np.hstack([units, numbers_of, factors])).all(axis=1) & np.isfinite(mass)
    if not whole.all():
        broken = np.flatnonzero(~whole)
        shown = ", ".join(map(str, broken[:5])) + (", …" if broken.size > 5 else "")
        what = "missing or infinite coefficients or weights"
        if of_profit.factors:
            what = "missing or infinite coefficients, weights or numbers of profit"
        if invalid == "raise":
            raise InvalidInputError(
                f"{broken.size} of {len(units)} units have {what}: rows {shown}; "
                "mend them, or leave them out with invalid='drop'"
            )
        text = "%d of %d units left out: %s in rows %s"
        log.warning(text, broken.size, len(units), what, shown)
    if (mass[whole] < 0).any():
        raise InvalidInputError(
            f"{int((mass < 0).sum())} weights are negative, the first in row "
            f"{int((mass < 0).argmax())}"
        )
    mass = relative(np.where(whole, mass, 0.0))
    kept = mass > 0
    if not kept.any():
        raise InvalidInputError(
            f"no unit has weight: theta has {len(units)} rows, {int(whole.sum())} of them with "
            "finite numbers"
        )
    return of_profit.extended(units[kept], factors[kept]), mass[kept], kept


def required_treatments(
    problem: MenuProblem, always_offer: Iterable[Mapping[str, Any]] | pd.DataFrame | None
) -> FloatArray:
    """Return the treatments that every menu holds, encoded (f, d).

    Raises
    ------
    InvalidInputError : a treatment outside the space, excluded, or named twice.
    """
    space = problem.space
    if isinstance(always_offer, pd.DataFrame):
        frame = always_offer
    else:
        rows = list(always_offer or ())
        if isinstance(always_offer, Mapping) or not all(isinstance(row, Mapping) for row in rows):
            raise InvalidInputError(
                "always_offer is no list of mappings of treatments to values, such as "
                f"[{{'{space.names[0]}': ...}}]"
            )
        frame = pd.DataFrame(rows)
    if frame.empty:
        return np.empty((0, len(space.dimensions)))
    encoded = space.encode(frame)
    for row, treatment in enumerate(encoded):
        if not may_be_offered(problem, treatment):
            raise InvalidInputError(
                f"always_offer: {space.describe(treatment)} is not a treatment of the space"
            )
        if space.same(encoded[:row], treatment).any():
            raise InvalidInputError(f"always_offer: {space.describe(treatment)} is named twice")
    return encoded


def may_be_offered(problem: MenuProblem, treatment: FloatArray) -> bool:
    """Return whether an encoded treatment (d,) is a candidate, or lies between candidates."""
    space, free = problem.space, problem.searched
    if problem.position(treatment) is not None:
        return True
    if not free.any() or not np.isfinite(treatment).all():
        return False
    low, high = space.bounds.T
    stepped = problem.candidates[:, ~free]
    apart = np.abs(stepped - treatment[~free]) / space.widths[~free]
    on_step = (apart <= 1e-9).all(axis=1).any()
    inside = ((treatment >= low) & (treatment <= high)).all()
    return bool(inside and on_step and space.allowed(treatment[None, :])[0])
