"""Features as numbers: splines of numeric ones, one column a level of categorical ones.

Every column but the first (the constant) is centred on the rows it was fitted on, and a missing or
unknown value is the centre: what is not known about a unit moves its response nowhere, beyond what
a missing indicator learns.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from coarse_spark.core.arrays import FloatArray, IntArray, named
from coarse_spark.errors import InvalidInputError, nearest

_CLAMP = 0.001  # share of the rows beyond which a numeric feature is clamped on either side
_SMALLEST_RATIO = 1e-300
_FAR = 7.0  # median absolute deviations from the median: 4.7 standard deviations of a normal one
_OTHER = "other"
_NUMBERS = numbers.Real | Decimal | np.bool_
_BLOCK_ROWS = 2_048  # encoded at once: few enough for the cache, many enough for numpy


@dataclass(frozen=True)
class NumericFeature:
    """A numeric feature: its standardized value, hinges at the knots and a missing indicator.

    All columns but the indicator share one scale: the feature's spread between the clamps. Values
    further than ``reach`` from the ``middle`` count by the logarithm of what is beyond: a heavy
    tail, or a code such as −999 for what is missing, would leave nothing of that scale to all
    others. ``reach`` is None where nothing is far.
    """

    name: str
    lower: float
    upper: float
    center: float
    scale: float
    knots: tuple[float, ...]
    hinge_means: tuple[float, ...]
    missing_share: float
    middle: float = 0.0
    reach: float | None = None

    @staticmethod
    def fit(name: str, values: FloatArray, weight: FloatArray, knots: int) -> NumericFeature | None:
        """Return the encoding, or None for a constant column without missing values.

        Parameters
        ----------
        name : of the feature.
        values : (n,), NaN where missing.
        weight : (n,).
        knots : number of hinges.
        """
        known = np.isfinite(values)
        missing_share = float(weight[np.isnan(values)].sum() / weight.sum())
        if not known.any():
            return None
        kept, kept_weight = values[known], weight[known]
        lower, upper = weighted_quantiles(
            kept, kept_weight, np.array([_CLAMP, 1 - _CLAMP])
        ).tolist()
        if lower == upper:
            lower, upper = float(kept.min()), float(kept.max())
        kept = np.clip(kept, lower, upper)
        middle, reach = _fence(kept, kept_weight)
        places, kept = _knots(kept, kept_weight, knots), _bent(kept, middle, reach)
        center = float(kept_weight @ kept / kept_weight.sum())
        scale = float(np.sqrt(kept_weight @ (kept - center) ** 2 / kept_weight.sum()))
        if scale <= 1e-12 * np.abs(kept).max():
            if missing_share == 0:
                return None
            lower, upper, scale, places = center, center, 1.0, ()
        plain = NumericFeature(
            name, lower, upper, center, scale, places, (), missing_share, middle, reach
        )
        means = [float(kept_weight @ hinge / kept_weight.sum()) for hinge in plain._hinges(kept)]
        return replace(plain, hinge_means=tuple(means))

    def _hinges(self, bent: FloatArray) -> FloatArray:
        """Hinges (·, n) of bent values (n,), a knot each, before they are centred."""
        places = _bent(np.array(self.knots), self.middle, self.reach)
        return np.maximum(bent - places[:, None], 0.0) / self.scale

    @property
    def columns(self) -> list[tuple[str, str]]:
        """(label, kind) of every column."""
        linear = [(self.name, "linear")] if self.lower < self.upper else []
        missing = [(f"{self.name} missing", "level")] if self.missing_share > 0 else []
        return [
            *linear,
            *((f"{self.name} above {knot:.6g}", "hinge") for knot in self.knots),
            *missing,
        ]

    def read(self, values: pd.Series[Any]) -> FloatArray:
        """Return raw values as numbers (n,), NaN where missing."""
        return numeric_values(values)

    def encode(self, raw: FloatArray) -> FloatArray:
        """Return the columns (·, n) of what was read (n,)."""
        known = ~np.isnan(raw)
        bent = _bent(np.clip(raw, self.lower, self.upper), self.middle, self.reach)
        parts = [(bent[None] - self.center) / self.scale] if self.lower < self.upper else []
        parts.append(self._hinges(bent) - np.array(self.hinge_means)[:, None])
        parts = [np.where(known, part, 0.0) for part in parts]
        if self.missing_share > 0:
            parts.append(~known[None] - self.missing_share)
        return np.concatenate(parts)


@dataclass(frozen=True)
class CategoricalFeature:
    """A categorical feature: one centred indicator a level.

    Rare and unseen levels share the level ``other``.
    """

    name: str
    levels: tuple[str, ...]
    shares: tuple[float, ...]
    has_other: bool

    @staticmethod
    def fit(
        name: str, values: pd.Series[Any], weight: FloatArray, min_rows: float, max_levels: int
    ) -> CategoricalFeature | None:
        """Return the encoding, or None for a constant column.

        Parameters
        ----------
        name : of the feature.
        values : (n,) of any kind.
        weight : (n,).
        min_rows : of a level of its own.
        max_levels : at most so many have one.
        """
        labels = _labels(values)
        counts = labels.value_counts()
        frequent = sorted(
            counts.index[counts >= min_rows], key=lambda label: (-counts[label], label)
        )[:max_levels]
        has_other = len(frequent) < len(counts)
        if len(counts) < 2 or not frequent:
            return None
        levels = sorted(frequent)
        codes = _codes(labels, levels, has_other)
        shares = np.bincount(codes, weights=weight, minlength=len(levels) + 1) / weight.sum()
        return CategoricalFeature(
            name, tuple(levels), tuple(shares[: len(levels) + has_other].tolist()), has_other
        )

    @property
    def columns(self) -> list[tuple[str, str]]:
        """(label, kind) of every column."""
        return [
            (f"{self.name} = {level}", "level")
            for level in [*self.levels, *([_OTHER] if self.has_other else [])]
        ]

    def read(self, values: pd.Series[Any]) -> IntArray:
        """Return the positions (n,) of raw values among the levels, other and unseen ones last."""
        if pd.api.types.infer_dtype(values, skipna=True) == "string":
            # texts are equal where their labels are: few are looked up
            place, distinct = pd.factorize(values, use_na_sentinel=False)
            return _codes(_labels(pd.Series(distinct)), self.levels, self.has_other)[place]
        return _codes(_labels(values), self.levels, self.has_other)

    def encode(self, codes: IntArray) -> FloatArray:
        """Return the columns (·, n) of what was read (n,)."""
        width, shares = len(self.shares), np.array(self.shares)
        # last a level unseen at fit, with no rare levels to stand for it: the centre
        indicators = np.column_stack([np.eye(width) - shares[:, None], np.zeros(width)])
        return indicators.take(np.minimum(codes, width), axis=1)


Feature = NumericFeature | CategoricalFeature


@dataclass(frozen=True)
class FeatureEncoder:
    """Maps a frame of features to f(x) (n, m) with f₀ = 1.

    Parameters
    ----------
    features : the encoded features, in the order of the frame they were fitted on.
    required : every feature of that frame; the constant ones are checked for presence but carry no
        column.
    products : pairs of main columns whose products follow the main columns.
    """

    features: tuple[Feature, ...]
    required: tuple[str, ...]
    products: tuple[tuple[int, int], ...] = ()

    @staticmethod
    def fit(
        X: pd.DataFrame,
        weight: FloatArray | None = None,
        *,
        knots: int = 6,
        min_level_rows: int = 20,
        max_levels: int = 50,
        max_columns: int = 160,
    ) -> FeatureEncoder:
        """Fit on the rows of a frame. Products are added by ``with_products``.

        Parameters
        ----------
        X : (n, ·) features; numbers (any width, Decimal, bool) get splines, strings and categories
            one column a level.
        weight : (n,) row weights, default one.
        knots : hinges of a numeric feature, at quantiles; fewer where it has few distinct values.
        max_columns : hinges get fewer where all features together would need more than three fifths
            of these columns.
        min_level_rows : levels with fewer rows share the level "other".
        max_levels : levels beyond so many of the most frequent ones share it too.

        Raises
        ------
        InvalidInputError : a column that is neither numeric nor categorical (dates, lists).
        """
        weight = np.ones(len(X)) if weight is None else weight
        names = [str(name) for name in X.columns]
        if len(set(names)) != len(names):
            raise InvalidInputError(f"feature names are not unique: {', '.join(names)}")
        numeric = [is_numeric(X.iloc[:, position]) for position in range(len(names))]
        knots = max(0, min(knots, (3 * max_columns // 5) // max(sum(numeric), 1) - 1))
        features: list[Feature] = []
        for position, name in enumerate(names):
            values = X.iloc[:, position]
            feature: Feature | None
            if numeric[position]:
                feature = NumericFeature.fit(name, numeric_values(values), weight, knots)
            else:
                feature = CategoricalFeature.fit(name, values, weight, min_level_rows, max_levels)
            if feature is not None and feature.columns:
                features.append(feature)
        return FeatureEncoder(tuple(features), tuple(names))

    @cached_property
    def main_columns(self) -> list[tuple[str, str, str]]:
        """(label, kind, feature) of the columns before products: constant, linear, hinge or
        level."""
        main = [
            (label, kind, feature.name)
            for feature in self.features
            for label, kind in feature.columns
        ]
        return [("1", "constant", ""), *main]

    @cached_property
    def columns(self) -> list[tuple[str, str, str]]:
        """(label, kind, feature) of the m columns.

        Kind is constant, linear, hinge, level or product (of the feature "").
        """
        labels = [label for label, _, _ in self.main_columns]
        return [
            *self.main_columns,
            *((f"{labels[a]} * {labels[b]}", "product", "") for a, b in self.products),
        ]

    @cached_property
    def plain(self) -> IntArray:
        """Columns that hold a feature itself: numbers and levels.

        Trees split on them and products multiply them.
        """
        return np.array(
            [j for j, (_, kind, _) in enumerate(self.main_columns) if kind in ("linear", "level")],
            dtype=np.int64,
        )

    @cached_property
    def groups(self) -> IntArray:
        """(m,) penalty group of every column; −1 for the constant.

        A feature's line, its hinges, its levels and all products have one each.
        """
        kinds = [(kind, feature) for _, kind, feature in self.columns[1:]]
        number = {kind: position for position, kind in enumerate(dict.fromkeys(kinds))}
        return np.array([-1, *(number[kind] for kind in kinds)], dtype=np.int64)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """All pairs of plain columns of different features."""
        names = [feature for _, _, feature in self.main_columns]
        return [(int(a), int(b)) for a, b in combinations(self.plain, 2) if names[a] != names[b]]

    def with_products(self, products: Sequence[tuple[int, int]]) -> FeatureEncoder:
        """Return the encoder with products of pairs of main columns."""
        return replace(self, products=tuple(products))

    @property
    def dropped(self) -> list[str]:
        """Features that were constant on the fitted rows."""
        kept = {feature.name for feature in self.features}
        return [name for name in self.required if name not in kept]

    def transform(self, X: pd.DataFrame) -> FloatArray:
        """Return f(x) (n, m).

        Raises
        ------
        InvalidInputError : as ``blocks``.
        """
        result = np.empty((len(X), len(self.columns)))
        for block, features in self.blocks(X):
            result[block] = features
        return result

    def blocks(self, X: pd.DataFrame) -> Iterator[tuple[slice, FloatArray]]:
        """Return f(x) piece by piece: a block of the rows and its (b, m), columns contiguous.

        Blocks depend on the number of rows alone, those of several encoders go together. What is
        reduced while it is in the cache costs a fraction of what all of f(x) does.

        Raises
        ------
        InvalidInputError : a feature of the fit is absent, or a numeric one holds text or dates.
        """
        for name in self.required:
            if name not in X.columns:
                raise InvalidInputError(
                    f"feature '{name}' is missing{nearest(name, X.columns)}; the model was fitted "
                    "with it"
                )
        raw = [feature.read(X[feature.name]) for feature in self.features]
        blocks = (
            slice(first, min(first + _BLOCK_ROWS, len(X)))
            for first in range(0, len(X), _BLOCK_ROWS)
        )
        return ((block, self._encode(raw, block)) for block in blocks)

    def _encode(self, raw: Sequence[npt.NDArray[Any]], block: slice) -> FloatArray:
        """f(x) (b, m) of a block of what the features read, (n,) each."""
        result = np.empty((len(self.columns), block.stop - block.start))
        result[0], first = 1.0, 1
        for feature, values in zip(self.features, raw, strict=True):
            columns = feature.encode(values[block])
            result[first : first + len(columns)] = columns
            first += len(columns)
        for row, (left, right) in zip(result[first:], self.products, strict=True):
            np.multiply(result[left], result[right], out=row)
        return result.T

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that ``from_dict`` reads back."""
        kinds = {NumericFeature: "numeric", CategoricalFeature: "categorical"}
        features = [{"kind": kinds[type(f)], **asdict(f)} for f in self.features]
        return {
            "features": features,
            "required": list(self.required),
            "products": [list(pair) for pair in self.products],
        }

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> FeatureEncoder:
        """Return the encoder that ``to_dict`` described."""
        features: list[Feature] = []
        for entry in content["features"]:
            fields: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list | tuple) else value
                for key, value in entry.items()
                if key != "kind"
            }
            features.append(
                NumericFeature(**fields)
                if entry["kind"] == "numeric"
                else CategoricalFeature(**fields)
            )
        products = tuple((int(a), int(b)) for a, b in content["products"])
        return FeatureEncoder(tuple(features), tuple(content["required"]), products)


