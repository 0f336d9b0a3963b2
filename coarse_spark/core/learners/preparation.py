"""What every learner shares before it sees an outcome: the encoding of features, treatments, strata and the outcome's scale.

Fitted once (on all rows, or on a sample where the rows are spread over machines) and then applied batch by batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from coarse_spark.core.basis import Basis
from coarse_spark.core.learners.features import FeatureEncoder
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.learners.whitening import Whitening
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PreparedRows:
    """Rows as the learners see them.

    Parameters
    ----------
    features : f(x) (n, m), f₀ = 1.
    z : whitened basis (n, p), z₀ = 1.
    strata : centred indicators (n, s) of all strata but the first; s = 0 without strata.
    outcome : (n,) standardized.
    weight : (n,).
    """

    features: FloatArray
    z: FloatArray
    strata: FloatArray
    outcome: FloatArray
    weight: FloatArray


@dataclass(frozen=True)
class Preparation:
    """Maps raw rows to ``PreparedRows``.

    Parameters
    ----------
    encoder : of the features.
    basis : of the treatments.
    whitening : of the basis columns.
    center, scale : of the outcome.
    strata : labels of the strata, sorted; empty without strata.
    strata_shares : weight share of every stratum.
    """

    encoder: FeatureEncoder
    basis: Basis
    whitening: Whitening
    center: float
    scale: float
    strata: tuple[str, ...] = ()
    strata_shares: tuple[float, ...] = ()

    @staticmethod
    def fit(
        X: pd.DataFrame,
        T: FloatArray,
        y: FloatArray,
        *,
        basis: Basis,
        weight: FloatArray | None = None,
        strata: npt.ArrayLike | None = None,
        settings: LearnerSettings | None = None,
    ) -> Preparation:
        """Fit on rows of features X, encoded treatments T (n, d), outcomes y (n,), weights (n,) and stratum labels (n,).

        Raises
        ------
        InvalidInputError : arrays of different lengths, missing or infinite treatments, outcomes or weights, or treatments that
            do not identify the basis.
        """
        settings = settings or LearnerSettings()
        weight = check_rows(X, T, y, weight)
        encoder = FeatureEncoder.fit(
            X, weight, knots=settings.knots, min_level_rows=settings.min_level_rows, max_levels=settings.max_levels
        )
        share = weight / weight.sum()
        center = float(share @ y)
        scale = float(np.sqrt(share @ (y - center) ** 2)) or 1.0
        labels = np.asarray([] if strata is None else strata).astype(str)
        levels, codes = np.unique(labels, return_inverse=True)
        shares = np.bincount(codes, weights=share, minlength=len(levels)) if len(levels) else np.zeros(0)
        whitening = Whitening.fit(basis, T, weight)
        return Preparation(encoder, basis, whitening, center, scale, tuple(levels.tolist()), tuple(shares.tolist()))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(m, p, s): columns of the features, the basis and the strata."""
        return len(self.encoder.columns), self.basis.size, max(len(self.strata) - 1, 0)

    def rows(
        self,
        X: pd.DataFrame,
        T: FloatArray,
        y: FloatArray,
        weight: FloatArray | None = None,
        strata: npt.ArrayLike | None = None,
    ) -> PreparedRows:
        """Return the rows as the learners see them.

        Raises
        ------
        InvalidInputError : as in ``fit``; or strata are missing or new although the preparation was fitted with strata.
        """
        weight = check_rows(X, T, y, weight)
        z = self.whitening(self.basis(T))
        return PreparedRows(self.encoder.transform(X), z, self._indicators(strata, len(y)), (y - self.center) / self.scale, weight)

    def _indicators(self, strata: npt.ArrayLike | None, size: int) -> FloatArray:
        if not self.strata:
            return np.zeros((size, 0))
        if strata is None:
            raise InvalidInputError(f"the model was prepared with {len(self.strata)} strata, found rows without strata")
        labels = np.asarray(strata).astype(str)
        known = np.asarray(self.strata)
        codes = np.minimum(np.searchsorted(known, labels), len(known) - 1)
        # a stratum outside the sample that the preparation saw stays at the centre: it has no column of its own
        indicators = np.where((known[codes] == labels)[:, None], np.eye(len(known))[codes] - np.asarray(self.strata_shares), 0.0)
        return indicators[:, 1:]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that ``from_dict`` reads back."""
        return {
            "encoder": self.encoder.to_dict(),
            "basis": self.basis.name,
            "basis_columns": list(self.basis.columns),
            "space": self.basis.space.to_dict(),
            "whitening": self.whitening.to_list(),
            "center": self.center,
            "scale": self.scale,
            "strata": list(self.strata),
            "strata_shares": list(self.strata_shares),
        }

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> Preparation:
        """Return the preparation that ``to_dict`` described."""
        return Preparation(
            FeatureEncoder.from_dict(content["encoder"]),
            Basis(content["basis"], TreatmentSpace.restore(content["space"])),
            Whitening.restore(content["whitening"]),
            float(content["center"]),
            float(content["scale"]),
            tuple(content["strata"]),
            tuple(content["strata_shares"]),
        )


def check_rows(X: pd.DataFrame, T: FloatArray, y: FloatArray, weight: FloatArray | None) -> FloatArray:
    """Return the weights (n,), ones where none are given.

    Raises
    ------
    InvalidInputError : different lengths, no rows, or values that are missing, infinite or (weights) negative.
    """
    weight = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=np.float64)
    lengths = {"features": len(X), "treatments": len(T), "outcomes": len(y), "weights": len(weight)}
    if len(set(lengths.values())) > 1:
        raise InvalidInputError(f"rows do not match: {', '.join(f'{count} {name}' for name, count in lengths.items())}")
    if not len(y):
        raise InvalidInputError("there are no rows to fit on")
    for name, values in (("treatment", T), ("outcome", y), ("weight", weight)):
        bad = ~np.isfinite(values).reshape(len(y), -1).all(axis=1)
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            raise InvalidInputError(
                f"{int(bad.sum())} rows have a missing or infinite {name}, the first is row {first}; drop or mend them"
            )
    if (weight < 0).any() or not weight.any():
        raise InvalidInputError("weights must not be negative, and at least one must be above zero")
    return weight
