"""Whitening of the treatment basis: z = W φ(t) with z₀ = 1.

The other columns are centred, of unit variance and uncorrelated. In z the baseline (the coefficient
of z₀) is E[y | x] of the experiment and the other coefficients are effects, so that one penalty
means the same for every column, whatever the units of the treatments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray
from coarse_spark.core.basis import Basis, separated
from coarse_spark.errors import InvalidInputError

# A column whose part that earlier columns do not explain is below this share of its own spread is
# not identified: rounding
# of a quadratic over a narrow range (99 to 100 percent) stays above 1e-6.
_RANK_TOLERANCE = 1e-9
_NOTHING = 1e-6  # of the largest part of a combination of columns: what rounding leaves
_TERMS_SHOWN = 8


@dataclass(frozen=True)
class Whitening:
    """The linear map W (p, p) between the raw basis and the whitened one.

    A response φ·θ equals z·θ_z for θ = Wᵀ θ_z.
    """

    matrix: FloatArray

    @staticmethod
    def fit(basis: Basis, treatments: FloatArray, weight: FloatArray) -> Whitening:
        """Fit by a QR decomposition of the centred basis columns ``by_name``.

        Parameters
        ----------
        basis : of the treatments.
        treatments : (n, d) encoded.
        weight : (n,).

        Raises
        ------
        InvalidInputError : the observed treatments do not identify a column of the basis.
        """
        order, mean, scale, triangle = _triangle(basis, treatments, weight)
        if not _identified(triangle).all():
            reason = unidentified(basis, treatments, weight)
            raise InvalidInputError(f"{reason}; use {_instead(basis, treatments)}")
        triangle *= np.sign(np.diag(triangle))[:, None]
        inverse = scipy.linalg.solve_triangular(
            triangle, np.diag(1 / scale), trans="T", lower=False
        )
        effects = np.zeros((len(inverse), basis.size))
        effects[:, order] = inverse
        effects -= np.outer(effects @ mean, basis.constant)
        return Whitening(np.vstack([basis.constant, effects]))

    def __call__(self, phi: FloatArray) -> FloatArray:
        """Return z (n, p) for basis rows φ (n, p)."""
        return phi @ self.matrix.T

    def raw(self, theta: FloatArray) -> FloatArray:
        """Return coefficients of φ for coefficients of z (n, p)."""
        return theta @ self.matrix

    def to_list(self) -> list[list[float]]:
        """Return plain values that ``restore`` reads back."""
        return [[float(value) for value in row] for row in self.matrix]

    @staticmethod
    def restore(content: Any) -> Whitening:
        """Return the whitening that ``to_list`` described."""
        return Whitening(np.asarray(content, dtype=np.float64))


def unidentified(basis: Basis, treatments: FloatArray, weight: FloatArray) -> str | None:
    """Return why observed treatments do not identify a basis, None where they do.

    The sentence names the first column that others make up, and those.

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
    >>> unidentified(basis, np.array([[0, 1], [1, 3], [2, 5.0]]), np.ones(3))
    "basis 'linear': the observed treatments do not identify its column 'letters', \
which is 1 + 2 'calls': 3 rows with 3 distinct treatments for 3 columns"
    """
    try:
        order, mean, scale, triangle = _triangle(basis, treatments, weight)
    except InvalidInputError as error:  # arms know no treatment between candidates
        return str(error)
    identified = _identified(triangle)
    if identified.all():
        return None
    first = int(np.flatnonzero(~identified)[0])
    column = basis.columns[order[first]]
    rows = f"{len(treatments)} rows with {len(np.unique(treatments, axis=0))} distinct treatments"
    counted = f"{rows} for {basis.size} columns"
    head = f"basis '{basis.name}': the observed treatments do not identify its column"
    if basis.terms == ("arms",) and (weight @ basis(treatments) == 0).any():
        nobody = np.flatnonzero(weight @ basis(treatments) == 0)
        others = f" (and {len(nobody) - 1} more)" if len(nobody) > 1 else ""
        return f"{head} '{basis.columns[nobody[0]]}'{others}, which nobody got: {counted}"
    if len(treatments) < basis.size:
        return f"{head} '{column}': {counted}"
    share = scipy.linalg.solve_triangular(triangle[:first, :first], triangle[:first, first])
    # columns count by what they vary, whatever their units
    counted_in = np.flatnonzero(np.abs(share) > _NOTHING * np.abs(share).max(initial=0.0))
    share *= scale[first] / scale[:first]
    constant = mean[order[first]] - share @ mean[order[:first]]
    if abs(constant) < _NOTHING * scale[first]:
        constant = 0.0
    names = [basis.columns[number] for number in order[counted_in]]
    return (
        f"{head} '{column}', which is {_combination(constant, share[counted_in], names)}: {counted}"
    )


def _triangle(
    basis: Basis, treatments: FloatArray, weight: FloatArray
) -> tuple[IntArray, FloatArray, FloatArray, FloatArray]:
    """Return the order (p - 1,) in which columns are taken, the mean (p,) and scale of columns.

    Last comes the triangle (·, p - 1) of the QR decomposition of the centred and scaled columns.
    """
    phi = basis(treatments)
    mean = weight @ phi / weight.sum()
    # the first column is the constant, or with arms one minus all others
    order = basis.by_name[1:]
    centred = (phi - mean)[:, order]
    spread = np.sqrt(weight @ centred**2 / weight.sum())
    scale = np.where(spread > 1e-12 * np.abs(mean[order]), spread, 1.0)
    rows = centred / scale * np.sqrt(weight / weight.sum())[:, None]
    return order, mean, scale, np.asarray(np.linalg.qr(rows, mode="r"))


def _identified(triangle: FloatArray) -> BoolArray:
    rows, columns = triangle.shape
    if rows < columns:
        return np.zeros(columns, dtype=bool)
    return np.asarray(np.abs(np.diag(triangle)) > _RANK_TOLERANCE)


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


def _instead(basis: Basis, treatments: FloatArray) -> str:
    """Return what to use in place of a basis that is not identified."""
    if basis.terms == ("arms",):
        return "another basis, or a finite list of the treatments that were given"
    other = separated(basis.name, basis.space, treatments)
    return f"'{other}'" if other != basis.name else "a smaller basis or a wider experiment"
