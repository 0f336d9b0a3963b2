"""A process that does the commands that it reads, one JSON array a line, on one session."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from command_line import run_command

if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(asdict(run_command(*json.loads(line)))), flush=True)
