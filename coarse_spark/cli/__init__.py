"""The command line: every step of the pipeline, the check of a configuration, the simulation."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.models import OptionInfo

from coarse_spark import __version__, progress
from coarse_spark.causes import first_cause, without_kind
from coarse_spark.cli.common import (
    Config,
    Set,
    console,
    load,
    open_session_of,
    overrides_of,
    say,
    start,
    write,
)
from coarse_spark.cli.operators import runs
from coarse_spark.cli.terminal import lenient_streams, progress_shown
from coarse_spark.errors import CoarseSparkError, RunError
from coarse_spark.text import counted, printable

if TYPE_CHECKING:
    from coarse_spark.pipeline import Run

log = logging.getLogger(__name__)

_NO_PAGE = (
    "none, because the tables are in no folder of this machine; set output.page to a folder, or "
    "use 'coarse-spark report --report FILE'"
)
_STOPPED = (130, 143)  # exit codes of a command that was stopped by hand, or by SIGTERM

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Which few treatments should we offer, and who gets which? From an experiment to "
    "assignments, on Spark and Delta.",
)
simulate = typer.Typer(no_args_is_help=True, help="Write simulated data with known responses.")
app.add_typer(simulate, name="simulate")
app.add_typer(runs, name="runs")


def _run_id(meaning: str) -> OptionInfo:
    """Return the option ``--run-id`` of a command."""
    return typer.Option("--run-id", help=meaning)  # type: ignore[no-any-return]


_NEW = "such as a scheduler's job run (default: made of the time)"
RunId = Annotated[
    str | None,
    _run_id(
        "The run (default: the one of this configuration that was published last, or the only "
        "unfinished one that started after it)."
    ),
]
_ONLY = "(default: the only one of this configuration; with several it has to be given)"
GoneOnWith = Annotated[str | None, _run_id(f"The unfinished run to go on with {_ONLY}.")]
Resumed = Annotated[str | None, _run_id(f"The unfinished run {_ONLY}.")]
NewRun = Annotated[
    str | None, _run_id(f"Id of the new run, {_NEW}; an unfinished run of this id starts anew.")
]
NewOrStopped = Annotated[
    str | None,
    _run_id(
        f"Id of the run, {_NEW}. One of this id that stopped goes on after its last finished step; "
        "of a published one only the summary and the page are made again."
    ),
]
GoneOnWithOrCurrent = Annotated[
    str | None,
    _run_id(f"The unfinished run to go on with {_ONLY}; with --new the current run, and no other."),
]
ReportPath = Annotated[
    str | None,
    typer.Option(
        "--report",
        help="File for the page (default: report.html in output.page, or in the output folder "
        "where that is local).",
    ),
]


def _go_on(steps: Sequence[str], config: Path, run_id: str | None, settings: Sequence[str]) -> None:
    """Run steps of a run that exists."""
    configuration, session = start(config, settings)
    from coarse_spark.pipeline import STEPS, open_run

    with open_run(session, configuration, run_id) as run:
        for step in steps:
            STEPS[step](run)
    say(f"run {run.run_id}: {' and '.join(steps)} done")


@app.command()
def run(
    config: Config,
    run_id: NewOrStopped = None,
    settings: Set = [],  # noqa: B006  # typer copies it
    report: ReportPath = None,
    publish: Annotated[
        bool, typer.Option(help="Make the assignments the current ones at the end.")
    ] = True,
    repeat: Annotated[
        str | None,
        typer.Option(
            "--repeat",
            help="Repeat a run: with its configuration, on its inputs as they were then.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be read, fitted and written.")
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Only print Spark's plans of the main queries, of a run as far as it is done "
            "(default: the one that report shows).",
        ),
    ] = False,
) -> None:
    """Run all steps, print the summary and write the page.

    With the id of a run that stopped, it goes on; with that of a published one, nothing is done.
    """
    configuration, session = start(config, settings)
    from coarse_spark.pipeline import run_all
    from coarse_spark.pipeline.present import asked_page

    inputs = None
    if repeat is not None:
        from coarse_spark.pipeline.operate import repeated
        from coarse_spark.pipeline.run import lake_of

        configuration, inputs = repeated(lake_of(session, configuration), configuration, repeat)
    if explain:
        from coarse_spark.pipeline.explain import explained

        for plan_text in explained(session, configuration, run_id):
            say(plan_text)
        return
    if dry_run:
        from coarse_spark.pipeline.plan import plan

        for line in plan(session, configuration, inputs):
            say(line)
        return
    page = asked_page(configuration, report)
    _present(run_all(session, configuration, run_id, publish=publish, inputs=inputs), page)


@app.command()
def resume(
    config: Config,
    run_id: Resumed = None,
    settings: Set = [],  # noqa: B006
    report: ReportPath = None,
) -> None:
    """Go on with a run that stopped, after its last finished step, and publish it."""
    configuration, session = start(config, settings)
    from coarse_spark.pipeline import read_run, run_all
    from coarse_spark.pipeline.present import asked_page
    from coarse_spark.pipeline.run import lake_of
    from coarse_spark.pipeline.which import run_to_go_on_with

    page = asked_page(configuration, report)
    if run_id is None:
        lake = lake_of(session, configuration)
        run_id = run_to_go_on_with(lake, configuration, fitted=False)
    # it has to be there, with this configuration
    read_run(session, configuration, run_id).record.refuse_given_up()
    _present(run_all(session, configuration, run_id), page)


@app.command()
def fit(config: Config, run_id: NewRun = None, settings: Set = []) -> None:  # noqa: B006
    """Start a run: fit response models per partition, and score the population."""
    configuration, session = start(config, settings)
    from coarse_spark import pipeline

    with pipeline.start_run(session, configuration, run_id) as started:
        pipeline.fit(started)
        pipeline.score(started)
    say(f"run {started.run_id}: fit and score done")


@app.command()
def score(config: Config, run_id: GoneOnWith = None, settings: Set = []) -> None:  # noqa: B006
    """Score the population again with the models of a run."""
    _go_on(["score"], config, run_id, settings)


@app.command()
def choose(config: Config, run_id: GoneOnWith = None, settings: Set = []) -> None:  # noqa: B006
    """Choose a menu of every size on the sketch and the full population."""
    _go_on(["choose"], config, run_id, settings)


@app.command()
def evaluate(config: Config, run_id: GoneOnWith = None, settings: Set = []) -> None:  # noqa: B006
    """Estimate honest values of all policies and select the menu size."""
    _go_on(["evaluate"], config, run_id, settings)


@app.command()
def assign(
    config: Config,
    run_id: GoneOnWithOrCurrent = None,
    settings: Set = [],  # noqa: B006
    publish: Annotated[
        bool, typer.Option(help="Also make these assignments the current ones.")
    ] = True,
    new: Annotated[
        bool,
        typer.Option(
            "--new",
            help="Instead, add the units to the current run that joined the population since.",
        ),
    ] = False,
) -> None:
    """Assign every unit a treatment of the selected menu, and publish the run."""
    if new:
        _assign_new(config, run_id, settings)
        return
    _go_on(["assign", "publish"] if publish else ["assign"], config, run_id, settings)


def _assign_new(config: Path, run_id: str | None, settings: Sequence[str]) -> None:
    configuration, session = start(config, settings)
    from coarse_spark.pipeline import assign_new

    say(str(assign_new(session, configuration, run_id).extensions[-1]))


@app.command()
def publish(config: Config, run_id: GoneOnWith = None, settings: Set = []) -> None:  # noqa: B006
    """Make a run's assignments the current ones."""
    configuration, session = start(config, settings)
    from coarse_spark.pipeline import read_run
    from coarse_spark.pipeline.operate import publish_run
    from coarse_spark.pipeline.run import lake_of
    from coarse_spark.pipeline.which import run_to_go_on_with

    if run_id is None:
        run_id = run_to_go_on_with(lake_of(session, configuration), configuration)
    found = read_run(session, configuration, run_id)
    say(publish_run(found.lake, found.run_id, configuration))


