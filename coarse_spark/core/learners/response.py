"""The response learner as users call it.

Fit on an experiment, predict response coefficients for units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from coarse_spark.core.arrays import FloatArray, IntArray, named, numbers, plain, relative
from coarse_spark.core.basis import candidate_bases
from coarse_spark.core.learners.choose_basis import choose_basis, usual_bases
from coarse_spark.core.learners.choose_scale import choose_scale
from coarse_spark.core.learners.crossfit import fit_models
from coarse_spark.core.learners.encoding.features import as_frame, is_numeric
from coarse_spark.core.learners.encoding.rows import TrialRows
from coarse_spark.core.learners.folds import ALL_FOLDS
from coarse_spark.core.learners.model import load_model
from coarse_spark.core.learners.record import ModelRecord
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError

_MISSING = np.iinfo(np.int64).min  # in place of a hash


class ResponseLearner:
    """Learns θ(x) of E[y | x, t] = φ(t)·θ(x) from an experiment.

    Parameters
    ----------
    basis : name of the treatment basis (``core.basis``). Several names are compared by held-out
        loss; ``auto`` stands for a list that suits the space. Default: quadratic, or what suits
        the treatments that were given, such as linear for two values (``usual_bases``).
    learner : auto, sieve, boosting or constant (``LearnerSettings``).
    random_state : seed of the validation parts.
    space : the treatments; default the box of the observed ones with the control at its lower end.
    scale : additive, relative, logistic or auto (``LearnerSettings``).
    settings : further settings of ``LearnerSettings``.

    Attributes
    ----------
    record_ : ModelRecord, the fitted model as plain values.
    basis_ : Basis on the space that was used; splines have their knots in its name.
    basis_losses_ : held-out mean squared error of every basis compared; empty where one was given.
    scale_ : additive, relative or logistic.

    Examples
    --------
    Older customers respond more, with returns that diminish:

    >>> import numpy as np, pandas as pd
    >>> from coarse_spark import ResponseLearner
    >>> rng = np.random.default_rng(0)
    >>> X, discount = pd.DataFrame({"age": rng.uniform(20, 60, 2_000)}), rng.uniform(0, 2, 2_000)
    >>> spend = 5 + X["age"] / 20 * discount - 0.5 * discount**2 + 0.1 * rng.normal(size=2_000)
    >>> learner = ResponseLearner(basis="quadratic", learner="sieve").fit(X, discount, spend)
    >>> learner.basis_.columns
    ('1', 't1', 't1^2')
    >>> learner.predict(pd.DataFrame({"age": [30, 50]})).round(1)
    array([[ 5. ,  1.5, -0.5],
           [ 5. ,  2.5, -0.5]])
    """

    def __init__(
        self,
        basis: str | Sequence[str] | None = None,
        learner: str = "auto",
        random_state: int = 0,
        space: TreatmentSpace | None = None,
        scale: str = "auto",
        **settings: Any,
    ) -> None:
        self.basis = basis
        self.random_state = random_state
        self.space = space
        try:
            self.settings = LearnerSettings(learner=learner, scale=scale, **settings)
        except TypeError as error:
            raise InvalidInputError(f"ResponseLearner: {error}") from None

    def fit(
        self,
        X: pd.DataFrame | npt.ArrayLike,
        T: pd.DataFrame | npt.ArrayLike,
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
        strata: npt.ArrayLike | None = None,
        groups: npt.ArrayLike | None = None,
    ) -> ResponseLearner:
        """Fit on an experiment.

        Parameters
        ----------
        X : (n, ·) features.
        T : (n, d) or (n,) treatments, in the user's values.
        y : (n,) outcomes.
        sample_weight : (n,) row weights; default 1. Rows of weight 0 are no rows.
        strata : (n,) labels of the randomization strata; default none.
        groups : (n,) labels of clusters, such as households, that no validation part splits (named
            as in scikit-learn); a missing label is a cluster of its own. Default: every row is one.

        Raises
        ------
        InvalidInputError : rows that do not match or cannot be used, or treatments that do not
            identify the basis.
        """
        outcome = numbers(y, "outcomes").ravel()
        given = T if isinstance(T, pd.DataFrame) else np.asarray(T)
        labels = [None if one is None else np.asarray(one) for one in (strata, groups)]
        weight = np.ones(len(outcome))
        if sample_weight is not None:
            weight = relative(numbers(sample_weight, "weights", largest=inf).ravel())
        frame, given, outcome, weight, *labels = _weighed(
            weight, as_frame(X), given, outcome, weight, *labels
        )
        space = self.space or observed_space(given)
        rows = TrialRows(frame, space.encode(given), outcome, weight=weight, strata=labels[0])
        groups = _numbers_of(labels[1], len(rows))
        key = _numbered(
            _content_key(rows.X, rows.T, rows.y),
            rows.weight,
            _numbers_of(labels[0], len(rows)),
            groups,
        )
        # a row without a group is a cluster of its own
        rows = replace(rows, key=key, cluster=np.where(groups == _MISSING, key, groups))
        settings, seed = self.settings, self.random_state
        bases = (
            usual_bases(rows, space)
            if self.basis is None
            else candidate_bases(self.basis, space, shaped=bool(self.settings.shape))
        )
        choice = choose_basis(bases, rows, space=space, settings=settings, seed=seed)
        self.basis_, self.basis_losses_ = choice.basis, choice.losses
        self.scale_ = choose_scale(rows, basis=self.basis_, settings=settings, seed=seed).scale
        settings = replace(settings, scale=self.scale_)
        models = fit_models(rows, basis=self.basis_, settings=settings, seed=seed)
        self.record_: ModelRecord = models[ALL_FOLDS]
        self._model = load_model(self.record_)
        return self

    def predict(self, X: pd.DataFrame | npt.ArrayLike) -> FloatArray:
        """Return θ(x) (n, p) in the columns of the basis.

        Raises
        ------
        InvalidInputError : not fitted yet, or a feature of the fit is absent.
        """
        if not hasattr(self, "_model"):
            raise InvalidInputError("this ResponseLearner is not fitted yet; call fit first")
        return self._model.predict(as_frame(X))


def observed_space(T: pd.DataFrame | npt.ArrayLike) -> TreatmentSpace:
    """Return the box of observed treatments, control at the lower ends.

    Text becomes categorical, its first level control.

    Raises
    ------
    InvalidInputError : a treatment without variation.
    """
    if not isinstance(T, pd.DataFrame):
        array = np.asarray(T)
        array = array[:, None] if array.ndim == 1 else array
        T = pd.DataFrame(array, columns=[f"t{j + 1}" for j in range(array.shape[1])])
    T = named(T, "treatment")
    spec: dict[str, dict[str, Any]] = {}
    for name in T.columns:
        values = T[name].dropna()
        number = is_numeric(values, "treatment")
        distinct = sorted(map(plain, values.unique()), key=None if number else str)
        if len(distinct) < 2:
            raise InvalidInputError(
                f"treatment '{name}' has {len(distinct)} distinct values, expected at least 2 to "
                "learn a response"
            )
        if number:
            lower, upper = float(distinct[0]), float(distinct[-1])
            spec[name] = {
                "kind": "continuous",
                "lower": lower,
                "upper": upper,
                "control": lower,
            }
        else:
            spec[name] = {"kind": "categorical", "levels": distinct, "control": distinct[0]}
    return TreatmentSpace.from_dict(spec)


def _weighed(weight: npt.NDArray[Any], *columns: Any) -> tuple[Any, ...]:
    """Columns without the rows of weight 0, which are none.

    As they are where nothing is left, or where their lengths differ: ``TrialRows`` says so.
    """
    used = weight != 0
    alike = all(column is None or len(column) == len(used) for column in columns)
    if used.all() or not used.any() or not alike:
        return columns
    return tuple(None if column is None else column[used] for column in columns)


def _numbers_of(labels: npt.ArrayLike | None, n: int) -> IntArray:
    """A hash (n,) of every row's label, ``_MISSING`` without one."""
    if labels is None:
        return np.full(n, _MISSING)
    series = pd.Series(np.asarray(labels).ravel())
    if len(series) != n:
        raise InvalidInputError(f"rows do not match: {n} outcomes, {len(series)} groups")
    hashed = pd.util.hash_pandas_object(series.astype(str), index=False).to_numpy()
    return np.where(series.isna(), _MISSING, hashed.view(np.int64))


