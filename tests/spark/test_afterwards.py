"""Nothing that happens after publishing fails a command."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_line import run_command

from coarse_spark.cli import main

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from coarse_spark.pipeline import Run

    from .conftest import Promotions

pytestmark = pytest.mark.spark


def test_a_page_or_summary_that_cannot_be_written_is_a_warning(
    spark: SparkSession,
    finished: Run,
    promotions: Promotions,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = ["run", "--config", str(promotions.config), "--run-id", "first"]
    told = run_command(*run, "--report", tmp_path)
    assert told.code == 0
    assert (
        f"run first is published, but its page could not be written: the page cannot be written to "
        f"{tmp_path}: Is a directory; expected a file's path" in told.err
    )
    assert "captured" in told.out
    assert f"tables: {promotions.tables} (run first)" in told.out
    assert "page:" not in told.out

    page = ["--report", str(tmp_path / "page.html")]
    with (
        open("/dev/full", "w", encoding="ascii") as full,  # noqa: PTH123
        redirect_stdout(full),
    ):
        main([*run, *page])
    err = capsys.readouterr().err
    assert "run first is published, but its summary could not be printed: " in err
    assert "No space left on device" in err
    assert os.path.getsize(tmp_path / "page.html") > 10_000  # noqa: PTH202

    bytes_of = io.BytesIO()
    ascii_only = io.TextIOWrapper(bytes_of, encoding="ascii")
    with redirect_stdout(ascii_only):
        main([*run, *page])
    assert b"? Choice of K" in bytes_of.getvalue()
