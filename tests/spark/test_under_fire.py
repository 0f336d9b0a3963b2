"""A run on a cluster whose processes are killed, step by step, each time amid a task.

COARSE_SPARK_KILLS=5 python -m pytest -s tests/spark/test_under_fire.py      kills so often a step
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from checksums import assert_equal, tables_of
from command_line import QUICK
from standalone import KINDS, Application, Cluster

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(3600)]

KILLS = int(os.environ.get("COARSE_SPARK_KILLS", "2"))
STEPS = ("fit", "choose", "evaluate", "assign")
LOST = ("ExecutorLostFailure", "FetchFailed", "Python worker crashed", "Resubmitted")
FILES = 6
SECONDS_STOPPED = 5
ON_CLUSTER = {
    # as the session of the other tests: small tables, no thorough compiling
    **{name.replace(".", "__"): value for name, value in QUICK.items()},
    "spark__executor__extraJavaOptions": QUICK["spark.driver.extraJavaOptions"],
    "spark__executor__memory": "512m",
    "spark__executor__cores": 1,
    "spark__sql__shuffle__partitions": 4,
    # a file a task, however small: there have to be tasks to lose
    "spark__sql__files__minPartitionNum": FILES,
    "spark__sql__files__openCostInBytes": 1 << 30,
    "spark__sql__files__maxPartitionBytes": 1 << 20,
}


def write_promotions(folder: Path, experiment: int, population: int) -> dict[str, str]:
    """Write a simulated promotion as files of Parquet, without Spark; return where."""
    from coarse_spark.simulate.promotions import (
        EXPERIMENT_COLUMNS,
        UNIT_COLUMNS,
        simulate_promotions_block,
    )

    places = {}
    for name, units, columns in (
        ("experiment", experiment, EXPERIMENT_COLUMNS),
        ("population", population, UNIT_COLUMNS),
    ):
        place = folder / name
        place.mkdir(parents=True)
        rows = simulate_promotions_block(0, 1, units, experiment=name == "experiment")
        for number in range(FILES):
            part = rows.iloc[number::FILES][list(columns)]
            part.to_parquet(place / f"{number:02}.parquet", index=False)
        places[name] = str(place)
    return places


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration with limits, so that every step has tasks of Python."""
    from coarse_spark.config.load import load_configuration

    folder = tmp_path_factory.mktemp("fire")
    paths = write_promotions(folder / "data", 2_500, 2_000)
    values = {
        "experiment.path": paths["experiment"],
        "experiment.format": "parquet",
        "population.path": paths["population"],
        "population.format": "parquet",
        "output.path": folder / "tables",
        "experiment.features": "[past_spend, visits, channel]",
        "response.learner": "sieve",
        "response.folds": 2,
        "response.min_rows": 300,
        "menu.sizes": 2,
        "menu.sketch_cells": 300,
        "menu.starts": 1,
        "menu.min_share": 0.1,
        "menu.max_share": 0.7,
        "evaluation.resamples": 0,
    }
    promotions = Path(__file__).parents[2] / "conf" / "promotions.yml"
    configuration = load_configuration(promotions, {k: str(v) for k, v in values.items()})
    path = folder / "fire.yml"
    path.write_text(configuration.to_json())
    return path


@pytest.fixture(scope="module")
def cluster(config: Path) -> Iterator[Cluster]:
    with Cluster(config.parent).running() as up:
        yield up


@dataclass(frozen=True)
class Shot:
    """One kill: at which step, which kind of process, at its how manieth task, what was lost."""

    step: str
    kind: str
    moment: int
    tries: int
    lost: int


def start(cluster: Cluster, config: Path, run_id: str, **further: object) -> Application:
    options = ["--master", cluster.address]
    return Application(
        "run_pipeline.py", config, options, "--run-id", run_id, **{**ON_CLUSTER, **further}
    )


def done(running: Application) -> int:
    return sum(one["completedTasks"] for one in running.executors())


def watched(running: Application) -> dict[str, int]:
    """Let a run end; return how many tasks every step had."""
    at, last = {}, ""
    while running.process.poll() is None:
        if running.step != last:
            last = running.step
            at[last] = done(running)
        time.sleep(0.02)
        at["end"] = done(running) or at.get("end", 0)
    return {name: at[after] - at[name] for name, after in pairwise(at)}


