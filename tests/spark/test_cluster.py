"""The files of ``jobs/`` under spark-submit, on executors in processes of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest
from spark_processes import (
    LOOPBACK,
    PROGRAMS,
    assert_same_result,
    free_port,
    running,
    settings,
    submit,
    wait_until,
)

if TYPE_CHECKING:
    from coarse_spark.pipeline import Run

    from .conftest import Promotions

pytestmark = [pytest.mark.spark, pytest.mark.slow]

SMALL = {"spark__executor__memory": "512m", "spark__executor__cores": 1}


def _config(promotions: Promotions, folder: Path) -> Path:
    path = folder / "promotions.yml"
    path.write_text(promotions.configure(output__path=folder / "tables").to_json())
    return path


def test_a_bad_configuration_ends_spark_submit_with_its_exit_code(tmp_path: Path) -> None:
    config = tmp_path / "wrong.yml"
    config.write_text("experiment: {}\n")
    done = submit("run_pipeline.py", config, ["--master", "local[1]"])
    assert done.returncode == 2
    # spark-submit sends both streams of a Python program to its own standard output
    assert f"error: {config} has " in done.stdout
    assert "Traceback" not in done.stdout


def test_the_whole_run_on_executors_of_their_own(
    finished: Run, promotions: Promotions, tmp_path: Path
) -> None:
    options = ["--master", "local-cluster[2,1,1024]", *settings(**SMALL)]
    done = submit(
        "run_pipeline.py", _config(promotions, tmp_path), options, "--run-id", "local-cluster"
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert "run local-cluster" in done.stdout
    assert (tmp_path / "tables" / "report.html").exists()
    assert_same_result(finished, tmp_path / "tables", "local-cluster")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """A standalone cluster of a master and two workers on this machine; its address."""
    port, page = free_port(), free_port()
    address = f"spark://{LOOPBACK}:{port}"

    def workers() -> int:
        try:
            with urlopen(f"http://{LOOPBACK}:{page}/json/", timeout=5) as answer:  # our own master
                return int(json.load(answer)["aliveworkers"])
        except OSError:
            return -1

    def program(name: str) -> list[object]:
        return [PROGRAMS / "spark-class", f"org.apache.spark.deploy.{name}", "--host", LOOPBACK]

    with ExitStack() as stack:
        log = tmp_path / "master.log"
        quiet = {"SPARK_MASTER_OPTS": "-Dspark.master.rest.enabled=false"}
        master = stack.enter_context(
            running([*program("master.Master"), "--port", port, "--webui-port", page], log, **quiet)
        )
        wait_until(lambda: workers() == 0, master, log)
        for number in (1, 2):
            log = tmp_path / f"worker-{number}.log"
            limits = [
                "--cores",
                1,
                "--memory",
                "1g",
                "--webui-port",
                0,
                "--work-dir",
                tmp_path / f"work-{number}",
            ]
            worker = stack.enter_context(
                running([*program("worker.Worker"), *limits, address], log)
            )
        wait_until(lambda: workers() == 2, worker, log)
        yield address


def test_the_jobs_one_by_one_on_a_standalone_cluster(
    cluster: str, finished: Run, promotions: Promotions, tmp_path: Path
) -> None:
    config = _config(promotions, tmp_path)
    for job in ("fit_responses.py", "choose_menu.py", "evaluate_policy.py", "assign_policy.py"):
        done = submit(job, config, ["--master", cluster, *settings(**SMALL)], "--run-id", "cluster")
        assert done.returncode == 0, f"{job}:\n{done.stdout[-5000:]}"
    assert_same_result(finished, tmp_path / "tables", "cluster")
    both = {path.parent.parent.parent.name for path in tmp_path.glob("work-*/app-*/*/stderr")}
    assert both == {"work-1", "work-2"}, "both workers should have run executors"
