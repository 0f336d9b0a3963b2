"""The fitted response model: coefficient functions in the whitened basis.

They are C f(x), plus trees where boosting has a share and the pooled model's functions where the
model of a partition leans on it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.learners.boosting.trees import Trees
from coarse_spark.core.learners.encoding.baseline import Baseline
from coarse_spark.core.learners.encoding.conditional_mean import ConditionalMean
from coarse_spark.core.learners.encoding.features import FeatureEncoder
from coarse_spark.core.learners.encoding.preparation import Preparation
from coarse_spark.core.learners.record import ModelRecord
from coarse_spark.core.learners.shape import project
from coarse_spark.errors import InvalidInputError

KIND = "additive"


@dataclass(frozen=True)
class Functions:
    """Coefficient functions C f(x): an encoding f of the features and C (p, m)."""

    encoder: FeatureEncoder
    coefficients: FloatArray


@dataclass(frozen=True)
class AdditiveModel:
    """θ_z(x) = C f(x) + trees(x) + pooled(x): whitened coefficients of the standardized outcome.

    Parameters
    ----------
    preparation : encoding of features, basis and outcome.
    coefficients : C (p, m).
    constant_effect : (p − 1,) effects of the constant-effect model.
    trees : with leaf values (p,); None without boosting.
    pooled : the pooled model's share, in the whitened coefficients of this model but with the
        pooled encoding; None without.
    baseline : b(x) of the scale of responses; None on the additive one.
    treatment_mean : E[z | x] of residualized treatments, where the first coefficient is E[y | x];
        None of others, where it is the response to z = 0.
    constraints : (c, p) half-spaces a·θ_z ≥ 0 that predictions are projected to; None without a
        shape.
    """

    preparation: Preparation
    coefficients: FloatArray
    constant_effect: FloatArray
    trees: Trees | None = None
    pooled: Functions | None = None
    constraints: FloatArray | None = None
    baseline: Baseline | None = None
    treatment_mean: ConditionalMean | None = None

    def predict(self, X: pd.DataFrame) -> FloatArray:
        """Return θ(x) (n, p) in the columns of the raw basis."""
        theta = np.empty((len(X), len(self.coefficients)))
        for block, (found,) in predictions([self], X):
            theta[block] = found
        return theta

    @property
    def encoders(self) -> list[FeatureEncoder]:
        """Its own and the pooled one."""
        pooled = [] if self.pooled is None else [self.pooled.encoder]
        return [self.preparation.encoder, *pooled]

    def _reduced(self, encoded: Mapping[FeatureEncoder, FloatArray]) -> FloatArray:
        """θ(x) (n, p) of f(x) (n, ·) by encoder."""
        encoder = self.preparation.encoder
        features, plain = encoded[encoder], encoder.plain
        theta = features @ self.coefficients.T
        if self.trees is not None:
            theta += self.trees.predict(features[:, plain])
        if self.pooled is not None:
            theta += encoded[self.pooled.encoder] @ self.pooled.coefficients.T
        if self.constraints is not None:
            theta = project(theta, self.constraints)
        return self.preparation.raw(
            theta,
            None if self.treatment_mean is None else self.treatment_mean(features, plain),
            None if self.baseline is None else self.baseline.terms(features),
        )

    def to_record(
        self, learner: str, diagnostics: Mapping[str, float], warnings: Sequence[str]
    ) -> ModelRecord:
        """Return the model as plain values.

        Parameters
        ----------
        learner : name of the learner that was chosen.
        diagnostics : named numbers of the fit.
        warnings : sentences for the status row.
        """
        arrays = {"coefficients": self.coefficients, "constant_effect": self.constant_effect}
        if self.constraints is not None:
            arrays["constraints"] = self.constraints
        if self.trees is not None:
            arrays |= self.trees.to_arrays("tree")
        # of the baselines and means only those of this model are of use to predictions
        preparation = replace(self.preparation, baselines=None)
        specification = {"kind": KIND, "preparation": preparation.to_dict()}
        if self.baseline is not None:
            specification["baseline"] = self.baseline.to_dict()
        if self.treatment_mean is not None:
            arrays["treatment_mean_coefficients"] = self.treatment_mean.coefficients
            arrays |= self.treatment_mean.trees.to_arrays("treatment_mean_tree")
        if self.pooled is not None:
            arrays["pooled_coefficients"] = self.pooled.coefficients
            specification["pooled_encoder"] = self.pooled.encoder.to_dict()
        return ModelRecord(
            learner, json.dumps(specification), arrays, dict(diagnostics), tuple(warnings)
        )

    @staticmethod
    def restore(record: ModelRecord) -> AdditiveModel:
        """Return the model of a record."""
        arrays, content, pooled, mean = record.arrays, record.content, None, None
        if "treatment_mean_coefficients" in arrays:
            mean = ConditionalMean(
                arrays["treatment_mean_coefficients"],
                Trees.of_arrays(arrays, "treatment_mean_tree"),
            )
        if "pooled_encoder" in content:
            pooled = Functions(
                FeatureEncoder.from_dict(content["pooled_encoder"]), arrays["pooled_coefficients"]
            )
        preparation = Preparation.from_dict(content["preparation"])
        return AdditiveModel(
            preparation,
            arrays["coefficients"],
            arrays["constant_effect"],
            Trees.of_arrays(arrays, "tree") if "tree_value" in arrays else None,
            pooled,
            arrays.get("constraints"),
            Baseline.from_dict(content["baseline"]) if "baseline" in content else None,
            mean,
        )


def predictions(
    models: Sequence[AdditiveModel], X: pd.DataFrame
) -> Iterator[tuple[slice, list[FloatArray]]]:
    """Yield a block of the rows and every model's θ(x) (b, p) there.

    Models that encode features alike, as those of all folds of a partition do, share what is
    encoded.
    """
    encoders = list(dict.fromkeys(encoder for model in models for encoder in model.encoders))
    for together in zip(*(encoder.blocks(X) for encoder in encoders), strict=True):
        encoded = {
            encoder: features for encoder, (_, features) in zip(encoders, together, strict=True)
        }
        yield together[0][0], [model._reduced(encoded) for model in models]


def load_model(record: ModelRecord) -> AdditiveModel:
    """Return the model that a record describes.

    Raises
    ------
    InvalidInputError : a kind of model this version does not know.
    """
    kind = record.content.get("kind")
    if kind != KIND:
        raise InvalidInputError(f"model row is of kind {kind!r}, expected {KIND}")
    return AdditiveModel.restore(record)
