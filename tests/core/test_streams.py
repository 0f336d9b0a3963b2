"""Terminals, pipes and files that lack characters, are full or closed fail no command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coarse_spark.cli.terminal import progress_shown
from coarse_spark.pipeline.step_log import told

ROOT = Path(__file__).parents[2]
MODULE = ("-m", "coarse_spark.cli")
CONFIG = """\
experiment: {path: units, unit_id: id, features: [age], outcome: y}
treatments: {arm: {kind: categorical, levels: [a, b], control: a}}
output: {path: out}
"""


def command(
    *arguments: str, encoding: str, stdout: Any = subprocess.PIPE, **changes: str
) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding, **changes}
    return subprocess.run(
        [sys.executable, "-m", "coarse_spark.cli", *arguments],
        env=environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=120,
        check=False,
    )


def closed(descriptor: int, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command whose standard output (1) or error (2) is closed, as by a shell's >&-."""
    return subprocess.run(
        ["sh", "-c", f'exec "$0" "$@" {descriptor}>&-', sys.executable, *MODULE, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("encoding", "locale"),
    [("ascii:strict", "C.UTF-8"), ("cp1252:strict", "C.UTF-8"), ("ascii:surrogateescape", "C")],
)
def test_characters_that_a_stream_lacks_are_replaced(
    encoding: str, locale: str, tmp_path: Path
) -> None:
    path = tmp_path / "a→b.yml"
    path.write_text(CONFIG)
    settings = {"LC_ALL": locale, "PYTHONUTF8": "1"}
    done = command("validate", "--no-tables", "-c", str(path), encoding=encoding, **settings)
    assert done.returncode == 0, done.stderr
    assert b"a?b.yml: the configuration is valid" in done.stdout
    missing = command("validate", "-c", str(tmp_path / "→.yml"), encoding=encoding, **settings)
    assert missing.returncode == 2
    assert missing.stderr.startswith(b"error: ")
    assert b"/?.yml does not exist; expected a YAML file, such as " in missing.stderr
    assert b"Traceback" not in missing.stderr
    assert command("run", "--help", encoding=encoding, **settings).returncode == 0


def test_a_statement_is_written_as_it_is_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "run.yml"
    path.write_text(CONFIG.replace("path: out", "schema: coarse"))
    grants = ("grants", "-c", str(path), "--to", "Zoë")
    done = command(*grants, encoding="latin-1")
    assert (done.returncode, "Zoë" in done.stdout.decode("latin-1")) == (0, True)
    refused = command(*grants, encoding="ascii")
    assert (refused.returncode, refused.stdout) == (2, b"")
    assert b"error: standard output is ascii and lacks '?' of the statement" in refused.stderr


def test_a_system_that_lacks_the_characters_of_a_path_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.yml"
    path.write_text(CONFIG.replace("path: out", "path: sortie-é"), encoding="utf-8")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = command("validate", "-c", str(path), encoding="utf-8", **ascii_only)
    assert done.returncode == 2
    message = "output.path: 'sortie-é': names of files are ascii here and lack 'é'; set PYTHONUTF8"
    assert message in done.stderr.decode()


def test_a_disk_that_is_full_or_a_pipe_that_is_closed_is_a_warning() -> None:
    with Path("/dev/full").open("wb") as full:
        done = command("version", encoding="utf-8", stdout=full)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    assert b"standard output cannot be written (No space left on device): " in done.stderr
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = command("version", encoding="utf-8", stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_stream_that_is_closed_takes_nothing_and_fails_nothing(tmp_path: Path) -> None:
    from coarse_spark import __version__

    done = closed(2, "version")
    assert (done.returncode, done.stdout.decode()) == (0, f"{__version__}\n")
    assert closed(2, "validate", "-c", str(tmp_path / "none.yml")).returncode == 2
    path = tmp_path / "run.yml"
    path.write_text(CONFIG.replace("path: out", "schema: coarse"))
    for command in (["grants", "-c", str(path), "--to", "Zoe"], ["version"]):
        done = closed(1, *command)
        assert (done.returncode, b"Error" in done.stderr) == (0, False)


def test_lines_for_machines_are_json_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_shown(), told("nightly-7", "score", None, lambda _: 5):
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["step"] == "score"
