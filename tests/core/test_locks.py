"""Commits to tables in a local folder are made one at a time."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock, Timeout

from coarse_spark.lake import migrate
from coarse_spark.lake.contract import RUNS
from coarse_spark.lake.tables import Lake


class _Session:
    """Says of every statement whether another process could commit meanwhile."""

    def __init__(self, folder: Path, master: str) -> None:
        self.conf = SimpleNamespace(get=lambda *_: master)
        self.locked: list[bool] = []
        self._lock = folder / ".locks" / RUNS.name
        self.table = lambda _: SimpleNamespace(schema=None)

    def sql(self, _: str) -> None:
        if not self._lock.parent.is_dir():
            self.locked.append(False)
            return
        try:
            FileLock(self._lock, timeout=0, is_singleton=False).acquire().lock.release()
            self.locked.append(False)
        except (Timeout, RuntimeError):  # that one waits within its own process for ever
            self.locked.append(True)


class _ClientSession(_Session):
    """One of Spark Connect."""


_ClientSession.__module__ = "pyspark.sql.connect.session"


def test_removing_rows_waits_for_other_writes(tmp_path: Path) -> None:
    session = _Session(tmp_path, "local[2]")
    Lake(session, path=str(tmp_path)).remove(RUNS.name, ["a"])  # type: ignore[arg-type]
    assert session.locked == [True]


def test_a_migration_waits_for_other_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = _Session(tmp_path, "local[2]")
    lake = Lake(session, path=str(tmp_path))  # type: ignore[arg-type]

    def state(*_: Any) -> Any:
        session.sql("what there is")
        return SimpleNamespace(differences=lambda: ["one"])

    def step(lake: Lake, _: Any) -> list[str]:
        lake.spark.sql("ALTER TABLE")
        return ["done"]

    monkeypatch.setattr(migrate, "table_state", state)
    for name in ("_widened", "_extended", "_constrained", "_described"):
        monkeypatch.setattr(migrate, name, step)
    assert migrate._migrated(lake, RUNS, SimpleNamespace()) == ["done"] * 4  # type: ignore[arg-type]
    assert session.locked == [True] * 5


def test_the_first_write_of_a_local_session_creates_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    session = _Session(folder, "local[2]")
    with Lake(session, path=str(folder)).alone(RUNS.name):  # type: ignore[arg-type]
        session.sql("CREATE TABLE")
    assert session.locked == [True]


@pytest.mark.parametrize("kind", [_Session, _ClientSession])
def test_a_folder_of_a_server_or_cluster_is_not_made_here(
    tmp_path: Path, kind: type[_Session]
) -> None:
    folder = tmp_path / "not" / "there"
    session = kind(folder, "spark://127.0.0.1:7077")
    with Lake(session, path=str(folder)).alone(RUNS.name):  # type: ignore[arg-type]
        session.sql("CREATE TABLE")
    assert list(tmp_path.iterdir()) == []
    folder.mkdir(parents=True)  # it is on this machine after all
    with Lake(session, path=str(folder)).alone(RUNS.name):  # type: ignore[arg-type]
        session.sql("CREATE TABLE")
    assert session.locked == [False, True]
