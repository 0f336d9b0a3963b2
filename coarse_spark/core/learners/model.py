"""The fitted response model: coefficient functions C f(x), plus trees where boosting has a share, in the whitened basis."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from coarse_spark.core.learners.preparation import Preparation
from coarse_spark.core.learners.record import ModelRecord
from coarse_spark.core.learners.shape import project
from coarse_spark.core.learners.trees import Trees

FloatArray = npt.NDArray[np.float64]

KIND = "additive"


@dataclass(frozen=True)
class AdditiveModel:
    """θ_z(x) = C f(x) + trees(x), the whitened coefficients of the standardized outcome.

    Parameters
    ----------
    preparation : encoding of features, basis and outcome.
    coefficients : C (p, m).
    constant_effect : (p − 1,) effects of the constant-effect model.
    trees : with leaf values (p,); None without boosting.
    constraints : (c, p) half-spaces a·θ_z ≥ 0 that predictions are projected to; None without a shape.
    """

    preparation: Preparation
    coefficients: FloatArray
    constant_effect: FloatArray
    trees: Trees | None = None
    constraints: FloatArray | None = None

    def predict(self, X: pd.DataFrame) -> FloatArray:
        """Return θ(x) (n, p) in the columns of the raw basis."""
        return self._raw(self._whitened(X))

    def predict_constant(self, X: pd.DataFrame) -> FloatArray:
        """Return θ(x) (n, p) of the same baseline with the constant effect."""
        theta = self._whitened(X)
        theta[:, 1:] = self.constant_effect
        return self._raw(theta)

    def _whitened(self, X: pd.DataFrame) -> FloatArray:
        features = self.preparation.encoder.transform(X)
        theta = features @ self.coefficients.T
        if self.trees is not None:
            theta += self.trees.predict(features[:, self.preparation.encoder.plain])
        return np.asarray(theta)

    def _raw(self, theta: FloatArray) -> FloatArray:
        if self.constraints is not None:
            theta = project(theta, self.constraints)
        theta = theta * self.preparation.scale
        theta[:, 0] += self.preparation.center
        return self.preparation.whitening.raw(theta)

    def to_record(self, learner: str, diagnostics: Mapping[str, float], warnings: Sequence[str]) -> ModelRecord:
        """Return the model as plain values."""
        arrays = {"coefficients": self.coefficients, "constant_effect": self.constant_effect}
        if self.constraints is not None:
            arrays["constraints"] = self.constraints
        if self.trees is not None:
            arrays |= {
                "tree_feature": self.trees.feature.astype(np.float64),
                "tree_threshold": self.trees.threshold,
                "tree_value": self.trees.value,
            }
        specification = {"kind": KIND, "preparation": self.preparation.to_dict()}
        return ModelRecord(learner, json.dumps(specification), arrays, dict(diagnostics), tuple(warnings))

    @staticmethod
    def restore(record: ModelRecord) -> AdditiveModel:
        """Return the model of a record."""
        arrays, trees = record.arrays, None
        if "tree_value" in arrays:
            trees = Trees(arrays["tree_feature"].astype(np.int64), arrays["tree_threshold"], arrays["tree_value"])
        preparation = Preparation.from_dict(record.content["preparation"])
        return AdditiveModel(preparation, arrays["coefficients"], arrays["constant_effect"], trees, arrays.get("constraints"))
