"""The terms that a treatment basis is named by: parsing and evaluating them.

For instance ``"levels(channel) * quadratic(price) + any"``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.treatments import Categorical, TreatmentSpace
from coarse_spark.errors import InvalidInputError, nearest

_DEFAULT_KNOTS = (0.25, 0.5, 0.75)  # of the declared range, where the name gives none


@dataclass(frozen=True)
class Column:
    """A column of a basis.

    Attributes
    ----------
    label : its readable name.
    what : it is, whatever the treatments are called: columns are the same where these are equal.
    """

    label: str
    what: tuple[Hashable, ...]


@dataclass(frozen=True)
class Factor:
    """One kind of columns on some dimensions.

    Parameters
    ----------
    kind : a key of ``KINDS``.
    dimensions : positions in the space.
    knots : of a spline, ascending and inside the bounds.
    """

    kind: str
    dimensions: tuple[int, ...]
    knots: tuple[float, ...] = ()

    def values(self, treatments: FloatArray, space: TreatmentSpace) -> FloatArray:
        """Return the columns (n, c) at encoded treatments (n, d)."""
        return KINDS[self.kind].values(treatments[:, list(self.dimensions)], space, self)

    def columns(self, space: TreatmentSpace) -> list[Column]:
        """Return what the columns are."""
        return KINDS[self.kind].columns(space, self)

    def text(self, space: TreatmentSpace) -> str:
        """Return the factor as ``parse`` reads it, with its dimensions and knots spelled out."""
        names, knots = (space.names[j] for j in self.dimensions), (f"{k:.12g}" for k in self.knots)
        return f"{self.kind}({', '.join([*names, *knots])})"


@dataclass(frozen=True)
class Kind:
    """A kind of columns.

    Attributes
    ----------
    values : columns (n, c) of encoded treatments in the dimensions of a factor.
    columns : what the columns are.
    continuous, categorical : whether it takes such dimensions.
    """

    values: Callable[[FloatArray, TreatmentSpace, Factor], FloatArray]
    columns: Callable[[TreatmentSpace, Factor], list[Column]]
    continuous: bool
    categorical: bool


def parse(name: str, space: TreatmentSpace) -> tuple[tuple[Factor, ...], ...]:
    """Return the terms of a basis name, each a tuple of factors whose columns and products enter.

    Raises
    ------
    InvalidInputError : an unknown kind, dimension or knot, or a dimension of the space that no term
        uses.
    """
    terms = tuple(
        tuple(_factor(text, name, space) for text in _split(term, "*"))
        for term in _split(name, "+")
    )
    used = {j for term in terms for factor in term for j in factor.dimensions}
    for position, dimension in enumerate(space.dimensions):
        if position not in used and isinstance(dimension, Categorical):
            raise InvalidInputError(
                f"basis '{name}': treatment '{dimension.name}' is categorical; use basis 'arms' or "
                f"'levels * {terms[0][0].kind}'"
            )
        if position not in used:
            raise InvalidInputError(
                f"basis '{name}': treatment '{dimension.name}' is in no term; expected a term such "
                "as 'linear'"
            )
    return terms


def term_values(
    term: Iterable[Factor], treatments: FloatArray, space: TreatmentSpace
) -> FloatArray:
    """Return the columns (n, c) of a term: of factors and of their products.

    Parameters
    ----------
    term : its factors.
    treatments : (n, d) encoded.
    space : the treatments.
    """
    first, *others = (factor.values(treatments, space) for factor in term)
    values = first
    for more in others:
        products = (values[:, :, None] * more[:, None, :]).reshape(
            len(treatments), values.shape[1] * more.shape[1]
        )
        values = np.hstack([values, more, products])
    return values


def term_columns(term: Iterable[Factor], space: TreatmentSpace) -> list[Column]:
    """Return what the columns of a term are."""
    columns = list[Column]()
    for factor in term:
        more = factor.columns(space)
        crossed = [
            Column(f"{left.label} * {right.label}", (*left.what, *right.what))
            for left in columns
            for right in more
        ]
        columns = [*columns, *more, *crossed]
    return columns


def _split(text: str, sign: str) -> list[str]:
    """Parts between signs outside parentheses, stripped."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == sign and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _factor(text: str, name: str, space: TreatmentSpace) -> Factor:
    match = re.fullmatch(r"(\w+)(?:\s*\((.*)\))?", text)
    if match is None or match[1] not in KINDS:
        found = match[1] if match else text
        raise InvalidInputError(
            f"basis '{name}': unknown term '{found}'{nearest(found, [*KINDS, 'arms'])}"
        )
    kind = KINDS[match[1]]
    fitting = [
        j
        for j, d in enumerate(space.dimensions)
        if (kind.categorical if isinstance(d, Categorical) else kind.continuous)
    ]
    dimensions, knots = _arguments(match[2] or "", match[1], name, space)
    dimensions = dimensions or fitting
    for position in dimensions:
        if position not in fitting:
            wanted = "a categorical" if kind.categorical else "a continuous"
            raise InvalidInputError(
                f"basis '{name}': {match[1]} of treatment '{space.names[position]}', expected "
                f"{wanted} treatment"
            )
    if not dimensions and not kind.categorical:
        raise InvalidInputError(
            f"basis '{name}': treatment '{space.names[0]}' is categorical; use basis 'arms' or "
            f"'levels', not '{match[1]}'"
        )
    if not dimensions:
        raise InvalidInputError(
            f"basis '{name}': treatment '{space.names[0]}' is continuous; use 'linear', not "
            f"'{match[1]}'"
        )
    if knots:
        _check_knots(name, space, dimensions, knots)
    return Factor(match[1], tuple(dimensions), tuple(knots))