def as_frame(X: Any) -> pd.DataFrame:
    """Return features as a frame with text column names; arrays (n, ·) get the names x0, x1, …

    Raises
    ------
    InvalidInputError : not two-dimensional, or two features of one name.
    """
    if isinstance(X, pd.DataFrame):
        return named(X, "feature")
    array = np.asarray(X)
    if array.ndim != 2:
        raise InvalidInputError(f"features have shape {array.shape}, expected (rows, features)")
    return pd.DataFrame(array, columns=[f"x{j}" for j in range(array.shape[1])])


def numeric_values(values: pd.Series[Any]) -> FloatArray:
    """Return a numeric column as floats, NaN where missing; infinities are kept.

    Raises
    ------
    InvalidInputError : dates or texts, even of digits, or whole numbers that no float holds.
    """
    if not (pd.api.types.is_any_real_numeric_dtype(values) or pd.api.types.is_bool_dtype(values)):
        values = values.astype(object)
        odd = [value for value in values.dropna() if not isinstance(value, _NUMBERS)][:1]
        if odd:
            raise InvalidInputError(
                f"feature '{values.name}' holds {odd[0]!r}, expected numbers as in the fit"
            )
    try:
        return values.to_numpy(dtype=np.float64, na_value=np.nan)
    except OverflowError:
        raise InvalidInputError(
            f"feature '{values.name}' holds a number beyond 1e308, expected smaller ones; use a "
            "larger unit"
        ) from None


