"""A Spark Connect server on this machine for as long as the process runs; it writes its address.

python tests/matrix/server.py ADDRESS LOG      two files
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "spark"))

from spark_processes import connect_server


def main(address: Path, log: Path) -> None:
    """Serve until the process is asked to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with connect_server(log) as served:
        ready = address.with_suffix(".new")
        ready.write_text(served)
        ready.rename(address)
        signal.pause()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