@app.command()
def report(
    config: Config,
    run_id: RunId = None,
    settings: Set = [],  # noqa: B006
    report: ReportPath = None,
) -> None:
    """Print the summary of a run and write its page."""
    configuration, session = start(config, settings)
    from coarse_spark.pipeline import read_run
    from coarse_spark.pipeline.present import asked_page

    page = asked_page(configuration, report)
    _present(read_run(session, configuration, run_id), page, asked=True)


@app.command()
def frontier(
    config: Config,
    run_id: RunId = None,
    settings: Set = [],  # noqa: B006
    report: ReportPath = None,
) -> None:
    """Show what a run's menu would earn, spend and bring about at other budgets.

    Or with another worth of an outcome, as frontier.weights say. Of a published run, too.
    """
    configuration, session = start(config, settings)
    from coarse_spark.lake.step_results import AssignResult
    from coarse_spark.pipeline import look_along
    from coarse_spark.pipeline.present import asked_page, frontiers, report_content
    from coarse_spark.pipeline.present import report as write_page
    from coarse_spark.report.summary import print_frontiers

    path = asked_page(configuration, report)
    found = look_along(session, configuration, run_id)
    print_frontiers(frontiers(found), console())
    say(f"tables: {found.lake.path or found.lake.schema} (run {found.run_id}, table frontier)")
    if AssignResult.step in found.record.results:  # without assignments there is no page yet
        page = write_page(found, report_content(found), path)
        say(f"page:   {_NO_PAGE if page is None else page}")


