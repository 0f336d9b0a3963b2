"""Other libraries' estimators behind fit(X, T, y) and predict(X) → θ: any scikit-learn regressor, and EconML's.

They live in memory only: their models are no plain arrays, so tables and distributed fits do not hold them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.multioutput import MultiOutputRegressor

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.basis import Basis
from coarse_spark.core.design import RANDOMIZED, debiased_coefficients, moment_sums
from coarse_spark.core.learners.crossfit import fit_models
from coarse_spark.core.learners.features import FeatureEncoder, as_frame
from coarse_spark.core.learners.record import load_model
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.learners.whitening import Whitening


class ScikitLearnResponse:
    """The DR-learner of Kennedy (2023) with any regressor: debiased coefficients of a cross-fitted sieve, regressed on features.

    Parameters
    ----------
    estimator : regressor with fit(X, y) and predict(X); wrapped to fit one copy a coefficient where ``multioutput`` is false.
    basis : of the treatments, randomized whatever the features.
    multioutput : whether the estimator takes a target (n, p).
    """

    def __init__(
        self,
        estimator: Any,
        basis: Basis,
        *,
        folds: int = 5,
        random_state: int = 0,
        multioutput: bool = False,
    ) -> None:
        self.estimator, self.basis, self.folds, self.random_state = (
            estimator,
            basis,
            folds,
            random_state,
        )
        self.multioutput = multioutput

    def fit(self, X: pd.DataFrame, T: npt.ArrayLike, y: npt.ArrayLike) -> ScikitLearnResponse:
        """Fit on features (n, ·), treatments (n, d) and outcomes (n,)."""
        X, T, y = as_frame(X), self.basis.space.encode(T), np.asarray(y, dtype=np.float64)
        fold = np.random.default_rng(self.random_state).permutation(len(y)) % self.folds
        models = fit_models(
            X,
            T,
            y,
            fold,
            basis=self.basis,
            key=np.arange(len(y)),
            settings=LearnerSettings(learner="sieve"),
        )
        theta = np.empty((len(y), self.basis.size))
        for number in range(self.folds):
            theta[fold == number] = load_model(models[number]).predict(X[fold == number])
        phi = self.basis(T)
        self._whitening = Whitening.fit(self.basis, T, np.ones(len(y)))
        target = debiased_coefficients(
            theta, phi, y, moment_sums(phi)[RANDOMIZED].matrix
        ) @ np.linalg.inv(self._whitening.matrix)
        self._encoder = FeatureEncoder.fit(X)
        model = clone(self.estimator)
        self._model = (model if self.multioutput else MultiOutputRegressor(model)).fit(
            self._plain(X), target
        )
        return self

    def predict(self, X: pd.DataFrame) -> FloatArray:
        """Return θ(x) (n, p)."""
        return self._whitening.raw(
            np.asarray(self._model.predict(self._plain(as_frame(X))), dtype=np.float64)
        )

    def _plain(self, X: pd.DataFrame) -> FloatArray:
        return self._encoder.transform(X)[:, self._encoder.plain]


class EconMLResponse:
    """An EconML estimator of effects linear in treatment columns (LinearDML, CausalForestDML, …), plus a baseline.

    Parameters
    ----------
    estimator : with fit(Y, T, X=…) and const_marginal_effect(X); it is given the whitened basis columns as treatments.
    basis : of the treatments.
    baseline : regressor of E[y | x].
    """

    def __init__(self, estimator: Any, basis: Basis, baseline: Any | None = None) -> None:
        self.estimator, self.basis = estimator, basis
        self.baseline = (
            baseline if baseline is not None else HistGradientBoostingRegressor(random_state=0)
        )

    def fit(self, X: pd.DataFrame, T: npt.ArrayLike, y: npt.ArrayLike) -> EconMLResponse:
        """Fit on features (n, ·), treatments (n, d) and outcomes (n,)."""
        X, T, y = as_frame(X), self.basis.space.encode(T), np.asarray(y, dtype=np.float64)
        self._whitening = Whitening.fit(self.basis, T, np.ones(len(y)))
        self._encoder = FeatureEncoder.fit(X)
        z, plain = self._whitening(self.basis(T)), self._plain(X)
        self.estimator.fit(y, z[:, 1:], X=plain)
        effect = self._effect(plain)
        self._baseline = clone(self.baseline).fit(
            plain, y - np.einsum("ij,ij->i", z[:, 1:], effect)
        )
        return self

    def predict(self, X: pd.DataFrame) -> FloatArray:
        """Return θ(x) (n, p)."""
        plain = self._plain(as_frame(X))
        return self._whitening.raw(
            np.column_stack([self._baseline.predict(plain), self._effect(plain)])
        )

    def _effect(self, plain: FloatArray) -> FloatArray:
        return np.asarray(self.estimator.const_marginal_effect(plain), dtype=np.float64).reshape(
            len(plain), -1
        )

    def _plain(self, X: pd.DataFrame) -> FloatArray:
        return self._encoder.transform(X)[:, self._encoder.plain]
