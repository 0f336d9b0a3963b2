"""Whether the process that owns a run is still there."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from coarse_spark.lake import processes
from coarse_spark.lake.processes import Process

HERE = Process.current()


def test_a_process_is_the_same_when_it_was_written_down() -> None:
    assert Process.parse(str(HERE)) == HERE
    assert HERE.alive() is True
    assert replace(HERE, started=HERE.started - 60).alive() is False  # its number is used again
    assert replace(HERE, number=2**22 + 1).alive() is False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere it is kept as it was")
def test_setting_the_clock_kills_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    before = psutil.Process(HERE.number).create_time()
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: before + 5)
    assert HERE.alive() is True


def test_a_process_of_another_machine_of_the_same_name_cannot_be_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    boot = tmp_path / "boot_id"
    boot.write_text("6b2a0c9e-0000-4000-8000-1f6cbb3f6f7d\n")
    monkeypatch.setattr(processes, "_BOOT", boot)
    there = replace(HERE, namespace=processes._namespace(), number=2**22 + 1)
    assert Process.parse(str(there)) == there
    assert there.alive() is None


def test_an_owner_that_an_earlier_version_wrote_cannot_be_looked_at() -> None:
    earlier = Process.parse(f"{HERE.host}/4026531836/{HERE.number}/1796050000.12")
    assert earlier is not None
    assert earlier.alive() is None
