"""The files of ``jobs/`` under spark-submit, on executors in processes of their own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import numpy
import pytest
from spark_processes import (
    LOOPBACK,
    PROGRAMS,
    ROOT,
    assert_same_result,
    free_port,
    running,
    settings,
    submit,
    wait_until,
)

from coarse_spark import __version__

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


@contextmanager
def standalone(folder: Path, **workers_environment: str) -> Iterator[str]:
    """Run a standalone cluster of a master and two workers on this machine; yield its address."""
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
        log = folder / "master.log"
        quiet = {"SPARK_MASTER_OPTS": "-Dspark.master.rest.enabled=false"}
        master = stack.enter_context(
            running([*program("master.Master"), "--port", port, "--webui-port", page], log, **quiet)
        )
        wait_until(lambda: workers() == 0, master, log)
        for number in (1, 2):
            log = folder / f"worker-{number}.log"
            limits = [
                "--cores",
                1,
                "--memory",
                "1g",
                "--webui-port",
                0,
                "--work-dir",
                folder / f"work-{number}",
            ]
            worker = stack.enter_context(
                running([*program("worker.Worker"), *limits, address], log, **workers_environment)
            )
        wait_until(lambda: workers() == 2, worker, log)
        yield address


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """A standalone cluster whose workers have this package."""
    with standalone(tmp_path) as address:
        yield address


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A standalone cluster, and a Python for its workers with the libraries but not the package.

    Folders that a file .pth names are on its path, but no file .pth in them is read: an editable
    installation of the package, which is such a file, is not found.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    python = tmp_path / "bare" / "bin" / "python"
    (site,) = (tmp_path / "bare" / "lib").glob("python*/site-packages")
    libraries = Path(numpy.__file__).parents[1]
    (site / "libraries.pth").write_text(f"{libraries}\n")
    asked = [python, "-c", "import sklearn; import coarse_spark"]
    found = subprocess.run(
        asked, cwd=tmp_path, env={}, capture_output=True, text=True, timeout=120, check=False
    )
    assert "No module named 'coarse_spark'" in found.stderr
    with standalone(tmp_path, PYTHONPATH="", PYSPARK_PYTHON=str(python)) as address:
        yield address, python


def _made(target: str, file: str) -> Path:
    """Return a file that a target of the Makefile makes, with this Python's environment."""
    command = ["make", "--no-print-directory", "-o", ".venv/.installed", target]
    done = subprocess.run(
        [*command, f"BIN={Path(sys.executable).parent}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1_500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(file)
    return ROOT / file


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


@pytest.mark.timeout(3_600)
def test_workers_without_the_package_are_told_of_before_a_run_and_get_it_by_a_zip_file(
    bare: tuple[str, Path], finished: Run, promotions: Promotions, tmp_path: Path
) -> None:
    address, python = bare
    config = _config(promotions, tmp_path)
    options = ["--master", address, *settings(**SMALL)]
    for key, value in (("python", python), ("driver.python", sys.executable)):
        options += ["--conf", f"spark.pyspark.{key}={value}"]
    zipped = _made("zip", "dist/coarse_spark.zip")
    wheel = tmp_path / "coarse_spark-1-py3-none-any.whl"
    shutil.copy(zipped, wheel)
    for brought in ([], ["--py-files", str(wheel)]):
        done = submit("run_pipeline.py", config, [*options, *brought], "--run-id", "zip")
        assert done.returncode == 2, done.stdout[-5000:]
        assert f"the Python of the workers ({python}) cannot import" in done.stdout
        assert "No module named 'coarse_spark'" in done.stdout
        for word in ("make zip", "make archive", ".whl in --py-files is shipped and ignored"):
            assert word in done.stdout
        assert not (tmp_path / "tables").exists()
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(zipped) as source, zipfile.ZipFile(other, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "coarse_spark/__init__.py":
                content = content.replace(__version__.encode(), b"0.0.1")
            target.writestr(name, content)
    # not by --py-files, which the driver would take the package from as well
    installed = ["--conf", f"spark.executorEnv.PYTHONPATH={other}"]
    done = submit("run_pipeline.py", config, [*options, *installed])
    assert done.returncode == 2, done.stdout[-5000:]
    assert f"has coarse_spark 0.0.1, but this is {__version__}" in done.stdout

    options += ["--py-files", str(zipped)]
    for job in ("fit_responses.py", "choose_menu.py", "evaluate_policy.py", "assign_policy.py"):
        # the only unfinished run needs no name
        named = ["--run-id", "zip"] if job == "fit_responses.py" else []
        done = submit(job, config, options, *named)
        assert done.returncode == 0, f"{job}:\n{done.stdout[-5000:]}"
    assert_same_result(finished, tmp_path / "tables", "zip")


@pytest.mark.timeout(3_600)
def test_workers_get_package_and_libraries_by_a_packed_environment(
    finished: Run, promotions: Promotions, tmp_path: Path
) -> None:
    packed = _made("archive", "dist/coarse_spark_environment.tar.gz")
    environment = {
        "spark__pyspark__python": "./environment/bin/python",
        "spark__pyspark__driver__python": sys.executable,
    }
    with standalone(tmp_path, PYTHONPATH="", PYSPARK_PYTHON="/nonexistent/python") as address:
        options = ["--master", address, "--archives", f"{packed}#environment"]
        # the file of the documentation, and what is small here
        options += ["--properties-file", str(ROOT / "conf" / "spark-defaults.conf")]
        options += settings(**SMALL, **environment)
        config = _config(promotions, tmp_path)
        done = submit("run_pipeline.py", config, options, "--run-id", "archive")
    assert done.returncode == 0, done.stdout[-5000:]
    assert_same_result(finished, tmp_path / "tables", "archive")
