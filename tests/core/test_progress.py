"""Progress is told while work goes on, by the innermost of it, and never fails it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coarse_spark import progress
from coarse_spark.compatibility import jobs_named


class Lines:
    """A display that remembers."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.now = ""

    def show(self, line: str) -> None:
        self.shown.append(line)
        self.now = line

    def clear(self) -> None:
        self.now = ""

    def wait(self, part: str) -> None:
        """Return when a line with a part was shown since."""
        start, end = len(self.shown), time.monotonic() + 20
        while not any(part in line for line in self.shown[start:]):
            assert time.monotonic() < end, (part, self.shown)
            time.sleep(0.01)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(progress, "SHOWN", 0.02)
    found = Lines()
    with progress.display_on(found):
        yield found


def tellers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "progress"]


# ruff: noqa: N802  # Spark's names


class Classic:
    """The part of a session in this process that is asked: stages with (finished, all) tasks."""

    def __init__(self, *stages: tuple[int, int] | None) -> None:
        self.stages = list(stages)
        self.sparkContext = self

    def statusTracker(self) -> Classic:
        return self

    def getActiveStageIds(self) -> range:
        return range(len(self.stages))

    def getStageInfo(self, stage: int) -> Any:
        found = self.stages[stage]
        return found and SimpleNamespace(numCompletedTasks=found[0], numTasks=found[1])


class Connect:
    """The part of a session of Spark Connect that is asked."""

    def __init__(self) -> None:
        self.handlers: list[Any] = []

    def registerProgressHandler(self, handler: Any) -> None:
        self.handlers.append(handler)

    def removeProgressHandler(self, handler: Any) -> None:
        self.handlers.remove(handler)

    def tell(self, *stages: tuple[int, int], operation: str = "a", done: bool = False) -> None:
        told = [
            SimpleNamespace(num_completed_tasks=of[0], num_tasks=of[1], done=of[0] == of[1])
            for of in stages
        ]
        for handler in self.handlers:
            handler(stages=told, inflight_tasks=1, operation_id=operation, done=done)


def test_tasks_are_counted_and_named(lines: Lines) -> None:
    spark = Classic((7, 12))
    with progress.of("fit", spark):
        lines.wait("fit: 7 of 12 tasks, 0 s")
        progress.counts("partition", 12)
        lines.wait("fit: 7 of 12 partitions, ")
        progress.counts("partition", 10, before=2)
        lines.wait("fit: 5 of 10 partitions, ")
        spark.stages += [(1, 2), None]  # Spark forgets stages
        lines.wait("fit: 8 of 14 tasks, ")
        spark.stages[:] = [(0, 1)]
        lines.wait("fit: 0 of 1 task, ")
        spark.stages.clear()
        lines.wait("fit: 0 s")


def test_tasks_of_connect_are_heard(lines: Lines) -> None:
    spark = Connect()
    with progress.of("score", spark):
        spark.tell((4, 4), (1, 6))
        lines.wait("score: 1 of 6 tasks, ")
        spark.tell((2, 4), operation="b")
        lines.wait("score: 3 of 10 tasks, ")
        spark.tell(done=True)
        lines.wait("score: 2 of 4 tasks, ")
    assert spark.handlers == []


def test_folds_are_counted_and_the_innermost_work_is_told(lines: Lines) -> None:
    with progress.of("evaluate"):
        for fold in progress.each("fold", range(3)):
            lines.wait(f"evaluate: fold {fold + 1} of 3, 0 s")
        lines.wait("evaluate: 0 s")
        with progress.of("inner"):
            lines.wait("inner: ")
            start = len(lines.shown)
            lines.wait("inner: ")
            assert all(line.startswith("inner") for line in lines.shown[start:])
        lines.wait("evaluate: ")
    assert list(progress.each("fold", "ab")) == ["a", "b"]  # without work to tell of
    progress.counts("fold", 2)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_told_any_more_however_work_ends(
    lines: Lines, error: type[BaseException]
) -> None:
    def fail() -> None:
        with progress.of("fit"):
            lines.wait("fit")
            raise error

    with pytest.raises(error):
        fail()
    assert lines.now == ""
    told = len(lines.shown)
    time.sleep(0.1)
    assert len(lines.shown) == told
    assert tellers() == []


def test_progress_that_cannot_be_found_out_fails_nothing(lines: Lines) -> None:
    class Ended(Classic):
        def getActiveStageIds(self) -> range:
            raise ConnectionError("the session ended")

    with progress.of("fit", Ended()):
        time.sleep(0.2)
    assert lines.shown == []
    with progress.of("fit", object()):
        lines.wait("fit: 0 s")


