"""Write the simulated promotion as Delta tables of any size, block by block on the executors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
from pyspark.sql import SparkSession

from coarse_spark.errors import InvalidInputError
from coarse_spark.simulate.promotions import (
    BLOCK_ROWS,
    EXPERIMENT_COLUMNS,
    TRUTH_COLUMNS,
    UNIT_COLUMNS,
    simulate_promotions_block,
)

logger = logging.getLogger(__name__)

_TYPES = {"unit_id": "bigint", "tenure_months": "bigint", "visits": "bigint"} | dict.fromkeys(
    ("market", "channel", "tier", "device"), "string"
)


def _schema(columns: tuple[str, ...]) -> str:
    return ", ".join(f"{name} {_TYPES.get(name, 'double')}" for name in columns)


EXPERIMENT_SCHEMA = _schema(EXPERIMENT_COLUMNS)
POPULATION_SCHEMA = _schema(UNIT_COLUMNS)
TRUTH_SCHEMA = _schema(TRUTH_COLUMNS)


def write_promotions(
    spark: SparkSession, units: int, out: str, *, experiment_units: int | None = None, seed: int = 0
) -> dict[str, str]:
    """Write the tables experiment, population and truth; return their paths by name.

    What was there is replaced. The truth holds the response coefficients theta_0 … theta_5 of every
    unit of both tables; a run has no business reading it.

    Parameters
    ----------
    units : customers of the population, which has neither treatment nor outcome.
    out : folder of the three Delta tables.
    experiment_units : customers of the randomized experiment; as many as ``units`` when left out.
    seed : the same seed gives the same rows whatever the number of Spark partitions; more units add
        rows and change none.

    Raises
    ------
    InvalidInputError : a number of units below 1.
    """
    trial = units if experiment_units is None else experiment_units
    for label, count in (("units", units), ("experiment_units", trial)):
        if count < 1:
            raise InvalidInputError(f"simulate promotions: {label} is {count}, expected at least 1")
    parts = {
        "experiment": (EXPERIMENT_COLUMNS, EXPERIMENT_SCHEMA, ((True, trial),)),
        "population": (UNIT_COLUMNS, POPULATION_SCHEMA, ((False, units),)),
        "truth": (TRUTH_COLUMNS, TRUTH_SCHEMA, ((True, trial), (False, units))),
    }
    paths = {name: f"{out.rstrip('/')}/{name}" for name in parts}
    for name, (columns, schema, sources) in parts.items():
        frames = [
            spark.range(-(-count // BLOCK_ROWS)).mapInPandas(
                _generate(columns, count, seed, experiment), schema
            )
            for experiment, count in sources
        ]
        whole = frames[0] if len(frames) == 1 else frames[0].unionByName(frames[1])
        whole.write.format("delta").mode("overwrite").option("overwriteSchema", "true").save(
            paths[name]
        )
        logger.info("wrote %s: %d units", paths[name], sum(count for _, count in sources))
    return paths


def _generate(
    columns: tuple[str, ...], units: int, seed: int, experiment: bool
) -> Callable[[Iterator[pd.DataFrame]], Iterator[pd.DataFrame]]:
    def generate(batches: Iterator[pd.DataFrame]) -> Iterator[Any]:
        for batch in batches:
            for block in batch["id"].astype(int):
                rows = min(BLOCK_ROWS, units - block * BLOCK_ROWS)
                yield simulate_promotions_block(block, seed, rows, experiment=experiment)[
                    list(columns)
                ]

    return generate
