"""Identification: which columns of a basis the treatments of a group of units tell apart.

A group (a whole experiment, a partition, a stratum) identifies a basis when no column of φ is
explained by the earlier ones at every treatment that its units got. One rule, ``unidentified``,
says so of any factor of the group's moments: of its rows, or of sums Σ w zzᵀ that were added up on
many machines. Sums know a column only to the square root of their rounding, so they are of whitened
columns z, in which 1 is what the whole experiment varies by. All tolerances are relative:
treatments may lie in [0, 1e-6].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.basis import Basis, separated
from coarse_spark.errors import InvalidInputError
from coarse_spark.text import counted

_CONSTANT = 1e-12  # a column that varies by less, in units of its own size, is constant
_OF_ROWS = 1e-9  # a quadratic over a narrow range (99 to 100 percent) stays far above it
_OF_MOMENTS = 1e-12  # sums over millions of rows round to less
_NOTHING = 1e-6  # of the largest part of a combination of columns: what rounding leaves
_TERMS_SHOWN = 8


def unidentified(columns: FloatArray, tolerance: float) -> list[int]:
    """Return the positions of the columns that earlier ones explain.

    Gram and Schmidt's way, each column twice: what is left of an explained one is rounding, and
    explains no later one.

    Parameters
    ----------
    columns : (n, c) in units in which their size is about 1: a factor A of moments AᵀA.
    tolerance : a column of which no more is left is explained.

    Examples
    --------
    >>> unidentified(np.array([[1.0, 2.0, 0.0], [1.0, 2.0, 1.0]]), 1e-9)
    [1]
    """
    directions, lost = np.empty((len(columns), 0)), []
    for position, column in enumerate(columns.T):
        left = column
        for _ in range(2):
            left = left - directions @ (directions.T @ left)
        size = float(np.linalg.norm(left))
        if size <= tolerance:
            lost.append(position)
        else:
            directions = np.column_stack([directions, left / size])
    return lost


@dataclass(frozen=True, eq=False)
class Standardized:
    """The columns of a basis beside the constant, centred and of unit variance over some rows.

    They come in the order of ``Basis.by_name``.

    Attributes
    ----------
    basis : φ.
    treatments, weight : (n, d) encoded and (n,), of the rows.
    mean : (p,) of all columns of φ.
    scale : (p − 1,) standard deviations, 1 where a column does not vary.
    triangle : (p − 1, p − 1) or less rows, the triangular factor R of their covariance RᵀR.
    """

    basis: Basis
    treatments: FloatArray
    weight: FloatArray
    mean: FloatArray
    scale: FloatArray
    triangle: FloatArray

    @staticmethod
    def of(basis: Basis, treatments: FloatArray, weight: FloatArray) -> Standardized:
        """Return those of encoded treatments (n, d) with weights (n,), not all of them 0."""
        phi, order = basis(treatments), basis.by_name[1:]
        mean = weight @ phi / weight.sum()
        centred = (phi - mean)[:, order]
        spread = np.sqrt(weight @ centred**2 / weight.sum())
        varies = spread > _CONSTANT * np.abs(phi[:, order]).max(axis=0, initial=0.0)
        scale = np.where(varies, spread, 1.0)
        rows = np.where(varies, centred / scale, 0.0) * np.sqrt(weight / weight.sum())[:, None]
        triangle = np.asarray(np.linalg.qr(rows, mode="r"))
        return Standardized(basis, treatments, weight, mean, scale, triangle)

    @property
    def unidentified(self) -> tuple[str, ...]:
        """Names of the columns that the treatments do not identify."""
        order = self.basis.by_name[1:]
        return tuple(self.basis.columns[order[position]] for position in self._lost)

    @cached_property
    def _lost(self) -> list[int]:
        return unidentified(self.triangle, _OF_ROWS)

    @property
    def why_unidentified(self) -> str | None:
        """Why the treatments do not identify the basis; None where they do.

        The sentence names the first column that others make up, and those.
        """
        if not self._lost:
            return None
        basis, treatments, weight = self.basis, self.treatments, self.weight
        first, order, scale = self._lost[0], basis.by_name[1:], self.scale
        column, given = basis.columns[order[first]], treatments[weight > 0]
        distinct = counted(len(np.unique(given, axis=0)), "distinct treatment")
        found = f"{len(given)} rows with {distinct} for {basis.size} columns"
        head = f"basis '{basis.name}': the observed treatments do not identify its column"
        if basis.is_arms and (weight @ basis(treatments) == 0).any():
            nobody = np.flatnonzero(weight @ basis(treatments) == 0)
            others = f" (and {len(nobody) - 1} more)" if len(nobody) > 1 else ""
            return f"{head} '{basis.columns[nobody[0]]}'{others}, which nobody got: {found}"
        if len(given) < basis.size:
            return f"{head} '{column}': {found}"
        triangle = self.triangle[:first, : first + 1]
        share = scipy.linalg.solve_triangular(triangle[:, :first], triangle[:, first])
        # columns count by what they vary, whatever their units
        counted_in = np.flatnonzero(np.abs(share) > _NOTHING * np.abs(share).max(initial=0.0))
        share *= scale[first] / scale[:first]
        constant = self.mean[order[first]] - share @ self.mean[order[:first]]
        if abs(constant) < _NOTHING * scale[first]:
            constant = 0.0
        names = [basis.columns[number] for number in order[counted_in]]
        combination = _combination(constant, share[counted_in], names)
        return f"{head} '{column}', which is {combination}: {found}"


def standardized(basis: Basis, treatments: FloatArray, weight: FloatArray) -> Standardized | str:
    """Return the columns of a basis that treatments identify, or why they do not.

    Parameters
    ----------
    basis : of the treatments.
    treatments : (n, d) encoded.
    weight : (n,).
    """
    try:
        found = Standardized.of(basis, treatments, weight)
    except InvalidInputError as error:  # arms know no treatment between candidates
        return str(error)
    return found.why_unidentified or found


def why_unidentified(basis: Basis, treatments: FloatArray, weight: FloatArray) -> str | None:
    """Return why observed treatments do not identify a basis, None where they do.

    See ``Standardized.why_unidentified``.

    Parameters
    ----------
    basis : of the treatments.
    treatments : (n, d) encoded.
    weight : (n,).

    Examples
    --------
    >>> from coarse_spark import TreatmentSpace
    >>> box = {"kind": "continuous", "lower": 0, "upper": 9, "control": 0}
    >>> basis = Basis("linear", TreatmentSpace.from_dict({"calls": box, "letters": box}))
    >>> why_unidentified(basis, np.array([[0, 1], [1, 3], [2, 5.0]]), np.ones(3))
    "basis 'linear': the observed treatments do not identify its column 'letters', \
which is 1 + 2 'calls': 3 rows with 3 distinct treatments for 3 columns"
    """
    found = standardized(basis, treatments, weight)
    return found if isinstance(found, str) else None


def instead(basis: Basis, treatments: FloatArray) -> str:
    """Return what to use in place of a basis that is not identified."""
    if basis.is_arms:
        return "another basis, or a finite list of the treatments that were given"
    other = separated(basis.name, basis.space, treatments)
    return f"'{other}'" if other != basis.name else "a smaller basis or a wider experiment"


def unidentified_terms(
    basis: Basis, treatments: FloatArray, weight: FloatArray | None = None
) -> tuple[str, ...]:
    """Return the columns of a basis that treatments do not identify; none where they identify it.

    Parameters
    ----------
    basis : φ.
    treatments : (n, d) encoded, of the units of a group.
    weight : (n,), not all of them 0; default one.

    Examples
    --------
    >>> from coarse_spark import TreatmentSpace
    >>> price = {"kind": "continuous", "lower": 0, "upper": 1e-6, "control": 0}
    >>> basis = Basis("quadratic", TreatmentSpace.from_dict({"price": price}))
    >>> unidentified_terms(basis, np.array([[0.0], [1e-6], [1e-6]]))
    ('price^2',)
    >>> unidentified_terms(basis, np.array([[0.0], [5e-7], [1e-6]]))
    ()
    """
    weight = np.ones(len(treatments)) if weight is None else weight
    return Standardized.of(basis, treatments, weight).unidentified


def unidentified_in(basis: Basis, moment: FloatArray) -> tuple[str, ...]:
    """Return the columns of a basis that a group does not identify, by its moments.

    Parameters
    ----------
    basis : φ.
    moment : Λ = E[zzᵀ] (p, p) of the group in whitened columns (``Whitening`` of the whole
        experiment).
    """
    return tuple(basis.columns[basis.by_name[position]] for position in weak_columns(moment))


def weak_columns(moment: FloatArray) -> list[int]:
    """Return the positions of the whitened columns that a moment matrix (p, p) does not identify.

    It identifies all where no combination of columns, in units of their size in the group or in the
    whole experiment, whichever is larger, vanishes.
    """
    size = np.sqrt(np.maximum(np.diag(moment), 1.0))
    values, vectors = np.linalg.eigh(moment / np.outer(size, size))
    if values[0] > _OF_MOMENTS:
        return []
    factor = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    # a combination of many columns may vanish where each alone is just above the tolerance
    return unidentified(factor, np.sqrt(_OF_MOMENTS)) or [int(np.abs(vectors[:, 0]).argmax())]


def _combination(constant: float, share: FloatArray, names: Sequence[str]) -> str:
    """Return a constant and multiples of columns in words."""
    parts = [(constant, "")] if constant or not names else []
    parts += [(number, f"'{name}'") for number, name in zip(share, names, strict=True)]
    words: list[str] = []
    for number, name in parts[:_TERMS_SHOWN]:
        sign = ("-" if number < 0 else "+") if words else ("-" if number < 0 else "")
        size = "" if name and abs(abs(number) - 1) <= _NOTHING else f"{abs(number):.4g}"
        words.append(" ".join(part for part in (sign, size, name) if part))
    more = f" and {len(parts) - _TERMS_SHOWN} more" if len(parts) > _TERMS_SHOWN else ""
    return f"{' '.join(words)}{more}"
