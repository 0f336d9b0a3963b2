"""Features cut into cells, and the splits of units that the cells allow.

A number is cut at quantiles, a text into its levels. Missing values are a cell of their own, and so
are levels that are too rare to be named, together with those that were never seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, localcontext
from itertools import combinations

import numpy as np
import pandas as pd

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray

_BINS = 64  # of a number
_LEVELS = 30  # of a text, the most frequent ones
_PAIRED = 8  # treatments; of a hundred there are 4,950 pairs
_SINGLE = 1e38  # numbers of single precision are smaller


@dataclass(frozen=True, eq=False)
class Cells:
    """One feature of n units, cut into m cells, the last of which holds missing values.

    Attributes
    ----------
    codes : (n,) cell of each unit.
    count : m.
    edges : (m − 2,) of a number: the largest value of every cell but the highest; None of a text.
    levels : of a text: those with cells of their own, before the one of all other levels.
    others : whether any unit has another level.
    gaps : whether any value is missing.
    """

    codes: IntArray
    count: int
    edges: FloatArray | None = None
    levels: tuple[str, ...] = ()
    others: bool = False
    gaps: bool = False

    @staticmethod
    def of(values: pd.Series) -> Cells:
        """Cut one feature (n,), whose null and NaN are missing."""
        missing = values.isna().to_numpy(dtype=bool)
        if is_number(values):
            numbers = as_numbers(values)
            known = np.unique(numbers[~missing])
            edges, largest = known[:-1], known[-1:]
            if len(known) > _BINS:
                shares = np.arange(1, _BINS) / _BINS
                edges = np.unique(np.quantile(numbers[~missing], shares, method="lower"))
                edges = np.asarray(edges[edges < largest], dtype=np.float64)
            codes = np.searchsorted(edges, numbers, side="left")
            codes[missing] = len(edges) + 1
            return Cells(codes, len(edges) + 2, edges=edges, gaps=bool(missing.any()))
        texts = as_texts(values[~missing])
        counts = texts.value_counts()
        # of equally frequent levels always the same ones, whatever the order of rows
        order = np.lexsort([counts.index.to_numpy().astype(str), -counts.to_numpy()])
        levels = tuple(sorted(counts.index[order[:_LEVELS]]))
        named = pd.Categorical(texts, categories=list(levels)).codes.astype(np.intp)
        codes = np.full(len(values), len(levels) + 1, dtype=np.intp)
        codes[~missing] = np.where(named < 0, len(levels), named)
        others = len(counts) > len(levels)
        return Cells(codes, len(levels) + 2, None, levels, others, bool(missing.any()))

    def splits(self, earned: FloatArray) -> BoolArray:
        """Return the splits to be compared as masks (s, m) of the cells on the first side.

        Of a number: missing values against all others, and every edge with missing values on
        either side, or above where none are. Of a text: every level against the others, and for
        each pair of treatments (of the eight that earn most) the levels on which the one earns
        more, among which is the best of all splits into two leaves with these. Levels that are not
        named go with the second side.

        Parameters
        ----------
        earned : (m, K) profit of the units of every cell under each treatment.
        """
        if self.edges is not None:
            below = np.tri(len(self.edges), self.count, dtype=bool)
            if not self.gaps:
                return below
            with_missing = below.copy()
            with_missing[:, -1] = True
            # first, as of splits that earn the same the first one is taken
            return np.vstack([np.eye(self.count, dtype=bool)[-1:], below, with_missing])
        single = np.eye(self.count, dtype=bool)[: len(self.levels)]
        most = np.argsort(-earned.sum(axis=0), kind="stable")[:_PAIRED]
        pairs = combinations(sorted(most.tolist()), 2)
        better = [earned[:, a] > earned[:, b] for a, b in pairs]
        masks = np.vstack([single, *better]) if better else single
        if self.gaps:
            alone = np.zeros((1, self.count), dtype=bool)
            alone[0, -1] = True
            masks = np.vstack([masks, alone])
        rest = len(self.levels)
        # without levels that are not named, the shorter list is the one to read
        longer = masks[:, :rest].sum(axis=1) > rest / 2
        turned = masks[:, rest] if self.others else longer
        masks = masks ^ turned[:, None]
        masks[:, rest] = False
        if not self.gaps:
            masks[:, -1] = False
        return np.asarray(np.unique(masks, axis=0))


def is_number(values: pd.Series) -> bool:
    """Return whether a feature is a number; booleans are levels, as they are in SQL."""
    kinds = pd.api.types
    return kinds.is_numeric_dtype(values) and not kinds.is_bool_dtype(values)


def as_numbers(values: pd.Series) -> FloatArray:
    """Return a feature that is a number as (n,) floats, NaN where it is missing."""
    return values.to_numpy(np.float64, na_value=np.nan)


def as_texts(values: pd.Series) -> pd.Series:
    """Return the levels of a feature as texts; booleans as true and false, as SQL writes them."""
    texts = values.astype(str)
    return texts.str.lower() if pd.api.types.is_bool_dtype(values) else texts


def roundest(low: float, high: float) -> float:
    """Return the number t with low ≤ t < high that is written with the fewest digits.

    ``value <= t`` then splits like ``value <= low`` whatever lies at or beyond these. Where both
    are of single precision their column may be so too, and an engine that compares it with t in
    single precision shall not find the 0.15000000596 that stands there for 0.15 to be at most 0.15:
    t is a number that single precision does not round up.

    Parameters
    ----------
    low, high : finite, low < high.

    Examples
    --------
    >>> roundest(38.2, 41.7), roundest(0.12345, 0.12371), roundest(-1.5, 2.0)
    (40.0, 0.1235, 0.0)
    """
    if low <= 0 < high:
        return 0.0
    single = abs(low) < _SINGLE > abs(high) and _single(low) == low and _single(high) == high
    with localcontext(prec=60):
        ends = Decimal(repr(low)), Decimal(repr(high))
        middle = (ends[0] + ends[1]) / 2
        magnitude = max(abs(end) for end in ends).adjusted() + 1
        for exponent in range(magnitude, magnitude - 20, -1):
            for digits in (10, 5, 2):
                step = Decimal(digits).scaleb(exponent - 1)
                below = middle // step if middle > 0 else -(-middle // step) - 1
                for steps in (below, below + 1):
                    found = float(steps * step)
                    if low <= found < high and not (single and _single(found) > found):
                        return found
    return low  # neighbours among the numbers of the machine


def _single(value: float) -> float:
    return float(np.float32(value))
