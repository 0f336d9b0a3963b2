"""Which run a command means that names none: one that nobody can mistake, or an error."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from coarse_spark.config.models import Configuration
from coarse_spark.errors import InvalidInputError, TableError
from coarse_spark.lake.contact import first_contact
from coarse_spark.lake.contract import RUNS
from coarse_spark.lake.runs import ABANDONED, FINAL, RunRecord
from coarse_spark.lake.step_results import FitResult
from coarse_spark.lake.tables import Lake

_LISTED = 10


def run_to_go_on_with(lake: Lake, configuration: Configuration, *, fitted: bool = True) -> str:
    """Return the only unfinished run of a configuration.

    Parameters
    ----------
    lake : where the tables are.
    configuration : other runs were made with others.
    fitted : whether runs whose step ``fit`` is done come before others, which later steps cannot go
        on with.

    Raises
    ------
    TableError : there is none.
    InvalidInputError : there are several.
    """
    with first_contact(lake):
        found = _unfinished(lake, configuration, fitted=fitted)
        if not found:
            raise TableError(f"no run of this configuration is unfinished{_others(lake)}")
    return _only(lake, found)


def run_to_look_at(lake: Lake, configuration: Configuration) -> str:
    """Return the run of a configuration that was published last.

    Or the only unfinished one that started after it.

    Raises
    ------
    TableError : there is neither.
    InvalidInputError : several started after it.
    """
    with first_contact(lake):
        rows = _rows_of(lake, configuration).where(F.col("published_at").isNotNull())
        published = rows.orderBy(F.col("published_at").desc()).limit(1).collect()
        found = _unfinished(lake, configuration, fitted=True)
        if published:
            last = RunRecord.of(published[0], results=False)
            found = [record for record in found if record.started_at > last.started_at] or [last]
        if not found:
            raise TableError(f"there is no run of this configuration{_others(lake)}")
    return _only(lake, found)


def _rows_of(lake: Lake, configuration: Configuration) -> DataFrame:
    return lake.read(RUNS.name).where(F.col("config_hash") == configuration.fingerprint())


def _unfinished(lake: Lake, configuration: Configuration, *, fitted: bool) -> list[RunRecord]:
    rows = _rows_of(lake, configuration).where(~F.col("status").isin(*FINAL, ABANDONED))
    found = [
        RunRecord.of(row, results=False) for row in rows.orderBy(F.col("started_at")).collect()
    ]
    done = [record for record in found if FitResult.step in record.step_seconds]
    return done if fitted and done else found


def _only(lake: Lake, found: list[RunRecord]) -> str:
    if len(found) > 1:
        raise InvalidInputError(
            f"{len(found)} runs of this configuration in {lake.reference(RUNS.name)} may be meant: "
            f"{_listed(found)}; say which with --run-id, or give up the others with "
            "'coarse-spark runs fail RUN'"
        )
    return found[0].run_id


def _listed(found: list[RunRecord]) -> str:
    told = [
        f"{record.run_id} ({record.status}, started {record.started_at:%Y-%m-%d %H:%M:%S} UTC, "
        f"last step {next(reversed(record.step_seconds), 'none')})"
        for record in found[-_LISTED:]
    ]
    return ", ".join([*(["…"] if len(found) > _LISTED else []), *told])


def _others(lake: Lake) -> str:
    """Say which unfinished runs there are at all, or what to do where there is none."""
    rows = lake.read(RUNS.name).where(~F.col("status").isin(*FINAL, ABANDONED))
    names = [str(row["run_id"]) for row in rows.orderBy(F.col("started_at")).collect()]
    where = f" in {lake.reference(RUNS.name)}"
    if not names:
        return f"{where}; start a new run with 'fit'"
    verb = "run {} was" if len(names) == 1 else "runs {} were"
    return (
        f"{where}: {verb.format(', '.join(names[-_LISTED:]))} started with another configuration; "
        "start a new run with 'fit' or use the run's own configuration"
    )
