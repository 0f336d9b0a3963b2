"""Peak memory of one fit of response.max_rows rows, in a process that does nothing else.

What a Python worker does with a partition of the promotions: read Arrow batches, fit all folds.
One JSON object a line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from common import THREADS

from coarse_spark.config.load import load_configuration
from coarse_spark.config.models import Configuration
from coarse_spark.distributed.fit import _group_fitter
from coarse_spark.distributed.frames import feature_columns
from coarse_spark.pipeline.settings import experiment_setup, fit_settings
from coarse_spark.simulate.promotions import BLOCK_ROWS, simulate_promotions_block

PROMOTIONS = Path(__file__).parents[2] / "conf" / "promotions.yml"
FOLDS = 5
FORMS = (("auto", "relative"), ("sieve", "additive"))


def configuration(learner: str, scale: str) -> Configuration:
    """Return the promotions with a learner and a scale."""
    changes = {"response.learner": learner, "response.scale": scale, "response.folds": str(FOLDS)}
    return load_configuration(PROMOTIONS, changes)


def rows_of_a_partition(count: int) -> pd.DataFrame:
    """Return rows in the shape of ``experiment_units``, all of one partition."""
    blocks = [
        simulate_promotions_block(number, 1, min(BLOCK_ROWS, count - start), experiment=True)
        for number, start in enumerate(range(0, count, BLOCK_ROWS))
    ]
    drawn, rng = pd.concat(blocks, ignore_index=True), np.random.default_rng(0)
    setup = experiment_setup(configuration(*FORMS[0]))
    rows = pd.DataFrame(
        {
            "partition": "market=all",
            "member": 0,
            "key": rng.integers(-(2**62), 2**62, count),
            "fold": rng.integers(0, FOLDS, count),
            "weight": 1.0,
            "outcome": drawn["spend"].astype(float),
            "stratum": "all",
        }
    )
    for name, feature in zip(feature_columns(len(setup.features)), setup.features, strict=True):
        values = drawn[feature]
        rows[name] = values if values.dtype == object else values.astype(float)
    for name, treatment in zip(setup.treatments, ("depth", "days"), strict=True):
        rows[name] = drawn[treatment].astype(float)
    return rows


def peak() -> float:
    """Return the largest memory of this process so far, in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def measured(place: str, learner: str, scale: str) -> dict[str, object]:
    """Fit the rows of a file and return what that took."""
    chosen = configuration(learner, scale)
    fit = _group_fitter(experiment_setup(chosen), fit_settings(chosen), None)
    imports = peak()
    with pa.OSFile(place) as source:
        table = pa.Table.from_batches(list(pa.ipc.open_stream(source)))
    rows = table.to_pandas()
    read = peak()
    models = fit(rows)
    return {
        "learner": learner,
        "scale": scale,
        "rows": len(rows),
        "status": str(models["status"].iloc[0]),
        "imports_mb": imports,
        "rows_mb": round(read - imports, 1),
        "peak_mb": peak(),
        "seconds": round(float(models["seconds"].max()), 1),
    }


def main() -> None:
    """Write the rows once, and fit them in a process for every form."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = configuration(*FORMS[0]).response.max_rows
    parser.add_argument("--rows", type=int, default=default)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(measured(*given.worker)), flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder) / "rows.arrow")
        table = pa.Table.from_pandas(rows_of_a_partition(given.rows), preserve_index=False)
        with pa.OSFile(place, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=10_000)
        for learner, scale in FORMS:
            command = [sys.executable, __file__, "--worker", place, learner, scale]
            subprocess.run(command, env={**os.environ, **THREADS}, check=True)


if __name__ == "__main__":
    main()