def test_the_log_has_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "LOGGED", 0.2)
    with caplog.at_level("INFO", "coarse_spark.progress"), progress.of("fit", Classic((1, 2))):
        time.sleep(0.9)
    assert 2 <= len(caplog.messages) <= 4
    assert set(caplog.messages) == {"fit: 1 of 2 tasks, 0 s"}


def test_durations_are_read_at_a_glance() -> None:
    assert [progress._seconds(value) for value in (0.9, 59.9, 60, 125)] == [
        "0 s",
        "59 s",
        "1 min 0 s",
        "2 min 5 s",
    ]


WORK = """
import logging, sys, time
from coarse_spark import progress
from coarse_spark.cli.terminal import progress_shown
with progress_shown():
    with progress.of("fit"):
        time.sleep(1.5)
        logging.getLogger("coarse_spark.pipeline").info("a line of the log %s", "x" * 100)
        time.sleep(1.5)
    print("done")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo terminals")
def test_a_terminal_shows_one_line_below_the_log_and_clears_it(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "60"}
    with subprocess.Popen(
        [sys.executable, "-c", WORK], stderr=theirs, stdout=subprocess.PIPE, env=environment
    ) as process:
        os.close(theirs)
        parts = []
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # closed at the other end
                break
            if not part:
                break
            parts.append(part)
        output = process.stdout.read() if process.stdout else b""
    os.close(ours)
    text = b"".join(parts).decode()
    assert process.returncode == 0, text
    assert output == b"done\n"
    assert "fit: 1 s" in text
    assert "fit: 2 s" in text
    logged = re.search(r"\d\d:\d\d:\d\d  a line of the log x{100}", text.replace("\r\n", ""))
    assert logged is not None
    # erased in the end, and the cursor is back
    assert text.rstrip().endswith(("\x1b[2K", "\x1b[?25h", "\x1b[1A\x1b[2K"))
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo terminals")
def test_a_terminal_that_goes_away_fails_nothing() -> None:
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", WORK],
        stderr=theirs,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TERM": "xterm"},
    ) as process:
        os.close(theirs)
        assert os.read(ours, 1)
        os.close(ours)
        output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "done\n")


def test_what_is_no_terminal_gets_plain_lines() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORK],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "FORCE_COLOR": "1"},
    )
    assert done.stdout == "done\n"
    assert re.fullmatch(r"\d\d:\d\d:\d\d  a line of the log x{100}\n", done.stderr)


def test_a_display_or_session_that_is_gone_at_the_end_fails_nothing() -> None:
    class Gone(Lines):
        def clear(self) -> None:
            raise UnicodeEncodeError("ascii", "→", 0, 1, "not in range")

    class Ended(Connect):
        def removeProgressHandler(self, _: Any) -> None:
            raise ConnectionError("the session ended")

    done = []
    with progress.display_on(Gone()), progress.of("publish", Ended()):
        done.append("published")
    assert done == ["published"]
    assert not tellers()


# --- names of jobs --------------------------------------------------------------------------------


class Named:
    """The part of a session in this process that names jobs."""

    def __init__(self) -> None:
        self.sparkContext = self
        self.properties: dict[str, str | None] = {}

    def getLocalProperty(self, name: str) -> str | None:
        return self.properties.get(name)

    def setLocalProperty(self, name: str, value: str | None) -> None:
        self.properties[name] = value


def test_jobs_have_the_name_of_their_work_and_then_the_one_before() -> None:
    spark = Named()
    with jobs_named(spark, "run a", "fit"):
        assert spark.properties["spark.jobGroup.id"] == "run a"
        assert spark.properties["spark.job.description"] == "run a: fit"
    assert set(spark.properties.values()) == {None}
    # a notebook stops its cell by the cell's group
    spark.properties = {"spark.jobGroup.id": "cell", "spark.job.description": "of the cell"}
    with suppress(KeyError), jobs_named(spark, "run a", "fit"):
        assert spark.properties["spark.jobGroup.id"] == "cell"
        assert spark.properties["spark.job.description"] == "run a: fit"
        raise KeyError
    assert spark.properties["spark.job.description"] == "of the cell"


def test_operations_of_connect_have_a_tag_and_no_session_has_none() -> None:
    tags: list[str] = []
    spark = SimpleNamespace(addTag=tags.append, removeTag=tags.remove)
    with jobs_named(spark, "run a", "fit, then score"):
        assert tags == ["run a: fit; then score"]
    assert tags == []
    with jobs_named(None, "run a", "fit"):
        pass