def fire(running: Application, cluster: Cluster, tasks: dict[str, int]) -> list[Shot]:
    """Kill amid tasks of every step, at moments spread over them, until tasks are lost.

    Parameters
    ----------
    running, cluster : the run and where it is.
    tasks : step → how many it has when nobody disturbs it.
    """
    shots: list[Shot] = []
    for step in STEPS:
        while running.step != step and running.process.poll() is None:
            time.sleep(0.005)
        begun = done(running)
        for number in range(KILLS):
            kind = KINDS[len(shots) % len(KINDS)]
            moment = round(tasks[step] * (number + 0.3) / KILLS)
            shot = _shot(running, cluster, step, kind, begun + moment)
            shots.append(Shot(step, kind, moment, *shot))
    return shots


def _shot(
    running: Application, cluster: Cluster, step: str, kind: str, tasks: int
) -> tuple[int, int]:
    before, tries = running.lost(), 0
    while running.step == step and running.process.poll() is None:
        found = running.executors()
        busy = [one["id"] for one in found if one["isActive"] and one["activeTasks"]]
        known = cluster.executors()
        busy = [name for name in busy if name in known]
        reached = busy and sum(one["completedTasks"] for one in found) >= tasks
        if reached and cluster.kill(kind, busy[tries % len(busy)]):
            tries += 1
            for _ in range(40 if kind in ("executor", "Worker") else 10):
                time.sleep(0.05)
                lost = running.lost() - before
                if lost > 0:
                    return tries, lost
        time.sleep(0.005)
    return tries, running.lost() - before


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster, config: Path) -> dict[str, int]:
    """The tasks of every step of the run "calm"."""
    running = start(cluster, config, "calm")
    try:
        tasks = watched(running)
        said = running.outcome(60)
        assert running.process.returncode == 0, said[-5000:]
    finally:
        running.stop()
    print(f"\nundisturbed: tasks {tasks}, ends {dict(running.task_ends())}")
    return tasks


def test_killed_workers_and_executors_change_nothing(
    cluster: Cluster, config: Path, undisturbed: dict[str, int]
) -> None:
    running = start(cluster, config, "fire")
    try:
        shots = fire(running, cluster, undisturbed)
        said = running.outcome(900)
        assert running.process.returncode == 0, said[-5000:]
    finally:
        running.stop()
    ends = running.task_ends()
    print("| step | killed | task | tries | tasks lost |")
    for shot in shots:
        print(f"| {shot.step} | {shot.kind} | {shot.moment} | {shot.tries} | {shot.lost} |")
    print(f"ends of tasks: {dict(ends)}")
    hit = Counter(shot.step for shot in shots if shot.lost)
    assert set(hit) == set(STEPS), "tasks of every step should have been lost"
    assert {shot.kind for shot in shots if shot.lost} == set(KINDS[: KILLS * len(STEPS)])
    assert sum(ends[reason] for reason in LOST) >= sum(hit.values())
    tables = config.parent / "tables"
    assert_equal(tables_of(tables, "fire"), tables_of(tables, "calm"))


def test_a_straggler_is_run_again_elsewhere(
    cluster: Cluster, config: Path, undisturbed: dict[str, int]
) -> None:
    speculation = {
        "spark__speculation": "true",
        "spark__speculation__quantile": 0.5,
        "spark__speculation__multiplier": 1.5,
    }
    running, stopped = start(cluster, config, "straggler", **speculation), Counter[str]()
    try:
        while running.process.poll() is None:
            step = running.step
            busy = [one["id"] for one in running.executors() if one["activeTasks"]]
            known = cluster.executors()
            if step not in STEPS or stopped[step] >= KILLS or not set(busy) & set(known):
                time.sleep(0.01)
                continue
            process = known[next(name for name in busy if name in known)][1]
            process.suspend()
            try:
                time.sleep(SECONDS_STOPPED)
            finally:
                process.resume()
            stopped[step] += 1
        said = running.outcome(300)
        assert running.process.returncode == 0, said[-5000:]
    finally:
        running.stop()
    again = running.speculative()
    print(f"\nstopped {dict(stopped)}, tasks run again {again}, {dict(running.task_ends())}")
    assert set(stopped) == set(STEPS)
    assert again > 0
    tables = config.parent / "tables"
    assert_equal(tables_of(tables, "straggler"), tables_of(tables, "calm"))
