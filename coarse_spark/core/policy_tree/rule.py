"""A rule: which units get which treatment, as conditions on features that people can read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np
import numpy.typing as npt
import pandas as pd

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray
from coarse_spark.core.policy_tree.cells import Cells, as_numbers, as_texts, roundest
from coarse_spark.core.policy_tree.search import Node, grow
from coarse_spark.errors import InvalidInputError, nearest
from coarse_spark.text import counted

MIN_SHARE = 0.01  # least share of the weight that a leaf serves
_WORTH = 1e-3  # what a split has to earn, of what differs between treatments


@dataclass(frozen=True)
class NumberCondition:
    """A number lies above ``low`` (None: has no lower end), and up to ``high``.

    Without ends it holds for all numbers that are known; where low ≥ high for none of them.

    Attributes
    ----------
    low, high : ends.
    missing : whether it holds where the number is missing, null or NaN.
    """

    low: float | None
    high: float | None
    missing: bool

    @property
    def missing_alone(self) -> bool:
        """Whether it holds where the number is missing, and for no number."""
        ends = self.low is not None and self.high is not None and self.low >= self.high
        return self.missing and ends

    def holds(self, values: pd.Series) -> BoolArray:
        """Return for which values (n,) it holds."""
        numbers = as_numbers(values)
        known = ~np.isnan(numbers)
        inside = known.copy()
        if self.low is not None:
            inside &= numbers > self.low
        if self.high is not None:
            inside &= numbers <= self.high
        return np.where(known, inside, self.missing)

    def and_(self, other: NumberCondition) -> NumberCondition:
        """Return the condition that both hold."""
        lows = [end for end in (self.low, other.low) if end is not None]
        highs = [end for end in (self.high, other.high) if end is not None]
        missing = self.missing and other.missing
        return NumberCondition(max(lows, default=None), min(highs, default=None), missing)

    def words(self, name: str, *, gaps: bool) -> str:
        """Return it in words; ``gaps`` tells whether values may be missing."""
        if self.missing_alone:
            return f"{name} is missing"
        if self.low is None and self.high is None:
            return f"{name} is not missing"
        high = None if self.high is None else number_text(self.high)
        text = f"{name} <= {high}"
        if self.low is not None:
            low = number_text(self.low)
            text = f"{name} > {low}" if high is None else f"{low} < {name} <= {high}"
        return f"{text} or missing" if self.missing and gaps else text


@dataclass(frozen=True)
class LevelCondition:
    """A text is one of ``levels``, or none of them.

    Attributes
    ----------
    levels : ascending.
    listed : whether it has to be one of them; otherwise it holds for all others, seen or not.
    missing : whether it holds where the text is missing.
    """

    levels: tuple[str, ...]
    listed: bool
    missing: bool

    def holds(self, values: pd.Series) -> BoolArray:
        """Return for which values (n,) it holds."""
        missing = values.isna().to_numpy(dtype=bool)
        found = as_texts(values).isin(self.levels).to_numpy() == self.listed
        return np.where(missing, self.missing, found)

    def and_(self, other: LevelCondition) -> LevelCondition:
        """Return the condition that both hold."""
        first, second = set(self.levels), set(other.levels)
        if self.listed and other.listed:
            levels = first & second
        elif self.listed:
            levels = first - second
        else:
            levels = second - first if other.listed else first | second
        listed, missing = self.listed or other.listed, self.missing and other.missing
        return LevelCondition(tuple(sorted(levels)), listed, missing)

    def words(self, name: str, *, gaps: bool) -> str:
        """Return it in words; ``gaps`` tells whether values may be missing."""
        if not self.levels:
            return f"{name} is missing" if self.listed else f"{name} is not missing"
        *most, last = self.levels
        joined = f"{', '.join(most)} or {last}" if most else last
        text = f"{name} is {joined}" if self.listed else f"{name} is not {joined}"
        return f"{text} or missing" if self.missing and gaps else text


Condition = NumberCondition | LevelCondition


def number_text(value: float) -> str:
    """Return a number with its own digits, never as 1e-05.

    Examples
    --------
    >>> number_text(40.0), number_text(1e-05), number_text(-2.5)
    ('40', '0.00001', '-2.5')
    """
    text = f"{Decimal(repr(float(value))):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass(frozen=True)
class Leaf:
    """Units that a rule treats alike.

    Attributes
    ----------
    conditions : by feature; all hold. None: every unit.
    treatment : position on the menu.
    share : of the weight that the rule was fitted on.
    earned : what it earned there per unit weight of the leaf.
    """

    conditions: Mapping[str, Condition]
    treatment: int
    share: float
    earned: float


@dataclass(frozen=True)
class AssignmentRule:
    """Who gets which treatment of a menu, by features alone.

    Every unit is in exactly one leaf, one with missing values or unseen levels too. Units that may
    not get the treatment of their leaf get the first one of ``order`` that they may get.

    Attributes
    ----------
    leaves : by treatment.
    requires : by treatment, the boolean columns that have to be true of a unit that gets it.
    order : all treatments.
    gaps : features of which values were missing when the rule was fitted.
    lost : what it earns less than the best treatment of each unit, per unit weight, plug-in.
    """

    leaves: tuple[Leaf, ...]
    requires: tuple[tuple[str, ...], ...] = ()
    order: tuple[int, ...] = ()
    gaps: tuple[str, ...] = ()
    lost: float = 0.0

    @property
    def usual(self) -> int:
        """The treatment of the largest share."""
        shares = np.zeros(1 + max(leaf.treatment for leaf in self.leaves))
        for leaf in self.leaves:
            shares[leaf.treatment] += leaf.share
        return int(shares.argmax())

    @property
    def features(self) -> tuple[str, ...]:
        """The features that it asks for, in the order in which it does."""
        return tuple(dict.fromkeys(name for leaf in self.leaves for name in leaf.conditions))

    def choices(self, treatment: int) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Yield what units of a leaf with a treatment get in turn, with the columns it requires.

        The last one requires none, unless every treatment does.
        """
        for choice in (treatment, *(k for k in self.order if k != treatment)):
            required = self.requires[choice] if self.requires else ()
            yield choice, required
            if not required:
                return

    def assign(
        self, features: pd.DataFrame, eligible: Mapping[str, npt.ArrayLike] | None = None
    ) -> IntArray:
        """Return the treatment (n,) of every unit, −1 where it may get none.

        Parameters
        ----------
        features : (n, ·) the columns that the rule names; others do not matter.
        eligible : the boolean columns that treatments require (n,).

        Raises
        ------
        InvalidInputError : a column is missing.
        """
        given = {} if eligible is None else eligible
        for kind, names, known in (
            ("feature", self.features, list(features.columns)),
            ("eligible", {name for one in self.requires for name in one}, list(given)),
        ):
            for name in names:
                if name not in known:
                    raise InvalidInputError(f"{kind} '{name}' is missing{nearest(name, known)}")
        chosen = np.full(len(features), -1, dtype=np.intp)
        for leaf in self.leaves:
            open_ = np.ones(len(features), dtype=bool)
            for name, condition in leaf.conditions.items():
                open_ &= condition.holds(features[name])
            for treatment, required in self.choices(leaf.treatment):
                may = open_.copy()
                for name in required:
                    may &= np.asarray(given[name], dtype=bool)
                chosen[may] = treatment
                open_ &= ~may
        return chosen

    def words(self, leaf: Leaf) -> str:
        """Return the conditions of a leaf in words."""
        texts = [
            condition.words(name, gaps=name in self.gaps)
            for name, condition in leaf.conditions.items()
        ]
        if len(texts) > 1:
            texts = [f"({text})" if text.endswith(" or missing") else text for text in texts]
        return " and ".join(texts) or "everyone"


