"""Commands of operators, ``coarse-spark runs …``: they need the output, no configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from coarse_spark import progress
from coarse_spark.cli.common import Set, open_session_of, say, show_table, start
from coarse_spark.errors import ConfigurationError
from coarse_spark.text import counted, printable

if TYPE_CHECKING:
    from coarse_spark.lake.tables import Lake
    from coarse_spark.pipeline.operate import RunLine

runs = typer.Typer(
    no_args_is_help=True,
    help="Look at the runs of an output, and publish, take back, give up or remove them.",
)

Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="A configuration with this output; or give --output."),
]
OutputOption = Annotated[
    str | None,
    typer.Option(
        "--output", "-o", help="Where the tables are: a folder or address, or catalog.schema."
    ),
]
Name = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]


@contextmanager
def output_of(config: Path | None, output: str | None, settings: list[str]) -> Iterator[Lake]:
    """Yield the output that a configuration or ``--output`` names, on a session.

    Raises
    ------
    ConfigurationError : neither is given, or both, or ``--set`` without a configuration.
    TableError : it cannot be read or written.
    """
    from coarse_spark.lake.contact import first_contact

    lake = _lake_of(config, output, settings)
    with first_contact(lake):
        yield lake


def _lake_of(config: Path | None, output: str | None, settings: list[str]) -> Lake:
    if (config is None) == (output is None):
        raise ConfigurationError("expected either --config or --output, to know where the runs are")
    if config is not None:
        from coarse_spark.pipeline.run import lake_of as configured

        configuration, session = start(config, settings)
        return configured(session, configuration)
    if settings:
        raise ConfigurationError(
            "--set replaces values of a configuration: give --config in place of --output"
        )
    from coarse_spark.lake.tables import Lake

    # a name without a slash is a schema, like those of tables in a configuration
    folder = "/" in str(output) or ":" in str(output) or Path(str(output)).is_dir()
    if folder:
        return Lake(open_session_of(), path=str(output))
    return Lake(open_session_of(), schema=str(output))


@runs.command("list")
def list_command(
    config: Config = None,
    output: OutputOption = None,
    settings: Set = [],  # noqa: B006  # typer copies it
    most: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 20,
) -> None:
    """List the runs of an output, the newest first."""
    from coarse_spark.pipeline.operate import list_runs

    with output_of(config, output, settings) as lake:
        table = Table("run", "state", "started", "last step", "minutes", "published", box=None)
        for line in list_runs(lake, most):
            record = line.record
            steps = list(record.step_seconds)
            table.add_row(
                record.run_id,
                line.state,
                _time(record.started_at),
                steps[-1] if steps else "-",
                f"{sum(record.step_seconds.values()) / 60:.1f}",
                _time(record.published_at),
            )
        show_table(table)


@runs.command()
def show(
    run: Name,
    config: Config = None,
    output: OutputOption = None,
    settings: Set = [],  # noqa: B006
) -> None:
    """Show what a run read and did, who works on it, and how it ended."""
    from coarse_spark.pipeline.operate import find_run

    with output_of(config, output, settings) as lake:
        table = Table(box=None, show_header=False)
        for name, value in _facts(find_run(lake, run)):
            table.add_row(printable(name), escape(printable(value)))
        show_table(table)


def _facts(line: RunLine) -> list[tuple[str, str]]:
    record = line.record
    return [
        ("run", record.run_id),
        ("state", line.state),
        ("worked on by", line.owner or "nobody"),
        ("started", _time(record.started_at)),
        ("ended", _time(record.ended_at)),
        ("published", _time(record.published_at)),
        ("written by", f"coarse_spark {record.package_version}"),
        ("configuration", record.config_hash[:12]),
        *((f"input {name}", version) for name, version in record.inputs.items()),
        *((f"step {name}", f"{seconds:.1f} s") for name, seconds in record.step_seconds.items()),
        ("done", ", ".join(record.done) or "-"),
        ("stopped because", record.stop_reason or "-"),
        ("error", record.error or "-"),
        *(("warning", warning) for warning in record.warnings),
    ]


@runs.command()
def publish(
    run: Name,
    config: Config = None,
    output: OutputOption = None,
    settings: Set = [],  # noqa: B006
) -> None:
    """Make a run the current one: one whose steps are done, or one that was published before."""
    from coarse_spark.pipeline.operate import publish_run

    with output_of(config, output, settings) as lake:
        say(publish_run(lake, run))


@runs.command()
def rollback(
    config: Config = None,
    output: OutputOption = None,
    settings: Set = [],  # noqa: B006
) -> None:
    """Take the current run back: the one that was published before it becomes the current one."""
    from coarse_spark.pipeline.operate import rollback as go_back

    with output_of(config, output, settings) as lake:
        say(go_back(lake))


@runs.command()
def fail(
    run: Name,
    config: Config = None,
    output: OutputOption = None,
    settings: Set = [],  # noqa: B006
) -> None:
    """Give a run up: it is not gone on with, and a process that works on it stops."""
    from coarse_spark.pipeline.operate import give_up

    with output_of(config, output, settings) as lake:
        say(give_up(lake, run))


@runs.command()
def prune(
    keep: Annotated[int, typer.Option(min=1, help="Published runs to keep, the newest.")],
    config: Config = None,
    output: OutputOption = None,
    settings: Set = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove the rows of old runs, and say what VACUUM would free."""
    from coarse_spark.pipeline.operate import prune as remove

    with output_of(config, output, settings) as lake:
        with progress.of("prune", lake.spark):
            done = remove(lake, keep, dry=dry_run)
        verb = "would be removed" if dry_run else "removed"
        say(f"{counted(len(done.runs), 'run')} {verb}: {', '.join(done.runs) or '-'}")
        for name, size in done.freed.items():
            if size:
                say(f"{lake.vacuum_statement(name)};  -- frees {size / 1e6:,.1f} MB")


def _time(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
