"""Choice among declared treatment bases by held-out loss."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from coarse_spark.core.basis import Basis, place_knots
from coarse_spark.core.learners.crossfit import fit_models
from coarse_spark.core.learners.preparation import ALL_ROWS
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.learners.whitening import Whitening
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError

FloatArray = npt.NDArray[np.float64]

logger = logging.getLogger(__name__)


def choose_basis(
    names: Sequence[str],
    X: pd.DataFrame,
    T: FloatArray,
    y: FloatArray,
    *,
    space: TreatmentSpace,
    key: npt.ArrayLike,
    weight: FloatArray | None = None,
    strata: npt.ArrayLike | None = None,
    settings: LearnerSettings,
    seed: int = 0,
) -> tuple[Basis, dict[str, float]]:
    """Return the basis whose sieve predicts held-out outcomes best, and the held-out mean squared error of every candidate.

    Bases that the observed treatments do not identify are left out. Splines get their knots from T.

    Raises
    ------
    InvalidInputError : an unknown basis, or none that the treatments identify.
    """
    losses: dict[str, float] = {}
    sieve = LearnerSettings(**{**vars(settings), "learner": "sieve", "shape": None})
    rows = np.zeros(len(y), dtype=np.int64)
    for name in dict.fromkeys(place_knots(candidate, space, T) for candidate in names):
        basis = Basis(name, space)
        try:
            Whitening.fit(basis, T, np.ones(len(y)))
        except InvalidInputError as error:
            logger.info("basis %s is left out: %s", name, error)
            continue
        record = fit_models(X, T, y, rows, basis=basis, key=key, weight=weight, strata=strata, settings=sieve, seed=seed)[ALL_ROWS]
        kind = "r_loss_constant" if record.learner == "constant" else "r_loss"
        losses[name] = record.diagnostics[kind]
    if not losses:
        raise InvalidInputError(f"none of the bases {', '.join(names)} is identified by the observed treatments")
    return Basis(min(losses, key=lambda name: losses[name]), space), losses
