"""What a run would do, without doing it."""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession

from coarse_spark.config.models import Configuration
from coarse_spark.errors import TableError
from coarse_spark.lake.inputs import input_name
from coarse_spark.lake.runs import RunRecord, published_runs
from coarse_spark.lake.step_results import ValidateResult
from coarse_spark.lake.tables import Lake
from coarse_spark.pipeline.run import lake_of, snapshots
from coarse_spark.pipeline.settings import check_tables, read_source, sources
from coarse_spark.text import counted

# measured on two cores: good for minutes or hours, not for seconds
_FIT_ROWS_PER_SECOND = 1_200  # cross-fitted with learner auto, all folds together
_OTHER_UNITS_PER_SECOND = 15_000  # score, choose, evaluate and assign together
_NO_RUN = "this output has no published run to go by"


def plan(
    spark: SparkSession, configuration: Configuration, inputs: dict[str, str] | None = None
) -> list[str]:
    """Return in sentences what a run would read, fit and write, and roughly how long it would take.

    Nothing is written; the tables are checked as a run checks them.

    Parameters
    ----------
    spark : the session.
    configuration : of the run.
    inputs : see ``start_run``.

    Raises
    ------
    TableError : the tables have problems, see ``check_tables``.
    """
    lake, lines = lake_of(spark, configuration), []
    inputs = snapshots(spark, configuration) if inputs is None else inputs
    tables: dict[str, DataFrame] = {}
    for label, source in sources(configuration).items():
        name = input_name(source)
        tables[label] = read_source(
            spark, configuration, label, inputs[name], experiment=tables.get("experiment")
        )
        lines.append(f"would read {label}: {name}, version {inputs[name]}")
    brought = {label: tables[label] for label in configuration.responses.sources}
    found = check_tables(configuration, tables["experiment"], tables.get("population"), brought)
    lines += [f"note: {warning}" for warning in found.warnings]
    folds, pooled = configuration.response.folds, found.small_partitions
    own = found.partitions - pooled - found.unidentified_partitions
    if brought:
        fitted = f"would take the responses of {found.usable_rows:,} of {found.rows:,} experiment "
        fitted += "rows as they are, fitting nothing"
    else:
        fitted = (
            f"would fit {found.usable_rows:,} of {found.rows:,} experiment rows: {own} of "
            f"{counted(found.partitions, 'partition')} with models of their own, and the pooled "
            f"one, each {folds + 1} times ({folds} folds, and all rows)"
        )
    lines += [
        fitted,
        f"would score and assign {counted(found.population_rows, 'unit')}, choosing menus of "
        f"{', '.join(map(str, configuration.menu.sizes))} treatments",
        f"would write to {lake.path or lake.schema}: all tables of a new run",
        _time(lake, found.usable_rows, found.population_rows),
    ]
    return lines


def _time(lake: Lake, rows: int, units: int) -> str:
    runs = published_runs(lake)
    try:
        record = RunRecord.load(lake, runs[0]) if runs else None
    except TableError:  # of another version, whose results cannot be read
        record = None
    before = None if record is None else record.results.get(ValidateResult.step)
    if record is None or not isinstance(before, ValidateResult):
        seconds = rows / _FIT_ROWS_PER_SECOND + units / _OTHER_UNITS_PER_SECOND
        why = f"run {runs[0]} is of another version" if runs else _NO_RUN
        return f"would take {_words(seconds)} on two cores, by measurements elsewhere: {why}"
    of_rows, of_units = rows / before.usable_rows, units / before.population_rows
    scale = {"validate": of_rows, "fit": of_rows, "evaluate": of_rows}
    seconds = sum(taken * scale.get(step, of_units) for step, taken in record.step_seconds.items())
    return f"would take {_words(seconds)}, by the times of run {record.run_id}"


def _words(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 2:
        return "a minute or two"
    return f"about {minutes:.0f} minutes" if minutes < 120 else f"about {minutes / 60:.0f} hours"