@dataclass(frozen=True, eq=False)
class _Features:
    """Features with their cells, for the words of a tree that was grown on them."""

    frame: pd.DataFrame
    names: tuple[str, ...]
    cells: tuple[Cells, ...] = field(repr=False)

    @staticmethod
    def of(frame: pd.DataFrame) -> _Features:
        names = tuple(map(str, frame.columns))
        return _Features(frame, names, tuple(Cells.of(frame[name]) for name in frame.columns))

    def sides(self, node: Node) -> tuple[Condition, Condition]:
        """Return the conditions of the two children of a node."""
        cells, mask = self.cells[node.feature], node.mask
        missing = bool(mask[-1])
        if cells.edges is None:
            levels = tuple(level for level, held in zip(cells.levels, mask, strict=False) if held)
            return (
                LevelCondition(levels, listed=True, missing=missing),
                LevelCondition(levels, listed=False, missing=not missing),
            )
        if not mask[:-1].any():
            return (
                NumberCondition(0.0, 0.0, missing=True),
                NumberCondition(None, None, missing=False),
            )
        edge = cells.edges[int(mask[:-1].sum()) - 1]
        numbers = as_numbers(self.frame[self.names[node.feature]])
        # the node's own units leave more room for a round number than all units do
        own = numbers[node.rows]
        low = np.max(own, where=own <= edge, initial=-np.inf)
        high = np.min(own, where=own > edge, initial=np.inf)
        if not (own <= edge).any():  # missing values alone
            low = edge
        if not (own > edge).any():
            high = numbers[numbers > edge].min()
        limit = roundest(*_finite(float(low), float(high)))
        return (
            NumberCondition(None, limit, missing=missing),
            NumberCondition(limit, None, missing=not missing),
        )