@app.command("export-rule")
def export_rule(
    config: Config,
    run_id: RunId = None,
    settings: Set = [],  # noqa: B006
    dialect: Annotated[
        str,
        typer.Option(help="spark or databricks (names in backticks), duckdb or ansi (in quotes)."),
    ] = "spark",
) -> None:
    """Print the rule of a run's menu as a SQL CASE expression of the treatment_id.

    It reads columns of the population by their names; nulls and unseen levels have their place.
    """
    configuration, session = start(config, settings)
    from coarse_spark.pipeline import read_run
    from coarse_spark.pipeline.menu_rule import selected_rule

    write(selected_rule(read_run(session, configuration, run_id), dialect))


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

    configuration, notes = read_configuration(config, overrides_of(settings))
    say(f"{config}: the configuration is valid")
    for note in notes:
        say(f"note: {note}")
    if not tables:
        return
    session = open_session_of(configuration)
    from coarse_spark.lake.output import difference
    from coarse_spark.lake.workers import check_workers
    from coarse_spark.pipeline.run import lake_of
    from coarse_spark.pipeline.settings import (
        check_tables,
        output_layout,
        read_responses,
        read_tables,
    )

    with progress.of("validate", session):
        check_workers(session)
        experiment, population = read_tables(session, configuration)
        brought = read_responses(session, configuration)
        found = check_tables(configuration, experiment, population, brought)
    say(
        f"experiment: {found.usable_rows:,} of {found.rows:,} rows usable, in "
        f"{counted(found.partitions, 'partition')}"
    )
    say(f"population: {counted(found.population_rows, 'unit')}")
    for warning in found.warnings:
        say(f"note: {warning}")
    layout = output_layout(configuration, experiment, population)
    output = difference(lake_of(session, configuration), layout)
    output.require_same()
    say(f"output: {output}")


@app.command()
def migrate(config: Config, settings: Set = []) -> None:  # noqa: B006
    """Bring the tables of the output to what a run with this configuration writes today.

    Rows stay as they are; the tables of an earlier version of coarse_spark get what they lack.
    """
    configuration, session = start(config, settings)
    from coarse_spark.lake.migrate import migrate as migrate_tables
    from coarse_spark.pipeline.run import lake_of
    from coarse_spark.pipeline.settings import output_layout, read_tables

    experiment, population = read_tables(session, configuration)
    layout = output_layout(configuration, experiment, population)
    done = migrate_tables(lake_of(session, configuration), layout)
    for sentence in done or ["the tables are as a run writes them: nothing to migrate"]:
        say(sentence)


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

    configuration = load(config, settings)
    asked = configuration.frontier.given
    lines = statements(configuration.output, to, frontier=asked, everything=everything)
    write("\n".join(lines))


@app.command()
def version() -> None:
    """Print the version."""
    say(__version__)


