"""One line a step for machines: a JSON object in the logger ``coarse_spark.steps``."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime

from pyspark.sql import SparkSession

from coarse_spark.progress import STEPS
from coarse_spark.resources import Used, measured

log = logging.getLogger(STEPS)


@contextmanager
def told(
    run_id: str, step: str, spark: SparkSession, rows: Callable[[str], int | None]
) -> Iterator[Used]:
    """Write the line of a step at its end, however it ends.

    Parameters
    ----------
    run_id, step : what is done.
    spark : that does it.
    rows : returns how many rows of its input the step has read, None where that is not known.
    """
    status = "failed"
    used = Used()
    try:
        with measured(spark) as used:
            yield used
        status = "done"
    finally:
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "run": run_id,
            "step": step,
            "status": status,
            "rows": rows(step),
            **asdict(used),
        }
        log.info("%s", json.dumps(line))