def _arguments(
    text: str, kind: str, name: str, space: TreatmentSpace
) -> tuple[list[int], list[float]]:
    dimensions, knots = list[int](), list[float]()
    for argument in _split(text, ","):
        if argument in space.names:
            dimensions.append(space.names.index(argument))
        elif kind == "spline" and _is_number(argument):
            knots.append(float(argument))
        elif argument:
            hint = nearest(argument, space.names)
            raise InvalidInputError(
                f"basis '{name}': {kind} names '{argument}'{hint}; treatments: "
                f"{', '.join(space.names)}"
            )
    return dimensions, knots


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _check_knots(
    name: str, space: TreatmentSpace, dimensions: list[int], knots: list[float]
) -> None:
    if len(dimensions) > 1:
        raise InvalidInputError(
            f"basis '{name}': knots of a spline belong to one treatment; write one spline for each"
        )
    lower, upper = space.bounds[dimensions[0]]
    if knots != sorted(set(knots)) or not lower < knots[0] or not knots[-1] < upper:
        raise InvalidInputError(
            f"basis '{name}': knots are {knots}, expected ascending numbers between {lower:g} and "
            f"{upper:g}"
        )


def _monomials(dimensions: int, degree: int) -> list[tuple[int, ...]]:
    return [
        powers
        for d in range(1, degree + 1)
        for powers in combinations_with_replacement(range(dimensions), d)
    ]


def _polynomial(degree: int) -> Kind:
    def values(treatments: FloatArray, _space: TreatmentSpace, factor: Factor) -> FloatArray:
        return np.column_stack(
            [
                treatments[:, list(m)].prod(axis=1)
                for m in _monomials(len(factor.dimensions), degree)
            ]
        )

    def label(names: list[str], monomial: tuple[int, ...]) -> str:
        powers = [(names[j], monomial.count(j)) for j in dict.fromkeys(monomial)]
        return " ".join(name if power == 1 else f"{name}^{power}" for name, power in powers)

    def columns(space: TreatmentSpace, factor: Factor) -> list[Column]:
        return [
            Column(
                label([space.names[j] for j in factor.dimensions], monomial),
                _power(*(factor.dimensions[j] for j in monomial)),
            )
            for monomial in _monomials(len(factor.dimensions), degree)
        ]

    return Kind(values, columns, continuous=True, categorical=False)


def _power(*dimensions: int) -> tuple[Hashable, ...]:
    """What the product of some treatments is."""
    return (("power", *sorted(dimensions)),)


def _log1p(treatments: FloatArray, space: TreatmentSpace, factor: Factor) -> FloatArray:
    return np.asarray(np.log1p(np.abs(treatments - space.control[list(factor.dimensions)])))


def _any(treatments: FloatArray, space: TreatmentSpace, factor: Factor) -> FloatArray:
    return np.asarray(
        (treatments != space.control[list(factor.dimensions)]).any(axis=1)[:, None],
        dtype=np.float64,
    )


def _levels(treatments: FloatArray, space: TreatmentSpace, factor: Factor) -> FloatArray:
    return _indicators(treatments, space, factor, first=0)


