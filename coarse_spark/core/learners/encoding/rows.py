"""The rows of an experiment as the learners take them: one record, checked where it is made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.errors import InvalidInputError


@dataclass(frozen=True, eq=False)
class TrialRows:
    """Rows of an experiment.

    Attributes
    ----------
    X : (n, ·) features.
    T : (n, d) encoded treatments.
    y : (n,) outcomes.
    key : (n,) integers that identify rows whatever their order, such as a hash of the unit; default
        the positions of the rows.
    fold : (n,) fold of every row, 0 … F − 1; default a single fold 0.
    weight : (n,) row weights; default 1.
    strata : (n,) labels of the randomization strata; None without.
    folds : F; default as many as the rows show.
    cluster : (n,) integers, alike for rows that no fold and no validation part may tell apart, such
        as a hash of the household; default the keys, every row being a cluster of its own.

    Raises
    ------
    InvalidInputError : different lengths, no rows, or values that are missing, infinite or
        (weights) negative.

    Examples
    --------
    >>> X = pd.DataFrame({"age": [30, 40]})
    >>> rows = TrialRows(X, np.array([[0.0], [1.0]]), np.array([2.0, 3.0]))
    >>> len(rows), rows.folds, rows.weight
    (2, 1, array([1., 1.]))
    """

    X: pd.DataFrame
    T: FloatArray
    y: FloatArray
    key: IntArray = None  # type: ignore[assignment]  # __post_init__ puts the default
    fold: IntArray = None  # type: ignore[assignment]
    weight: FloatArray = None  # type: ignore[assignment]
    strata: npt.NDArray[Any] | None = None
    folds: int = None  # type: ignore[assignment]
    cluster: IntArray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        n = len(self.y)
        for name, value in {
            "T": np.asarray(self.T, np.float64),
            "y": np.asarray(self.y, np.float64),
            "key": np.arange(n) if self.key is None else np.asarray(self.key),
            "fold": np.zeros(n, dtype=np.int64) if self.fold is None else np.asarray(self.fold),
            "weight": np.ones(n) if self.weight is None else np.asarray(self.weight, np.float64),
            "strata": None if self.strata is None else np.asarray(self.strata),
        }.items():
            object.__setattr__(self, name, value)
        if self.folds is None:
            object.__setattr__(self, "folds", int(self.fold.max(initial=0)) + 1)
        cluster = self.key if self.cluster is None else np.asarray(self.cluster)
        object.__setattr__(self, "cluster", cluster)
        _check(self)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def clusters(self) -> IntArray | None:
        """The cluster of every row, None where every row is one of its own."""
        return None if np.array_equal(self.cluster, self.key) else self.cluster

    @property
    def in_one_fold(self) -> TrialRows:
        """The same rows, all of fold 0."""
        return replace(self, fold=np.zeros(len(self), dtype=np.int64), folds=1)

    def take(self, order: IntArray) -> TrialRows:
        """Return the rows at positions (m,)."""
        return TrialRows(
            self.X.iloc[order],
            self.T[order],
            self.y[order],
            self.key[order],
            self.fold[order],
            self.weight[order],
            None if self.strata is None else self.strata[order],
            self.folds,
            self.cluster[order],
        )


def _check(rows: TrialRows) -> None:
    n, weight = len(rows), rows.weight
    lengths = {
        "features": len(rows.X),
        "treatments": len(rows.T),
        "outcomes": n,
        "weights": len(weight),
    }
    labels = {
        "keys": rows.key,
        "folds": rows.fold,
        "strata": rows.strata,
        "clusters": rows.cluster,
    }
    for name, label in labels.items():
        if label is not None and label.ndim != 1:
            raise InvalidInputError(f"{name} have shape {label.shape}, expected one for every row")
        if label is not None and len(label) != n:
            lengths[name] = len(label)
    if len(set(lengths.values())) > 1:
        raise InvalidInputError(
            f"rows do not match: {', '.join(f'{count} {name}' for name, count in lengths.items())}"
        )
    if not n:
        raise InvalidInputError("there are no rows to fit on")
    for name, values in (("treatment", rows.T), ("outcome", rows.y), ("weight", weight)):
        bad = ~np.isfinite(values).reshape(n, -1).all(axis=1)
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            raise InvalidInputError(
                f"{int(bad.sum())} rows have a missing or infinite {name}, the first is row "
                f"{first}; drop or mend them"
            )
    if (weight < 0).any() or not weight.any():
        raise InvalidInputError("weights must not be negative, and at least one must be above zero")
