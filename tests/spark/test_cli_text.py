"""What the command line prints, records and stores: no control characters and no secrets."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_line import THORNTON, run_command

from coarse_spark.cli import guarded
from coarse_spark.errors import RunError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from coarse_spark.pipeline import Run

    from .conftest import Promotions

pytestmark = pytest.mark.spark

HOSTILE = "a\x1b[2J\x9b\u202eb s3a://_me:hunter2@bucket/x?token=hunter2 spark.x.secret=hunter2"
HARMLESS = r"a\x1b[2J\x9b\u202eb s3a://***@bucket/x?token=*** spark.x.secret=***"


def _clean(text: str) -> None:
    assert "hunter2" not in text
    assert not set(text) & set("\x1b\x9b\u202e")


def test_errors_on_purpose_and_others_with_their_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(error: Exception) -> None:
        raise error

    assert guarded(lambda: fail(RunError(f"first\n\t{HOSTILE}"))) == 1
    assert capsys.readouterr().err == f"error: first\n\t{HARMLESS}\n"
    assert guarded(lambda: fail(OSError(HOSTILE))) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: OSError: {HARMLESS}\nTraceback")
    assert err.endswith(f"OSError: {HARMLESS}\n")
    _clean(err)


def test_lines_of_the_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def log(*_: object) -> None:
        try:
            raise OSError(HOSTILE)
        except OSError:
            logging.getLogger("coarse_spark.pipeline").exception("step %s", HOSTILE)

    monkeypatch.setattr("coarse_spark.config.load.read_configuration", log)
    err = run_command("validate", "--config", THORNTON, "--no-tables").err
    assert f"step {HARMLESS}\nTraceback" in err
    _clean(err)


def test_what_a_command_says(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[2J\u202eb.yml"
    path.write_text(THORNTON.read_text())
    found = run_command("validate", "--config", path, "--no-tables")
    assert found.out == rf"{tmp_path}/a\x1b[2J\u202eb.yml: the configuration is valid" + "\n"


def test_an_address_that_cannot_be_read(spark: SparkSession, promotions: Promotions) -> None:
    address = "experiment.path=s3a://_me:hunter2@bucket/units"
    found = run_command("validate", "--config", promotions.config, "--set", address)
    assert found.code
    _clean(found.out + found.err)


def test_warnings_of_a_run(finished: Run, caplog: pytest.LogCaptureFixture) -> None:
    run = dataclasses.replace(finished)
    run.warn(HOSTILE, HOSTILE)
    assert run.record.warnings[-1] == HARMLESS
    assert caplog.messages == [HARMLESS, HARMLESS][: len(caplog.messages)]
