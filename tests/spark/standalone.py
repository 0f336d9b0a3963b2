"""A standalone cluster on this machine whose processes may be killed, and a run on it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
from spark_processes import (
    LOOPBACK,
    PROGRAMS,
    ROOT,
    environment,
    free_port,
    running,
    settings,
    wait_until,
)

STEP = re.compile(r"\b(fit|score|choose|evaluate|assign|publish) \.\.\.\s*$")
KINDS = ("Python worker", "Python daemon", "executor", "Worker")


def answer(address: str) -> Any:
    """Return the JSON that a page of Spark's own on the loopback address gives, None for none."""
    try:
        with urlopen(address, timeout=5) as page:  # noqa: S310  # our own master or driver
            return json.load(page)
    except (OSError, ValueError):
        return None


class Cluster:
    """A master and two Workers, each with one executor of one core.

    The Workers have loopback addresses of their own: Spark does not run a slow task again on the
    host where it is slow.

    Attributes
    ----------
    address : of the master.
    workers : the Worker processes by number.
    """

    def __init__(self, folder: Path, memory: str = "1g") -> None:
        self.folder, self.memory = folder, memory
        self.port, self.page = free_port(), free_port()
        self.address = f"spark://{LOOPBACK}:{self.port}"
        self.workers: dict[int, subprocess.Popen[bytes]] = {}
        self._open: dict[int, ExitStack] = {}
        self._seen: set[psutil.Process] = set()

    def start(self, number: int) -> None:
        """Start a Worker; it takes the place of one that was killed."""
        log = self.folder / f"worker-{number}.log"
        command = [
            *(PROGRAMS / "spark-class", "org.apache.spark.deploy.worker.Worker"),
            *("--host", f"127.0.0.{number}", "--cores", 1, "--memory", self.memory),
            *("--webui-port", 0),
            *("--work-dir", self.folder / f"work-{number}", self.address),
        ]
        self._open[number] = stack = ExitStack()
        self.workers[number] = stack.enter_context(running(command, log))

    def alive(self) -> int:
        """Return how many Workers the master knows to live."""
        found = answer(f"http://{LOOPBACK}:{self.page}/json/")
        return -1 if found is None else int(found["aliveworkers"])

    def executors(self) -> dict[str, tuple[int, psutil.Process]]:
        """Return the executors that live, by id, with the number of their Worker."""
        found = {}
        for number, worker in self.workers.items():
            for process in _descendants(worker.pid):
                self._seen.add(process)
                with suppress(psutil.Error):
                    line = process.cmdline()
                    if "--executor-id" in line:
                        found[line[line.index("--executor-id") + 1]] = (number, process)
        return found

    def kill(self, kind: str, executor: str) -> int:
        """Kill a process of an executor, or the one that it is a child of; return how many.

        Parameters
        ----------
        kind : one of ``KINDS``; with the daemon end the Python workers that it forked.
        executor : its id.
        """
        number, java = self.executors()[executor]
        python = _descendants(java.pid)
        if kind == "Worker":
            self.workers[number].kill()
            self._open[number].close()
            self.start(number)
            return 1
        if kind == "executor":
            return _kill([java])
        daemons = [process for process in python if process.ppid() == java.pid]
        forked = [process for process in python if process not in daemons]
        return _kill([*daemons, *forked] if kind == "Python daemon" else forked)

    @contextmanager
    def running(self) -> Iterator[Cluster]:
        """Keep the cluster up for the block."""
        log = self.folder / "master.log"
        command = [
            *(PROGRAMS / "spark-class", "org.apache.spark.deploy.master.Master"),
            *("--host", LOOPBACK, "--port", self.port, "--webui-port", self.page),
        ]
        quiet = {"SPARK_MASTER_OPTS": "-Dspark.master.rest.enabled=false"}
        with running(command, log, **quiet) as master:
            wait_until(lambda: self.alive() == 0, master, log)
            try:
                for number in (1, 2):
                    self.start(number)
                wait_until(lambda: self.alive() == 2, master, log)
                yield self
            finally:
                self.executors()
                for stack in self._open.values():
                    stack.close()
                _kill(self._seen)  # executors that outlived a Worker that was killed


