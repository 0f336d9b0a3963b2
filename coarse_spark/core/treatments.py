"""The treatment space T: what may be offered, the control, and the finite candidates.

Menus are searched over the candidates. Inside the package a treatment is a row of floats, one a
dimension; a categorical dimension holds the position of its level. Users see DataFrames with their
own values: ``encode`` and ``decode`` translate.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from itertools import product
from math import floor, inf, isfinite, log10, prod
from numbers import Real
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from coarse_spark.core.arrays import LARGEST, BoolArray, FloatArray, named, plain, shortest
from coarse_spark.core.expressions import Expression
from coarse_spark.core.levels import require_levels
from coarse_spark.errors import InvalidInputError, nearest

# Candidates of a continuous dimension without a step, by the number of such dimensions: the number
# of all candidates stays
# near a thousand, so that a profit matrix of a few thousand rows fits in cache-sized blocks.
_GRID_POINTS = {1: 257, 2: 21, 3: 11, 4: 6}
_MAX_CANDIDATES = 20_000
_SHOWN = 6  # dimensions whose sizes a message tells

# of the width of a dimension: values stored in single precision miss a declared one by up to that
STORED = 1e-6


@dataclass(frozen=True)
class Continuous:
    """A numeric dimension.

    Attributes
    ----------
    name : of the treatment.
    lower : least value.
    upper : largest value.
    control : value of a unit that is left alone; it may lie outside.
    step : multiples of it above lower are offered; None for any value between the bounds.
    listed_values : the only ones that are offered, ascending; None for steps or any value. Bounds
        are those of the values and the control.

    Raises
    ------
    InvalidInputError : bounds, control, step or values that are not finite or do not fit.
    """

    name: str
    lower: float
    upper: float
    control: float
    step: float | None = None
    listed_values: tuple[float, ...] | None = None

    @staticmethod
    def of_values(name: str, values: Sequence[float], control: float) -> Continuous:
        """Return the dimension that offers these values alone, in any order.

        Raises
        ------
        InvalidInputError : none or repeated values, none beside the control, or one that is not
            finite.
        """
        if not values or len(set(values)) != len(values):
            raise InvalidInputError(
                f"treatment '{name}': values are {list(values)}, expected distinct numbers"
            )
        if set(values) == {control}:
            raise InvalidInputError(
                f"treatment '{name}': values are {list(values)}, expected others than the control"
            )
        if not all(map(isfinite, values)):
            raise InvalidInputError(
                f"treatment '{name}': values are {list(values)}, expected finite numbers"
            )
        lower, upper = min(*values, control), max(*values, control)
        return Continuous(name, lower, upper, control, listed_values=tuple(sorted(values)))

    def __post_init__(self) -> None:
        for label in ("lower", "upper", "control"):
            if not isfinite(getattr(self, label)):
                raise InvalidInputError(
                    f"treatment '{self.name}': {label} is {getattr(self, label)}, expected a "
                    "finite number"
                )
            if abs(getattr(self, label)) > LARGEST:
                raise InvalidInputError(
                    f"treatment '{self.name}': {label} is {getattr(self, label):g}, expected at "
                    f"most {LARGEST:g}; use a larger unit"
                )
        if not self.lower < self.upper:
            raise InvalidInputError(
                f"treatment '{self.name}': lower {self.lower:g} is not below upper {self.upper:g}"
            )
        if self.upper - self.lower < 1 / LARGEST:
            raise InvalidInputError(
                f"treatment '{self.name}': upper is {self.upper - self.lower:g} above lower, "
                f"expected at least {1 / LARGEST:g}; use a smaller unit"
            )
        if self.step is not None and not 0 < self.step <= self.upper - self.lower:
            expected = f"above 0 and at most upper - lower = {self.upper - self.lower:g}"
            raise InvalidInputError(
                f"treatment '{self.name}': step is {self.step:g}, expected {expected}"
            )

    @property
    def between(self) -> bool:
        """Whether any value between the bounds may be offered."""
        return self.step is None and self.listed_values is None

    def grid_size(self, points: int) -> int:
        """Return the number of values of ``grid``, without making them."""
        if self.listed_values is not None:
            return len(self.listed_values)
        return (
            points if self.step is None else floor((self.upper - self.lower) / self.step + 1e-9) + 1
        )

    def grid(self, points: int) -> FloatArray:
        """Return the offered values: the listed ones, every step, or ``points`` evenly spaced."""
        if self.listed_values is not None:
            return np.array(self.listed_values)
        stepped = self.lower + (self.step or 0.0) * np.arange(self.grid_size(points))
        values = np.linspace(self.lower, self.upper, points) if self.step is None else stepped
        # round: 0.1 * 3 is offered as 0.3, not as 0.30000000000000004, which a rule such as "t >
        # 0.3" would restrict
        return np.clip(
            np.round(values, 12 - floor(log10(self.upper - self.lower))), self.lower, self.upper
        )


@dataclass(frozen=True)
class Categorical:
    """A dimension of named levels.

    Attributes
    ----------
    name : of the treatment.
    levels : distinct values.
    control : the level of a unit that is left alone.

    Raises
    ------
    InvalidInputError : no or repeated levels, or a control that is none of them.
    """

    name: str
    levels: tuple[Any, ...]
    control: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(map(plain, self.levels)))
        object.__setattr__(self, "control", plain(self.control))
        for value in (*self.levels, self.control):
            if not isinstance(value, Hashable) or pd.isna(cast(Any, value)):
                raise InvalidInputError(
                    f"treatment '{self.name}': levels are {list(self.levels)} and control is "
                    f"{self.control!r}, expected texts, numbers or booleans, none of them missing"
                )
        if not self.levels or len(set(self.levels)) != len(self.levels):
            raise InvalidInputError(
                f"treatment '{self.name}': levels are {list(self.levels)}, expected distinct values"
            )
        if self.control not in self.levels:
            hint = nearest(self.control, self.levels)
            raise InvalidInputError(
                f"treatment '{self.name}': control {self.control!r} is not one of the levels{hint}"
            )


Dimension = Continuous | Categorical


@dataclass(frozen=True)
class TreatmentSpace:
    """All treatments that may be offered.

    Build one with ``from_dict`` (dimensions, each continuous or categorical) or ``from_candidates``
    (a finite list). The control is always one of the candidates, even outside the bounds of a
    dimension: a firm can always leave a unit alone.

    Attributes
    ----------
    dimensions : d of them, each ``Continuous`` or ``Categorical``.
    exclude : candidates where this expression is not 0 are not offered; None excludes none.
    finite : encoded rows of a finite list; None where the grid of all dimensions is offered.
    offered : (treatments (n, d)) -> (n,) whether they are, for a further reason; None offers all.

    Raises
    ------
    InvalidInputError : no dimensions, two of one name, or a name that a basis cannot name.
    ExpressionError : an exclusion with unknown names, or levels that there are none.

    Examples
    --------
    >>> from coarse_spark import TreatmentSpace
    >>> space = TreatmentSpace.from_dict({
    ...     "depth": {"kind": "continuous", "lower": 0, "upper": 20, "step": 10, "control": 0},
    ...     "channel": {"kind": "categorical", "levels": ["mail", "app"], "control": "mail"},
    ... }, exclude="(depth == 20) * (channel == 'app')")
    >>> space.candidates.shape
    (5, 2)
    >>> space.decode(space.candidates[3])
       depth channel
    0   10.0     app
    >>> space.describe(space.control)
    'depth = 0, channel = mail'
    """

    dimensions: tuple[Dimension, ...]
    exclude: Expression | None = None
    finite: tuple[tuple[float, ...], ...] | None = None
    offered: Callable[[FloatArray], BoolArray] | None = None

    def __post_init__(self) -> None:
        if not self.dimensions:
            raise InvalidInputError("the treatment space has no dimensions; name at least one")
        if len(set(self.names)) != len(self.names):
            raise InvalidInputError(f"treatment names are not unique: {', '.join(self.names)}")
        for name in self.names:
            if not nameable(name):
                raise InvalidInputError(
                    f"treatment '{name}': found the name {name!r}, expected one without , ( ) and "
                    "spaces at its ends, which a basis cannot name"
                )
        if self.exclude is not None:
            self.check(self.exclude)

    @staticmethod
    def from_dict(
        spec: Mapping[str, Mapping[str, Any]], exclude: str | None = None
    ) -> TreatmentSpace:
        """Return the space of dimensions declared by name.

        Parameters
        ----------
        spec : by name, ``{"kind": "continuous", "lower", "upper", "step", "control"}``, of which
            the step may be left out, ``{"kind": "continuous", "values": [...], "control"}`` or
            ``{"kind": "categorical", "levels": [...], "control"}``.
        exclude : expression in the treatment names; candidates where it is not 0 are not offered.

        Raises
        ------
        InvalidInputError : an unknown kind or key, a missing one, or bounds that leave nothing.
        """
        if not isinstance(spec, Mapping) or not all(
            isinstance(entry, Mapping) for entry in spec.values()
        ):
            raise InvalidInputError(
                "the treatment space is no mapping of names to mappings, such as {'price': "
                "{'kind': 'continuous', 'lower': 1, 'upper': 2, 'control': 2}}"
            )
        return TreatmentSpace(
            tuple(_dimension(str(name), dict(entry)) for name, entry in spec.items()),
            None if exclude is None else Expression(exclude),
        )

    @staticmethod
    def from_candidates(
        candidates: pd.DataFrame, control: Mapping[str, Any], exclude: str | None = None
    ) -> TreatmentSpace:
        """Return the space of a finite list of treatments.

        Parameters
        ----------
        candidates : one row a candidate, one column a dimension; they keep their order.
        control : one value a column. Where it is not itself a row it becomes a last candidate.
        exclude : expression in the treatment names; candidates where it is not 0 are not offered.

        Raises
        ------
        InvalidInputError : no candidates, repeated or missing ones, more than can be searched, or a
            control of other columns.

        Examples
        --------
        >>> offers = pd.DataFrame({"price": [9.9, 8.9], "gift": ["none", "mug"]})
        >>> space = TreatmentSpace.from_candidates(offers, {"price": 9.9, "gift": "none"})
        >>> [space.describe(candidate) for candidate in space.candidates]
        ['price = 9.9, gift = none', 'price = 8.9, gift = mug']
        """
        if not isinstance(candidates, pd.DataFrame):
            raise InvalidInputError(
                f"candidates are a {type(candidates).__name__}, expected a DataFrame, one row a "
                "candidate"
            )
        if candidates.empty:
            raise InvalidInputError(
                "the list of candidates is empty; expected at least one row and one column"
            )
        candidates = named(candidates, "candidate column")
        control = {str(name): value for name, value in control.items()}
        missing = [name for name in candidates.columns if name not in control]
        unknown = [name for name in control if name not in candidates.columns]
        if missing or unknown:
            found, expected = (
                ", ".join(control) or "nothing",
                ", ".join(candidates.columns),
            )
            raise InvalidInputError(
                f"control names {found}; expected a value for each of {expected}"
            )
        dimensions = [
            _listed_dimension(name, shortest(candidates[name]), plain(control[name]))
            for name in candidates.columns
        ]
        if len(candidates) > _MAX_CANDIDATES:
            raise InvalidInputError(
                f"the list of candidates has {len(candidates)} rows, at most {_MAX_CANDIDATES} are "
                "searched"
            )
        space = TreatmentSpace(tuple(dimensions))
        encoded = space.encode(candidates)
        duplicated = pd.DataFrame(encoded).duplicated()
        if duplicated.any():
            raise InvalidInputError(f"candidate rows {_rows(duplicated)} repeat earlier rows")
        rows = [tuple(row) for row in encoded.tolist()]
        if tuple(space.control.tolist()) not in rows:
            rows.append(tuple(space.control.tolist()))
        excluded = None if exclude is None else Expression(exclude)
        return TreatmentSpace(tuple(dimensions), excluded, tuple(rows))

    def check(self, expression: Expression) -> None:
        """Refuse an expression that makes no sense for treatments.

        Raises
        ------
        ExpressionError : unknown names, or comparisons that can never hold.
        """
        expression.require_names(self.names)
        require_levels(expression, self.levels)

    @cached_property
    def levels(self) -> dict[str, tuple[Any, ...] | None]:
        """All values that a dimension may have, by name; None where they are not listed."""
        return {
            d.name: d.levels
            if isinstance(d, Categorical)
            else None
            if d.listed_values is None
            else tuple(sorted({*d.listed_values, d.control}))
            for d in self.dimensions
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the dimensions, in order."""
        return tuple(dimension.name for dimension in self.dimensions)

    @cached_property
    def control(self) -> FloatArray:
        """The control as an encoded row (d,)."""
        values = [
            d.levels.index(d.control) if isinstance(d, Categorical) else d.control
            for d in self.dimensions
        ]
        return np.asarray(values, dtype=np.float64)

    @cached_property
    def continuous(self) -> BoolArray:
        """(d,) whether a dimension may take any value between its bounds, to be polished along
        it."""
        if self.finite is not None:
            return np.zeros(len(self.dimensions), dtype=bool)
        return np.array([isinstance(d, Continuous) and d.between for d in self.dimensions])

    @cached_property
    def bounds(self) -> FloatArray:
        """(d, 2) lower and upper value of every dimension, codes for categorical ones."""
        rows = [
            (0, len(d.levels) - 1) if isinstance(d, Categorical) else (d.lower, d.upper)
            for d in self.dimensions
        ]
        return np.asarray(rows, dtype=np.float64)

    @cached_property
    def widths(self) -> FloatArray:
        """(d,) range of every dimension, above 0: what is small is so beside it."""
        return np.asarray(np.maximum(self.bounds[:, 1] - self.bounds[:, 0], 1e-300))

    @cached_property
    def spacing(self) -> FloatArray:
        """(d,) distance of neighbouring candidates along every dimension.

        0 where nothing is searched between candidates.
        """
        points = self._grid_points
        widths = self.bounds[:, 1] - self.bounds[:, 0]
        return np.where(self.continuous, widths / max(points - 1, 1), 0.0)

    @cached_property
    def _grid_points(self) -> int:
        """Candidates of every dimension without a step: fewer where all others leave no room."""
        count = int(self.continuous.sum())
        points = _GRID_POINTS.get(count, 4)
        while points > 2 and prod(self._grid_sizes(points)) > _MAX_CANDIDATES:
            points -= 1
        return points

    def _grid_sizes(self, points: int) -> list[int]:
        return [
            len(d.levels) if isinstance(d, Categorical) else d.grid_size(points)
            for d in self.dimensions
        ]

    @property
    def searchable(self) -> bool:
        """Whether there are few enough candidates to be made."""
        return (
            self.finite is not None or prod(self._grid_sizes(self._grid_points)) <= _MAX_CANDIDATES
        )

    @cached_property
    def candidates(self) -> FloatArray:
        """(J, d) encoded candidates.

        The finite list, or the grid of all dimensions without the excluded points.

        Raises
        ------
        InvalidInputError : nothing is left after the exclusion, or the grid has more points than
            can be searched.
        """
        if self.finite is not None:
            listed = np.asarray(self.finite, dtype=np.float64)
            return listed[self.allowed(listed)]  # the control is one of them, and always passes
        lengths = self._grid_sizes(self._grid_points)
        size = prod(lengths)
        if not self.searchable:
            sizes = " x ".join(map(_count, lengths[:_SHOWN]))
            if len(lengths) > _SHOWN:
                sizes += f" x ... ({len(lengths)} treatments)"
            elif len(lengths) > 1:
                sizes += f" = {_count(size)}"
            limit = f"at most {_MAX_CANDIDATES} are searched; use larger steps"
            raise InvalidInputError(f"the treatment grid has {sizes} points, {limit}")
        axes = [
            np.arange(len(d.levels), dtype=np.float64)
            if isinstance(d, Categorical)
            else d.grid(self._grid_points)
            for d in self.dimensions
        ]
        grid = np.array(list(product(*axes)), dtype=np.float64).reshape(size, len(axes))
        # exactly, since a step's rounding must not make a treatment of the control
        is_control = self.same(grid, self.control)
        grid[is_control] = self.control
        allowed = self.allowed(grid)
        if self.exclude is not None and not allowed.any():
            raise InvalidInputError(
                f"no treatment is left after the exclusion '{self.exclude.text}'"
            )
        return grid[allowed] if is_control.any() else np.vstack([grid[allowed], self.control])

    def allowed(self, treatments: FloatArray) -> BoolArray:
        """(n,) whether encoded treatments are offered. The control always is.

        Raises
        ------
        InvalidInputError : the exclusion gives NaN somewhere on the space.
        """
        if not self.is_restricted:
            return np.ones(len(treatments), dtype=bool)
        is_control = (treatments == self.control).all(axis=1)
        open_ = np.ones(len(treatments), dtype=bool)
        if self.offered is not None:
            open_ = self.offered(treatments)
        if self.exclude is None:
            return np.asarray(open_ | is_control)
        value = self.exclude.evaluate(self.columns(treatments), len(treatments))
        if np.isnan(value).any():
            place = self.describe(treatments[np.flatnonzero(np.isnan(value))[0]])
            raise InvalidInputError(
                f"the exclusion '{self.exclude.text}' is not a number at {place}"
            )
        return np.asarray((open_ & (value == 0)) | is_control)

    @property
    def is_restricted(self) -> bool:
        """Whether something between the bounds is not offered."""
        return self.exclude is not None or self.offered is not None

    def encode(self, treatments: pd.DataFrame | npt.ArrayLike) -> FloatArray:
        """Return treatments as floats (n, d); levels become their positions.

        Raises
        ------
        InvalidInputError : a missing dimension, an unknown level or a value that is not a number.
        """
        if not isinstance(treatments, pd.DataFrame):
            array = np.asarray(treatments)
            array = array[:, None] if array.ndim == 1 else array
            if array.ndim != 2 or array.shape[1] != len(self.dimensions):
                raise InvalidInputError(
                    f"treatments have shape {array.shape}, expected (n, {len(self.dimensions)})"
                )
            treatments = pd.DataFrame(array, columns=list(self.names))
        treatments = named(treatments, "treatment")
        for name in self.names:
            if name not in treatments.columns:
                raise InvalidInputError(
                    f"treatment column '{name}' is missing{nearest(name, treatments.columns)}"
                )
        columns = []
        for dimension in self.dimensions:
            values = shortest(treatments[dimension.name])
            if isinstance(dimension, Categorical):
                codes = values.map(plain).map(
                    {level: code for code, level in enumerate(dimension.levels)}
                )
                if codes.isna().any():
                    found = values[codes.isna()].iloc[0]
                    hint = nearest(found, dimension.levels)
                    place = f"in rows {_rows(codes.isna())}"
                    raise InvalidInputError(
                        f"treatment '{dimension.name}' has the unknown level {found!r}{hint} "
                        f"{place}"
                    )
                columns.append(codes.to_numpy(np.float64))
            else:
                try:
                    columns.append(values.to_numpy(np.float64, na_value=np.nan))
                except OverflowError:
                    raise InvalidInputError(
                        f"treatment '{dimension.name}' holds a number beyond 1e308"
                    ) from None
                except (TypeError, ValueError):
                    raise InvalidInputError(
                        f"treatment '{dimension.name}' holds {values.iloc[0]!r}, expected numbers"
                    ) from None
        return np.column_stack(columns)

    def same(self, treatments: FloatArray, treatment: FloatArray) -> BoolArray:
        """Return which encoded treatments (…, d) are one treatment (d,), or pair by pair (…, d).

        Up to a billionth of every dimension's range they are the same.
        """
        close = np.abs(treatments - treatment) <= 1e-9 * self.widths
        return np.asarray(close.all(axis=-1))

    def columns(self, treatments: FloatArray) -> dict[str, npt.NDArray[Any]]:
        """Return encoded treatments as one array a dimension: what expressions see.

        Levels are their own values.
        """
        result: dict[str, npt.NDArray[Any]] = {}
        for position, dimension in enumerate(self.dimensions):
            values = treatments[:, position]
            if isinstance(dimension, Categorical):
                kinds = {type(level) for level in dimension.levels}
                # numpy would turn the number of a number and a text into a text, and cut zero
                # characters off a text's end
                plain = len(kinds) == 1 and str not in kinds
                levels = np.array(dimension.levels, dtype=None if plain else object)
                result[dimension.name] = levels[values.astype(np.intp)]
            else:
                result[dimension.name] = values
        return result

    def decode(self, treatments: FloatArray) -> pd.DataFrame:
        """Return encoded treatments (n, d) as a DataFrame in the user's values."""
        return pd.DataFrame(self.columns(np.atleast_2d(treatments)))

    def describe(self, treatment: FloatArray) -> str:
        """Return one encoded treatment as readable text, such as "depth = 10, days = 7"."""
        row = self.columns(np.atleast_2d(treatment))
        shown = {
            name: f"{values[0]:.6g}" if values.dtype.kind == "f" else f"{values[0]}"
            for name, values in row.items()
        }
        return ", ".join(f"{name} = {value}" for name, value in shown.items())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that ``restore`` reads back; used in model rows and run records."""
        entries = []
        for d in self.dimensions:
            if isinstance(d, Categorical):
                entries.append(
                    {
                        "kind": "categorical",
                        "name": d.name,
                        "levels": list(d.levels),
                        "control": d.control,
                    }
                )
            elif d.listed_values is not None:
                entries.append(
                    {
                        "kind": "continuous",
                        "name": d.name,
                        "values": list(d.listed_values),
                        "control": d.control,
                    }
                )
            else:
                entries.append(
                    {
                        "kind": "continuous",
                        "name": d.name,
                        "lower": d.lower,
                        "upper": d.upper,
                        "step": d.step,
                        "control": d.control,
                    }
                )
        finite = None if self.finite is None else [list(row) for row in self.finite]
        return {
            "dimensions": entries,
            "exclude": self.exclude.text if self.exclude else None,
            "finite": finite,
        }

    @staticmethod
    def restore(content: Mapping[str, Any]) -> TreatmentSpace:
        """Return the space that ``to_dict`` described."""
        entries = [dict(entry) for entry in content["dimensions"]]
        dimensions = tuple(_dimension(entry.pop("name"), entry) for entry in entries)
        exclude, finite = content.get("exclude"), content.get("finite")
        rows = None if finite is None else tuple(tuple(float(v) for v in row) for row in finite)
        return TreatmentSpace(dimensions, None if exclude is None else Expression(exclude), rows)


def nameable(name: str) -> bool:
    """Return whether a basis can name a treatment so, as in ``spline(price, 0.5)``."""
    return name.strip() == name != "" and not set(name) & set(",()")


def _float(value: Any) -> float:
    """A number as a float; whole ones that none can hold are infinite."""
    try:
        return float(value)
    except OverflowError:
        return inf if value > 0 else -inf


def _listed_dimension(name: str, values: pd.Series[Any], control: Any) -> Dimension:
    """Return the dimension of a column of candidates."""
    if values.isna().any():
        raise InvalidInputError(
            f"candidate column '{name}' has missing values in rows {_rows(values.isna())}"
        )
    levels = list(dict.fromkeys([*map(plain, values), control]))
    number = pd.api.types.is_any_real_numeric_dtype(values) or all(
        isinstance(value, Real | Decimal) and not isinstance(value, bool) for value in values
    )
    if not number or len(levels) < 2:
        return Categorical(name, tuple(levels), control)
    try:
        base = _float(control)
    except (TypeError, ValueError):
        raise InvalidInputError(
            f"control is {control!r} in column '{name}', whose candidates are numbers; expected a "
            "number, or candidates that are texts"
        ) from None
    return Continuous.of_values(name, [_float(value) for value in values.unique()], base)


def _listed(name: str, key: str, values: Any) -> list[Any]:
    """Return levels or values of a dimension as a list, in an order that does not depend on luck.

    Raises
    ------
    InvalidInputError : a text, a set or a mapping, or nothing with entries.
    """
    if isinstance(values, str | Set | Mapping) or not isinstance(values, Iterable):
        raise InvalidInputError(f"treatment '{name}': {key} are {values!r}, expected a list")
    return list(map(plain, shortest(values) if isinstance(values, pd.Series) else values))


def _count(number: int) -> str:
    return str(number) if number < 10**12 else "over 10^12"


def _dimension(name: str, entry: dict[str, Any]) -> Dimension:
    kind = entry.pop("kind", None)
    expected: dict[str, tuple[str, ...]] = {
        "continuous": ("lower", "upper", "control", "step"),
        "categorical": ("levels", "control"),
    }
    if kind not in expected:
        hint = nearest(kind, expected)
        raise InvalidInputError(
            f"treatment '{name}': kind is {kind!r}, expected continuous or categorical{hint}"
        )
    keys = ("values", "control") if "values" in entry and kind == "continuous" else expected[kind]
    for key in entry:
        if key not in keys:
            beside = " beside values" if "values" in keys and key in expected[kind] else ""
            raise InvalidInputError(
                f"treatment '{name}': unknown key '{key}'{beside}{nearest(key, keys)}"
            )
    for key in keys:
        if key not in entry and key != "step":
            raise InvalidInputError(
                f"treatment '{name}': '{key}' is missing; a {kind} dimension needs "
                f"{', '.join(keys)}{' or values, control' if 'lower' in keys else ''}"
            )
    entry = {
        key: _listed(name, key, value) if key in ("levels", "values") else plain(value)
        for key, value in entry.items()
    }
    if kind == "categorical":
        return Categorical(name, tuple(entry["levels"]), entry["control"])
    step = entry.get("step")
    try:
        if "values" in entry:
            return Continuous.of_values(
                name, [_float(value) for value in entry["values"]], _float(entry["control"])
            )
        lower, upper, control = (_float(entry[key]) for key in ("lower", "upper", "control"))
        return Continuous(name, lower, upper, control, None if step is None else _float(step))
    except (TypeError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(
            f"treatment '{name}': {', '.join(keys[:-1])} and {keys[-1]} must be numbers, found "
            f"{entry}"
        ) from None


def _rows(mask: pd.Series[bool] | Sequence[bool]) -> str:
    positions = np.flatnonzero(np.asarray(mask))
    shown = ", ".join(map(str, positions[:5]))
    return shown if len(positions) <= 5 else f"{shown} and {len(positions) - 5} more"
