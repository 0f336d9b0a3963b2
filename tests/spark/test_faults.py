"""Processes that die, run side by side or find no space, while somebody reads all the time.

COARSE_SPARK_MOMENTS=20 python -m pytest -s tests/spark/test_faults.py      tries that many moments
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_line import own_environment
from deltalake import DeltaTable

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from coarse_spark.pipeline import Run

    from .conftest import Promotions

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(3600)]

MOMENTS = int(os.environ.get("COARSE_SPARK_MOMENTS", "4"))
UNITS = 3_000


class Watch:
    """A consumer that reads the current assignments all the time.

    Attributes
    ----------
    looks : how often it read each run.
    problems : what it saw that no complete run has.
    """

    def __init__(self, tables: Path) -> None:
        self.tables = tables
        self.looks: Counter[str] = Counter()
        self.problems: list[str] = []

    def look(self) -> None:
        """Read the current run as SQL consumers do."""
        runs = DeltaTable(str(self.tables / "runs")).to_pandas(columns=["run_id", "published_at"])
        published = runs.dropna(subset="published_at").sort_values("published_at")
        run_id = published["run_id"].iloc[-1]
        of_run = [("run_id", "=", run_id)]
        found, menu = (
            DeltaTable(str(self.tables / name)).to_pandas(partitions=of_run)
            for name in ("assignments", "menu")
        )
        selected = menu.loc[menu["selected"], ["treatment_id", "depth", "days"]]
        given = found[["treatment_id", "depth", "days"]].drop_duplicates()
        units = found["unit_id"]
        if len(found) != UNITS or units.nunique() != UNITS:
            self.problems.append(f"{run_id}: {len(found)} rows, {units.nunique()} units")
        if len(given.merge(selected)) != len(given):
            self.problems.append(f"{run_id}: treatments that are not on its menu")
        self.looks[run_id] += 1

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Read in the background for the block, and check that nothing was wrong."""
        done = threading.Event()

        def read() -> None:
            while not done.wait(0.05):
                self.look()

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield
        finally:
            done.set()
            reader.join()
        assert self.problems == []


