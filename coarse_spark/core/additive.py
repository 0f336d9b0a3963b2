"""Records of sums over rows.

Those of disjoint rows add up field by field, on one machine or many.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np

from coarse_spark.core.arrays import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Flat:
    """The flat form of a record, in which any two of one shape can be added.

    Attributes
    ----------
    numbers : (n,) those of all fields, one field after the other.
    shapes : of the fields.
    """

    numbers: FloatArray
    shapes: tuple[tuple[int, ...], ...]


def added_up(numbers: FloatArray, *labels: IntArray) -> tuple[FloatArray, IntArray]:
    """Return the sums (g, c) of rows (n, c) that have all labels (n,) alike, and those (g, l).

    Examples
    --------
    >>> added_up(np.array([[1.0], [2.0], [4.0]]), np.array([7, 5, 7]))[0].ravel()
    array([2., 5.])
    """
    found, place = np.unique(np.column_stack(labels), axis=0, return_inverse=True)
    sums = np.zeros((len(found), numbers.shape[1]))
    np.add.at(sums, place.ravel(), numbers)
    return sums, found


class Additive:
    """Base of frozen dataclasses whose fields are float or whole numbers, or arrays of them.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Sums(Additive):
    ...     weight: float
    ...     theta: FloatArray
    >>> both = Sums(1.0, np.ones(2)) + Sums(2.0, np.zeros(2))
    >>> Sums.of_flat(both.flat()).weight
    3.0
    """

    def __add__(self, other: Self) -> Self:
        return type(self)(*(a + b for a, b in zip(self._parts(), other._parts(), strict=True)))

    def __sub__(self, other: Self) -> Self:
        return type(self)(*(a - b for a, b in zip(self._parts(), other._parts(), strict=True)))

    def flat(self) -> Flat:
        """Return the flat form."""
        parts = [np.asarray(part, dtype=np.float64) for part in self._parts()]
        return Flat(np.concatenate([part.ravel() for part in parts]), tuple(p.shape for p in parts))

    @classmethod
    def of_flat(cls, flat: Flat) -> Self:
        """Return the record of a flat form."""
        parts: list[Any] = []
        start = 0
        for one, shape in zip(fields(cls), flat.shapes, strict=True):  # type: ignore[arg-type]
            end = start + int(np.prod(shape, dtype=np.intp))
            part = flat.numbers[start:end].reshape(shape)
            start = end
            # annotations are texts here, and numbers are told apart from arrays by their shape
            whole = one.type in ("IntArray", "int")
            part = np.rint(part).astype(np.intp) if whole else part
            parts.append(part if shape else part.item())
        return cls(*parts)

    def _parts(self) -> list[Any]:
        return [getattr(self, one.name) for one in fields(self)]  # type: ignore[arg-type]
