"""The terms that a treatment basis is named by: parsing and evaluating them.

For instance ``"levels(channel) * quadratic(price) + any"``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.treatments import Categorical, TreatmentSpace
from coarse_spark.errors import InvalidInputError, nearest

_DEFAULT_KNOTS = (0.25, 0.5, 0.75)  # of the declared range, where the name gives none


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

    def labels(self, space: TreatmentSpace) -> list[str]:
        """Return the names of the columns."""
        return KINDS[self.kind].labels(space, self)

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
    labels : names of the columns.
    continuous, categorical : whether it takes such dimensions.
    """

    values: Callable[[FloatArray, TreatmentSpace, Factor], FloatArray]
    labels: Callable[[TreatmentSpace, Factor], list[str]]
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


def term_labels(term: Iterable[Factor], space: TreatmentSpace) -> list[str]:
    """Return the names of the columns of a term."""
    labels = list[str]()
    for factor in term:
        names = factor.labels(space)
        crossed = [f"{left} * {right}" for left in labels for right in names]
        labels = [*labels, *names, *crossed]
    return labels


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

    def labels(space: TreatmentSpace, factor: Factor) -> list[str]:
        names = [space.names[j] for j in factor.dimensions]
        return [label(names, m) for m in _monomials(len(names), degree)]

    return Kind(values, labels, continuous=True, categorical=False)


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


def _level_labels(space: TreatmentSpace, factor: Factor) -> list[str]:
    return [f"{name} = {level}" for name, levels in _treated(space, factor) for level in levels]


def _among_labels(space: TreatmentSpace, factor: Factor) -> list[str]:
    return [
        f"{name} = {level} rather than {levels[0]}"
        for name, levels in _treated(space, factor)
        for level in levels[1:]
    ]


def _treated(space: TreatmentSpace, factor: Factor) -> Iterator[tuple[str, list[Any]]]:
    """Yield name and levels but the control of every dimension of a factor."""
    for dimension in (space.dimensions[j] for j in factor.dimensions):
        if isinstance(dimension, Categorical):
            yield dimension.name, [v for v in dimension.levels if v != dimension.control]


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


def _spline_labels(space: TreatmentSpace, factor: Factor) -> list[str]:
    labels = []
    for position in factor.dimensions:
        lower, upper = space.bounds[position]
        places = [lower, *(lower + (upper - lower) * _interior_knots(space, factor, position))]
        labels += [
            space.names[position],
            *(f"spline({space.names[position]}, {place:.6g})" for place in places[:-1]),
        ]
    return labels


KINDS: dict[str, Kind] = {
    "linear": _polynomial(1),
    "quadratic": _polynomial(2),
    "cubic": _polynomial(3),
    "spline": Kind(_spline, _spline_labels, continuous=True, categorical=False),
    "log1p": Kind(
        _log1p,
        lambda space, factor: [f"log1p({space.names[j]})" for j in factor.dimensions],
        continuous=True,
        categorical=False,
    ),
    "any": Kind(
        _any,
        lambda space, factor: [f"any({', '.join(space.names[j] for j in factor.dimensions)})"],
        continuous=True,
        categorical=True,
    ),
    "levels": Kind(_levels, _level_labels, continuous=False, categorical=True),
    "among": Kind(_among, _among_labels, continuous=False, categorical=True),
}
