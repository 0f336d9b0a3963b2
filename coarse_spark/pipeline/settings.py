"""The configuration in the terms of the functions that work on tables, which do not know it."""

from __future__ import annotations

from pyspark.sql import DataFrame

from coarse_spark.config.models import Configuration
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.distributed.fit import FitSettings
from coarse_spark.distributed.frames import ExperimentSetup
from coarse_spark.distributed.validate import TableReport, validate_tables


def experiment_setup(configuration: Configuration) -> ExperimentSetup:
    """Return how the experiment was made and what its columns are called."""
    experiment = configuration.experiment
    return ExperimentSetup(
        unit_id=experiment.id_columns,
        features=experiment.features,
        outcome=experiment.outcome,
        space=configuration.space,
        design=configuration.design.kind,
        partition_by=experiment.partition_by,
        strata=experiment.strata,
        weight=experiment.weight,
        eligibility=tuple(configuration.menu.eligibility),
        folds=configuration.response.folds,
        seed=configuration.menu.seed,
        privacy=configuration.privacy,
    )


def learner_settings(configuration: Configuration) -> LearnerSettings:
    """Return the settings of a response model."""
    response = configuration.response
    return LearnerSettings(
        learner=response.learner, winsorize=response.winsorize, shape=response.shape or None
    )


def fit_settings(configuration: Configuration) -> FitSettings:
    """Return how response models are fitted, partition by partition.

    Raises
    ------
    InvalidInputError : several bases are still to be compared.
    """
    response = configuration.response
    return FitSettings(
        configuration.basis,
        learner_settings(configuration),
        min_rows=response.min_rows,
        max_rows=response.max_rows,
        shrink_to_pooled=response.shrink_to_pooled,
    )


def check_tables(
    configuration: Configuration, experiment: DataFrame, population: DataFrame | None = None
) -> TableReport:
    """Return what the tables hold; every problem in them is raised at once.

    Raises
    ------
    TableError : see ``validate_tables``.
    """
    return validate_tables(
        experiment_setup(configuration),
        experiment,
        population,
        population_weight=configuration.population.weight,
        arms="arms" in configuration.bases,
        min_rows=configuration.response.min_rows,
    )
