"""How far something long is: every second where somebody looks on, else every 30 s in the log.

A thread of its own asks Spark for its tasks and tells one line, such as ``fit: 7 of 12 partitions,
45 s``. What it cannot find out it leaves out, and it fails nothing. Knows no pyspark itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar

from coarse_spark.compatibility import Tasks, tasks_of

log = logging.getLogger(__name__)

STEPS = "coarse_spark.steps"  # the logger of lines for machines, JSON and nothing else
SHOWN, LOGGED = 1.0, 30.0  # seconds between lines on a display, and in the log

Item = TypeVar("Item")


class Display(Protocol):
    """Where one line stands at a time."""

    def show(self, line: str) -> None:
        """Show a line in place of the one before."""

    def clear(self) -> None:
        """Show none: what else is printed shall not mix with it."""


class _Work:
    """What goes on, and how far it is."""

    def __init__(self, name: str) -> None:
        self.name, self.start = name, time.monotonic()
        self.part = ""
        self.counted = ("", 0, 0)
        self.tasks: Tasks = lambda: (0, 0)

    def line(self) -> str:
        """Return how far it is, in words."""
        noun, total, before = self.counted
        done, tasks = self.tasks()
        words = [self.part] if self.part else []
        if tasks and tasks == total + before:
            words.append(_of(max(done - before, 0), total, noun))
        elif tasks:
            words.append(_of(done, tasks, "task"))
        words.append(_seconds(time.monotonic() - self.start))
        return f"{self.name}: {', '.join(words)}"


_lock = threading.RLock()  # a line that is under way ends before its work does
_going_on: list[_Work] = []  # the innermost last: that one is told
_display: Display | None = None


@contextmanager
def display_on(display: Display | None) -> Iterator[None]:
    """Show progress on a display within the block; None for the log."""
    global _display
    before, _display = _display, display
    try:
        yield
    finally:
        _display = before


@contextmanager
def of(name: str, spark: Any = None) -> Iterator[None]:
    """Tell how far the work of the block is until it ends, however it ends.

    Parameters
    ----------
    name : of the work, such as that of a step.
    spark : session whose tasks are counted; None for none.
    """
    work, ended = _Work(name), threading.Event()
    teller = threading.Thread(target=_tell, args=(work, ended), name="progress", daemon=True)
    with tasks_of(spark) as work.tasks:
        _going_on.append(work)
        teller.start()
        try:
            yield
        finally:
            ended.set()
            with _lock:  # nothing is told from here on
                _going_on.remove(work)
                if _display is not None:
                    with suppress(Exception):  # it is gone: nobody looks on
                        _display.clear()
            teller.join(timeout=1)  # it may wait for an answer of Spark


def counts(noun: str, total: int, before: int = 0) -> None:
    """Say what the tasks of a stage are.

    Without work that is told nothing happens, here and in ``each``.

    Parameters
    ----------
    noun : what one is, such as partition.
    total : how many; a stage of another number of tasks is one of tasks.
    before : further tasks of that stage, which are others and end first.
    """
    if _going_on:
        _going_on[-1].counted = (noun, total, before)


def each(noun: str, items: Iterable[Item]) -> Iterator[Item]:
    """Yield items, and say which of them the work is at."""
    known = list(items)
    work = _going_on[-1] if _going_on else _Work("")
    try:
        for number, item in enumerate(known, start=1):
            work.part = f"{noun} {number} of {len(known)}"
            yield item
    finally:
        work.part = ""


def _tell(work: _Work, ended: threading.Event) -> None:
    while not ended.wait(LOGGED if _display is None else SHOWN):
        if _going_on[-1:] != [work]:
            continue
        try:
            line = work.line()
            with _lock:
                if ended.is_set():
                    return
                if _display is None:
                    log.info("%s", line)
                else:
                    _display.show(line)
        except Exception:  # such as of a session that ended: the work itself tells that
            log.debug("no progress of %s", work.name, exc_info=True)


def _of(done: int, total: int, noun: str) -> str:
    return f"{done} of {total} {noun}{'' if total == 1 else 's'}"


def _seconds(value: float) -> str:
    minutes, seconds = divmod(int(value), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
