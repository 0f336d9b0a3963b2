"""The experiment's design: the moments Λ = E[φφᵀ | x] of the treatment basis.

With them response coefficients are debiased. Moments are sums over rows, one set a stratum (a
randomized design has the single stratum ``""``), so that batches add up. Strata that do not
identify the basis are merged with others first (``core.strata``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from coarse_spark.core.additive import Additive
from coarse_spark.core.arrays import BoolArray, FloatArray
from coarse_spark.errors import InvalidInputError, nearest
from coarse_spark.text import shown

RANDOMIZED = ""  # the one stratum of a design without strata
FEW = 30.0  # a stratum with fewer effective rows tells little of how its units were treated

# Rounding of sums over millions of rows reaches 1e-14 of the diagonal; a direction below that does
# not vary.
_SINGULAR = 1e-14


@dataclass(frozen=True)
class MomentSums(Additive):
    """Sums over rows with basis columns φ (p,) and weight w.

    Attributes
    ----------
    moment : (p, p) Σ w φφᵀ.
    weight, square_weight : Σ w and Σ w².
    rows : number of rows.
    whole : Σ w of these rows and of those that lack the outcome; else ``weight``.
    """

    moment: FloatArray
    weight: float
    square_weight: float
    rows: float
    whole: float

    @property
    def matrix(self) -> FloatArray:
        """Λ (p, p) of the rows; zeros of none."""
        return self.moment / (self.weight or 1.0)

    @property
    def matrix_of_known(self) -> FloatArray:
        """E[R φφᵀ] (p, p), R telling which rows have the outcome; Λ where all have."""
        return self.moment / self.whole

    @property
    def effective_rows(self) -> float:
        """Effective sample size (Σw)² / Σw² (Kish 1965)."""
        return self.weight**2 / self.square_weight if self.rows else 0.0


def moment_sums(
    phi: FloatArray,
    strata: npt.ArrayLike | None = None,
    weight: FloatArray | None = None,
    known: BoolArray | None = None,
) -> dict[str, MomentSums]:
    """Return the moment sums of a batch, by stratum label.

    Without strata all rows are of the stratum ``RANDOMIZED``. Rows of weight 0 are no rows.

    Parameters
    ----------
    phi : (n, p) basis columns of the treatments given. Whitened columns keep the sums of narrow
        ranges accurate.
    strata : (n,) labels.
    weight : (n,) row weights, default one.
    known : (n,) which rows have the outcome, default all; others count in ``whole`` alone.
    """
    weight = np.ones(len(phi)) if weight is None else np.asarray(weight, dtype=np.float64)
    labels = np.full(len(phi), RANDOMIZED) if strata is None else np.asarray(strata).astype(str)
    kept = np.flatnonzero(weight != 0)
    found, codes = np.unique(labels[kept], return_inverse=True)
    order = kept[np.argsort(codes, kind="stable")]
    bounds = [0, *np.cumsum(np.bincount(codes, minlength=len(found))).tolist()]
    sums = {}
    for label, (start, end) in zip(found, pairwise(bounds), strict=True):
        here = order[start:end]
        whole = float(weight[here].sum())
        here = here if known is None else here[known[here]]
        rows, w = phi[here], weight[here]
        sums[str(label)] = MomentSums(
            (rows * w[:, None]).T @ rows, float(w.sum()), float(w @ w), float(len(w)), whole
        )
    return sums


def row_moments(
    moments: Mapping[str, MomentSums], strata: npt.ArrayLike | None, size: int
) -> FloatArray:
    """Return Λ of every row, of those that have the outcome only: E[R φφᵀ].

    A matrix (p, p) for a randomized design, (n, p, p) for a stratified one.

    Parameters
    ----------
    moments : by stratum label.
    strata : (n,) labels of the rows; None for a randomized design.
    size : n, the number of rows.

    Raises
    ------
    InvalidInputError : a stratum without moments.
    """
    if set(moments) == {RANDOMIZED}:
        return moments[RANDOMIZED].matrix_of_known
    if strata is None:
        raise InvalidInputError(
            f"the design has {len(moments)} strata, found {size} rows without strata"
        )
    labels, codes = np.unique(np.asarray(strata).astype(str), return_inverse=True)
    for label in labels:
        if label not in moments:
            raise InvalidInputError(
                f"stratum '{label}' has no moments{nearest(label, moments)}; the experiment has "
                f"{', '.join(moments)}"
            )
    matrices: FloatArray = np.stack([moments[str(label)].matrix_of_known for label in labels])[
        codes
    ]
    return matrices


def design_problems(moments: Mapping[str, MomentSums], *, private: bool = False) -> list[str]:
    """Return a sentence where strata have few effective rows; none where no stratum has.

    Parameters
    ----------
    moments : by stratum label.
    private : show hashes of labels.
    """
    few = {label: sums.effective_rows for label, sums in moments.items()}
    few = {label: rows for label, rows in few.items() if rows < FEW}
    if not few:
        return []
    least = min(few, key=lambda label: (few[label], label))
    place = "the design" if least == RANDOMIZED else f"stratum '{shown(least, private=private)}'"
    if len(few) > 1:
        return [
            f"{len(few)} of {len(moments)} strata have fewer than {FEW:.0f} effective rows, the "
            f"least {place} with {few[least]:.0f}"
        ]
    return [f"{place} has {few[least]:.0f} effective rows, fewer than {FEW:.0f}"]


def corrected(
    theta_hat: FloatArray, phi: FloatArray, y: FloatArray, weights: FloatArray
) -> FloatArray:
    """Return the debiased coefficients θ̃_i = θ̂(x_i) + α_i (y_i − φ(t_i)·θ̂(x_i)) (n, p).

    The mean of ψ·(θ̃, 1) estimates a policy's value without the bias of θ̂, given θ̂ from other
    rows: the influence function of Farrell, Liang & Misra (2021); with one column per arm it is
    augmented inverse-propensity weighting.

    Parameters
    ----------
    theta_hat : (n, p) out-of-fold coefficients.
    phi : (n, p) basis columns of the treatments given.
    y : (n,) outcomes.
    weights : (n, p) α_i = Λ(x_i)⁻¹ φ(t_i), the design's ``representer``.
    """
    residual = y - np.einsum("ij,ij->i", phi, theta_hat)
    return np.asarray(theta_hat + weights * residual[:, None])


def representer(phi: FloatArray, moments: FloatArray) -> FloatArray:
    """Return α_i = Λ(x_i)⁻¹ φ(t_i) (n, p), which turns a residual into a correction of θ̂.

    The Riesz representer of the coefficients (Chernozhukov, Newey & Singh 2022); with one column
    per arm it is one over the propensity of the arm given. It depends on the design alone, not on
    outcomes.

    Parameters
    ----------
    phi : (n, p) basis columns of the treatments given.
    moments : Λ, (p, p) for all rows or (n, p, p), in the same columns as ``phi``.

    Raises
    ------
    InvalidInputError : Λ is singular: the treatments do not vary enough to identify the basis.
    """
    # by eigenvectors of Λ scaled to a unit diagonal: raw columns of narrow ranges differ by many
    # magnitudes
    diagonal = np.sqrt(np.einsum("...ii->...i", moments))
    if not (diagonal > 0).all():
        raise InvalidInputError(
            "the moments of the design are singular: a column of the basis is zero at every "
            "treatment given"
        )
    values, vectors = np.linalg.eigh(moments / (diagonal[..., :, None] * diagonal[..., None, :]))
    if not (values > _SINGULAR).all():
        raise InvalidInputError(
            f"the moments of the design are singular (smallest eigenvalue {values.min():.1g} of a "
            "unit diagonal): the treatments "
            "given do not vary enough for this basis; use a smaller basis, or merge the strata"
        )
    scaled = phi / diagonal
    if moments.ndim == 2:
        projected: FloatArray = (scaled @ vectors / values) @ vectors.T / diagonal
        return projected
    within = np.einsum("nij,ni->nj", vectors, scaled) / values
    return np.asarray(np.einsum("nij,nj->ni", vectors, within) / diagonal)


def representer_of_known(
    phi: FloatArray,
    moments: Mapping[str, MomentSums],
    strata: npt.ArrayLike | None,
    known: BoolArray,
) -> FloatArray:
    """Return α (n, p), 0 for units that lack the outcome and larger for those that have it.

    So that these stand for all of their stratum: α is of E[R φφᵀ], R telling who has it. A score of
    a unit without the outcome is then what was predicted, and a mean over all units is right where
    the lack tells nothing of the outcome beyond treatment and stratum; where it goes with features
    too, as far as predictions get these right (Robins, Rotnitzky & Zhao 1994).

    Parameters
    ----------
    phi : (n, p) basis columns of the treatments given.
    moments : by stratum, of ``moment_sums`` with ``known``.
    strata : (n,) labels; None for a randomized design.
    known : (n,).

    Raises
    ------
    InvalidInputError : as ``row_moments`` and ``representer`` do.
    """
    found = np.zeros_like(phi)
    if known.any():
        some = None if strata is None else np.asarray(strata)[known]
        found[known] = representer(phi[known], row_moments(moments, some, int(known.sum())))
    return found
