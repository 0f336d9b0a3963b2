"""The treatment basis φ: T → R^p with φ₀ = 1, in which every response is linear: E[y | x, t] = φ(t)·θ(x).

A basis is named by a text such as ``"quadratic"`` or ``"any+log1p"``: terms joined by ``+``, each adding columns after the
constant. The polynomial terms follow the column order of scikit-learn's PolynomialFeatures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement

import numpy as np
import numpy.typing as npt

from coarse_spark.core.treatments import Categorical, TreatmentSpace
from coarse_spark.errors import InvalidInputError, nearest

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Basis:
    """φ on one treatment space.

    Parameters
    ----------
    name : terms joined by ``+``: linear, quadratic, cubic (polynomials with all products up to that degree), log1p (logarithm of
        one plus the distance from the control, one column a dimension), any (1 off the control: a jump), or ``arms`` alone
        (one column a candidate; no constant).
    space : the treatments it is defined on.

    Raises
    ------
    InvalidInputError : an unknown term.
    """

    name: str
    space: TreatmentSpace

    def __post_init__(self) -> None:
        terms = self.terms
        for term in terms:
            if term not in _TERMS and term != "arms":
                raise InvalidInputError(f"basis '{self.name}': unknown term '{term}'{nearest(term, [*_TERMS, 'arms'])}")
        if "arms" in terms and len(terms) > 1:
            raise InvalidInputError(f"basis '{self.name}': arms has one column a candidate and cannot be joined with other terms")
        if "arms" not in terms:
            for dimension in self.space.dimensions:
                if isinstance(dimension, Categorical):
                    raise InvalidInputError(f"basis '{self.name}': treatment '{dimension.name}' is categorical; use basis 'arms'")

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms of the name."""
        return tuple(term.strip() for term in self.name.split("+"))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Readable names of the p columns."""
        if self.terms == ("arms",):
            return tuple(self.space.describe(candidate) for candidate in self.space.candidates)
        names = ["1"]
        for term in self.terms:
            names += [name for name in _TERMS[term][1](self.space) if name not in names]
        return tuple(names)

    @property
    def size(self) -> int:
        """p, the number of columns."""
        return len(self.columns)

    @cached_property
    def constant(self) -> FloatArray:
        """(p,) the coefficients with which the columns add up to one at every treatment."""
        constant = np.ones(self.size) if self.terms == ("arms",) else np.eye(self.size)[0]
        constant.flags.writeable = False
        return constant

    def __call__(self, treatments: FloatArray) -> FloatArray:
        """Return φ at encoded treatments (n, d) as (n, p).

        Raises
        ------
        InvalidInputError : basis ``arms`` at a treatment that is no candidate.
        """
        treatments = np.atleast_2d(np.asarray(treatments, dtype=np.float64))
        if self.terms == ("arms",):
            return self._arms(treatments)
        parts, names = [np.ones((len(treatments), 1))], ["1"]
        for term in self.terms:
            values, labels = _TERMS[term][0](treatments, self.space), _TERMS[term][1](self.space)
            fresh = [position for position, label in enumerate(labels) if label not in names]
            parts.append(values[:, fresh])
            names += [labels[position] for position in fresh]
        return np.hstack(parts)

    def _arms(self, treatments: FloatArray) -> FloatArray:
        # a treatment belongs to the candidate it equals; candidates are few and distinct
        distance = np.abs(treatments[:, None, :] - self.space.candidates[None, :, :]).max(axis=2)
        arm = distance.argmin(axis=1)
        stray = distance[np.arange(len(arm)), arm] > 1e-9
        if stray.any():
            place = self.space.describe(treatments[np.flatnonzero(stray)[0]])
            raise InvalidInputError(f"basis 'arms': {place} is not one of the {len(self.space.candidates)} candidates")
        return np.asarray(np.eye(len(self.space.candidates))[arm])


def _monomials(dimensions: int, degree: int) -> list[tuple[int, ...]]:
    return [powers for d in range(1, degree + 1) for powers in combinations_with_replacement(range(dimensions), d)]


def _polynomial(degree: int) -> tuple[Callable[[FloatArray, TreatmentSpace], FloatArray], Callable[[TreatmentSpace], list[str]]]:
    def values(treatments: FloatArray, space: TreatmentSpace) -> FloatArray:
        return np.column_stack([treatments[:, list(m)].prod(axis=1) for m in _monomials(len(space.dimensions), degree)])

    def label(names: tuple[str, ...], monomial: tuple[int, ...]) -> str:
        powers = [(names[j], monomial.count(j)) for j in dict.fromkeys(monomial)]
        return " ".join(name if power == 1 else f"{name}^{power}" for name, power in powers)

    return values, lambda space: [label(space.names, m) for m in _monomials(len(space.dimensions), degree)]


def _log1p(treatments: FloatArray, space: TreatmentSpace) -> FloatArray:
    return np.asarray(np.log1p(np.abs(treatments - space.control)))


def _any(treatments: FloatArray, space: TreatmentSpace) -> FloatArray:
    return np.asarray((treatments != space.control).any(axis=1)[:, None], dtype=np.float64)


# term: (values at encoded treatments, names of its columns)
_TERMS: dict[str, tuple[Callable[[FloatArray, TreatmentSpace], FloatArray], Callable[[TreatmentSpace], list[str]]]] = {
    "linear": _polynomial(1),
    "quadratic": _polynomial(2),
    "cubic": _polynomial(3),
    "log1p": (_log1p, lambda space: [f"log1p({name})" for name in space.names]),
    "any": (_any, lambda space: [f"any({', '.join(space.names)})"]),
}
