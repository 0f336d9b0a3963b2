"""What the steps of one run share: the configuration, the tables, and what each step found."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import TypeVar

import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from threadpoolctl import threadpool_limits

from coarse_spark import progress
from coarse_spark.causes import first_cause
from coarse_spark.compatibility import jobs_named
from coarse_spark.config.models import Configuration, Experiment, Population
from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.settings import SearchSettings
from coarse_spark.core.support import Support
from coarse_spark.distributed.at_once import for_each
from coarse_spark.errors import CoarseSparkError, RunError, TableError
from coarse_spark.lake.contract import TableSchema
from coarse_spark.lake.inputs import check_unchanged, input_name, snapshot_of
from coarse_spark.lake.lease import Lease
from coarse_spark.lake.runs import FAILED, OPEN, RunRecord
from coarse_spark.lake.step_results import (
    STEPS_WITH_RESULTS,
    EvaluateResult,
    FitResult,
    StepResult,
    ValidateResult,
)
from coarse_spark.lake.tables import Lake
from coarse_spark.pipeline.settings import read_source, sources
from coarse_spark.pipeline.step_log import told as step_told
from coarse_spark.text import printable, without_values

log = logging.getLogger(__name__)

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
    record : row of table ``runs``; replaced as the steps go, and saved after each.
    lease : the right to change the run; None where it is only looked at.
    in_sequence : whether steps follow each other: what one found is saved beside the next.
    """

    spark: SparkSession
    declared: Configuration
    lake: Lake
    record: RunRecord
    lease: Lease | None = None
    in_sequence: bool = False

    def __enter__(self) -> Run:
        """Return the run: at the end of the block nobody works on it any more."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
        # it is checked as a whole, once a basis
        return cache(lambda name: self.declared.with_response(basis=name))

    @property
    def problem(self) -> MenuProblem:
        """Space, basis and profit of the configuration, within the support of the experiment.

        Errors are as in ``configuration``.
        """
        found = self.result(FitResult)
        return self._within(found.basis, found.support)

    @cached_property
    def _within(self) -> Callable[[str, Support | None], MenuProblem]:
        return cache(lambda basis, support: self._with_basis(basis).problem_within(support))

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
        """The experiment's table as the user has it, as it was when the run started."""
        return self._read("experiment", self.declared.experiment)

    @cached_property
    def population(self) -> DataFrame | None:
        """The population's table in the same way, None where it is the experiment's units."""
        if not self.declared.population.given:
            return None
        return self._read("population", self.declared.population)

    @cached_property
    def responses(self) -> dict[str, DataFrame]:
        """The responses that are brought along, by key, as they were; none where they are learned.

        Those of the population may be those of the experiment, see ``config.models.Responses``.
        """
        places = self.declared.responses.sources
        return {label: self._read(label, source) for label, source in places.items()}

    def _read(self, label: str, source: Experiment | Population) -> DataFrame:
        return read_source(
            self.spark,
            self.declared,
            label,
            self.record.inputs[input_name(source)],
            experiment=None if label == "experiment" else self.experiment,
        )

    def replace(self, schema: TableSchema, rows: DataFrame | pd.DataFrame) -> None:
        """Replace the run's rows in a table; errors as in ``Lease.replace``."""
        self._lease.replace(schema, rows)

    def close(self) -> None:
        """Let go of the run: a later command goes on from it.

        Raises
        ------
        RunTakenError : somebody else took the run.
        RunError : what the last step found could not be saved.
        """
        if self.lease is None or self.lease.ended:
            return
        try:
            self.record = self.lease.release(self.record.with_changes(status=OPEN))
        except Exception as error:
            unsaved = self.failure(f"the record of run {self.run_id} could not be saved", error)
            if unsaved is error:
                raise
            raise unsaved from error

    @property
    def _lease(self) -> Lease:
        if self.lease is None:
            raise TableError(f"run {self.run_id} was opened to be looked at; open it with open_run")
        return self.lease

    def warn(self, *sentences: str) -> None:
        """Add warnings to the record, each once."""
        told = map(printable, sentences)
        fresh = [sentence for sentence in told if sentence not in self.record.warnings]
        for sentence in fresh:
            log.warning("%s", sentence)
        self.record = self.record.with_changes(warnings=[*self.record.warnings, *fresh])

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Do a step: what it found is saved at its end, a failure before it is raised.

        In a sequence it is saved beside the next step, which tells where that failed, as ``close``
        does of the last one. What the step and those after it found before is forgotten, and the
        inputs must stay as they were when the run started.

        Raises
        ------
        RunError : the step failed for a reason that is no error of ours; the message names step and
            cause.
        """
        start = time.perf_counter()
        named = jobs_named(self.spark, f"coarse_spark run {self.run_id}", name)
        with (
            self._lease.working(),
            step_told(self.run_id, name, self.spark, self._rows),
            progress.of(name, self.spark),
            named,
        ):
            try:
                log.info("%s ...", name)
                self._forget(name)
                self.check_inputs()
                # the driver's matrices are small, and threads of BLAS would wait for each other;
                # nor must the last bit of a sum depend on the number of cores
                with threadpool_limits(limits=1):
                    yield
                self.check_inputs()
                seconds = time.perf_counter() - start
                self.record = self.record.with_changes(
                    step_seconds={**self.record.step_seconds, name: round(seconds, 3)},
                    ended_at=datetime.now(UTC),
                )
                if self.record.final:
                    self.record = self._lease.release(self.record)
                elif name != ValidateResult.step:  # part of the step "fit", which saves both
                    if self.in_sequence:
                        self._lease.begin_save(self.record)
                    else:
                        self.record = self._lease.save(self.record)
            except Exception as error:
                failed = f"step '{name}' failed"
                told = self.failure(failed, error)
                self._save_failure(name, str(told).removeprefix(f"{failed}: "))
                if told is error:
                    raise
                raise told from error
            except BaseException as end:  # stopped by hand or by SIGTERM
                self._save_failure(name, f"{type(end).__name__}: {end}")
                raise
        log.info("%s done in %.1f s", name, seconds)

    def _rows(self, step: str) -> int | None:
        """Return how many rows of its input a step has read, None where that is not known."""
        found = self.record.results.get(ValidateResult.step)
        if not isinstance(found, ValidateResult):
            return None
        if step == ValidateResult.step:
            population = found.population_rows if self.declared.population.given else 0
            return found.experiment_rows + population
        if step in (FitResult.step, EvaluateResult.step):
            return found.usable_rows
        return found.population_rows

    def _forget(self, step: str) -> None:
        """Forget what this step and those after it found: their tables are about to change."""
        if step not in STEPS_WITH_RESULTS:
            return
        earlier = STEPS_WITH_RESULTS[: STEPS_WITH_RESULTS.index(step)]
        results, seconds = (
            {name: found for name, found in mapping.items() if name in earlier}
            for mapping in (self.record.results, self.record.step_seconds)
        )
        if len(results) < len(self.record.results):
            changed = self.record.with_changes(results=results, step_seconds=seconds)
            self.record = self._lease.save(changed)

    def check_inputs(self) -> None:
        """Raise TableError where an input is not what it was when the run started."""
        for label, source in sources(self.declared).items():
            check_unchanged(self.spark, source, label, self.record.inputs[input_name(source)])

    def failure(self, what: str, error: Exception) -> CoarseSparkError:
        """Return an error of ours in place of what Spark, Java or a library says of a failure.

        Parameters
        ----------
        what : what failed, in words.
        error : for which reason; one of ours is returned as it is.
        """
        if isinstance(error, CoarseSparkError):
            return error
        try:
            # inputs that were lost or changed within the step fail it in other words
            self.check_inputs()
            for label, source in sources(self.declared).items():
                self._read(label, source)
        except TableError as lost:
            return lost
        except Exception:  # nothing can be looked at any more: the first failure is the one to tell
            log.debug("the inputs could not be looked at", exc_info=True)
        cause = first_cause(f"{type(error).__name__}: {error}")
        return RunError(f"{what}: {without_values(cause) if self.declared.privacy else cause}")

    def _save_failure(self, step: str, message: str) -> None:
        self.record = self.record.with_changes(
            status=FAILED,
            ended_at=datetime.now(UTC),
            stop_reason=f"failed in step '{step}'",
            error=printable(f"{step}: {message}"),
        )
        try:
            self.record = self._lease.release(self.record)
        except Exception as error:  # the first failure is the one to report
            where, why = self.lake.reference("runs"), first_cause(str(error))
            log.error("the failure could not be recorded in %s: %s", where, why)


def lake_of(spark: SparkSession, configuration: Configuration) -> Lake:
    """Return where the configuration wants its tables."""
    output = configuration.output
    if output.path is not None:
        return Lake(spark, path=output.path)
    name = ".".join(part for part in (output.catalog, output.schema_name) if part)
    return Lake(spark, schema=name)


def snapshots(spark: SparkSession, configuration: Configuration) -> dict[str, str]:
    """Return the inputs as they are now, by name, as a run records them.

    Raises
    ------
    TableError : an input cannot be read.
    """
    named = sources(configuration)
    found = for_each(spark, named.items(), lambda one: snapshot_of(spark, one[1], one[0]))
    return {input_name(source): one for source, one in zip(named.values(), found, strict=True)}
