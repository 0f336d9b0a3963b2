"""What all commands share: their options, the configuration, the session, and how they speak."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from coarse_spark import progress
from coarse_spark.errors import ConfigurationError, InvalidInputError
from coarse_spark.text import printable

if TYPE_CHECKING:
    from coarse_spark.config.models import Configuration

log = logging.getLogger(__name__)

WIDTH = 110  # of a file or a pipe, which have no width of their own

Config = Annotated[Path, typer.Option("--config", "-c", help="The configuration, a YAML file.")]
Set = Annotated[
    list[str],
    typer.Option(
        "--set", help="Replace a value of the configuration, such as --set menu.seed=3; repeatable."
    ),
]


def load(config: Path, settings: Sequence[str]) -> Configuration:
    """Return the configuration of a file; errors as in ``load_configuration``."""
    from coarse_spark.config.load import load_configuration

    return load_configuration(config, overrides_of(settings))


def overrides_of(settings: Sequence[str]) -> dict[str, str]:
    """Return the values of options ``--set`` by key.

    Raises
    ------
    ConfigurationError : one is not key=value.
    """
    overrides = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise ConfigurationError(f"--set {setting}: expected key=value, such as menu.seed=3")
        overrides[key.strip()] = value
    return overrides


def open_session_of(configuration: Configuration | None = None):  # type: ignore[no-untyped-def]  # the type would import pyspark
    """Return the session that a configuration asks for; errors as in ``open_session``."""
    with progress.of("Spark starts"):
        from coarse_spark.lake.session import open_session

        if configuration is None:
            return open_session()
        # what its commands go on with takes seconds to import, and this process waits for Java
        Thread(target=_import_pipeline, daemon=True).start()
        return open_session(**configuration.spark.model_dump())


def _import_pipeline() -> None:
    with suppress(Exception):  # whoever needs it is told
        import_module("coarse_spark.pipeline.present")


def start(config: Path, settings: Sequence[str]):  # type: ignore[no-untyped-def]  # as above
    """Return the configuration of a file and the session that it asks for."""
    configuration = load(config, settings)
    return configuration, open_session_of(configuration)


class _Console(Console):
    """Standard output, which may be a pipe that nobody reads to its end."""

    def on_broken_pipe(self) -> None:
        """Say nothing from here on: the command is not over."""
        with suppress(SystemExit):
            super().on_broken_pipe()


def say(text: str) -> None:
    """Print a text as it is; where standard output takes none, it is a warning."""
    try:
        _Console(highlight=False, soft_wrap=True).print(printable(text), markup=False)
    except OSError as error:
        log.warning("standard output cannot be written (%s): %s", error.strerror, text)


def write(statement: str) -> None:
    """Print SQL, of which no character may be replaced.

    Raises
    ------
    InvalidInputError : standard output lacks one.
    """
    try:
        statement.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"standard output is {error.encoding} and lacks '{statement[error.start]}' of the "
            "statement; set PYTHONIOENCODING=utf-8"
        ) from None
    typer.echo(statement)


def console() -> Console:
    """Return a console that is wide enough for tables."""
    found = _Console(highlight=False)
    return found if found.is_terminal else _Console(highlight=False, width=WIDTH)


def show_table(table: Table) -> None:
    """Print a table whose texts are ``printable``."""
    console().print(table)
