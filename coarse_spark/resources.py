"""What work takes: seconds, CPU seconds, and the most memory of every kind of process.

They are this machine's processes: the driver in Python, and where the session works on this machine
alone also Spark's Java process and the Python workers below it. What cannot be found out is left
out, and fails nothing. Knows no pyspark itself.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil

from coarse_spark.compatibility import works_here

log = logging.getLogger(__name__)

_EVERY = 0.5  # seconds between looks at memory, of which one takes milliseconds
_MEGABYTE = 2**20


@dataclass
class Used:
    """What work took, known when it is done; None where nothing can tell.

    Attributes
    ----------
    seconds : of the clock.
    cpu_seconds : of driver, Java and Python workers together.
    driver_peak_mb, java_peak_mb, workers_peak_mb : the most resident memory meanwhile, looked at
        twice a second. The driver's is exact where it never held as much before. Pages that workers
        share count once for each, so that theirs, of all together, is a bound from above.
    """

    seconds: float | None = None
    cpu_seconds: float | None = None
    driver_peak_mb: float | None = None
    java_peak_mb: float | None = None
    workers_peak_mb: float | None = None


@contextmanager
def measured(spark: Any = None) -> Iterator[Used]:
    """Measure the work of the block; what is yielded holds the figures when the block is over.

    Parameters
    ----------
    spark : session that does the work; None where this process alone does.
    """
    used, ended, start = Used(), threading.Event(), time.perf_counter()
    processes = _Processes(alone=spark is None, local=spark is not None and works_here(spark))
    looker = threading.Thread(target=processes.look_on, args=(ended,), name="usage", daemon=True)
    looker.start()
    try:
        yield used
    finally:
        used.seconds = round(time.perf_counter() - start, 3)
        ended.set()
        looker.join(timeout=1)
        processes.tell(used)


class _Processes:
    """The processes of this work, and the most memory that they held.

    Attributes
    ----------
    alone : whether this process does all of the work.
    local : whether Java and the Python workers below it do the rest.
    """

    def __init__(self, *, alone: bool, local: bool) -> None:
        self.alone, self.local = alone, local
        self._own = psutil.Process()
        self._most: dict[str, float] = {}
        self._taken: dict[tuple[int, float], float] = {}  # CPU seconds, of ended processes too
        self._before = _most_ever()
        self._cpu = self._look()

    def look_on(self, ended: threading.Event) -> None:
        """Look at the memory until the work is over."""
        while not ended.wait(_EVERY):
            self._look()

    def tell(self, used: Used) -> None:
        """Put the figures into a record."""
        after = self._look()
        if self._cpu is not None and after is not None:
            used.cpu_seconds = round(after - self._cpu, 2)
        ever = _most_ever()
        if ever > self._before:
            self._most["driver"] = ever
        for kind, most in self._most.items():
            setattr(used, f"{kind}_peak_mb", round(most / _MEGABYTE, 1))

    def _look(self) -> float | None:
        """Note the memory; return the CPU seconds so far, None where some of it is elsewhere."""
        held: dict[str, float] = {}
        try:
            for process in self._all():
                with suppress(psutil.Error):  # it ended meanwhile
                    kind = self._kind(process)
                    held[kind] = held.get(kind, 0.0) + process.memory_info().rss
                    times = process.cpu_times()
                    key = process.pid, process.create_time()
                    self._taken[key] = times.user + times.system
        except Exception:
            log.debug("memory could not be looked at", exc_info=True)
            return None
        for kind, now in held.items():
            self._most[kind] = max(self._most.get(kind, 0.0), now)
        known = self.alone or "java" in held
        return sum(self._taken.values()) if known else None

    def _all(self) -> list[psutil.Process]:
        if not self.local:
            return [self._own]
        parent = self._own.parent()
        # under spark-submit this process is a child of Java's
        root = parent if parent is not None and _is_java(parent) else self._own
        return [root, *root.children(recursive=True)]

    def _kind(self, process: psutil.Process) -> str:
        if process.pid == self._own.pid:
            return "driver"
        return "java" if _is_java(process) else "workers"


def _is_java(process: psutil.Process) -> bool:
    return process.name().startswith("java")


def _most_ever() -> float:
    """Return the most bytes that this process has held; 0 where the system does not tell."""
    if sys.platform == "win32":
        return 0.0
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most if sys.platform == "darwin" else most * 1024)