def _finite(low: float, high: float) -> tuple[float, float]:
    """Return ends between which a split lies as between these, which may be infinite."""
    if np.isinf(low) and np.isinf(high):
        return -1.0, 1.0
    if np.isinf(low):
        return high - max(abs(high), 1.0), high
    return low, low + max(abs(low), 1.0) if np.isinf(high) else high


def fit_rule(
    features: pd.DataFrame,
    profits: FloatArray,
    weights: FloatArray,
    *,
    depth: int,
    min_share: float = MIN_SHARE,
) -> AssignmentRule:
    """Return the rule of a tree that earns most.

    Splits that earn less than a thousandth of what the choice of treatments is worth are left out:
    every one of them is a condition to read.

    Parameters
    ----------
    features : (n, ·) numbers, booleans and texts, with missing values.
    profits : (n, K) of every unit under each treatment.
    weights : (n,).
    depth : most conditions between all units and a leaf.
    min_share : least share of the weight in a leaf.

    Raises
    ------
    InvalidInputError : weights whose sum is not above 0.

    Examples
    --------
    >>> features = pd.DataFrame({"age": [20.0, 30.0, 50.0, 60.0]})
    >>> rule = fit_rule(features, np.eye(2)[[0, 0, 1, 1]], np.ones(4), depth=1)
    >>> [(rule.words(leaf), leaf.treatment) for leaf in rule.leaves]
    [('age <= 40', 0), ('age > 40', 1)]
    """
    total = float(weights.sum())
    if not total > 0:
        raise InvalidInputError(
            f"weights: found a sum of {total:g} over {counted(len(weights), 'unit')}, "
            "expected some units that count"
        )
    known, best = _Features.of(features), profits.max(axis=1)
    regret = best[:, None] - profits  # sums of small numbers keep their digits
    worth = float((weights @ regret).min())
    tree = grow(
        known.cells,
        -regret,
        weights,
        depth=depth,
        min_share=min_share,
        min_gain=_WORTH * worth,
    )
    leaves: list[Leaf] = []

    def visit(node: Node, path: Mapping[str, Condition]) -> None:
        if not node.children:
            weight = weights[node.rows]
            share, earned = float(weight.sum()), float(weight @ profits[node.rows, node.treatment])
            leaves.append(Leaf(path, node.treatment, share / total, earned / share))
            return
        name = known.names[node.feature]
        for child, side in zip(node.children, known.sides(node), strict=True):
            # one feature is of one kind
            both = path[name].and_(side) if name in path else side  # type: ignore[arg-type]
            visit(child, {**path, name: both})

    visit(tree, {})
    leaves.sort(key=lambda leaf: leaf.treatment)
    gaps = [name for name, cells in zip(known.names, known.cells, strict=True) if cells.gaps]
    return AssignmentRule(tuple(leaves), gaps=tuple(gaps), lost=-tree.value / total)


def told_of(rule: AssignmentRule, treatments: Sequence[int]) -> list[str]:
    """Return in words who gets each of the treatments by a rule, if anyone."""
    told = []
    for treatment in treatments:
        own = [rule.words(leaf) for leaf in rule.leaves if leaf.treatment == treatment]
        texts = [f"({text})" if len(own) > 1 and " and " in text else text for text in own]
        told.append(" or ".join(texts) or "nobody")
    return told
