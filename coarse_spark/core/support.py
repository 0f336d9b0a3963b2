"""The treatments that an experiment supports: some unit got something near them.

A treatment is *tried* when some unit got one near it in all dimensions together, else *untried*.
Near is told by shares of the declared ranges, so that units of measurement do not matter:

- in a numeric dimension, what lies between two observed values that are at most a twentieth of the
  range apart, and up to a hundredth of the range beyond. Random draws leave no wider gap, and 21
  levels or more are as good as a continuum; between fewer levels lies a gap, which nothing but the
  form of the basis fills;
- in a categorical dimension, the level itself;
- where the basis jumps at the control (``any``), the control's value is near to no other and no
  other to it: no smooth curve leads across. A level beside it is near up to the level itself;
- together, observed values are cut into pieces no wider than a tenth of the range (less fine in
  more than three dimensions), and some unit got a treatment of the same pieces or of pieces that
  touch them without a gap. Random draws leave no such hole by chance: a treatment has 27 of a
  thousand cells near it in three dimensions, which 200 units miss in one of 200 places.

What some unit got is tried by construction. The record is as large as the pieces and their occupied
combinations, whatever the number of units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import nextafter, prod

import numpy as np
import pandas as pd

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray
from coarse_spark.core.basis import Basis
from coarse_spark.core.observed import EDGE, ObservedTreatments
from coarse_spark.core.treatments import Categorical, TreatmentSpace

SUPPORTS = ("auto", "observed", "marked")
MOST_CELLS = 5_000  # of more occupied ones nothing is kept: each dimension is judged alone

_BINS = 100  # of a range: gaps within one are none
_GAP = 0.05  # of a range
_PIECES, _CELLS = 10, 1_000  # of a range; of all numeric dimensions
# a level that fewer units share is a random draw: others as frequent are missing by chance
_LEVEL_UNITS = 7
_ROUNDING = 1e-9  # of a range, as in ``TreatmentSpace.same``


@dataclass(frozen=True)
class Pieces:
    """The observed values of one dimension, cut into r pieces, ascending.

    Attributes
    ----------
    lows, highs : (r,) what is near a piece.
    first, last : (r,) the least and the largest value that was observed there.
    joined : (r,) whether no gap lies between a piece and the next one.
    """

    lows: tuple[float, ...]
    highs: tuple[float, ...]
    first: tuple[float, ...]
    last: tuple[float, ...]
    joined: tuple[bool, ...]

    def locate(self, values: FloatArray) -> IntArray:
        """Return the piece of values (n,), or −1 in a gap."""
        piece = np.searchsorted(self.lows, values, side="right") - 1
        near = (values <= np.array(self.highs)[piece]) | np.array(self.joined)[piece]
        return np.where((piece >= 0) & near, piece, -1)

    def gap_around(self, value: float) -> tuple[float, float]:
        """Return the ends of the gaps below and above an observed value or one in a gap."""
        below = [high for high in self.highs if high < value]
        above = [low for low in self.lows if low > value]
        return max(below, default=-np.inf), min(above, default=np.inf)


@dataclass(frozen=True)
class Support:
    """Where the experiment gave treatments.

    Attributes
    ----------
    pieces : of every dimension.
    cells : numbers of the combinations of pieces that hold a unit, ascending; None for more than
        ``MOST_CELLS``, where every dimension is judged alone.

    Examples
    --------
    >>> depth = {"kind": "continuous", "lower": 0, "upper": 20, "step": 1, "control": 0}
    >>> channel = {"kind": "categorical", "levels": ["mail", "app"], "control": "mail"}
    >>> space = TreatmentSpace.from_dict({"depth": depth, "channel": channel})
    >>> given = np.array([[0.0, 0], [10, 0], [20, 0], [0, 1], [10, 1]])
    >>> support = Support.of(given, Basis("levels + linear", space))
    >>> support.tried(np.array([[10.0, 1], [20, 1], [7, 0]]))  # combined by nobody; in a gap
    array([ True, False, False])
    """

    pieces: tuple[Pieces, ...]
    cells: tuple[int, ...] | None

    @staticmethod
    def of(treatments: FloatArray, basis: Basis) -> Support:
        """Return the support of encoded treatments (n, d) that units got."""
        bins = value_bins(treatments, basis.space)
        support = Support.cut(bins.groupby(BIN_KEY, as_index=False).agg(BIN_SUMS), basis)
        return support.with_cells(support.cells_of(treatments))

    @staticmethod
    def cut(bins: pd.DataFrame, basis: Basis) -> Support:
        """Return the pieces of all dimensions, cells unknown.

        Parameters
        ----------
        bins : of ``value_bins``, of all units together.
        basis : tells where responses jump.
        """
        jumping = {position for jump in basis.jumps for position in jump}
        return Support(
            tuple(
                _cut(
                    bins[bins["dimension"] == position].sort_values("low"),
                    basis.space,
                    position,
                    jumps=position in jumping,
                )
                for position in range(len(basis.space.dimensions))
            ),
            None,
        )

    def cells_of(self, treatments: FloatArray) -> IntArray:
        """Return the numbers of the cells of encoded treatments (n, d); −1 in a gap."""
        if not self._is_countable:
            return np.full(len(treatments), -1)
        codes = np.column_stack(
            [one.locate(column) for one, column in zip(self.pieces, treatments.T, strict=True)]
        )
        return np.where((codes >= 0).all(axis=1), codes @ self._strides, -1)

    def with_cells(self, cells: IntArray) -> Support:
        """Return the support with the cells of all units, unless they are too many."""
        cells = np.unique(cells[cells >= 0])
        kept = self._is_countable and len(cells) <= MOST_CELLS
        return Support(self.pieces, tuple(cells.tolist()) if kept else None)

    def tried(self, treatments: FloatArray) -> BoolArray:
        """Return (n,) whether some unit got something near encoded treatments (n, d)."""
        if self.cells is None:
            inside = [
                one.locate(column) >= 0
                for one, column in zip(self.pieces, treatments.T, strict=True)
            ]
            return np.asarray(np.logical_and.reduce(inside))
        return np.isin(self.cells_of(treatments), self._near)

    def observed(self, space: TreatmentSpace) -> ObservedTreatments:
        """Return what was observed of every dimension alone."""
        values = (
            one.first if isinstance(dimension, Categorical) else (one.first[0], one.last[-1])
            for dimension, one in zip(space.dimensions, self.pieces, strict=True)
        )
        return ObservedTreatments(space, tuple(values))

    def leaps(self, treatments: FloatArray, basis: Basis) -> BoolArray:
        """Return (n,) whether treatments lie in the gap beside a jump of the basis.

        They are off the control, and nearer to it than any that was tried in every dimension of
        the jump: they would get its whole effect, which was seen only beyond the gap.
        """
        control, found = basis.space.control, np.zeros(len(treatments), dtype=bool)
        for jump in basis.jumps:
            inside = (treatments[:, list(jump)] != control[list(jump)]).any(axis=1)
            for position in jump:
                low, high = self.pieces[position].gap_around(control[position])
                inside &= (low < treatments[:, position]) & (treatments[:, position] < high)
            found |= inside
        return found

    def corners(self) -> tuple[FloatArray, FloatArray]:
        """Return the least and the largest values (c, d) that were observed in occupied cells."""
        codes = self._codes(self.cells or ()).T
        first = [np.array(one.first)[code] for one, code in zip(self.pieces, codes, strict=True)]
        last = [np.array(one.last)[code] for one, code in zip(self.pieces, codes, strict=True)]
        return np.column_stack(first), np.column_stack(last)

    @property
    def _sizes(self) -> list[int]:
        return [len(one.lows) for one in self.pieces]

    @property
    def _is_countable(self) -> bool:
        return prod(self._sizes) < 2**62

    @cached_property
    def _strides(self) -> IntArray:
        return np.cumprod([1, *self._sizes[:-1]], dtype=np.int64)

    def _codes(self, cells: Sequence[int] | IntArray) -> IntArray:
        numbers = np.array(cells, dtype=np.int64)
        return np.asarray(numbers[:, None] // self._strides % np.array(self._sizes))

    @cached_property
    def _near(self) -> IntArray:
        """The occupied cells and those that touch one."""
        codes = self._codes(self.cells or ())
        for position, one in enumerate(self.pieces):
            code, joined = codes[:, position], np.array(one.joined)
            step = np.eye(len(self.pieces), dtype=np.int64)[position]
            up, down = codes[joined[code]] + step, codes[(code > 0) & joined[code - 1]] - step
            codes = np.unique(np.vstack([codes, up, down]), axis=0)
        return np.asarray(codes @ self._strides)


@dataclass(frozen=True)
class Offered:
    """Which treatments are offered, by what the experiment supports.

    Attributes
    ----------
    support : of the experiment.
    basis : of the responses.
    tried_only : whether untried treatments are not offered; else only those are not that lie in
        the gap beside a jump. A smooth basis interpolates in a gap with an error that grows with
        its width, which readers can judge; a jump would be offered there as a whole, for less than
        what was paid for it wherever it was seen.
    """

    support: Support
    basis: Basis
    tried_only: bool

    def __call__(self, treatments: FloatArray) -> BoolArray:
        """Return (n,) whether encoded treatments (n, d) are offered."""
        if self.tried_only:
            return self.support.tried(treatments)
        return ~self.support.leaps(treatments, self.basis)


def offered_space(basis: Basis, support: Support, rule: str) -> TreatmentSpace:
    """Return the space of a basis without what the rule does not offer.

    Parameters
    ----------
    basis : of the responses; one column a candidate (``arms``) is learned for tried ones alone.
    support : of the experiment.
    rule : one of ``SUPPORTS``; observed: what was tried; auto: all but the gap beside a jump;
        marked: all.
    """
    if basis.is_arms or rule == "marked" or (rule == "auto" and not basis.jumps):
        return basis.space
    return replace(basis.space, offered=Offered(support, basis, rule == "observed"))


def support_problems(basis: Basis, support: Support, rule: str) -> list[str]:
    """Return what readers should know of what is offered, in sentences; arguments as above."""
    space, sentences = basis.space, list[str]()
    if not support.tried(space.control[None, :])[0]:
        sentences.append(
            f"nobody in the experiment got the control ({space.describe(space.control)}) or "
            "anything near it: what treatments earn above it is extrapolated"
        )
    count = len(space.candidates)
    left_out = count - len(offered_space(basis, support, rule).candidates)
    if left_out:
        why = (
            "nobody in the experiment got anything near them"
            if rule == "observed"
            else f"basis '{basis.name}' jumps off the control, and they are nearer to it than what "
            "anybody in the experiment got"
        )
        sentences.append(
            f"{left_out} of {count} candidates are not offered (menu.support: {rule}): {why}"
        )
    return sentences


def tried_levels(space: TreatmentSpace) -> FloatArray:
    """Return treatments (c, d) between the candidates of a restricted space that have to be some.

    Where a dimension takes any value, its grid knows nothing of the levels that the experiment
    gave: these are treatments of their own, and so is one of every cell without a candidate.
    """
    offered, free = space.offered, space.continuous
    if not isinstance(offered, Offered) or not free.any():
        return np.empty((0, len(space.dimensions)))
    support = offered.support
    first, last = support.corners()
    wanted = (first == last).all(axis=1)
    if offered.tried_only:
        wanted |= ~np.isin(support.cells or (), support.cells_of(space.candidates))
    rows, (low, high) = first[wanted], space.bounds.T
    rows = rows[((rows >= low) & (rows <= high)).all(axis=1) & space.allowed(rows)]
    steps = np.unique(space.candidates[:, ~free], axis=0)
    slack = _ROUNDING * np.maximum(high - low, 1e-300)[~free]
    on_step = (np.abs(rows[:, None, ~free] - steps) <= slack).all(axis=2).any(axis=1)
    return np.asarray(rows[on_step])


BIN_KEY = ["dimension", "side", "bin"]
BIN_SUMS = {"low": "min", "high": "max", "units": "sum"}


def value_bins(treatments: FloatArray, space: TreatmentSpace) -> pd.DataFrame:
    """Return what encoded treatments (n, d) hold of every bin of every dimension's values.

    One row a dimension, side of the control (−1, 0, 1) and hundredth of the range: the least and
    the largest value there, ``low`` and ``high``, and the number of units. Rows of parts of the
    units add up: grouped by ``BIN_KEY``, aggregated by ``BIN_SUMS``.
    """
    frames = []
    for position, dimension in enumerate(space.dimensions):
        values = treatments[:, position]
        if isinstance(dimension, Categorical):
            side, numbers = np.zeros(len(values)), values
        else:
            low, high = space.bounds[position]
            side = np.sign(values - space.control[position])
            numbers = np.clip(np.floor((values - low) / (high - low) * _BINS), -1, _BINS)
        frame = pd.DataFrame(
            {"dimension": position, "side": side, "bin": numbers, "low": values, "high": values}
        ).assign(units=1)
        frames.append(frame.groupby(BIN_KEY, as_index=False).agg(BIN_SUMS))
    return pd.concat(frames, ignore_index=True)


def _cut(rows: pd.DataFrame, space: TreatmentSpace, position: int, *, jumps: bool) -> Pieces:
    """Cut the bins of one dimension, ascending, into pieces."""
    low, high, units, side = (rows[name].to_numpy() for name in ("low", "high", "units", "side"))
    if isinstance(space.dimensions[position], Categorical):
        codes = tuple(low.tolist())
        return Pieces(codes, codes, codes, codes, (False,) * len(codes))
    numeric = sum(not isinstance(d, Categorical) for d in space.dimensions)
    control, (bottom, top) = float(space.control[position]), space.bounds[position]
    width = float(top - bottom)
    widest = width / min(_PIECES, max(int(_CELLS ** (1 / numeric) + 1e-9), 2))
    starts, joined = [0], list[bool]()
    for row in range(1, len(low)):
        gap = low[row] - high[row - 1] > _GAP * width or (jumps and side[row] != side[row - 1])
        if gap or high[row] - low[starts[-1]] > widest:
            starts.append(row)
            joined.append(not gap)
    ends = [row - 1 for row in starts[1:]] + [len(low) - 1]
    joined.append(False)

    def end(row: int, way: int) -> float:
        """Return how far what is near reaches below (−1) or above (1) the bins up to ``row``."""
        value, beside = float((low if way < 0 else high)[row]), row + way
        if jumps and side[row] == 0:
            return value
        faces = side[row] == -way and (not 0 <= beside < len(low) or side[beside] != side[row])
        if not (jumps and faces):
            return value + way * EDGE * width
        is_level = low[row] == high[row] and units[row] >= _LEVEL_UNITS
        reached = value + way * (_ROUNDING if is_level else EDGE) * width
        short = nextafter(control, -way * np.inf)
        return max(reached, short) if way < 0 else min(reached, short)

    first, last = low[starts].tolist(), high[ends].tolist()
    lows = [
        first[piece] if piece and joined[piece - 1] else end(row, -1)
        for piece, row in enumerate(starts)
    ]
    highs = [last[piece] if joined[piece] else end(row, 1) for piece, row in enumerate(ends)]
    return Pieces(*map(tuple, (lows, highs, first, last, joined)))
