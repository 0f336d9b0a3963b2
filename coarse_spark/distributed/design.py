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
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType, StructField, StructType
from threadpoolctl import threadpool_limits

from coarse_spark.core.arrays import BoolArray, FloatArray
from coarse_spark.core.basis import Basis
from coarse_spark.core.design import (
    MomentSums,
    design_problems,
    moment_sums,
    representer_of_known,
)
from coarse_spark.core.lack_of_fit import GO_WITH_FEATURES, GO_WITH_STRATA
from coarse_spark.core.learned_design import DesignPreparation, DesignRows
from coarse_spark.core.learners.encoding.whitening import Whitening
from coarse_spark.core.learners.folds import parts_of, parts_per_fold
from coarse_spark.core.learners.ridge.gram import GramStatistics
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.overlap import Overlap
from coarse_spark.core.presence import Presence, presence_preparation, presence_rows
from coarse_spark.core.strata import (
    MergedStrata,
    merge_strata,
    said_of_outcomes,
    treated_differently,
)
from coarse_spark.core.treatments import Categorical
from coarse_spark.distributed.aggregate import add_up
from coarse_spark.distributed.basis import form_sample
from coarse_spark.distributed.frames import (
    ExperimentSetup,
    feature_columns,
    matrix,
    outcome_columns,
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
        from units of other folds where it is learned; of several outcomes (n, outcomes · p), each
        by who has it (``core.design.representer_of_known``).
    needs : columns that ``representer`` reads.
    problems : a sentence for everything that a reader of honest values should know.
    overlap : of a learned design on the sample; None where treatments were randomized.
    merged : strata of a stratified design as they were judged; else None.
    untested : why the lack of fit of the basis is not tested, in words; else empty.
    """

    representer: Callable[[pd.DataFrame], FloatArray]
    needs: list[str]
    problems: list[str]
    overlap: Overlap | None = None
    merged: MergedStrata | None = None
    untested: str = ""


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
    label, outcomes = "stratum" if stratified else None, partly_known(setup)
    sums = group_moments(units, setup, {basis: whitening}, [label], outcomes)
    judged = {
        outcome: merge_strata(sums[basis, label, outcome])
        if stratified
        else MergedStrata(sums[basis, label, outcome])
        for outcome in outcomes
    }

    def weights(rows: pd.DataFrame) -> FloatArray:
        z, stratum = whitening(basis(matrix(rows, dimensions))), rows["stratum"].to_numpy()
        return np.hstack(
            [
                whitening.raw(representer_of_known(z, strata.moments, stratum, _has(rows, outcome)))
                for outcome, strata in judged.items()
            ]
        )

    private = setup.privacy
    problems = said_of_outcomes(
        [
            [
                *strata.problems(basis.name, private=private),
                *design_problems(strata.moments, private=private),
            ]
            for strata in judged.values()
        ],
        setup.outcomes,
    )
    needs = ["stratum", *dimensions, *_columns(outcomes)]
    merged = max(judged.values(), key=lambda strata: len(strata.unidentified))
    # as they are before they are merged
    differ = any(treated_differently(sums[basis, label, outcome]) for outcome in outcomes)
    return Design(
        weights, needs, problems, merged=merged, untested=GO_WITH_STRATA if differ else ""
    )


def partly_known(setup: ExperimentSetup) -> list[str | None]:
    """Return the outcomes that units may lack, by their internal names: [None] of only one."""
    names = outcome_columns(len(setup.outcomes))
    return [*names] if len(names) > 1 else [None]


def _columns(outcomes: Sequence[str | None]) -> list[str]:
    return [outcome for outcome in outcomes if outcome is not None]


def _has(rows: pd.DataFrame, outcome: str | None) -> BoolArray:
    """Return which collected rows (n,) have an outcome; None is one that all have."""
    if outcome is None:
        return np.ones(len(rows), dtype=bool)
    return rows[outcome].notna().to_numpy()


def with_representer(units: DataFrame, design: Design, size: int) -> DataFrame:
    """Return units with representer_0 … representer_{p−1}.

    Parameters
    ----------
    units : rows with the columns that the design needs.
    design : of the experiment.
    size : number of these columns, of the basis for each outcome.
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
    outcomes: Sequence[str | None] = (None,),
) -> dict[tuple[Basis, str | None, str | None], dict[str, MomentSums]]:
    """Return the moments E[zzᵀ] of groups of units, by basis, kind of group and outcome, by label.

    One pass adds them up over batches.

    Parameters
    ----------
    units : usable experiment rows: weight, treatment_0 … and the columns of labels and outcomes.
    setup : of the experiment.
    whitenings : z = W φ(t), by basis.
    labels : the column with the label of a unit's group, a kind each; None for one group of all.
    outcomes : columns with outcomes that moments are of those who have them; None for all units.
    """
    dimensions = setup.treatments
    kinds = {
        f"{number}/{position}/{place}/": (basis, label, outcome)
        for number, basis in enumerate(whitenings)
        for position, label in enumerate(labels)
        for place, outcome in enumerate(outcomes)
    }

    def record(rows: pd.DataFrame) -> dict[str, MomentSums]:
        treatments, weight = matrix(rows, dimensions), rows["weight"].to_numpy(np.float64)
        whitened = {basis: whitening(basis(treatments)) for basis, whitening in whitenings.items()}
        found = {}
        for prefix, (basis, column, outcome) in kinds.items():
            groups = None if column is None else rows[column].to_numpy()
            has = None if outcome is None else _has(rows, outcome)
            for label, sums in moment_sums(whitened[basis], groups, weight, has).items():
                found[prefix + label] = sums
        return found

    needed = dict.fromkeys([*_columns(labels), *_columns(outcomes)])
    total = add_up(units.select(*needed, "weight", *dimensions), record)
    result: dict[tuple[Basis, str | None, str | None], dict[str, MomentSums]] = {}
    for name in sorted(total):
        number, position, place, label = name.split("/", 3)
        kind = kinds[f"{number}/{position}/{place}/"]
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
    outcomes = partly_known(setup)
    lacked = _lacked(units, _columns(outcomes))
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
        of: Callable[[pd.DataFrame], DesignRows] = design_rows,
    ) -> dict[int, GramStatistics]:
        needed = units.select("fold", "weight", *labels, *described, *dimensions, *lacked)
        total = add_up(
            needed,
            lambda rows: {str(part): one for part, one in sums(of(rows)).items()},
        )
        return {part: GramStatistics.of_flat(total[str(part)]) for part in sorted(map(int, total))}

    def has_rows(rows: pd.DataFrame) -> DesignRows:
        given = [
            rows[name].astype(str) if isinstance(dimension, Categorical) else rows[name]
            for name, dimension in zip(dimensions, setup.space.dimensions, strict=True)
        ]
        has = np.column_stack([_has(rows, outcome) for outcome in lacked])
        return presence_rows(design_rows(rows), pd.concat([rows[described], *given], axis=1), has)

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

    presence = None
    if lacked:
        sampled = has_rows(sample)
        chances = presence_preparation(
            sampled, parts_per_fold=preparation.parts_per_fold, settings=settings
        )
        presence = Presence.of(
            chances, chances.means(added_up(chances.mean_sums, has_rows), sampled)
        )

    def weights(rows: pd.DataFrame) -> FloatArray:
        fold = rows["fold"].to_numpy()
        alpha = design.representer(rows[described], basis(matrix(rows, dimensions)), fold)
        if presence is None:
            return np.hstack([alpha] * len(outcomes))
        stands = dict(zip(lacked, presence.weights(has_rows(rows)).T, strict=True))
        return np.hstack([alpha * stands[o][:, None] if o in stands else alpha for o in outcomes])

    caution = (
        "the design is learned: honest values hold if the features, partitions and strata tell "
        "everything about a unit that both its treatment and its outcome depend on"
    )
    needs = ["fold", "weight", *labels, *described, *dimensions, *lacked]
    problems = [caution, *overlap.problems()]
    return Design(weights, needs, problems, overlap, untested=GO_WITH_FEATURES)


def _lacked(units: DataFrame, outcomes: Sequence[str]) -> list[str]:
    """Return the outcomes that some units lack."""
    if not outcomes:
        return []
    row = units.agg(*(F.count(F.when(F.col(name).isNull(), 1)) for name in outcomes)).collect()[0]
    return [name for name, count in zip(outcomes, row, strict=True) if count]