def is_numeric(values: pd.Series[Any], what: str = "feature") -> bool:
    """Return whether a feature, or what else, has numbers (any width, Decimal, bool), not levels.

    Raises
    ------
    InvalidInputError : neither, such as dates or lists.
    """
    if pd.api.types.is_any_real_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return True
    if isinstance(values.dtype, pd.CategoricalDtype) or pd.api.types.is_string_dtype(
        values.dropna()
    ):
        return False
    known = values.dropna()
    if all(isinstance(value, _NUMBERS) for value in known):
        return True
    if all(isinstance(value, str | bool | numbers.Real | Decimal) for value in known):
        return False
    raise InvalidInputError(
        f"{what} '{values.name}' holds {known.iloc[0]!r}, expected numbers or text; turn dates "
        "into numbers first"
    )


def weighted_quantiles(values: FloatArray, weight: FloatArray, shares: FloatArray) -> FloatArray:
    """Weighted quantiles by the inverted distribution function: always observed values."""
    order = np.argsort(values, kind="stable")
    mass = np.cumsum(weight[order])
    places = np.searchsorted(mass, shares * mass[-1] * (1 - 1e-12))
    return np.asarray(values[order][np.minimum(places, len(values) - 1)])


def _fence(values: FloatArray, weight: FloatArray) -> tuple[float, float | None]:
    """Median of the values, and how far from it they count in full: None if all do.

    The most frequent value has no say: a code for what is missing can be more than half of them.
    """
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf))
    mass = np.add.reduceat(weight[order], starts)
    others = np.delete(values[order][starts], mass.argmax())
    if not len(others):
        return 0.0, None
    mass = np.delete(mass, mass.argmax())
    middle = float(weighted_quantiles(others, mass, np.array([0.5]))[0])
    distance = np.abs(others - middle)
    reach = _FAR * float(weighted_quantiles(distance, mass, np.array([0.5]))[0])
    furthest = np.abs(values - middle).max()
    # the ratio of the two is to be a number
    return middle, reach if furthest * _SMALLEST_RATIO < reach < furthest else None


