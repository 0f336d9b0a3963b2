"""The experiment's design on executors.

It gives the weight with which a unit's residual corrects its response coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

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
from coarse_spark.core.learned_design import DesignPreparation, DesignRows
from coarse_spark.core.learners.encoding.whitening import Whitening
from coarse_spark.core.learners.folds import parts_of, parts_per_fold
from coarse_spark.core.learners.ridge.gram import GramStatistics
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.overlap import Overlap
from coarse_spark.core.strata import MergedStrata, merge_strata
from coarse_spark.distributed.aggregate import add_up
from coarse_spark.distributed.basis import form_sample
from coarse_spark.distributed.frames import (
    ExperimentSetup,
    feature_columns,
    matrix,
)
from coarse_spark.distributed.sample import representative_sample

# a sample of this size encodes the features of a learned design, and shows its overlap
_SAMPLE_ROWS = 50_000
_PARTS = 3  # that a design's means are learned without, at least


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
    merged : strata of a stratified design as they were judged; else None.
    """

    representer: Callable[[pd.DataFrame], FloatArray]
    needs: list[str]
    problems: list[str]
    overlap: Overlap | None = None
    merged: MergedStrata | None = None


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
    dimensions, stratified = setup.treatments, setup.design == "stratified"
    needed = units.select("key", "stratum", "weight", *dimensions)
    sample = form_sample(needed, setup, [basis.name])
    weight = sample["weight"].to_numpy(np.float64)
    whitening = Whitening.fit(basis, matrix(sample, dimensions), weight)
    label = "stratum" if stratified else None
    sums = group_moments(units, setup, {basis: whitening}, [label])[basis, label]
    strata = merge_strata(sums) if stratified else MergedStrata(sums)

    def weights(rows: pd.DataFrame) -> FloatArray:
        z = whitening(basis(matrix(rows, dimensions)))
        moments = row_moments(strata.moments, rows["stratum"].to_numpy(), len(rows))
        return whitening.raw(representer(z, moments))

    private = setup.privacy
    problems = [
        *strata.problems(basis.name, private=private),
        *design_problems(strata.moments, private=private),
    ]
    return Design(weights, ["stratum", *dimensions], problems, merged=strata)


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


def group_moments(
    units: DataFrame,
    setup: ExperimentSetup,
    whitenings: Mapping[Basis, Whitening],
    labels: Sequence[str | None],
) -> dict[tuple[Basis, str | None], dict[str, MomentSums]]:
    """Return the moments E[zzᵀ] of groups of units, by basis and kind of group, then by label.

    One pass adds them up over batches.

    Parameters
    ----------
    units : usable experiment rows: weight, treatment_0 … and the columns of labels.
    setup : of the experiment.
    whitenings : z = W φ(t), by basis.
    labels : the column with the label of a unit's group, a kind each; None for one group of all.
    """
    dimensions = setup.treatments
    kinds = {
        f"{number}/{position}/": (basis, label)
        for number, basis in enumerate(whitenings)
        for position, label in enumerate(labels)
    }

    def record(rows: pd.DataFrame) -> dict[str, MomentSums]:
        treatments, weight = matrix(rows, dimensions), rows["weight"].to_numpy(np.float64)
        whitened = {basis: whitening(basis(treatments)) for basis, whitening in whitenings.items()}
        found = {}
        for prefix, (basis, column) in kinds.items():
            groups = None if column is None else rows[column].to_numpy()
            for label, sums in moment_sums(whitened[basis], groups, weight).items():
                found[prefix + label] = sums
        return found

    needed = dict.fromkeys(label for label in labels if label is not None)
    total = add_up(units.select(*needed, "weight", *dimensions), record)
    result: dict[tuple[Basis, str | None], dict[str, MomentSums]] = {}
    for name in sorted(total):
        number, position, label = name.split("/", 2)
        kind = kinds[f"{number}/{position}/"]
        result.setdefault(kind, {})[label] = MomentSums.of_flat(total[name])
    return result


def _learned(
    units: DataFrame, setup: ExperimentSetup, basis: Basis, learner: LearnerSettings
) -> Design:
    """The design from two passes of sums over batches of rows, encoded as a sample says.

    It is solved on the driver, whatever the number of rows.
    """
    dimensions = setup.treatments
    settings = replace(learner, validation_parts=_PARTS)
    # partitions and strata may have been treated differently too; the encoding leaves out what is
    # constant
    described = [*feature_columns(len(setup.features)), "partition", "stratum"]
    labels = ["key", "cluster"] if "cluster" in units.columns else ["key"]
    sample = representative_sample(units, setup, _SAMPLE_ROWS, arms=basis.is_arms)

    def design_rows(rows: pd.DataFrame) -> DesignRows:
        fold, cluster = rows["fold"].to_numpy(), rows[labels[-1]].to_numpy()
        return DesignRows(
            rows[described],
            basis(matrix(rows, dimensions)),
            fold,
            parts_of(fold, cluster, setup.folds, settings, setup.seed),
            rows["weight"].to_numpy(np.float64),
        )

    def added_up(
        sums: Callable[[DesignRows], Mapping[int, GramStatistics]],
    ) -> dict[int, GramStatistics]:
        needed = units.select("fold", "weight", *labels, *described, *dimensions)
        total = add_up(
            needed,
            lambda rows: {str(part): one for part, one in sums(design_rows(rows)).items()},
        )
        return {part: GramStatistics.of_flat(total[str(part)]) for part in sorted(map(int, total))}

    known = design_rows(sample)
    preparation = DesignPreparation.fit(
        known.X,
        matrix(sample, dimensions),
        basis=basis,
        weight=known.weight,
        parts_per_fold=parts_per_fold(setup.folds, settings),
        settings=settings,
    )
    means = preparation.means(added_up(preparation.mean_sums), known)
    sums = added_up(partial(preparation.covariance_sums, means=means))
    design = preparation.solve(means, sums, known)
    names = dict(zip(described, setup.features, strict=False))
    overlap = design.overlap(known, names=names, private=setup.privacy)

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
