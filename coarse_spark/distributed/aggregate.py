"""Sums over all rows of what numpy makes of a batch: the one way in which large tables become small records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame
from threadpoolctl import threadpool_limits

FloatArray = npt.NDArray[np.float64]

_SCHEMA = "name string, sums array<double>"


def add_up(rows: DataFrame, record: Callable[[pd.DataFrame], Mapping[str, FloatArray]]) -> dict[str, FloatArray]:
    """Return the sums, by name, of the arrays that ``record`` returns for every batch of rows.

    Parameters
    ----------
    rows : only the columns that ``record`` needs.
    record : pure function of a batch (some thousand rows); arrays of one name have one length, whatever the batch.

    Every task adds up its own batches, a second stage adds up the tasks: what reaches the driver is as large as one record. The
    result does not depend on partitioning or order beyond the rounding of sums.
    """

    def add_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        total: dict[str, FloatArray] = {}
        with threadpool_limits(limits=1):  # Spark already runs a task on every core
            for batch in batches:
                if batch.num_rows:
                    for name, sums in record(batch.to_pandas(split_blocks=True)).items():
                        total[name] = total[name] + sums if name in total else np.asarray(sums, dtype=np.float64)
        yield pa.RecordBatch.from_pydict(
            {
                "name": pa.array(list(total), pa.string()),
                "sums": pa.array([v.tolist() for v in total.values()], pa.list_(pa.float64())),
            }
        )

    partial = rows.mapInArrow(add_batches, _SCHEMA)
    summed = partial.groupBy("name").applyInPandas(_sum_tasks, _SCHEMA).toPandas()
    return {name: np.asarray(sums, dtype=np.float64) for name, sums in zip(summed["name"], summed["sums"], strict=True)}


def _sum_tasks(rows: pd.DataFrame) -> pd.DataFrame:
    # sorted by content: the order in which tasks end must not decide the rounding
    parts = sorted((np.asarray(sums) for sums in rows["sums"]), key=lambda sums: sums.tobytes())
    return pd.DataFrame({"name": [rows["name"].iloc[0]], "sums": [np.sum(parts, axis=0).tolist()]})
