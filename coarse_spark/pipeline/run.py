"""What the steps of one run share: the configuration, the tables, and what each step found."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import TypeVar

from pyspark.sql import DataFrame, SparkSession

from coarse_spark.config.models import Configuration, Experiment, Population
from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.settings import SearchSettings
from coarse_spark.errors import CoarseSparkError, InvalidInputError, RunError, TableError
from coarse_spark.lake.contact import first_contact
from coarse_spark.lake.inputs import input_name, input_version, read_input
from coarse_spark.lake.output import prepare
from coarse_spark.lake.runs import FAILED, RUNNING, RunRecord, new_run_id
from coarse_spark.lake.step_results import FitResult, StepResult
from coarse_spark.lake.tables import Lake, check_run_id
from coarse_spark.pipeline.settings import output_layout, read_tables

log = logging.getLogger(__name__)

_NAMED_ERROR = re.compile(r"(?:\w+\.)*\w*(?:Error|Exception): \S")  # "module.KindError: why"
_JAVA_CAUSE = re.compile(
    r"(?:Caused by)?: (?:\w+\.)+([\w$]+: \S.*)"
)  # "Caused by: java.io.IOException: why", with its message


_PASS_TOLERANCE = 1e-4  # of profit over control: no read of all units is worth less

Result = TypeVar("Result", bound=StepResult)


@dataclass
class Run:
    """One run: everything a step needs.

    Attributes
    ----------
    spark : the session.
    declared : the configuration as the user wrote it.
    lake : where the tables are.
    record : row of table ``runs``; replaced as the steps go, and saved by each command.
    """

    spark: SparkSession
    declared: Configuration
    lake: Lake
    record: RunRecord

    @property
    def run_id(self) -> str:
        """The run's id in every table."""
        return self.record.run_id

    def result(self, kind: type[Result]) -> Result:
        """Return what a step found.

        Raises
        ------
        TableError : that step has not run yet.
        """
        found = self.record.results.get(kind.step)
        if not isinstance(found, kind):
            raise TableError(
                f"run {self.run_id} has no result of the step '{kind.step}' yet; "
                f"run the step '{kind.step}' first"
            )
        return found

    def keep(self, result: StepResult) -> None:
        """Keep what a step found, in place of what it found before."""
        results = {**self.record.results, result.step: result}
        self.record = self.record.with_changes(results=results)

    @property
    def configuration(self) -> Configuration:
        """The configuration with the one basis of the step ``fit``.

        Raises
        ------
        TableError : that step has not run yet; until then there is ``declared``.
        """
        return self._with_basis(self.result(FitResult).basis)

    @cached_property
    def _with_basis(self) -> Callable[[str], Configuration]:
        return cache(self.declared.with_basis)  # it is checked as a whole, once a basis

    @property
    def problem(self) -> MenuProblem:
        """Space, basis and profit of the configuration; errors as in ``configuration``."""
        return self.configuration.problem

    def search_settings(self, previous: FloatArray | None = None) -> SearchSettings:
        """Return how menus are searched.

        Parameters
        ----------
        previous : (l, d) encoded treatments of an earlier menu.
        """
        menu = self.declared.menu
        return SearchSettings(
            self.declared.limits,
            self.declared.always_offered,
            previous,
            menu.starts,
            menu.seed,
            cells=menu.sketch_cells,
            passes=menu.full_passes,
            tolerance=_PASS_TOLERANCE,
        )

    @cached_property
    def experiment(self) -> DataFrame:
        """The experiment's table as the user has it."""
        return read_input(self.spark, self.declared.experiment, "experiment")

    @cached_property
    def population(self) -> DataFrame | None:
        """The population's table, None where it is the experiment's units."""
        if not self.declared.population.given:
            return None
        return read_input(self.spark, self.declared.population, "population")

    def save(self) -> None:
        """Save the record: a later command goes on from it."""
        self.record.save(self.lake)

    def warn(self, *sentences: str) -> None:
        """Add warnings to the record, each once."""
        fresh = [sentence for sentence in sentences if sentence not in self.record.warnings]
        for sentence in fresh:
            log.warning("%s", sentence)
        self.record = self.record.with_changes(warnings=[*self.record.warnings, *fresh])

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step in the record; a failure is saved before it is raised.

        Raises
        ------
        RunError : the step failed for a reason that is no error of ours; the message names step and
            cause.
        """
        start = time.perf_counter()
        try:
            log.info("%s ...", name)
            yield
        except BaseException as error:
            message = (
                str(error)
                if isinstance(error, CoarseSparkError)
                else f"{type(error).__name__}: {error}"
            )
            self._save_failure(name, message)
            if isinstance(error, CoarseSparkError) or not isinstance(error, Exception):
                raise
            raise RunError(f"step '{name}' failed: {first_cause(message)}") from error
        seconds = time.perf_counter() - start
        self.record = self.record.with_changes(
            step_seconds={**self.record.step_seconds, name: round(seconds, 3)},
            ended_at=datetime.now(UTC),
        )
        log.info("%s done in %.1f s", name, seconds)

    def _save_failure(self, step: str, message: str) -> None:
        self.record = self.record.with_changes(
            status=FAILED,
            ended_at=datetime.now(UTC),
            stop_reason=f"failed in step '{step}'",
            error=f"{step}: {first_cause(message)}",
        )
        try:
            self.save()
        except Exception:  # the first failure is the one to report
            log.exception("the failure could not be recorded in %s", self.lake.reference("runs"))


def first_cause(message: str) -> str:
    """Return what a person can act on: the last Python error, else the last Java cause."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    # the name of an error without its message tells nothing: remote stack traces have such lines
    python = [line for line in lines if _NAMED_ERROR.match(line)]
    chosen = [line for line in python if "PythonException" not in line and "Py4J" not in line]
    java = [cause[1] for line in lines if (cause := _JAVA_CAUSE.match(line))]
    told = [*lines[:1], *java, *chosen]  # the least telling first
    return told[-1] if told else "unknown cause"