def _descendants(pid: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


def _kill(processes: Sequence[psutil.Process] | set[psutil.Process]) -> int:
    killed = 0
    for process in processes:
        with suppress(psutil.Error):
            process.kill()  # psutil knows a process from a later one with its number
            killed += 1
    return killed


class Application:
    """A file of ``jobs/`` under spark-submit, looked at from outside while it runs.

    Attributes
    ----------
    step : that the run is at; empty before the first.
    said : its lines.
    events : folder of Spark's event log, which tells how every task ended.
    """

    def __init__(
        self, job: str, config: Path, options: Sequence[str], *arguments: str, **further: object
    ) -> None:
        self.step, self.said = "", list[str]()
        self.events = config.parent / f"events-{time.monotonic_ns()}"
        self.events.mkdir()
        page = free_port()
        self._page = f"http://{LOOPBACK}:{page}/api/v1/applications"
        watched = {
            "spark__ui__enabled": "true",
            "spark__ui__port": page,
            "spark__ui__liveUpdate__period": 0,
            "spark__eventLog__enabled": "true",
            "spark__eventLog__dir": self.events,
            "spark__eventLog__compress": "false",
            "spark__eventLog__rolling__enabled": "false",
        }
        command = [
            *(PROGRAMS / "spark-submit", *options, *settings(**{**watched, **further})),
            *(ROOT / "jobs" / job, "--config", config, *arguments),
        ]
        self.process = subprocess.Popen(
            [str(part) for part in command],
            env=environment(),
            cwd=config.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._id = ""

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            found = STEP.search(line)
            if found:
                self.step = found[1]

    def executors(self) -> list[dict[str, Any]]:
        """Return what the driver knows of its executors, dead ones too; at first nothing."""
        if not self._id:
            found = answer(self._page)
            self._id = found[0]["id"] if found else ""
        found = answer(f"{self._page}/{self._id}/allexecutors") if self._id else None
        return [one for one in found or [] if one["id"] != "driver"]

    def lost(self) -> int:
        """Return how many tasks failed so far."""
        stages = answer(f"{self._page}/{self._id}/stages") or []
        return sum(stage["numFailedTasks"] for stage in stages)

    def outcome(self, seconds: float) -> str:
        """Wait for the end and return what was said."""
        self.process.wait(timeout=seconds)
        self._reader.join(timeout=30)
        return "".join(self.said)

    def stop(self) -> None:
        """End driver and JVM, if they live."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=30)

    def task_ends(self) -> Counter[str]:
        """Return how often tasks ended in which way, as Spark's event log has it."""
        return Counter(_told(end["Task End Reason"]) for end in self._ends())

    def speculative(self) -> int:
        """Return how many tasks were run again because they took long, and ended first."""
        ends = [end for end in self._ends() if end["Task Info"]["Speculative"]]
        return sum(end["Task End Reason"]["Reason"] == "Success" for end in ends)

    def _ends(self) -> Iterator[dict[str, Any]]:
        for log in (path for path in self.events.rglob("*") if path.is_file()):
            for line in log.read_text(errors="replace").splitlines():
                if '"SparkListenerTaskEnd"' in line:
                    yield json.loads(line)


def _told(reason: dict[str, Any]) -> str:
    kind = reason["Reason"]
    if kind != "ExceptionFailure":
        return str(kind)
    text = str(reason.get("Description", "")) + str(reason.get("Full Stack Trace", ""))
    crashed = "Python worker exited unexpectedly" in text or "Python worker" in text
    return "Python worker crashed" if crashed else f"exception: {text[:200]}"
