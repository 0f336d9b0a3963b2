"""The configuration in the terms of the functions that work on tables, which do not know it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StringType

from coarse_spark.config.models import Configuration, Experiment, Population
from coarse_spark.core.basis import Basis
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.treatments import Categorical, Dimension
from coarse_spark.distributed.fit import FitSettings
from coarse_spark.distributed.frames import ExperimentSetup, id_parts
from coarse_spark.distributed.validate import (
    TableReport,
    check_columns,
    validate_responses,
    validate_tables,
)
from coarse_spark.lake.contract import OutputLayout
from coarse_spark.lake.inputs import read_input


def experiment_setup(configuration: Configuration) -> ExperimentSetup:
    """Return how the experiment was made and what its columns are called."""
    experiment = configuration.experiment
    return ExperimentSetup(
        unit_id=experiment.id_columns,
        features=experiment.features,
        outcome=experiment.outcomes[0],
        further_outcomes=experiment.outcomes[1:],
        space=configuration.space,
        design=configuration.design.kind,
        partition_by=experiment.partition_by,
        strata=experiment.strata,
        cluster=experiment.cluster,
        weight=experiment.weight,
        eligibility=tuple(configuration.menu.eligibility),
        unit_columns=configuration.profit.unit_columns,
        folds=configuration.response.folds,
        seed=configuration.menu.seed,
        privacy=configuration.privacy,
    )


def unit_weight(configuration: Configuration) -> str | None:
    """Return the column with the weight of the units to serve; None for weight 1."""
    if configuration.population.given:
        return configuration.population.weight
    return configuration.experiment.weight


def learner_settings(configuration: Configuration, outcome: str | None = None) -> LearnerSettings:
    """Return the settings of a response model, by default of any outcome's."""
    response = configuration.response

    def own(setting: str | Mapping[str, str]) -> str:
        return setting if isinstance(setting, str) else setting.get(str(outcome), "auto")

    return LearnerSettings(
        learner=own(response.learner),
        # coefficients that are brought along are those of outcomes as they are
        scale="additive" if configuration.responses.given else own(response.scale),
        residualize=configuration.design.kind == "learned",
        winsorize=response.winsorize,
        shape=response.shape or None,
    )


def fit_settings(configuration: Configuration, outcome: str | None = None) -> FitSettings:
    """Return how response models of an outcome are fitted, partition by partition.

    Raises
    ------
    InvalidInputError : several bases are still to be compared.
    """
    response = configuration.response
    return FitSettings(
        configuration.basis,
        learner_settings(configuration, outcome),
        min_rows=response.min_rows,
        max_rows=response.max_rows,
        shrink_to_pooled=response.shrink_to_pooled,
    )


def read_tables(
    spark: SparkSession, configuration: Configuration
) -> tuple[DataFrame, DataFrame | None]:
    """Return the experiment, and the population where it is a table of its own.

    Raises
    ------
    TableError : see ``read_input``.
    """
    experiment = read_source(spark, configuration, "experiment")
    if not configuration.population.given:
        return experiment, None
    return experiment, read_source(spark, configuration, "population", experiment=experiment)


def read_source(
    spark: SparkSession,
    configuration: Configuration,
    label: str,
    snapshot: str | None = None,
    *,
    experiment: DataFrame | None = None,
) -> DataFrame:
    """Return an input of a configuration.

    Parameters
    ----------
    spark : the session.
    configuration : that names the input.
    label : its block, experiment or population, or its key, such as responses.experiment.
    snapshot : see ``read_input``.
    experiment : whose levels of digits are texts in the population too, also in files without
        types; other inputs have types of their own.

    Raises
    ------
    TableError : see ``read_input``.
    """
    texts = configuration.text_columns
    if experiment is not None and label == "population":
        texts |= {
            field.name for field in experiment.schema if isinstance(field.dataType, StringType)
        }
    return read_input(spark, sources(configuration)[label], label, snapshot, texts=texts)


def sources(configuration: Configuration) -> dict[str, Experiment | Population]:
    """Return the inputs of a configuration by the names of their blocks, or of their keys."""
    found: dict[str, Experiment | Population] = {"experiment": configuration.experiment}
    if configuration.population.given:
        found["population"] = configuration.population
    return found | configuration.responses.sources


def read_responses(spark: SparkSession, configuration: Configuration) -> dict[str, DataFrame]:
    """Return the responses that are brought along, by key; none where they are learned.

    Raises
    ------
    TableError : see ``read_input``.
    """
    return {
        label: read_source(spark, configuration, label) for label in configuration.responses.sources
    }


def check_tables(
    configuration: Configuration,
    experiment: DataFrame,
    population: DataFrame | None = None,
    responses: Mapping[str, DataFrame] | None = None,
) -> TableReport:
    """Return what the tables hold; every problem in them is raised at once.

    Those of ``responses`` that are brought along (see ``read_responses``) follow when there are no
    others: they are about units that the other tables have.

    Raises
    ------
    TableError : see ``validate_tables`` and ``validate_responses``.
    """
    found = _check_units(configuration, experiment, population)
    if not responses:
        return found
    told = validate_responses(
        experiment_setup(configuration),
        configuration.basis,
        configuration.response_columns,
        configuration.responses.fold,
        responses["responses.experiment"],
        responses.get("responses.population"),
        experiment=experiment,
        units=experiment if population is None else population,
        weight=unit_weight(configuration),
    )
    return replace(found, warnings=(*found.warnings, *told))


def _check_units(
    configuration: Configuration, experiment: DataFrame, population: DataFrame | None
) -> TableReport:
    return validate_tables(
        experiment_setup(configuration),
        experiment,
        population,
        population_weight=configuration.population.weight,
        bases=configuration.bases,
        # of the bases that auto compares, those that the treatments do not suit are left out
        arms=configuration.response.basis != "auto" and "arms" in configuration.bases,
        # models of the user's own are of all rows
        min_rows=1 if configuration.responses.given else configuration.response.min_rows,
        max_unseen_share=configuration.population.max_unseen_share,
        of_profit=configuration.of_units,
        learned=not configuration.responses.given,
    )


def output_layout(
    configuration: Configuration, experiment: DataFrame, population: DataFrame | None = None
) -> OutputLayout:
    """Return what of the tables that a run writes depends on its configuration and inputs.

    Raises
    ------
    TableError : columns of the inputs are missing or of unfit types.
    """
    units = experiment if population is None else population
    names, space = configuration.experiment.id_columns, configuration.space
    weight = configuration.population.weight
    check_columns(experiment_setup(configuration), experiment, population, weight)
    parts = id_parts(units, names)
    return OutputLayout(
        "string" if parts else units.schema[names[0]].dataType.simpleString(),
        {dimension.name: _sql_type(dimension) for dimension in space.dimensions},
        max(Basis(basis, space).size for basis in configuration.bases)
        * len(configuration.experiment.outcomes),
        tuple(configuration.menu.eligibility),
        parts,
        configuration.unit_factors,
        len(configuration.experiment.outcomes),
    )


def _sql_type(dimension: Dimension) -> str:
    kinds = (
        {type(level) for level in dimension.levels}
        if isinstance(dimension, Categorical)
        else {float}
    )
    for kind, sql_type in ((bool, "boolean"), (int, "bigint"), (str, "string")):
        if kinds == {kind}:
            return sql_type
    return "double"