def _bent(values: FloatArray, middle: float, reach: float | None) -> FloatArray:
    """Values (n,) with the logarithm of what is further than ``reach`` from the middle."""
    if reach is None:
        return values
    moved, unit = values - middle, reach / _FAR
    distance = np.abs(moved)
    beyond = unit * np.log1p(np.maximum(distance - reach, 0.0) / unit)
    return np.asarray(middle + np.sign(moved) * (np.minimum(distance, reach) + beyond))


def _knots(values: FloatArray, weight: FloatArray, count: int) -> tuple[float, ...]:
    """Interior places for hinges: quantiles, or between neighbours of few distinct values."""
    distinct = np.unique(values)
    if len(distinct) <= count + 2:
        return tuple(distinct[1:-1].tolist())
    places = weighted_quantiles(values, weight, np.arange(1, count + 1) / (count + 1))
    return tuple(sorted({float(p) for p in places if distinct[0] < p < distinct[-1]}))


def _labels(values: pd.Series[Any]) -> pd.Series[Any]:
    """Levels as text; whole numbers without a fraction, so that 1 and 1.0 are one level.

    Missing is a level of its own.
    """

    def label(value: Any) -> str:
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)

    plain = values.astype(object)
    named = plain.where(plain.notna(), other="missing")
    return named if pd.api.types.infer_dtype(named) == "string" else named.map(label)


def _codes(
    labels: pd.Series[Any], levels: tuple[str, ...] | list[str], has_other: bool
) -> IntArray:
    """Positions of the levels.

    ``len(levels)`` for other ones, one more where none was seen at fit.
    """
    position, other = {level: code for code, level in enumerate(levels)}, len(levels)
    return np.array([position.get(label, other + (not has_other)) for label in labels], np.intp)
