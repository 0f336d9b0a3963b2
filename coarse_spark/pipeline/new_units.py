"""Units that joined the population after a run was published get their treatments."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pyspark.sql import DataFrame, SparkSession

from coarse_spark import progress
from coarse_spark.config.models import Configuration, Experiment, Population
from coarse_spark.core.menu.extend import extend
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.settle import Settled
from coarse_spark.distributed.changes import PopulationChanges, changes_between, changes_in_feed
from coarse_spark.distributed.frames import id_parts, unit_id
from coarse_spark.distributed.materialize import materialized
from coarse_spark.distributed.population import ResponseTable
from coarse_spark.distributed.published import segment_sums
from coarse_spark.distributed.validate import (
    check_columns,
    validate_new_responses,
    validate_new_units,
)
from coarse_spark.errors import InvalidInputError, TableError
from coarse_spark.lake.contract import ASSIGNMENTS, RESPONSES, holds
from coarse_spark.lake.inputs import (
    NOT_PINNED,
    change_feed,
    check_unchanged,
    input_name,
    snapshot_of,
)
from coarse_spark.lake.lease import Lease
from coarse_spark.lake.runs import current_run
from coarse_spark.lake.step_results import ChooseResult, Extension, NewUnits, ScoreResult
from coarse_spark.pipeline.afterwards import taken
from coarse_spark.pipeline.limits import boundary_treatments, deciding_menu
from coarse_spark.pipeline.menu_rows import read_menus
from coarse_spark.pipeline.menu_rule import given_by, published_rule
from coarse_spark.pipeline.rules import population_rules, profit_responses
from coarse_spark.pipeline.run import Run, lake_of
from coarse_spark.pipeline.settings import (
    experiment_setup,
    read_source,
    sources,
    unit_weight,
)
from coarse_spark.pipeline.start import read_run
from coarse_spark.pipeline.steps.assign import assignment_rows
from coarse_spark.pipeline.steps.score import response_rows, warn_of_unseen
from coarse_spark.text import counted

log = logging.getLogger(__name__)


def assign_new(
    spark: SparkSession, configuration: Configuration, run_id: str | None = None
) -> NewUnits:
    """Assign the units of the population that the current run does not have yet.

    They are scored with the run's models, or get the responses that are brought along for them by
    now, and are served with the run's menu: they get what a full run with these would give them.
    First their responses land, then their assignments, in one commit each;
    readers see the second. A call that was cut short is finished by the next one. Published rows
    never change: units that changed, or left the population, are counted and told. Table
    ``segments`` still describes the units at publication.

    Where limits keep the published units' treatments and leave the new ones no way within shares
    and budget over all units together, nobody is added.

    Parameters
    ----------
    spark : the session.
    configuration : of the run.
    run_id : the run, which has to be the current one.

    Returns
    -------
    All additions to the run, this one last.

    Raises
    ------
    InvalidInputError : limits that cannot be kept; units that are eligible for nothing on the menu;
        a run that is not the current one, or was made with another configuration.
    TableError : nothing is published; the population cannot be read, or the new units have missing
        or repeated ids or features that are no numbers, or no responses where these are brought
        along.
    RunTakenError : another process works on the run.
    """
    run = _current(spark, configuration, run_id)
    with (
        progress.of("new units", spark),
        taken(run, (RESPONSES, ASSIGNMENTS), "adding units") as lease,
    ):
        earlier = run.record.results.get(NewUnits.step)
        known = earlier if isinstance(earlier, NewUnits) else NewUnits()
        population = _Population.of(run, known)
        found = population.changes()
        _score(run, lease, population, found.rows)
        _assign(run, lease, population)
        assigned = run.lake.read("assignments", run.run_id).count()
        extension = Extension(
            when=datetime.now(UTC),
            snapshot=population.snapshot,
            # by what is there, so that those of a call that was cut short are counted too
            added=assigned - run.result(ScoreResult).units - known.added,
            changed=found.changed,
            deleted=found.deleted,
            untold=None if found.changed is not None else population.untold,
        )
        result = NewUnits(extensions=(*known.extensions, extension))
        run.keep(result)
    return result


def _current(spark: SparkSession, configuration: Configuration, run_id: str | None) -> Run:
    """Return the current run."""
    lake = lake_of(spark, configuration)
    current = current_run(lake)
    if current is None:
        raise TableError(
            f"no run in {lake.reference('runs')} is published, and units are added to the current "
            "run only; start with 'coarse-spark run'"
        )
    if run_id not in (None, current):
        raise InvalidInputError(
            f"run {run_id} is not the current one, and units are added to that only; found "
            f"{current}: name it or no run"
        )
    return read_run(spark, configuration, current)


@dataclass(frozen=True, eq=False)
class _Population:
    """The units to serve, as they are now and as the run saw them last.

    Attributes
    ----------
    run : the run.
    source, label : block of the configuration that they come from, and its name.
    since, snapshot : of the last look at them and of this one.
    table : the units now.
    experiment : of the run, where the population is a table of its own.
    """

    run: Run
    source: Experiment | Population
    label: str
    since: str
    snapshot: str
    table: DataFrame
    experiment: DataFrame | None

    @staticmethod
    def of(run: Run, known: NewUnits) -> _Population:
        label = "population" if run.declared.population.given else "experiment"
        source = sources(run.declared)[label]
        since = run.record.inputs[input_name(source)]
        if known.extensions:
            since = known.extensions[-1].snapshot
        snapshot = snapshot_of(run.spark, source, label)
        experiment = None
        if run.declared.population.given:
            experiment = read_source(run.spark, run.declared, "experiment")
        table = read_source(run.spark, run.declared, label, snapshot, experiment=experiment)
        setup, weight = experiment_setup(run.configuration), run.declared.population.weight
        if experiment is None:
            check_columns(setup, table, None, weight)
        else:
            check_columns(setup, experiment, table, weight)
        return _Population(run, source, label, since, snapshot, table, experiment)

    def changes(self) -> PopulationChanges:
        """Return what is new, changed and gone; from the table's change feed where it has one."""
        spark, configuration = self.run.spark, self.run.configuration
        if self.snapshot == self.since != NOT_PINNED:
            return PopulationChanges(self.table.limit(0), 0, 0)
        known = self.run.lake.read("responses", self.run.run_id).select("unit_id")
        setup, weight = experiment_setup(configuration), unit_weight(configuration)
        had, has = (
            rows.schema["unit_id"].dataType.simpleString()
            for rows in (known, self.table.select(unit_id(setup.unit_id).alias("unit_id")))
        )
        if not holds(had, has):
            raise TableError(
                f"{self.label}: the unit_id is of type {has}, expected {had}, as in run "
                f"{self.run.run_id}: units of other ids cannot be told from new ones"
            )
        feed = change_feed(spark, self.source, self.since, self.snapshot)
        found = None if feed is None else changes_in_feed(known, feed, setup, weight)
        if found is None:
            found = changes_between(known, self.table, self._before(), setup, weight)
        return found

    def _before(self) -> DataFrame | None:
        """Return the units as they were at the last look, None where nobody knows any more."""
        if self.since == NOT_PINNED:
            return None
        try:
            check_unchanged(self.run.spark, self.source, self.label, self.since)
            return read_source(
                self.run.spark,
                self.run.declared,
                self.label,
                self.since,
                experiment=self.experiment,
            )
        except TableError as error:
            log.info("%s", error)
            return None

    @property
    def untold(self) -> str:
        """Why changes cannot be told."""
        if self.since == NOT_PINNED:
            return f"{input_name(self.source)} has no versions"
        return f"{input_name(self.source)} cannot be read any more as it was at {self.since}"


