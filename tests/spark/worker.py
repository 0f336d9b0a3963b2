"""A process that does the commands that it reads, one JSON array a line, on one session."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from command_line import QUICK, run_command

from coarse_spark.lake.session import open_session

if __name__ == "__main__":
    conf = {**QUICK, **json.loads(sys.argv[1])}
    open_session(master="local[2]", shuffle_partitions=2, conf=conf)
    for line in sys.stdin:
        print(json.dumps(asdict(run_command(*json.loads(line)))), flush=True)
