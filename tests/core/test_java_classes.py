"""The archive of Spark's classes: made once, used where it is there, never in the way."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from coarse_spark.lake.java import Java
from coarse_spark.lake.java_classes import archive_classes, shared_classes

JAVA = Java(17, 'openjdk version "17.0.15"')


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of archives of an environment of the test's own."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "an environment"))
    return tmp_path / "an environment" / "share" / "coarse_spark"


def _session(folder: Path, monkeypatch: pytest.MonkeyPatch, does: str) -> None:
    """Have a script stand for the process whose Java writes the archive $3."""
    script = folder / "session"
    script.write_text(f"#!/bin/sh\n{does}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


def test_an_archive_is_made_once_and_used_then(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shared_classes(JAVA) == ""
    _session(tmp_path, monkeypatch, 'echo classes > "$3"')
    archive_classes(JAVA)
    (archive,) = place.iterdir()
    assert archive.read_text() == "classes\n"
    assert f'-XX:SharedArchiveFile="{archive}"' in shared_classes(JAVA)
    # of another Java there is none
    assert shared_classes(Java(17, 'openjdk version "17.0.16"')) == ""
    _session(tmp_path, monkeypatch, 'echo others > "$3"')
    archive_classes(JAVA)
    assert archive.read_text() == "classes\n"


def test_a_session_that_fails_leaves_nothing_and_is_told_of(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    _session(
        tmp_path, monkeypatch, 'echo half > "$3"\necho "OSError: the disk is full" >&2\nexit 1'
    )
    archive_classes(JAVA)
    assert not list(place.iterdir())
    told = capfd.readouterr().err
    assert "warning: sessions start slower, without an archive: OSError: the disk is full" in told
    assert shared_classes(JAVA) == ""


def test_a_session_that_writes_none_is_told_of(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    _session(tmp_path, monkeypatch, "exit 0")
    archive_classes(JAVA)
    assert not list(place.iterdir())
    assert "warning: sessions start slower, without an archive" in capfd.readouterr().err


def test_an_older_java_has_none(place: Path) -> None:
    archive_classes(Java(11, 'openjdk version "11.0.2"'))
    assert not place.exists()
