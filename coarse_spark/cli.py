"""The command line: every step of the pipeline, the check of a configuration, the simulation."""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from coarse_spark import __version__
from coarse_spark.errors import CoarseSparkError, ConfigurationError

if TYPE_CHECKING:
    from coarse_spark.config.models import Configuration
    from coarse_spark.pipeline import Run

_STOPPED = 130  # typer's silent exit code of a command that was stopped by hand

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Which few treatments should we offer, and who gets which? From an experiment to "
    "assignments, on Spark and Delta.",
)
simulate = typer.Typer(no_args_is_help=True, help="Write simulated data with known responses.")
app.add_typer(simulate, name="simulate")

Config = Annotated[Path, typer.Option("--config", "-c", help="The configuration, a YAML file.")]
RunId = Annotated[
    str | None,
    typer.Option(
        "--run-id",
        help="The run to go on with (default: the last started), or the id of a new run.",
    ),
]
Set = Annotated[
    list[str],
    typer.Option(
        "--set", help="Replace a value of the configuration, such as --set menu.seed=3; repeatable."
    ),
]
ReportPath = Annotated[
    Path | None,
    typer.Option(
        "--report", help="Where the page goes (default: report.html in the output folder)."
    ),
]


def _load(config: Path, settings: Sequence[str]) -> Configuration:
    from coarse_spark.config.load import load_configuration

    return load_configuration(config, _overrides(settings))


def _overrides(settings: Sequence[str]) -> dict[str, str]:
    overrides = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise ConfigurationError(f"--set {setting}: expected key=value, such as menu.seed=3")
        overrides[key.strip()] = value
    return overrides


def _session(configuration: Configuration):  # type: ignore[no-untyped-def]  # the type would import pyspark
    from coarse_spark.lake.session import open_session

    return open_session(**configuration.spark.model_dump())


def _go_on(steps: Sequence[str], config: Path, run_id: str | None, settings: Sequence[str]) -> None:
    """Run steps of a run that exists."""
    configuration = _load(config, settings)
    session = _session(configuration)
    from coarse_spark.pipeline import STEPS, open_run

    run = open_run(session, configuration, run_id)
    for step in steps:
        STEPS[step](run)
    run.save()
    _say(f"run {run.run_id}: {' and '.join(steps)} done")


def _say(text: str) -> None:
    Console(highlight=False, soft_wrap=True).print(text, markup=False)


@app.command()
def run(
    config: Config,
    run_id: RunId = None,
    settings: Set = [],  # noqa: B006  # typer copies it
    report: ReportPath = None,
) -> None:
    """Run all steps, print the summary and write the page."""
    configuration = _load(config, settings)
    session = _session(configuration)
    from coarse_spark.pipeline import run_all

    _present(run_all(session, configuration, run_id), report)


@app.command()
def fit(config: Config, run_id: RunId = None, settings: Set = []) -> None:  # noqa: B006
    """Start a run: fit response models per partition, and score the population."""
    configuration = _load(config, settings)
    session = _session(configuration)
    from coarse_spark import pipeline

    started = pipeline.start_run(session, configuration, run_id)
    pipeline.fit(started)
    pipeline.score(started)
    started.save()
    _say(f"run {started.run_id}: fit and score done")


@app.command()
def score(config: Config, run_id: RunId = None, settings: Set = []) -> None:  # noqa: B006
    """Score the population again with the models of a run."""
    _go_on(["score"], config, run_id, settings)


@app.command()
def choose(config: Config, run_id: RunId = None, settings: Set = []) -> None:  # noqa: B006
    """Choose a menu of every size on the sketch and the full population."""
    _go_on(["choose"], config, run_id, settings)


@app.command()
def evaluate(config: Config, run_id: RunId = None, settings: Set = []) -> None:  # noqa: B006
    """Estimate honest values of all policies and select the menu size."""
    _go_on(["evaluate"], config, run_id, settings)


@app.command()
def assign(
    config: Config,
    run_id: RunId = None,
    settings: Set = [],  # noqa: B006
    publish: Annotated[
        bool, typer.Option(help="Also make these assignments the current ones.")
    ] = True,
) -> None:
    """Assign every unit a treatment of the selected menu, and publish the run."""
    _go_on(["assign", "publish"] if publish else ["assign"], config, run_id, settings)


@app.command()
def publish(config: Config, run_id: RunId = None, settings: Set = []) -> None:  # noqa: B006
    """Make a run's assignments the current ones."""
    _go_on(["publish"], config, run_id, settings)


