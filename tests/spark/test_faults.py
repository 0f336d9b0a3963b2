"""Processes that die, run side by side or find no space, while somebody reads all the time.

COARSE_SPARK_MOMENTS=20 python -m pytest -s tests/spark/test_faults.py      tries that many moments
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from command_line import QUICK, Outcome, on_the_same_responses, own_environment, started_after
from deltalake import DeltaTable

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from coarse_spark.pipeline import Run

    from .conftest import Promotions

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(3600)]

MOMENTS = int(os.environ.get("COARSE_SPARK_MOMENTS", "3"))
UNITS = 3_000
UNFINISHED = ("next", "other")


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
        if published.empty:
            self.looks["nothing"] += 1
            return
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
            while not done.wait(0.3):
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
    """Tables of the published run "first", of "next" and "other" before ``choose``, and of "ready".

    "ready" is not published yet. Copy them.
    """
    folder = tmp_path_factory.mktemp("faults") / "tables"
    shutil.copytree(str(finished.lake.path), folder)
    # processes take the output by --set: the same configuration
    configuration = promotions.configure(output__path=folder)
    for name in UNFINISHED:
        started_after("score", finished, configuration, name).close()
    selected = promotions.configure(output__path=folder, menu__select=1)
    on_the_same_responses(finished, selected, "ready").close()
    return folder


@pytest.fixture
def tables(waiting: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(waiting, tmp_path / "tables"))


def _arguments(promotions: Promotions, tables: Path, run_id: str = "next") -> list[str]:
    """Return the arguments of the command that goes on with a run."""
    page = tables.parent / f"{run_id}.html"
    settings = [f"output.path={tables}", "spark.master=local[2]", f"spark.conf={json.dumps(QUICK)}"]
    options = [part for setting in settings for part in ("--set", setting)]
    given = ["--config", promotions.config, "--run-id", run_id, "--report", page]
    return [str(part) for part in ("run", *options, *given)]


def _start(arguments: Sequence[str]) -> subprocess.Popen[str]:
    """Start a command in a process group of its own: driver and JVM."""
    return subprocess.Popen(
        [sys.executable, "-m", "coarse_spark.cli", *arguments],
        env=own_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


class Worker:
    """A process that does one command after the other, on a session of its own."""

    def __init__(self, **conf: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("worker.py")), json.dumps(conf)],
            env=own_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def start(self, arguments: Sequence[str]) -> None:
        """Begin a command."""
        assert self._process.stdin is not None
        print(json.dumps(arguments), file=self._process.stdin, flush=True)

    def outcome(self) -> Outcome:
        """Wait for the command that was begun."""
        assert self._process.stdout is not None
        return Outcome(**json.loads(self._process.stdout.readline()))

    def stop(self) -> None:
        """Let the process end."""
        self._process.communicate(timeout=60)


@pytest.fixture(scope="module")
def workers() -> Iterator[tuple[Worker, Worker]]:
    both = Worker(), Worker()
    try:
        yield both
    finally:
        for worker in both:
            worker.stop()


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


def _assert_whole(
    spark: SparkSession, tables: Path, *run_ids: str, current: str | None = None
) -> None:
    """Check that runs are published, each row once, with the treatments of the run "first"."""
    from coarse_spark.lake.tables import Lake

    lake = Lake(spark, path=str(tables))
    current = run_ids[-1] if current is None else current
    assert {row["run_id"] for row in lake.current_assignments().collect()} == {current}
    for run_id in run_ids:
        row = lake.read("runs", run_id).collect()
        assert [(found["status"], found["owner"]) for found in row] == [("published", None)]
        for name in ("models", "responses", "menu", "policy_values", "contrasts", "segments"):
            now, first = (lake.read(name, which).count() for which in (run_id, "first"))
            assert now == first, name
        # the same seed gives the same treatments, however often it was begun again
        own, first = (
            lake.read("assignments", which)
            .select("unit_id", "treatment_id", "depth", "days")
            .toPandas()
            .sort_values("unit_id", ignore_index=True)
            for which in (run_id, "first")
        )
        pd.testing.assert_frame_equal(own, first)
        assert own["unit_id"].nunique() == len(own) == UNITS


@pytest.mark.parametrize("which", ["a later run", "the first run"])
def test_a_run_that_is_killed_again_and_again_ends_once_and_whole(
    spark: SparkSession, promotions: Promotions, tables: Path, which: str
) -> None:
    from coarse_spark.lake.tables import Lake

    if which == "the first run":
        Lake(spark, path=str(tables)).remove("runs", ["first"])
    watch, killed = Watch(tables), []
    with watch.watching():
        for moment in range(MOMENTS):
            # a commit is a data file, a commit file and sometimes a checkpoint; later moments let
            # the run come further, up to its last commits
            files = 1 + (moment * 7) % 23
            if not _kill_after(_start(_arguments(promotions, tables)), tables, files):
                break
            killed.append(files)
        else:
            process = _start(_arguments(promotions, tables))
            said, _ = process.communicate(timeout=400)
            assert process.returncode == 0, said
    assert killed
    assert set(watch.looks) <= {"nothing" if which == "the first run" else "first", "next"}
    _assert_whole(spark, tables, "next")
    print(f"\n{which}: killed after {killed} new files; a reader saw {dict(watch.looks)}")


@pytest.mark.parametrize("second", UNFINISHED)
def test_two_processes_with_one_run_or_two(
    spark: SparkSession,
    promotions: Promotions,
    waiting: Path,
    tmp_path: Path,
    workers: tuple[Worker, Worker],
    second: str,
) -> None:
    outcomes: Counter[str] = Counter()
    looks: Counter[str] = Counter()
    for trial in range(MOMENTS):
        tables = Path(shutil.copytree(waiting, tmp_path / f"{trial}" / "tables"))
        watch = Watch(tables)
        with watch.watching():
            for worker, run_id in zip(workers, ("next", second), strict=True):
                worker.start(_arguments(promotions, tables, run_id))
                time.sleep(trial % 5 * 0.7)
            both = [worker.outcome() for worker in workers]
        looks += watch.looks
        for outcome in both:
            if outcome.code == 0:
                done = "is published already" in outcome.err
                outcomes["published already" if done else "did the run"] += 1
            else:
                assert outcome.code == 2, outcome.err
                assert "being worked on" in outcome.err or "changed hands" in outcome.err
                outcomes["refused"] += 1
        if second == "next":
            assert 0 in (outcome.code for outcome in both)
            _assert_whole(spark, tables, "next")
        else:
            assert [outcome.code for outcome in both] == [0, 0], both
            last = DeltaTable(str(tables / "runs")).to_pandas().dropna(subset="published_at")
            current = last.sort_values("published_at")["run_id"].iloc[-1]
            _assert_whole(spark, tables, *UNFINISHED, current=current)
        shutil.rmtree(tables.parent)
    print(f"\nnext and {second}: {dict(outcomes)}; a reader saw {dict(looks)}")


def test_two_processes_publish(
    spark: SparkSession, waiting: Path, tmp_path: Path, workers: tuple[Worker, Worker]
) -> None:
    from coarse_spark.lake.tables import Lake

    outcomes: Counter[str] = Counter()
    for trial in range(MOMENTS):
        tables = Path(shutil.copytree(waiting, tmp_path / f"{trial}" / "tables"))
        watch = Watch(tables)
        with watch.watching():
            for worker in workers:
                worker.start(["runs", "publish", "ready", "--output", str(tables)])
                time.sleep(trial % 7 * 0.5)
            both = [worker.outcome() for worker in workers]
        for outcome in both:
            assert outcome.code in (0, 2), outcome.err
            said = outcome.out if outcome.code == 0 else "refused"
            outcomes[said.strip()] += 1
            if outcome.code == 2:
                assert "being worked on" in outcome.err or "somebody else" in outcome.err
        assert 0 in (outcome.code for outcome in both)
        lake = Lake(spark, path=str(tables))
        row = lake.read("runs", "ready").collect()
        assert [(found["status"], found["owner"]) for found in row] == [("published", None)]
        assert {found["run_id"] for found in lake.current_assignments().collect()} == {"ready"}
        shutil.rmtree(tables.parent)
    print(f"\n{dict(outcomes)}")


def test_a_step_that_is_asked_to_end_is_recorded_and_goes_on_later(
    spark: SparkSession, promotions: Promotions, tables: Path
) -> None:
    from coarse_spark.lake.tables import Lake

    process = _start(_arguments(promotions, tables))
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
    process = _start(_arguments(promotions, tables))
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    assert "choose ..." not in said
    _assert_whole(spark, tables, "next")


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
    spark: SparkSession,
    promotions: Promotions,
    waiting: Path,
    small_disk: Path,
    workers: tuple[Worker, Worker],
) -> None:
    tables = Path(shutil.copytree(waiting, small_disk / "tables"))
    watch, filler, failed = Watch(tables), small_disk / "filler", []
    with watch.watching():
        for moment in range(MOMENTS):
            left = 8_000 * (moment + 1)
            filler.write_bytes(b"\0" * (shutil.disk_usage(small_disk).free - left))
            workers[0].start(_arguments(promotions, tables))
            outcome = workers[0].outcome()
            filler.unlink()
            if outcome.code == 0:
                break
            assert outcome.code in (1, 2), outcome.err
            assert "space" in outcome.err, outcome.err
            assert "Traceback" not in outcome.err
            failed.append(left)
        workers[0].start(_arguments(promotions, tables))
        outcome = workers[0].outcome()
        assert outcome.code == 0, outcome.err
    assert failed
    _assert_whole(spark, tables, "next")
    print(f"\nno more than {failed} bytes left; a reader saw {dict(watch.looks)}")


@pytest.mark.parametrize("table", ["models", "responses", "menu", "assignments", "segments"])
def test_a_run_that_lost_a_table_is_not_published(
    spark: SparkSession, tables: Path, workers: tuple[Worker, Worker], table: str
) -> None:
    from coarse_spark.lake.tables import Lake

    shutil.rmtree(tables / table)
    workers[0].start(["runs", "publish", "ready", "--output", str(tables)])
    outcome = workers[0].outcome()
    assert outcome.code in (1, 2), outcome
    assert f"{table}` does not exist" in outcome.err, outcome.err
    assert "Traceback" not in outcome.err
    runs = Lake(spark, path=str(tables)).read("runs").where("published_at IS NOT NULL").collect()
    assert [row["run_id"] for row in runs] == ["first"]


def test_a_local_metastore_that_another_process_has_open(
    promotions: Promotions, tmp_path: Path
) -> None:
    metastore = {
        "spark.sql.catalogImplementation": "hive",
        "spark.sql.warehouse.dir": str(tmp_path / "warehouse"),
        "spark.hadoop.javax.jdo.option.ConnectionURL": "jdbc:derby:;create=true;"
        f"databaseName={tmp_path / 'metastore'}",
    }
    options = ["--set", "output.path=null", "--set", "output.schema=default"]
    first, second = Worker(**metastore), Worker(**metastore)
    try:
        for worker in (first, second):
            worker.start(["validate", "--config", str(promotions.config), *options])
            outcome = worker.outcome()
            assert outcome.code == (0 if worker is first else 2), outcome
    finally:
        first.stop()
        second.stop()
    assert "a local one is open to one process at a time: wait until the other" in outcome.err
    assert "Traceback" not in outcome.err