def lake_of(spark: SparkSession, configuration: Configuration) -> Lake:
    """Return where the configuration wants its tables."""
    output = configuration.output
    if output.path is not None:
        return Lake(spark, path=output.path)
    name = ".".join(part for part in (output.catalog, output.schema_name) if part)
    return Lake(spark, schema=name)


def start_run(spark: SparkSession, configuration: Configuration, run_id: str | None = None) -> Run:
    """Open a new run, or the rerun of an old one.

    Its record says "running"; the published rows of a rerun stay until they are replaced.
    """
    lake = lake_of(spark, configuration)
    prepare(lake, output_layout(configuration, *read_tables(spark, configuration)))
    old = None
    if run_id is not None and lake.exists("runs"):
        # a rerun stays current with its old assignments until the new ones are published
        old = lake.read("runs", run_id).select("published_at").first()
    run_id = new_run_id() if run_id is None else check_run_id(run_id)
    if old is None:
        lake.begin(run_id)
    else:
        log.info("run %s is there already: its rows are replaced, step by step", run_id)
    record = RunRecord(
        run_id,
        configuration.to_json(),
        configuration.fingerprint(),
        started_at=datetime.now(UTC),
        status=RUNNING,
        published_at=None
        if old is None or old["published_at"] is None
        else old["published_at"].astimezone(UTC),
        inputs={
            input_name(source): input_version(lake, source) for source in _sources(configuration)
        },
    )
    run = Run(spark, configuration, lake, record)
    with first_contact(lake):
        run.save()
    return run


def open_run(spark: SparkSession, configuration: Configuration, run_id: str | None = None) -> Run:
    """Go on with a run whose first steps are done: the one named, or the one that started last.

    Raises
    ------
    TableError : there is no such run, or another version of the package wrote it.
    InvalidInputError : the run was made with another configuration.
    """
    lake = lake_of(spark, configuration)
    record = RunRecord.load(lake, run_id)
    if record.config_hash != configuration.fingerprint():
        raise InvalidInputError(
            f"run {record.run_id} was started with another configuration "
            f"(hash {record.config_hash[:12]}, this file's is {configuration.fingerprint()[:12]}); "
            "start a new run with 'fit' or use the run's own configuration"
        )
    return Run(
        spark,
        configuration,
        lake,
        record.with_changes(status=RUNNING, error=None, stop_reason=None),
    )


def _sources(configuration: Configuration) -> list[Experiment | Population]:
    population = [configuration.population] if configuration.population.given else []
    return [configuration.experiment, *population]