def _content_key(X: pd.DataFrame, T: FloatArray, y: FloatArray) -> IntArray:
    """A hash of every row's content: rows have no names here, and their order must not matter."""
    frame = pd.DataFrame({**{f"t{j}": T[:, j] for j in range(T.shape[1])}, "y": y})
    keys = pd.util.hash_pandas_object(frame, index=False).to_numpy()
    if X.shape[1]:
        text = X.astype({name: str for name in X.columns if X[name].dtype == object})
        keys = keys ^ pd.util.hash_pandas_object(text, index=False).to_numpy()
    return keys.view(np.int64)


def _numbered(key: IntArray, *unlike: npt.NDArray[Any]) -> IntArray:
    """Keys of which those of equal rows differ.

    One key for all rows of a content would choose their validation part by their outcome. Equal
    rows are numbered in the order of what they may still differ by, not in that of rows.
    """
    frame = pd.DataFrame({"key": key, **{f"{j}": column for j, column in enumerate(unlike)}})
    nth = frame.sort_values(list(frame.columns)).groupby("key").cumcount().sort_index()
    numbered = pd.DataFrame({"key": key, "nth": nth})
    hashed = pd.util.hash_pandas_object(numbered, index=False).to_numpy()
    return np.where(nth > 0, hashed.view(np.int64), key)
