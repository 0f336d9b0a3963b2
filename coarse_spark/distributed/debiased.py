"""What the experiment's debiased responses say of menus, in one pass for all of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame

from coarse_spark.core.design import corrected
from coarse_spark.core.menu import debiased
from coarse_spark.core.menu.debiased import CorrectionSums
from coarse_spark.core.menu.lloyd import PricedMenu
from coarse_spark.core.menu.problem import MenuProblem
from coarse_spark.distributed.aggregate import FloatArray, add_up
from coarse_spark.distributed.design import representer_columns
from coarse_spark.distributed.units import matrix, parts, theta_columns, treatment_columns


def correction_sums(
    held: DataFrame, problem: MenuProblem, menus: Mapping[int, PricedMenu], left_out: Mapping[int, int] | None = None
) -> dict[int, CorrectionSums]:
    """Return for every menu what corrects the learned responses of its segments.

    Parameters
    ----------
    held : fold, weight, outcome, treatment_0 …, representer_0 … of the design, and theta_0 … of models fitted on the other folds. A
        coefficient of the problem that the rows do not have, such as an earlier treatment, is 0.
    menus : by any key. left_out : the fold whose rows a menu must not see, by its key.
    """
    size, skipped = problem.basis_size, left_out or {}
    dimensions, weights = treatment_columns(problem.candidates.shape[1]), representer_columns(size)
    names = [name for name in theta_columns(problem.coefficients) if name in held.columns]
    missing = problem.coefficients - len(names)

    def record(batch: pd.DataFrame) -> dict[str, FloatArray]:
        sums: dict[str, FloatArray] = {}
        for fold, rows in parts(batch, "fold"):
            theta = np.pad(matrix(rows, names), [(0, 0), (0, missing)])
            better, y = theta.copy(), rows["outcome"].to_numpy(np.float64)
            better[:, :size] = corrected(theta[:, :size], problem.basis(matrix(rows, dimensions)), y, matrix(rows, weights))
            mass = rows["weight"].to_numpy(np.float64)
            for key, menu in menus.items():
                if skipped.get(key) != fold:
                    found = debiased.correction_sums(theta, better, mass, menu).to_array()
                    sums[str(key)] = sums[str(key)] + found if str(key) in sums else found
        return sums

    total = add_up(held.select("fold", "weight", "outcome", *dimensions, *weights, *names), record)
    return {key: CorrectionSums.from_array(total[str(key)], len(menu.treatments)) for key, menu in menus.items()}
