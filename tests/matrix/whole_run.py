"""Run conf/thornton.yml as a whole and print what came of it as one line of JSON.

python tests/matrix/whole_run.py FOLDER [OPTION …]

The folder takes the tables; further options are those of `coarse-spark run`.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RUN = "whole"


def checksum(rows: Iterable[dict[str, Any]]) -> str:
    """Return 16 digits of a hash of rows, the same in any order; numbers count to the last bit."""
    texts = sorted(json.dumps(row, sort_keys=True, default=str) for row in rows)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def checksums(tables: str) -> dict[str, str]:
    """Return the checksum of each table of the run, but for how long what took."""
    from coarse_spark.lake.contract import RUNS, TABLES
    from coarse_spark.lake.session import open_session
    from coarse_spark.lake.tables import Lake

    lake = Lake(open_session(), path=tables)
    return {
        name: checksum(
            row.asDict(recursive=True) for row in lake.read(name, RUN).drop("seconds").collect()
        )
        for name in TABLES
        if name != RUNS.name
    }


def main(folder: str, *options: str) -> None:
    """Run, and tell versions, seconds and checksums."""
    import pyspark

    from coarse_spark.cli import main as command

    start = time.monotonic()
    command(
        [
            *("run", "--config", str(ROOT / "conf" / "thornton.yml")),
            *("--run-id", RUN, "--set", f"output.path={folder}"),
            *options,
        ]
    )
    seconds = time.monotonic() - start
    found = checksums(folder)
    print(
        json.dumps(
            {
                "spark": pyspark.__version__,
                "seconds": round(seconds),
                "checksum": checksum([found]),
                "tables": found,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
