"""Sums over all rows of what numpy makes of a batch.

This is the one way in which large tables become small records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame
from threadpoolctl import threadpool_limits

from coarse_spark.core.additive import Additive, Flat

_SCHEMA = "name string, shapes array<array<int>>, sums array<double>"


def add_up(
    rows: DataFrame,
    record: Callable[[pd.DataFrame], Mapping[str, Additive]],
    *,
    whole: str | None = None,
) -> dict[str, Flat]:
    """Return the sums, by name, of the records that ``record`` returns for every batch of rows.

    Parameters
    ----------
    rows : only the columns that ``record`` needs.
    record : pure function of a batch (some thousand rows); records of one name have one shape,
        whatever the batch.
    whole : column whose values no two batches share; all rows of a value have to be few.

    Every task adds up its own batches, a second stage adds up the tasks: what reaches the driver is
    as large as one record. The result does not depend on partitioning or order beyond the rounding
    of sums.
    """

    def add_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        total: dict[str, Additive] = {}
        with threadpool_limits(limits=1):  # Spark already runs a task on every core
            for batch in batches if whole is None else _uncut(batches, whole):
                if batch.num_rows:
                    for name, sums in record(batch.to_pandas(split_blocks=True)).items():
                        total[name] = total[name] + sums if name in total else sums
        flat = [sums.flat() for sums in total.values()]
        yield pa.RecordBatch.from_pydict(
            {
                "name": pa.array(list(total), pa.string()),
                "shapes": pa.array(
                    [[list(shape) for shape in one.shapes] for one in flat],
                    pa.list_(pa.list_(pa.int32())),
                ),
                "sums": pa.array([one.numbers.tolist() for one in flat], pa.list_(pa.float64())),
            }
        )

    if whole is not None:
        rows = rows.repartition(whole).sortWithinPartitions(whole)
    partial = rows.mapInArrow(add_batches, _SCHEMA)
    summed = partial.groupBy("name").applyInPandas(_sum_tasks, _SCHEMA).toPandas()
    shapes = [tuple(tuple(map(int, shape)) for shape in row) for row in summed["shapes"]]
    flat = [Flat(np.asarray(*one), two) for *one, two in zip(summed["sums"], shapes, strict=True)]
    return dict(zip(summed["name"], flat, strict=True))


def _uncut(batches: Iterator[pa.RecordBatch], name: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of batches sorted by a column so that no two batches share a value of it."""
    last: list[pa.RecordBatch] = []  # rows that may go on in the next batch
    for batch in batches:
        if not batch.num_rows:
            continue
        values = batch.column(name).to_numpy()
        if last and last[0].column(name)[0].as_py() != values[0]:
            yield _joined(last)
            last = []
        cut = int(np.searchsorted(values, values[-1]))
        if cut:
            yield _joined([*last, batch.slice(0, cut)])
            last = []
        last.append(batch.slice(cut))
    if last:
        yield _joined(last)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]


def _sum_tasks(rows: pd.DataFrame) -> pd.DataFrame:
    # sorted by content: the order in which tasks end must not decide the rounding
    parts = sorted((np.asarray(sums) for sums in rows["sums"]), key=lambda sums: sums.tobytes())
    return rows.head(1).assign(sums=[np.sum(parts, axis=0).tolist()])