@app.command()
def report(
    config: Config,
    run_id: RunId = None,
    settings: Set = [],  # noqa: B006
    report: ReportPath = None,
) -> None:
    """Print the summary of a run and write its page."""
    configuration = _load(config, settings)
    session = _session(configuration)
    from coarse_spark.pipeline import open_run

    _present(open_run(session, configuration, run_id), report)


@app.command()
def validate(
    config: Config,
    settings: Set = [],  # noqa: B006
    tables: Annotated[
        bool,
        typer.Option(help="Also check the tables that the configuration names (starts Spark)."),
    ] = True,
) -> None:
    """Check a configuration and the tables that it names, without running anything."""
    from coarse_spark.config.load import read_configuration

    configuration, notes = read_configuration(config, _overrides(settings))
    _say(f"{config}: the configuration is valid")
    for note in notes:
        _say(f"note: {note}")
    if not tables:
        return
    session = _session(configuration)
    from coarse_spark.lake.inputs import read_input
    from coarse_spark.pipeline.settings import check_tables

    experiment = read_input(session, configuration.experiment, "experiment")
    given = configuration.population.given
    found = check_tables(
        configuration,
        experiment,
        read_input(session, configuration.population, "population") if given else None,
    )
    _say(
        f"experiment: {found.usable_rows:,} of {found.rows:,} rows usable, in "
        f"{found.partitions:,} partitions"
    )
    _say(f"population: {found.population_rows:,} units")
    for warning in found.warnings:
        _say(f"note: {warning}")


@app.command()
def grants(
    config: Config,
    to: Annotated[
        str, typer.Option("--to", help="Who shall read: a user, group or service principal.")
    ],
    settings: Set = [],  # noqa: B006
    everything: Annotated[
        bool, typer.Option("--all", help="Also the tables models and responses.")
    ] = False,
) -> None:
    """Print the GRANT statements that let somebody read the published results; run none."""
    from coarse_spark.lake.grants import grants as statements

    for line in statements(_load(config, settings).output, to, everything=everything):
        typer.echo(line)


@app.command()
def version() -> None:
    """Print the version."""
    _say(__version__)


@simulate.command()
def promotions(
    units: Annotated[int, typer.Option(min=1, help="Units of the population.")],
    out: Annotated[
        Path, typer.Option(help="Folder for the Delta tables experiment, population and truth.")
    ],
    experiment_units: Annotated[
        int | None,
        typer.Option(min=1, help="Units of the experiment (default: as many as --units)."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed; the same seed gives the same rows.")] = 0,
) -> None:
    """Write a promotion experiment and a population with known responses.

    conf/promotions.yml runs it.
    """
    from coarse_spark.lake.session import open_session
    from coarse_spark.simulate.tables import write_promotions

    for name, path in write_promotions(
        open_session(), units, str(out), experiment_units=experiment_units, seed=seed
    ).items():
        _say(f"{name}: {path}")


def _present(run: Run, path: Path | None) -> None:
    from coarse_spark.pipeline.present import report as write_page
    from coarse_spark.pipeline.present import report_content
    from coarse_spark.report.summary import print_summary

    content = report_content(run)
    page = write_page(run, content, path)
    console = Console(highlight=False)
    # a file or a pipe has no width of its own; the table of menus needs a hundred columns
    print_summary(content, console if console.is_terminal else Console(highlight=False, width=110))
    _say(f"tables: {run.lake.path or run.lake.schema} (run {run.run_id})")
    _say(f"page:   {page}")


def _show_progress() -> None:
    """Send the pipeline's progress and the package's warnings to standard error.

    What Spark repeats of an error goes nowhere.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("coarse_spark")
    logger.handlers = [handler]
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    logging.getLogger("coarse_spark.pipeline").setLevel(logging.INFO)
    for name in ("DataFrameQueryContextLogger", "SQLQueryContextLogger"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "toPandas attempted Arrow optimization")


def guarded(command: Callable[[], object]) -> int:
    """Run a command and return its exit code.

    0, or 2 for what the user can mend before a run, 1 for a run that failed.
    """
    try:
        command()
    except CoarseSparkError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except SystemExit as end:
        if end.code == _STOPPED:
            sys.stderr.write("stopped\n")
        raise
    except (
        Exception
    ) as error:  # a bug or an outage: a sentence for the user above the traceback for us
        sys.stderr.write(
            f"error: {type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no message'}\n"
        )
        traceback.print_exc()
        return 1
    return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``coarse-spark`` and of the files in ``jobs/``."""
    _show_progress()
    command = typer.main.get_command(app)
    given = None if arguments is None else list(arguments)
    sys.exit(guarded(lambda: command.main(args=given, prog_name="coarse-spark")))


if __name__ == "__main__":
    main()
