"""Models from sums over batches of rows, as many machines make them."""

from __future__ import annotations

import json

import numpy as np

from coarse_spark.core.basis import Basis
from coarse_spark.core.learners.crossfit import accumulate, solve
from coarse_spark.core.learners.encoding.preparation import Preparation
from coarse_spark.core.learners.encoding.rows import TrialRows
from coarse_spark.core.learners.pooled import PooledModels
from coarse_spark.core.learners.record import ModelRecord
from coarse_spark.core.learners.settings import LearnerSettings


def solved_in_batches(
    trial: TrialRows, basis: Basis, settings: LearnerSettings
) -> tuple[dict[int, ModelRecord], PooledModels]:
    """Return the models of four batches of mixed rows, by a preparation that was written down."""
    order = np.random.default_rng(1).permutation(len(trial))
    preparation = Preparation.fit(trial, basis=basis, settings=settings)
    preparation = Preparation.from_dict(json.loads(json.dumps(preparation.to_dict())))
    sums = {}
    for rows in np.array_split(order, 4):
        batch = accumulate(preparation, trial.take(rows), folds=trial.folds, settings=settings)
        for part, found in batch.items():
            sums[part] = sums[part] + found if part in sums else found
    return solve(preparation, sums, folds=trial.folds, settings=settings)
