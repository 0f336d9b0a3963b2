"""What every learner shares before it sees an outcome: the encoding of features, treatments, strata and the outcome's scale.

Fitted once (on all rows, or on a sample where the rows are spread over machines) and then applied batch by batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray
from coarse_spark.core.basis import Basis
from coarse_spark.core.learners.encoding.features import FeatureEncoder
from coarse_spark.core.learners.encoding.screening import rank_features
from coarse_spark.core.learners.encoding.whitening import Whitening
from coarse_spark.core.learners.folds import ALL_FOLDS
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError

_MOST_STRATA, _MOST_STRATA_PRODUCTS = 200, 200


@dataclass(frozen=True)
class PreparedRows:
    """Rows as the learners see them.

    Parameters
    ----------
    features : f(x) (n, m), f₀ = 1.
    z : whitened basis (n, p), z₀ = 1.
    strata : (n, s) centred indicators of all strata but the first and, where those are few, their products with the plain
        features; s = 0 without strata.
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
    clip : bounds that outcomes are winsorized to.
    strata : labels of the strata, sorted, at most 200 of the largest; empty without strata.
    strata_shares : weight share of every stratum.
    products : columns of products that the model leaving out a fold may use, by fold: chosen on the other folds.
    """

    encoder: FeatureEncoder
    basis: Basis
    whitening: Whitening
    center: float
    scale: float
    clip: tuple[float, float] = (-np.inf, np.inf)
    strata: tuple[str, ...] = ()
    strata_shares: tuple[float, ...] = ()
    products: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    @staticmethod
    def fit(
        X: pd.DataFrame,
        T: FloatArray,
        y: FloatArray,
        *,
        basis: Basis,
        weight: FloatArray | None = None,
        strata: npt.ArrayLike | None = None,
        fold: IntArray | None = None,
        settings: LearnerSettings | None = None,
    ) -> Preparation:
        """Fit on rows of features X, encoded treatments T (n, d), outcomes y (n,), weights (n,) and stratum labels (n,).

        With ``fold`` (n,), where not all products fit, they are chosen for every fold on the rows outside it.

        Raises
        ------
        InvalidInputError : arrays of different lengths, missing or infinite treatments, outcomes or weights, or treatments that
            do not identify the basis.
        """
        settings = settings or LearnerSettings()
        weight = check_rows(X, T, y, weight)
        encoder = FeatureEncoder.fit(X, weight, **settings.encoding)
        share = weight / weight.sum()
        clip = _clip_bounds(y, settings.winsorize)
        y = np.clip(y, *clip)
        center = float(share @ y)
        scale = float(np.sqrt(share @ (y - center) ** 2)) or 1.0
        levels, shares = _strata_shares(strata, share)
        whitening = Whitening.fit(basis, T, weight)
        plain = Preparation(encoder, basis, whitening, center, scale, clip, levels, shares)
        return plain._with_products(X, T, y, weight, fold, settings.max_columns)

    def _with_products(
        self,
        X: pd.DataFrame,
        T: FloatArray,
        y: FloatArray,
        weight: FloatArray,
        fold: IntArray | None,
        max_columns: int,
    ) -> Preparation:
        pairs, count = self.encoder.pairs, max(max_columns - len(self.encoder.main_columns), 0)
        if len(pairs) <= count:
            return replace(self, encoder=self.encoder.with_products(pairs))
        plain = self.encoder.plain
        columns = self.encoder.transform(X)[:, plain]
        z, outcome = self.whitening(self.basis(T)), (y - self.center) / self.scale
        left_out: list[int] = (
            [ALL_FOLDS] if fold is None else [ALL_FOLDS, *np.unique(fold).tolist()]
        )
        kept: dict[int, list[tuple[int, int]]] = {}
        for number in left_out:
            rows = np.ones(len(y), dtype=bool) if fold is None else fold != number
            ranks = plain[
                rank_features(columns[rows], z[rows], outcome[rows], weight[rows])
            ].tolist()
            place = {column: rank for rank, column in enumerate(ranks)}
            # pairs of the first features, as many features as fit
            kept[number] = sorted(
                pairs, key=lambda pair: (max(place[pair[0]], place[pair[1]]), pair)
            )[:count]
        union = sorted({pair for chosen in kept.values() for pair in chosen})
        first = len(self.encoder.main_columns)
        products = {
            number: tuple(first + union.index(pair) for pair in chosen)
            for number, chosen in kept.items()
        }
        return replace(self, encoder=self.encoder.with_products(union), products=products)

    def excluded(self, fold: int) -> BoolArray:
        """Return (m,) the columns that the model leaving out a fold must not use."""
        columns = np.zeros(len(self.encoder.columns), dtype=bool)
        if self.products:
            columns[len(self.encoder.main_columns) :] = True
            columns[list(self.products.get(fold, self.products[ALL_FOLDS]))] = False
        return columns

    @property
    def shape(self) -> tuple[int, int, int]:
        """(m, p, s): columns of the features, the basis and the strata."""
        return len(self.encoder.columns), self.basis.size, len(self.strata_groups)

    @cached_property
    def strata_groups(self) -> IntArray:
        """(s,) penalty group of the strata's columns: none for the indicators, one for all products."""
        indicators = max(len(self.strata) - 1, 0)
        products = indicators * len(self.encoder.plain)
        return np.repeat(
            [-1, 0], [indicators, products if products <= _MOST_STRATA_PRODUCTS else 0]
        )

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
        outcome = (np.clip(y, *self.clip) - self.center) / self.scale
        features, indicators = self.encoder.transform(X), self._indicators(strata, len(y))
        if (self.strata_groups >= 0).any():
            products = (indicators[:, :, None] * features[:, None, self.encoder.plain]).reshape(
                len(y), -1
            )
            indicators = np.hstack([indicators, products])
        return PreparedRows(features, z, indicators, outcome, weight)

    def _indicators(self, strata: npt.ArrayLike | None, size: int) -> FloatArray:
        if not self.strata:
            return np.zeros((size, 0))
        if strata is None:
            raise InvalidInputError(
                f"the model was prepared with {len(self.strata)} strata, found rows without strata"
            )
        labels = np.asarray(strata).astype(str)
        known = np.asarray(self.strata)
        codes = np.minimum(np.searchsorted(known, labels), len(known) - 1)
        # a stratum outside the sample that the preparation saw stays at the centre: it has no column of its own
        indicators = np.where(
            (known[codes] == labels)[:, None],
            np.eye(len(known))[codes] - np.asarray(self.strata_shares),
            0.0,
        )
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
            "clip": list(self.clip) if np.isfinite(self.clip).all() else None,
            "strata": list(self.strata),
            "strata_shares": list(self.strata_shares),
            "products": {str(fold): list(columns) for fold, columns in self.products.items()},
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
            tuple(content["clip"] or (-np.inf, np.inf)),
            tuple(content["strata"]),
            tuple(content["strata_shares"]),
            {int(fold): tuple(columns) for fold, columns in content["products"].items()},
        )