@simulate.command()
def promotions(
    units: Annotated[int, typer.Option(min=1, help="Units of the population.")],
    out: Annotated[
        str,
        typer.Option(help="Folder or address for the Delta tables experiment, population, truth."),
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
    from coarse_spark.simulate.tables import write_promotions

    session = open_session_of()
    with progress.of("simulate", session):
        paths = write_promotions(session, units, out, experiment_units=experiment_units, seed=seed)
    for name, path in paths.items():
        say(f"{name}: {path}")


def _present(run: Run, path: Path | None, *, asked: bool = False) -> None:
    """Print the summary and write the page.

    Where nobody asked for them alone, nothing in their way fails a run that is published.
    """
    from coarse_spark.pipeline.present import report as write_page
    from coarse_spark.pipeline.present import report_content
    from coarse_spark.report.summary import print_summary

    content = page = None
    written = False
    with _told(run, "its page could not be written", asked), progress.of("report", run.spark):
        content = report_content(run)
        page = write_page(run, content, path)
        written = True
    with _told(run, "its summary could not be printed", asked):
        if content is not None:
            print_summary(content, console())
    say(f"tables: {run.lake.path or run.lake.schema} (run {run.run_id})")
    if written:
        say(f"page:   {_NO_PAGE if page is None else page}")


@contextmanager
def _told(run: Run, missing: str, asked: bool) -> Iterator[None]:
    """Make a warning of a failure in the block where the run is published."""
    from coarse_spark.lake.runs import PUBLISHED

    try:
        yield
    except Exception as error:
        if asked or run.record.status != PUBLISHED:
            raise
        why = without_kind(first_cause(f"{type(error).__name__}: {error}"))
        log.warning("run %s is published, but %s: %s", run.run_id, missing, why)


def _quieten() -> None:
    """Send what Spark repeats of an error nowhere."""
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
        if end.code in _STOPPED:
            sys.stderr.write("stopped\n")
        raise
    except (
        Exception
    ) as error:  # a bug or an outage: a sentence for the user above the traceback for us
        cause = first_cause(f"{type(error).__name__}: {error}")
        told = f"error: {cause}\n{traceback.format_exc()}"
        sys.stderr.write(printable(told))
        return 1
    return 0


class Terminated(SystemExit):
    """The process was asked to end: the step that it does is recorded as failed."""

    def __str__(self) -> str:
        return "SIGTERM"


def _terminate(*_: object) -> None:
    raise Terminated(_STOPPED[1])


@contextmanager
def _as_command() -> Iterator[None]:
    """Show progress and warnings, and let a request to end the process be recorded."""
    _quieten()
    main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _terminate) if main_thread else None
    try:
        with lenient_streams(), progress_shown():
            yield
    finally:
        if main_thread:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _command(arguments: Sequence[str] | None, *, standalone: bool) -> object:
    """Run a command; standalone, it tells of unknown options and ends in SystemExit.

    Else it returns the code of an end that is no error: that of an interruption is not 0.
    """
    given = None if arguments is None else list(arguments)
    return typer.main.get_command(app).main(given, "coarse-spark", standalone_mode=standalone)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``coarse-spark`` and of the files in ``jobs/``.

    It tells errors, and returns when the command is done: some schedulers take every end of the
    process for a failure.

    Raises
    ------
    SystemExit : with the code of what failed.
    """
    try:
        with _as_command():
            sys.exit(guarded(lambda: _command(arguments, standalone=True)))
    except SystemExit as end:
        if end.code:
            raise


def task(arguments: Sequence[str] | None = None) -> None:
    """Entry point for schedulers that call it in a process of their own, such as wheel tasks.

    It returns when the command is done, and lets errors through; ours without those that caused
    them, whose messages may hold secrets.

    Raises
    ------
    CoarseSparkError : what the user can mend, a run that failed, or one that was stopped.
    Exception : whatever else went wrong, from unknown options on.
    """
    try:
        with _as_command():
            code = _command(arguments, standalone=False)
    except CoarseSparkError as error:
        raise error from None
    except SystemExit as end:
        raise RunError(f"the process was asked to end ({end})") from end
    if code:
        raise RunError(f"the command was stopped (code {code})")