@pytest.fixture(scope="module")
def waiting(
    finished: Run, promotions: Promotions, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The published run "first" and a run "next", whose next step is ``choose``; copy them."""
    from coarse_spark.lake.contract import MODELS, RESPONSES
    from coarse_spark.lake.step_results import STEPS_WITH_RESULTS
    from coarse_spark.pipeline import start_run

    folder = tmp_path_factory.mktemp("faults")
    shutil.copytree(str(finished.lake.path), folder / "tables")
    # the process takes the output by --set: the same configuration
    with start_run(
        finished.spark, promotions.configure(output__path=folder / "tables"), "next"
    ) as run:
        for schema in (MODELS, RESPONSES):
            run.replace(schema, run.lake.read(schema.name, "first").drop("run_id"))
        for name in STEPS_WITH_RESULTS[:3]:
            run.keep(finished.record.results[name])
    return folder / "tables"


@pytest.fixture
def tables(waiting: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(waiting, tmp_path / "tables"))


def _start(promotions: Promotions, tables: Path, run_id: str = "next") -> subprocess.Popen[str]:
    """Go on with a run in a process group of its own: driver and JVM."""
    command = [sys.executable, "-m", "coarse_spark.cli", "run", "--config", promotions.config]
    options = ["--set", f"output.path={tables}", "--set", "spark.master=local[2]"]
    page = ["--report", tables.parent / "page.html"]
    return subprocess.Popen(
        [str(part) for part in (*command, *options, *page, "--run-id", run_id)],
        env=own_environment(),
        cwd=tables.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[str], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _files(tables: Path) -> int:
    return sum(len(files) for folder, _, files in os.walk(tables) if ".locks" not in folder)


def _kill_after(process: subprocess.Popen[str], tables: Path, files: int) -> bool:
    """Kill driver and JVM once so many new files are there; whether that came before the end."""
    before, end = _files(tables), time.monotonic() + 300
    while process.poll() is None and time.monotonic() < end:
        if _files(tables) - before >= files:
            _end(process, signal.SIGKILL)
            process.communicate()
            return True
        time.sleep(0.01)
    _end(process, signal.SIGKILL)
    process.communicate()
    return False


def _assert_healed(spark: SparkSession, tables: Path, run_id: str = "next") -> None:
    from coarse_spark.lake.tables import Lake

    lake = Lake(spark, path=str(tables))
    row = lake.read("runs", run_id).collect()
    assert [(found["status"], found["owner"]) for found in row] == [("published", None)]
    assignments = lake.current_assignments()
    assert {found["run_id"] for found in assignments.select("run_id").distinct().collect()} == {
        run_id
    }
    assert assignments.count() == assignments.select("unit_id").distinct().count() == UNITS
    for name in ("menu", "policy_values", "contrasts", "segments"):
        now, first = (lake.read(name, which).count() for which in (run_id, "first"))
        assert now == first, name
    assert lake.read("assignments").count() == 2 * UNITS
    # the same seed gives the same treatments, however often it was begun again
    own, first = (
        lake.read("assignments", which).select("unit_id", "treatment_id", "depth", "days")
        for which in (run_id, "first")
    )
    assert own.exceptAll(first).count() == 0


def test_a_run_that_is_killed_again_and_again_ends_once_and_whole(
    spark: SparkSession, promotions: Promotions, tables: Path
) -> None:
    watch, killed = Watch(tables), []
    with watch.watching():
        for moment in range(MOMENTS):
            # a commit is a data file, a commit file and sometimes a checkpoint; later moments let
            # the run come further, up to its last commits
            files = 1 + (moment * 7) % 23
            if not _kill_after(_start(promotions, tables), tables, files):
                break
            killed.append(files)
        else:
            process = _start(promotions, tables)
            said, _ = process.communicate(timeout=400)
            assert process.returncode == 0, said
    assert killed
    assert set(watch.looks) <= {"first", "next"}
    _assert_healed(spark, tables)
    print(f"\nkilled after {killed} new files; a reader saw {dict(watch.looks)}")


def test_of_two_processes_with_one_run_one_does_it(
    spark: SparkSession, promotions: Promotions, waiting: Path, tmp_path: Path
) -> None:
    outcomes: Counter[str] = Counter()
    for trial in range(max(MOMENTS // 4, 1)):
        tables = Path(shutil.copytree(waiting, tmp_path / f"tables-{trial}"))
        watch = Watch(tables)
        with watch.watching():
            both = [_start(promotions, tables) for _ in range(2)]
            said = [process.communicate(timeout=600)[0] for process in both]
        for process, text in zip(both, said, strict=True):
            if process.returncode == 0:
                done = "is published already" in text
                outcomes["already published" if done else "did the run"] += 1
            else:
                assert process.returncode == 2, text
                assert "being worked on" in text or "changed hands" in text, text
                outcomes["refused"] += 1
        assert sum(process.returncode == 0 for process in both) >= 1, said
        _assert_healed(spark, tables)
    print(f"\n{dict(outcomes)}")


def test_a_step_that_is_asked_to_end_is_recorded_and_goes_on_later(
    spark: SparkSession, promotions: Promotions, tables: Path
) -> None:
    from coarse_spark.lake.tables import Lake

    process = _start(promotions, tables)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.rstrip().endswith("evaluate ..."):
            process.send_signal(signal.SIGTERM)
            break
    rest, _ = process.communicate(timeout=200)
    assert process.returncode == 143, "".join(lines) + rest
    assert "Traceback" not in rest
    record = Lake(spark, path=str(tables)).read("runs", "next").collect()[0]
    assert (record["status"], record["owner"]) == ("failed", None)
    assert record["error"] == "evaluate: Terminated: SIGTERM"
    process = _start(promotions, tables)
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    assert "choose ..." not in said
    _assert_healed(spark, tables)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("a file system of a limited size cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_a_run_in_a_sentence_and_space_heals_it(
    spark: SparkSession, promotions: Promotions, waiting: Path, small_disk: Path
) -> None:
    tables = Path(shutil.copytree(waiting, small_disk / "tables"))
    free = shutil.disk_usage(small_disk).free
    filler = small_disk / "filler"
    filler.write_bytes(b"\0" * (free - 60_000))
    watch = Watch(tables)
    with watch.watching():
        process = _start(promotions, tables)
        said, _ = process.communicate(timeout=400)
        assert process.returncode in (1, 2), said
        assert "No space left" in said or "space" in said, said
        filler.unlink()
        process = _start(promotions, tables)
        said, _ = process.communicate(timeout=400)
        assert process.returncode == 0, said
    _assert_healed(spark, tables)