def _among(treatments: FloatArray, space: TreatmentSpace, factor: Factor) -> FloatArray:
    return _indicators(treatments, space, factor, first=1)


def _indicators(
    treatments: FloatArray, space: TreatmentSpace, factor: Factor, first: int
) -> FloatArray:
    """Columns of the levels that are not the control, from the ``first`` of them on."""
    parts = []
    for column, position in zip(treatments.T, factor.dimensions, strict=True):
        codes = np.arange(int(space.bounds[position, 1]) + 1)
        parts.append(column[:, None] == codes[codes != space.control[position]][first:])
    return np.hstack(parts).astype(np.float64)


def _level_columns(space: TreatmentSpace, factor: Factor) -> list[Column]:
    return [
        Column(f"{space.names[j]} = {level}", ((factor.kind, j, code),))
        for j, levels in _treated(space, factor)
        for code, level in enumerate(levels)
    ]


def _among_columns(space: TreatmentSpace, factor: Factor) -> list[Column]:
    return [
        Column(f"{space.names[j]} = {level} rather than {levels[0]}", ((factor.kind, j, code),))
        for j, levels in _treated(space, factor)
        for code, level in enumerate(levels[1:])
    ]


def _treated(space: TreatmentSpace, factor: Factor) -> Iterator[tuple[int, list[Any]]]:
    """Yield position and levels but the control of every dimension of a factor."""
    for position in factor.dimensions:
        dimension = space.dimensions[position]
        if isinstance(dimension, Categorical):
            yield position, [v for v in dimension.levels if v != dimension.control]


def _interior_knots(space: TreatmentSpace, factor: Factor, position: int) -> FloatArray:
    """Knots on the unit interval."""
    lower, upper = space.bounds[position]
    return (
        (np.asarray(factor.knots) - lower) / (upper - lower)
        if factor.knots
        else np.asarray(_DEFAULT_KNOTS)
    )


def _spline(treatments: FloatArray, space: TreatmentSpace, factor: Factor) -> FloatArray:
    """The treatment itself and its natural cubic splines, on the unit interval.

    Hastie, Tibshirani & Friedman (2009), The Elements of Statistical Learning, eq. 5.4.
    """
    parts = []
    for column, position in zip(treatments.T, factor.dimensions, strict=True):
        lower, upper = space.bounds[position]
        unit = (column - lower) / (upper - lower)
        knots = np.concatenate([[0.0], _interior_knots(space, factor, position), [1.0]])
        cubes = np.maximum(unit[:, None] - knots, 0) ** 3
        slopes = (cubes[:, :-1] - cubes[:, -1:]) / (1 - knots[:-1])
        parts.append(np.column_stack([column, slopes[:, :-1] - slopes[:, -1:]]))
    return np.hstack(parts)


def _spline_columns(space: TreatmentSpace, factor: Factor) -> list[Column]:
    columns = []
    for position in factor.dimensions:
        lower, upper = space.bounds[position]
        knots = _interior_knots(space, factor, position)
        places = [lower, *(lower + (upper - lower) * knots)]
        texts = [f"{place:.6g}" for place in places]
        if len(set(texts)) < len(texts):
            texts = [f"{place:.15g}" for place in places]
        name, same = space.names[position], tuple(np.round(knots, 12).tolist())
        columns.append(Column(name, _power(position)))
        columns += [
            Column(f"spline({name}, {text})", (("spline", position, number, same),))
            for number, text in enumerate(texts[:-1])
        ]
    return columns


KINDS: dict[str, Kind] = {
    "linear": _polynomial(1),
    "quadratic": _polynomial(2),
    "cubic": _polynomial(3),
    "spline": Kind(_spline, _spline_columns, continuous=True, categorical=False),
    "log1p": Kind(
        _log1p,
        lambda space, factor: [
            Column(f"log1p({space.names[j]})", (("log1p", j),)) for j in factor.dimensions
        ],
        continuous=True,
        categorical=False,
    ),
    "any": Kind(
        _any,
        lambda space, factor: [
            Column(
                f"any({', '.join(space.names[j] for j in factor.dimensions)})",
                (("any", *sorted(factor.dimensions)),),
            )
        ],
        continuous=True,
        categorical=True,
    ),
    "levels": Kind(_levels, _level_columns, continuous=False, categorical=True),
    "among": Kind(_among, _among_columns, continuous=False, categorical=True),
}
