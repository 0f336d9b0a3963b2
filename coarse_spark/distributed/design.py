"""The experiment's design on executors.

It gives the weight with which a unit's residual corrects its response coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql.types import DoubleType, StructField, StructType
from threadpoolctl import threadpool_limits

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.basis import Basis
from coarse_spark.core.design import (
    MomentSums,
    design_problems,
    moment_sums,
    representer,
    row_moments,
)
from coarse_spark.core.learned_design import CrossFittedDesign, DesignPreparation, Overlap
from coarse_spark.core.learners.ridge.gram import GramStatistics
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.distributed.aggregate import add_up
from coarse_spark.distributed.frames import (
    ExperimentSetup,
    feature_columns,
    matrix,
    parts,
)
from coarse_spark.distributed.sample import representative_sample

# a sample of this size encodes the features of a learned design, and shows its overlap
_SAMPLE_ROWS = 50_000


@dataclass(frozen=True, eq=False)
class Design:
    """How the experiment gave treatments, known or learned.

    Attributes
    ----------
    representer : α = Λ(x)⁻¹φ(t) (n, p) of collected units (``core.design.representer``), with Λ
        from units of other folds where it is learned.
    needs : columns that ``representer`` reads.
    problems : a sentence for everything that a reader of honest values should know.
    overlap : of a learned design on the sample; None where treatments were randomized.
    """

    representer: Callable[[pd.DataFrame], FloatArray]
    needs: list[str]
    problems: list[str]
    overlap: Overlap | None = None


def representer_columns(count: int) -> list[str]:
    """Names of the columns of ``with_representer``."""
    return [f"representer_{position}" for position in range(count)]


def design_of(
    units: DataFrame, setup: ExperimentSetup, basis: Basis, learner: LearnerSettings
) -> Design:
    """Return the design of the experiment.

    Parameters
    ----------
    units : its usable rows in the shape of ``distributed.frames.experiment_units``.
    setup : names the design.
    basis : φ.
    learner : settings of the encoding of features, where the design is learned.
    """
    if setup.design == "learned":
        return _learned(units, setup, basis, learner)
    dimensions = setup.treatments
    moments = _moments(units, basis, dimensions, stratified=setup.design == "stratified")

    def weights(rows: pd.DataFrame) -> FloatArray:
        return representer(
            basis(matrix(rows, dimensions)),
            row_moments(moments, rows["stratum"].to_numpy(), len(rows)),
        )

    problems = design_problems(moments, basis, private=setup.privacy)
    return Design(weights, ["stratum", *dimensions], problems)


def with_representer(units: DataFrame, design: Design, size: int) -> DataFrame:
    """Return units with representer_0 … representer_{p−1}.

    Parameters
    ----------
    units : rows with the columns that the design needs.
    design : of the experiment.
    size : p, the number of columns of the basis.
    """
    names = representer_columns(size)
    schema = StructType(
        [*units.schema.fields, *(StructField(name, DoubleType()) for name in names)]
    )

    def add(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with threadpool_limits(limits=1):  # Spark already runs a task on every core
            for batch in batches:
                if batch.num_rows:
                    values = design.representer(batch.select(design.needs).to_pandas())
                    columns = [*batch.columns, *(pa.array(column) for column in values.T)]
                    yield pa.RecordBatch.from_arrays(columns, names=[*batch.schema.names, *names])

    return units.mapInArrow(add, schema)


def _moments(
    units: DataFrame, basis: Basis, dimensions: list[str], *, stratified: bool
) -> dict[str, MomentSums]:
    """The moments E[φφᵀ], one a stratum where the design is stratified, added up over batches."""

    def record(rows: pd.DataFrame) -> dict[str, MomentSums]:
        strata = rows["stratum"].to_numpy() if stratified else None
        weight = rows["weight"].to_numpy(np.float64)
        return moment_sums(basis(matrix(rows, dimensions)), strata, weight)

    total = add_up(units.select("stratum", "weight", *dimensions), record)
    return {label: MomentSums.of_flat(total[label]) for label in sorted(total)}


def _learned(
    units: DataFrame, setup: ExperimentSetup, basis: Basis, learner: LearnerSettings
) -> Design:
    """The design from sums of every fold over batches of rows, encoded as a sample says.

    It is solved on the driver, whatever the number of rows.
    """
    dimensions = setup.treatments
    # partitions and strata may have been treated differently too; the encoding leaves out what is
    # constant
    described = [*feature_columns(len(setup.features)), "partition", "stratum"]
    sample = representative_sample(units, setup, _SAMPLE_ROWS, arms="arms" in basis.terms)
    given, weight = matrix(sample, dimensions), sample["weight"].to_numpy(np.float64)
    # the last bit of a sum must not depend on the driver's number of cores
    with threadpool_limits(limits=1):
        preparation = DesignPreparation.fit(
            sample[described], given, basis=basis, weight=weight, settings=learner
        )

    def record(rows: pd.DataFrame) -> dict[str, GramStatistics]:
        sums = {}
        for fold, part in parts(rows, "fold"):
            phi = basis(matrix(part, dimensions))
            sums[str(fold)] = preparation.sums(
                part[described], phi, part["weight"].to_numpy(np.float64)
            )
        return sums

    total = add_up(units.select("fold", "weight", *described, *dimensions), record)
    sums = {int(fold): GramStatistics.of_flat(total[fold]) for fold in sorted(total)}
    with threadpool_limits(limits=1):
        design = CrossFittedDesign.solve(preparation, sums)
        overlap = design.overlap(sample[described], basis(given), sample["fold"].to_numpy(), weight)

    def weights(rows: pd.DataFrame) -> FloatArray:
        return design.representer(
            rows[described], basis(matrix(rows, dimensions)), rows["fold"].to_numpy()
        )

    caution = (
        "the design is learned: honest values hold if the features, partitions and strata tell "
        "everything about a unit that both its treatment and its outcome depend on"
    )
    return Design(
        weights, ["fold", *described, *dimensions], [caution, *overlap.problems()], overlap
    )
