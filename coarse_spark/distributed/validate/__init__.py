"""Checks of the input tables, before a run starts: everything that is wrong with them, at once.

Checks of names and types (``columns``) read the schema alone. Those of values (``values``) are
native aggregates: one pass a table for nearly everything, one for repeated unit ids, and those for
clusters (``clusters``); and one pass a table for levels that the population alone has
(``levels``). Tables whose values have no problems are asked what their treatments
identify (``identification``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame

from coarse_spark.core.basis import Basis
from coarse_spark.core.profit import ProfitCoefficients
from coarse_spark.distributed.at_once import at_once
from coarse_spark.distributed.frames import ExperimentSetup, population_units
from coarse_spark.distributed.validate.clusters import (
    count_clusters,
    warn_of_narrow_partitions,
    warn_of_shared_treatments,
)
from coarse_spark.distributed.validate.columns import column_problems
from coarse_spark.distributed.validate.factors import check_factors
from coarse_spark.distributed.validate.identification import check_identification
from coarse_spark.distributed.validate.levels import check_levels
from coarse_spark.distributed.validate.responses import (
    check_covered,
    check_population_responses,
    check_responses,
)
from coarse_spark.distributed.validate.values import (
    Findings,
    RowCounts,
    check_experiment,
    check_population,
)
from coarse_spark.errors import TableError


@dataclass(frozen=True)
class TableReport:
    """What the tables hold, for the summary of a run.

    Attributes
    ----------
    rows : rows of the experiment.
    usable_rows : those with an outcome, a treatment and a weight other than 0.
    partitions : partitions with usable rows.
    small_partitions, unidentified_partitions : those that the pooled model serves, as they have few
        rows, or as these identify no basis.
    population_rows : units of the population; those of the experiment where it is the population.
    warnings : one sentence each, on what a run copes with by itself.
    clusters : clusters with usable rows; None where none are declared.
    """

    rows: int
    usable_rows: int
    partitions: int
    small_partitions: int
    population_rows: int
    warnings: tuple[str, ...]
    unidentified_partitions: int = 0
    clusters: int | None = None


def validate_tables(
    setup: ExperimentSetup,
    experiment: DataFrame,
    population: DataFrame | None = None,
    *,
    population_weight: str | None = None,
    bases: Sequence[str] = ("linear",),
    arms: bool = False,
    min_rows: int = 1,
    max_unseen_share: float = 1.0,
    of_profit: ProfitCoefficients | None = None,
    learned: bool = True,
) -> TableReport:
    """Return what the tables hold; every problem in them is raised at once.

    Parameters
    ----------
    setup : names the columns and declares the treatments.
    experiment : one row a unit with treatment and outcome. Rows where one of them is null are left
        out with a warning.
    population : one row a unit that gets an assignment; None for the experiment's units.
    population_weight : column with the weight of the population's rows; None for weight 1.
    bases : names of the bases that may be chosen.
    arms : whether every treatment must be a candidate, as the basis ``arms`` asks for.
    min_rows : the pooled model serves partitions with fewer usable rows.
    max_unseen_share : largest share of the population's units whose level of a feature no usable
        row of the experiment has, by feature.
    of_profit : has the factors of units in profit; None for none.
    learned : whether responses are learned here, not brought along.

    Raises
    ------
    TableError : missing columns, unfit types, null or repeated unit ids, treatments outside the
        space or without variation, levels that nobody got, outcomes, weights, features or factors
        in profit that are no finite numbers, null strata, fewer clusters than folds, no usable row,
        a population of other levels or partitions, or treatments that identify no basis. One line a
        problem.
    """
    # values are read by the declared names and types, so these come first
    check_columns(setup, experiment, population, population_weight)

    found = Findings("experiment", setup.privacy)
    people = Findings("population", setup.privacy)

    def served_units() -> int | None:
        if population is None:
            return None
        served = check_population(setup, population, population_weight, people)
        check_factors(setup, population, population_weight, of_profit, people)
        check_levels(
            setup, experiment, population, population_weight, people, most=max_unseen_share
        )
        return served

    def experiment_rows() -> RowCounts:
        counts = check_experiment(setup, experiment, found, arms=arms, learned=learned)
        check_factors(setup, experiment, setup.weight, of_profit, found)
        return counts

    counts, served = at_once(experiment.sparkSession, experiment_rows, served_units)
    clusters, narrow = None, 0
    if setup.cluster is not None and counts.usable:
        clusters = count_clusters(setup, experiment, found)
        narrow = warn_of_narrow_partitions(setup, experiment, min_rows, found)
    _refuse(found.problems + people.problems)
    shown, _ = at_once(
        experiment.sparkSession,
        lambda: check_identification(
            setup,
            experiment,
            bases,
            usable_rows=counts.usable,
            least=min_rows,
            lacking=counts.lacking,
        ),
        lambda: (
            None
            if setup.cluster is not None
            else warn_of_shared_treatments(setup, experiment, counts.usable, found)
        ),
    )
    _refuse([f"experiment: {problem}" for problem in shown.problems])
    return TableReport(
        rows=counts.rows,
        usable_rows=counts.usable,
        partitions=shown.partitions,
        small_partitions=shown.small + narrow,
        unidentified_partitions=shown.unidentified,
        population_rows=counts.weighed if served is None else served,
        warnings=(*found.warnings, *people.warnings, *shown.warnings),
        clusters=clusters,
    )


def validate_responses(
    setup: ExperimentSetup,
    basis: Basis,
    columns: Sequence[str],
    fold: str | None,
    of_experiment: DataFrame,
    of_population: DataFrame | None,
    *,
    experiment: DataFrame,
    units: DataFrame,
    weight: str | None,
) -> tuple[str, ...]:
    """Return warnings on responses that are brought along; every problem is raised at once.

    Parameters
    ----------
    setup : names the columns and declares the treatments.
    basis : φ.
    columns : of the coefficients, one a column of the basis.
    fold : column of the experiment's responses with their folds; None where no model saw any unit.
    of_experiment, of_population : the tables, one row a unit; None where the experiment's are those
        of the units to serve, which are its own.
    experiment : one row a unit, checked already.
    units : to serve, checked already.
    weight : column with their weight; None for weight 1.

    Raises
    ------
    TableError : columns that are missing or no numbers, ids that are null or repeated, responses
        that are no finite numbers, or units without one. One line a problem.
    """
    found = Findings("responses.experiment", setup.privacy)
    check_responses(setup, experiment, of_experiment, columns, basis, found, fold=fold)
    served = Findings("responses.population", setup.privacy)
    if of_population is not None:
        check_population_responses(setup, units, weight, of_population, columns, served)
    elif not found.problems:
        served.label = found.label
        rows = population_units(units, setup, weight)
        check_covered(setup, rows, of_experiment, columns, served, "population")
    _refuse(found.problems + served.problems)
    return (*found.warnings, *served.warnings)


def validate_new_responses(
    setup: ExperimentSetup,
    columns: Sequence[str],
    table: DataFrame,
    label: str,
    *,
    units: DataFrame,
    weight: str | None,
) -> None:
    """Check that units which join a population have their responses.

    Parameters are those of ``validate_responses``; ``label`` is what the table is called.

    Raises
    ------
    TableError : as in ``validate_responses``.
    """
    found = Findings(label, setup.privacy)
    check_population_responses(setup, units, weight, table, columns, found)
    _refuse(found.problems)


def validate_new_units(
    setup: ExperimentSetup,
    rows: DataFrame,
    weight: str | None,
    label: str,
    experiment: DataFrame | None = None,
    *,
    of_profit: ProfitCoefficients | None = None,
) -> tuple[int, tuple[str, ...]]:
    """Return how many units join a population, and warnings; every problem is raised at once.

    Parameters
    ----------
    setup : names the columns, whose types were checked (``check_columns``).
    rows : one a unit.
    weight : column with their weight; None for weight 1.
    label : what the table is called that they come from.
    experiment : whose levels of features they should have; None where they are of it themselves.
    of_profit : as in ``validate_tables``.

    Raises
    ------
    TableError : null or repeated unit ids, weights, features or factors in profit that are no
        finite numbers.
    """
    found = Findings(label, setup.privacy)
    count = check_population(setup, rows, weight, found, whole=False)
    check_factors(setup, rows, weight, of_profit, found)
    if experiment is not None:
        check_levels(setup, experiment, rows, weight, found, most=None)
    _refuse(found.problems)
    return count, tuple(found.warnings)


def check_columns(
    setup: ExperimentSetup,
    experiment: DataFrame,
    population: DataFrame | None,
    population_weight: str | None,
) -> None:
    """Check names and types of the columns, without reading a row; see ``validate_tables``.

    Raises
    ------
    TableError : missing columns or unfit types, one line a problem.
    """
    _refuse(list(column_problems(setup, experiment, population, population_weight)))


def _refuse(problems: list[str]) -> None:
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise TableError(
            f"the tables have {count}:\n" + "\n".join(f"  {problem}" for problem in problems)
        )