def _strata_shares(
    strata: npt.ArrayLike | None, share: FloatArray
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Labels and weight shares of the largest strata; rows of others stay at the centre."""
    if strata is None:
        return (), ()
    labels, codes = np.unique(np.asarray(strata).astype(str), return_inverse=True)
    shares = np.bincount(codes, weights=share)
    kept = np.sort(np.argsort(-shares, kind="stable")[:_MOST_STRATA])
    return tuple(labels[kept].tolist()), tuple(shares[kept].tolist())


def _clip_bounds(y: FloatArray, share: float) -> tuple[float, float]:
    if share == 0:
        return -np.inf, np.inf
    lower, upper = np.quantile(y, [share, 1 - share])
    return float(lower), float(upper)


def check_rows(
    X: pd.DataFrame, T: FloatArray, y: FloatArray, weight: FloatArray | None
) -> FloatArray:
    """Return the weights (n,), ones where none are given.

    Raises
    ------
    InvalidInputError : different lengths, no rows, or values that are missing, infinite or (weights) negative.
    """
    weight = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=np.float64)
    lengths = {"features": len(X), "treatments": len(T), "outcomes": len(y), "weights": len(weight)}
    if len(set(lengths.values())) > 1:
        raise InvalidInputError(
            f"rows do not match: {', '.join(f'{count} {name}' for name, count in lengths.items())}"
        )
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
