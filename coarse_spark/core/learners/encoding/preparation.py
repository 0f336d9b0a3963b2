"""What every learner shares before it sees an outcome.

The encoding of features, treatments, strata and the outcome's scale is fitted once (on all rows, or
on a sample where the rows are spread over machines) and then applied batch by batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray
from coarse_spark.core.basis import Basis
from coarse_spark.core.learners.encoding.baseline import Baseline, Baselines, ScaledRows
from coarse_spark.core.learners.encoding.conditional_mean import ConditionalMean, cross_fitted
from coarse_spark.core.learners.encoding.features import FeatureEncoder, weighted_quantiles
from coarse_spark.core.learners.encoding.rows import TrialRows
from coarse_spark.core.learners.encoding.screening import rank_features
from coarse_spark.core.learners.encoding.whitening import Whitening
from coarse_spark.core.learners.folds import ALL_FOLDS, THIRDS, check_thirds, left_out, parts_of
from coarse_spark.core.learners.ridge.gram import GramStatistics, response_gram, total
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError, TooFewRowsError

_MOST_STRATA, _MOST_STRATA_PRODUCTS = 200, 200


@dataclass(frozen=True, eq=False)
class PreparedRows:
    """Rows as the learners see them.

    Attributes
    ----------
    features : f(x) (n, m), f₀ = 1.
    z : whitened basis (n, p), z₀ = 1; the others less their means given x where those are learned.
    strata : (n, s) centred indicators of all strata but the first and, where those are few, their
        products with the plain features; s = 0 without strata.
    outcomes : (n, k) on the scale of responses, standardized; by baselines (k = 1 + folds) the
        column depends on the fold that a model leaves out (``Preparation.outcome_number``).
    scaled : what they were scaled by.
    weight : (n,).
    part : (n,) validation part, numbered over all folds (``learners.folds``).
    cluster : (n,) labels; None where every row is a cluster of its own.
    """

    features: FloatArray
    z: FloatArray
    strata: FloatArray
    outcomes: FloatArray
    scaled: ScaledRows
    weight: FloatArray
    part: IntArray
    cluster: IntArray | None


@dataclass(frozen=True)
class Preparation:
    """Maps ``TrialRows`` to ``PreparedRows``.

    Attributes
    ----------
    encoder : of the features.
    basis : of the treatments.
    whitening : of the basis columns.
    center : mean of the outcome on the scale of responses.
    scale : its standard deviation.
    baselines : what outcomes are scaled by; None on the additive scale.
    clip : bounds that outcomes are winsorized to.
    strata : labels of the strata, sorted, at most 200 of the largest; empty without strata.
    strata_shares : weight share of every stratum.
    products : columns of products that the model leaving out a fold may use, by fold: chosen on the
        other folds.
    treatment_means : of residualized treatments E[z | x] without each third of the validation
        parts; empty of others.
    clustered : whether rows shared clusters; it matters to fits, not to predictions.
    """

    encoder: FeatureEncoder
    basis: Basis
    whitening: Whitening
    center: float
    scale: float
    baselines: Baselines | None = None
    clip: tuple[float, float] = (-np.inf, np.inf)
    strata: tuple[str, ...] = ()
    strata_shares: tuple[float, ...] = ()
    products: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    treatment_means: tuple[ConditionalMean, ...] = ()
    clustered: bool = False

    @staticmethod
    def fit(
        rows: TrialRows, *, basis: Basis, settings: LearnerSettings | None = None, seed: int = 0
    ) -> Preparation:
        """Fit on all rows, or on a sample of them, in random order.

        Where not all products of features fit, they are chosen for every fold on the rows outside.

        Parameters
        ----------
        rows : of the experiment.
        basis : of the treatments.
        settings : of the learner.
        seed : of the validation parts.

        Raises
        ------
        TooFewRowsError : rows too few, or outcomes too rare, for the scale, to be residualized, or
            to be winsorized.
        InvalidInputError : treatments that do not identify the basis, unusable features, or
            outcomes that the scale is not for.
        """
        settings, weight = settings or LearnerSettings(), rows.weight
        if settings.scale == "auto":
            raise InvalidInputError("the scale 'auto' must be settled before a fit (choose_scale)")
        settings = settings.borne_by(len(rows))
        encoder = FeatureEncoder.fit(rows.X, weight, **settings.encoding)
        part = parts_of(rows.fold, rows.cluster, rows.folds, settings, seed)
        clip, baselines = _clip_bounds(rows.y, weight, settings.winsorize), None
        y = np.clip(rows.y, *clip)
        if settings.scale != "additive":
            features, phi = encoder.transform(rows.X), basis(rows.T)
            clipped = replace(rows, y=y)
            baselines = Baselines.fit(settings.scale, features, phi, clipped, part, encoder.groups)
            scaled = baselines.scaled(features, phi, part)
            y = (y - scaled.offset[:, 0]) / scaled.multiplier[:, 0]
            weight = weight * scaled.weight
        share = weight / weight.sum()
        center = float(share @ y)
        scale = float(np.sqrt(share @ (y - center) ** 2)) or 1.0
        levels, shares = _strata_shares(rows.strata, share)
        whitening = Whitening.fit(basis, rows.T, weight)
        plain = Preparation(
            encoder, basis, whitening, center, scale, baselines, clip, levels, shares
        )
        plain = replace(plain, clustered=rows.clusters is not None)
        if settings.residualize:
            plain = replace(plain, treatment_means=plain._learned_means(rows, part, weight, seed))
        return plain._with_products(rows, part, settings.max_columns)

    def _learned_means(
        self, rows: TrialRows, part: IntArray, weight: FloatArray, seed: int
    ) -> tuple[ConditionalMean, ...]:
        features, z = self.encoder.transform(rows.X), self.whitening(self.basis(rows.T))
        check_thirds(part)
        third = part % THIRDS
        sums = {
            number: GramStatistics.of(features[here], z[here, 1:], weight[here])
            for number in range(THIRDS)
            if (here := third == number).any()
        }
        found = cross_fitted(self.encoder, sums, features, z[:, 1:], weight, third, seed=seed)
        whole = ConditionalMean.average(list(found.values()))
        return tuple(found.get(number, whole) for number in range(THIRDS))

    def _with_products(self, rows: TrialRows, part: IntArray, max_columns: int) -> Preparation:
        pairs, count = self.encoder.pairs, max(max_columns - len(self.encoder.main_columns), 0)
        if len(pairs) <= count:
            return replace(self, encoder=self.encoder.with_products(pairs))
        plain, prepared = self.encoder.plain, self.prepare(rows, part)
        sums, columns = {}, np.r_[0, plain]
        for fold in range(rows.folds):
            here = np.flatnonzero(rows.fold == fold)
            sums[fold] = response_gram(
                prepared.features[np.ix_(here, columns)],
                prepared.z[here],
                np.empty((len(here), 0)),
                prepared.outcomes[here],
                prepared.weight[here],
            )
        kept: dict[int, list[tuple[int, int]]] = {}
        for number in left_out(rows.folds):
            used = total(sums, without={number}).of_outcome(self.outcome_number(number))
            ranks = plain[rank_features(used, len(plain))].tolist()
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

    def outcome_number(self, fold: int) -> int:
        """Return which prepared outcome is that of the model that leaves out a fold."""
        return 0 if self.baselines is None else 1 + fold

    @property
    def response_scale(self) -> str:
        """Additive, relative or logistic."""
        return "additive" if self.baselines is None else self.baselines.scale

    def baseline(self, fold: int) -> Baseline | None:
        """Return b(x) of the model that leaves out a fold, None on the additive scale."""
        return None if self.baselines is None else self.baselines.whole(fold)

    @cached_property
    def treatment_mean(self) -> ConditionalMean | None:
        """E[z | x] of the treatments of new units; None where they are not residualized."""
        return ConditionalMean.average(self.treatment_means) if self.treatment_means else None

    def held_out_means(self, features: FloatArray, part: IntArray) -> FloatArray:
        """Return E[z | x] (n, p − 1) of residualized treatments, of others 0.

        Parameters
        ----------
        features : f(x) (n, m).
        part : (n,) validation part of every row, which its mean did not see.
        """
        means = np.zeros((len(part), self.basis.size - 1))
        for number, mean in enumerate(self.treatment_means):
            here = np.flatnonzero(part % THIRDS == number)
            means[here] = mean(features[here], self.encoder.plain)
        return means

    def raw(
        self,
        theta: FloatArray,
        means: FloatArray | None,
        terms: tuple[FloatArray, FloatArray] | None,
    ) -> FloatArray:
        """Return θ (n, p) in the columns of the raw basis, of outcomes as they are.

        Parameters
        ----------
        theta : (n, p) whitened coefficients of standardized outcomes.
        means : E[z | x] (n, p − 1) of residualized treatments; None of others.
        terms : o(x) and m(x) (n,) that outcomes were scaled by; None of additive ones.
        """
        theta = theta * self.scale
        if means is not None:
            theta[:, 0] -= (means * theta[:, 1:]).sum(axis=1)
        theta[:, 0] += self.center
        theta = self.whitening.raw(theta)
        if terms is None:
            return theta
        offset, multiplier = terms
        return theta * multiplier[:, None] + np.outer(offset, self.basis.constant)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(m, p, s): columns of the features, the basis and the strata."""
        return len(self.encoder.columns), self.basis.size, len(self.strata_groups)

    @cached_property
    def strata_groups(self) -> IntArray:
        """(s,) penalty group of the strata's columns: none for indicators, one for all products."""
        indicators = max(len(self.strata) - 1, 0)
        products = indicators * len(self.encoder.plain)
        return np.repeat(
            [-1, 0], [indicators, products if products <= _MOST_STRATA_PRODUCTS else 0]
        )

    def prepare(self, rows: TrialRows, part: IntArray) -> PreparedRows:
        """Return the rows, of validation parts (n,), as the learners see them.

        Raises
        ------
        InvalidInputError : strata are missing although the preparation was fitted with strata.
        """
        phi, features = self.basis(rows.T), self.encoder.transform(rows.X)
        z = self.whitening(phi)
        z[:, 1:] -= self.held_out_means(features, part)
        scaled = ScaledRows.additive(len(rows))
        if self.baselines is not None:
            scaled = self.baselines.scaled(features, phi, part)
        outcomes = (np.clip(rows.y, *self.clip)[:, None] - scaled.offset) / scaled.multiplier
        outcomes = (outcomes - self.center) / self.scale
        indicators = self._indicators(rows.strata, len(rows))
        if (self.strata_groups >= 0).any():
            products = (indicators[:, :, None] * features[:, None, self.encoder.plain]).reshape(
                len(rows), -1
            )
            indicators = np.hstack([indicators, products])
        return PreparedRows(
            features,
            z,
            indicators,
            outcomes,
            scaled,
            rows.weight * scaled.weight,
            part,
            rows.clusters,
        )

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
        # a stratum outside the sample that the preparation saw stays at the centre: it has no
        # column of its own
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
            "baselines": None if self.baselines is None else self.baselines.to_dict(),
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
            Baselines.from_dict(content["baselines"]) if content.get("baselines") else None,
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


def _clip_bounds(y: FloatArray, weight: FloatArray, share: float) -> tuple[float, float]:
    if share == 0:
        return -np.inf, np.inf
    ends = np.array([share, 1 - share])
    alike = (weight == weight[0]).all()
    lower, upper = (np.quantile(y, ends) if alike else weighted_quantiles(y, weight, ends)).tolist()
    if lower == upper and y.min() < y.max():
        beyond = max(weight @ (y < lower), weight @ (y > lower)) / weight.sum()
        raise TooFewRowsError(
            f"response.winsorize is {share:g}, which clips all outcomes to {lower:.6g}, expected "
            f"less than {beyond:.3g}, the share of outcomes on a side of it; use "
            "response.winsorize: 0"
        )
    return lower, upper