def _score(run: Run, lease: Lease, population: _Population, rows: DataFrame) -> None:
    """Add the responses of new units, having checked their rows."""
    configuration = run.configuration
    setup, weight = experiment_setup(configuration), unit_weight(configuration)
    with materialized(rows) as kept:
        count, warnings = validate_new_units(
            setup,
            kept,
            weight,
            population.label,
            population.experiment,
            of_profit=configuration.of_units,
        )
        if not count:
            return
        log.info("%d new units", count)
        run.warn(*warnings)
        brought = _brought(run, kept) if configuration.responses.given else None
        lease.append(RESPONSES, response_rows(run, kept, brought))
    check_unchanged(run.spark, population.source, population.label, population.snapshot)


def _brought(run: Run, units: DataFrame) -> DataFrame:
    """Return the responses that are brought along as they are now, which must have new units."""
    configuration = run.configuration
    setup, weight = experiment_setup(configuration), unit_weight(configuration)
    responses = configuration.responses
    label = responses.of_population
    snapshot = snapshot_of(run.spark, responses.sources[label], label)
    table = read_source(run.spark, run.declared, label, snapshot)
    validate_new_responses(
        setup, configuration.response_columns, table, label, units=units, weight=weight
    )
    return table


def _assign(run: Run, lease: Lease, population: _Population) -> None:
    """Add the assignments of all units that have responses only."""
    responses = run.lake.read("responses", run.run_id)
    assignments = run.lake.read("assignments", run.run_id)
    waiting = responses.join(assignments.select("unit_id"), "unit_id", "left_anti")
    count = waiting.count()
    if not count:
        return
    warn_of_unseen(run, waiting)
    menus = read_menus(run.lake, run.run_id)
    menu = menus[menus["selected"]]
    rules, k = population_rules(run, waiting), len(menu)
    parts = id_parts(population.table, experiment_setup(run.configuration).unit_id)
    plain = PricedMenu.build(rules.problem, rules.problem.space.encode(menu))
    rule = published_rule(run, k)
    given = None if rule is None else given_by(run, rule, population.table)
    rows = assignment_rows(rules, rules.population, plain, parts, given=given)
    if run.configuration.menu.eligibility:
        _require_eligible(run, rows)
    limits = run.result(ChooseResult).menus[k].limits
    if limits is None:
        lease.append(ASSIGNMENTS, rows)
        return
    units = rules.population.told_apart()
    problem = run.search_settings().posed(units.problem)
    deciding = deciding_menu(problem, menu, limits)
    with materialized(units.rows) as kept:
        units = replace(units, rows=kept)
        settled = _settled(run, units, deciding, count)
        treatments = boundary_treatments(units, settled)
        rows = assignment_rows(rules, units, settled.deciding, parts, treatments)
        lease.append(ASSIGNMENTS, rows)


def _settled(run: Run, units: ResponseTable, menu: PricedMenu, count: int) -> Settled:
    """Return who gets what within limits over published and new units together."""
    responses = profit_responses(run)
    assignments = run.lake.read("assignments", run.run_id)
    served = segment_sums(assignments, responses, menu.k, run.problem.coefficients)
    everyone = ResponseTable(responses, run.problem).size()
    try:
        return extend(units, menu, served, everyone)
    except InvalidInputError as error:
        raise InvalidInputError(
            f"{counted(count, 'new unit')} cannot be added to run {run.run_id} within its "
            f"limits, as its {served.units.sum()} units keep their treatments: {error}; "
            "nobody was added, start a new run"
        ) from None


def _require_eligible(run: Run, rows: DataFrame) -> None:
    without = rows.where("treatment_id IS NULL").count()
    if without:
        raise InvalidInputError(
            f"{counted(without, 'new unit')} may get none of the treatments of the menu of run "
            f"{run.run_id} because of menu.eligibility; nobody was added, start a new run"
        )
