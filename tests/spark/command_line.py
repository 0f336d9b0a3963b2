"""The command line inside the tests' own process and session."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from coarse_spark.cli import main


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


def run_command(*arguments: object) -> Outcome:
    """Run ``coarse-spark`` in this process, on the session that is there."""
    out, err = io.StringIO(), io.StringIO()
    with (
        _logging_restored(),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        main([str(argument) for argument in arguments])
    return Outcome(int(end.value.code or 0), out.getvalue(), err.getvalue())


@contextmanager
def _logging_restored() -> Iterator[None]:
    """Undo what a command does to the package's loggers: other tests listen to them."""
    package, pipeline = (
        logging.getLogger("coarse_spark"),
        logging.getLogger("coarse_spark.pipeline"),
    )
    before = package.handlers, package.level, package.propagate, pipeline.level
    try:
        yield
    finally:
        package.handlers, package.propagate = before[0], before[2]
        package.setLevel(before[1])
        pipeline.setLevel(before[3])
