"""What work takes is measured by process, and cannot fail the work."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from coarse_spark import resources


def busy(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def local() -> Any:
    return SimpleNamespace(conf=SimpleNamespace(get=lambda *_: "local[2]"))


def test_seconds_cpu_and_memory_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_EVERY", 0.02)
    with resources.measured() as used:
        busy(0.3)
        held = np.ones(50_000_000 // 8)
        time.sleep(0.2)
        del held
    assert used.seconds is not None
    assert used.cpu_seconds is not None
    assert used.seconds >= 0.5
    assert 0.3 <= used.cpu_seconds < used.seconds
    now = psutil.Process().memory_info().rss / 2**20
    assert used.driver_peak_mb is not None
    assert used.driver_peak_mb > now - 10
    assert used.java_peak_mb is None
    assert used.workers_peak_mb is None
    assert [thread for thread in threading.enumerate() if thread.name == "usage"] == []


@pytest.mark.skipif(sys.platform == "win32", reason="there is no sh")
def test_processes_below_java_are_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_is_java", lambda process: process.name() == "sh")
    monkeypatch.setattr(resources, "_EVERY", 0.02)
    worker = f"{sys.executable} -c \"import time; held = b'x' * 10**8; time.sleep(1)\""
    with resources.measured(local()) as used:
        subprocess.run(["sh", "-c", f"{worker}; true"], check=True)
    assert used.java_peak_mb is not None
    assert used.workers_peak_mb is not None
    assert 0 < used.java_peak_mb < 50
    assert 95 < used.workers_peak_mb < 300


def test_elsewhere_only_the_driver_is_told() -> None:
    def fails(*_: object) -> str:
        raise RuntimeError("no such setting")

    for get in (lambda *_: "spark://127.0.0.1:7077", fails):
        with resources.measured(SimpleNamespace(conf=SimpleNamespace(get=get))) as used:
            pass
        assert used.driver_peak_mb is not None
        assert used.java_peak_mb is None
        assert used.workers_peak_mb is None
        assert used.cpu_seconds is None


def test_without_java_below_this_process_cpu_is_not_known() -> None:
    with resources.measured(local()) as used:
        pass
    assert used.cpu_seconds is None


def test_errors_go_on_and_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError), resources.measured() as used:
        raise KeyError("work")
    assert used.seconds is not None

    def fails(*_: object) -> None:
        raise PermissionError("/proc")

    monkeypatch.setattr(resources._Processes, "_all", fails)
    with resources.measured() as unseen:
        pass
    assert unseen.seconds is not None
    assert unseen.cpu_seconds is None
