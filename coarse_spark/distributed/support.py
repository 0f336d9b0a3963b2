"""The support of an experiment, from its table."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from coarse_spark.core.basis import Basis
from coarse_spark.core.support import BIN_KEY, BIN_SUMS, MOST_CELLS, Support, value_bins
from coarse_spark.distributed.frames import matrix, treatment_columns

_BINS = "dimension int, side double, bin double, low double, high double, units bigint"


def experiment_support(units: DataFrame, basis: Basis) -> Support:
    """Return where the experiment gave treatments.

    Two small aggregates: what reaches the driver is bounded by the bins of every dimension and by
    ``MOST_CELLS``.

    Parameters
    ----------
    units : usable rows in the shape of ``distributed.frames.experiment_units``.
    basis : of the responses.
    """
    names = treatment_columns(len(basis.space.dimensions))
    given = units.select(*names)

    def binned(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            yield value_bins(matrix(batch, names), basis.space)

    sums = {name: getattr(F, how)(name).alias(name) for name, how in BIN_SUMS.items()}
    bins = given.mapInPandas(binned, _BINS).groupBy(*BIN_KEY).agg(*sums.values()).toPandas()
    support = Support.cut(bins, basis)

    def located(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for batch in batches:
            yield pd.DataFrame({"cell": np.unique(support.cells_of(matrix(batch, names)))})

    # more are not kept, so that their number is all that matters then
    cells = given.mapInPandas(located, "cell bigint").distinct().limit(MOST_CELLS + 2).toPandas()
    return support.with_cells(cells["cell"].to_numpy(np.int64))
