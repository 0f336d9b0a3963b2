"""What the treatments of the experiment, of its partitions and of its strata identify.

By the rule that ``fit`` and ``evaluate`` go by, in one pass for all bases that may be chosen.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pyspark.sql import DataFrame

from coarse_spark.core.basis import Basis
from coarse_spark.core.design import MomentSums
from coarse_spark.core.identification import unidentified_in
from coarse_spark.core.learners.choose_basis import candidates_with_knots, identified
from coarse_spark.core.strata import merge_strata, said_of_outcomes
from coarse_spark.distributed.basis import form_sample
from coarse_spark.distributed.design import group_moments
from coarse_spark.distributed.frames import (
    ALL,
    ExperimentSetup,
    experiment_units,
    matrix,
    outcome_columns,
)
from coarse_spark.text import counted, shown

_EXAMPLES = 3


@dataclass(frozen=True)
class Identified:
    """What groups of units identify of the bases that a run may choose.

    Attributes
    ----------
    problems : a sentence on every basis, where the experiment identifies none.
    warnings : sentences on partitions, and one on the strata by basis.
    partitions : with usable rows.
    small : those of them with fewer than the least number of rows.
    unidentified : larger ones that identify none of the bases.
    """

    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    partitions: int = 0
    small: int = 0
    unidentified: int = 0


def check_identification(
    setup: ExperimentSetup,
    table: DataFrame,
    bases: Sequence[str],
    *,
    usable_rows: int,
    least: int,
    lacking: Collection[str] = (),
) -> Identified:
    """Return what the experiment, its partitions and its strata identify.

    Parameters
    ----------
    setup : of the experiment.
    table : its rows, whose values have no problems.
    bases : names of the bases that may be chosen.
    usable_rows : of the table.
    least : the pooled model serves partitions with fewer usable rows.
    lacking : outcomes that some usable rows lack.
    """
    internal = dict(zip(setup.outcomes, outcome_columns(len(setup.outcomes)), strict=True))
    some = {internal[name]: name for name in setup.outcomes if name in lacking}
    columns = ["key", "partition", "stratum", "weight", *setup.treatments, *some]
    units = experiment_units(table, setup).select(*columns)
    sample = form_sample(units, setup, bases)
    given, weight = matrix(sample, setup.treatments), sample["weight"].to_numpy(np.float64)
    candidates = candidates_with_knots(bases, setup.space, given)
    whitenings, left_out = identified(candidates, given, weight)
    if not whitenings:
        return Identified(tuple(left_out.values()))
    kinds = ["partition"] if setup.partition_by else []
    kinds += ["stratum"] if setup.design == "stratified" else []
    asked: list[str | None] = [*kinds, *([None] if some else [])]
    moments = group_moments(units, setup, whitenings, asked, [None, *some]) if asked else {}
    lost = [
        _lost(basis, moments[basis, None, column][""], some[column])
        for basis in whitenings
        for column in some
    ]
    if any(lost):
        return Identified(tuple(filter(None, lost)))
    # without keys the experiment is one partition, which identifies what the sample does
    sizes, lacks = {ALL: float(usable_rows)}, dict[str, dict[str, tuple[str, ...]]]()
    if setup.partition_by:
        by_basis = {basis: moments[basis, "partition", None] for basis in whitenings}
        sizes = {label: sums.rows for label, sums in next(iter(by_basis.values())).items()}
        lacks = _lacking(by_basis, least)
    small = [rows for rows in sizes.values() if rows < least]
    warnings = []
    if small and setup.partition_by:  # else there is one model of everybody whatever their number
        warnings.append(
            f"experiment: {len(small)} of {counted(len(sizes), 'partition')} "
            f"{'has' if len(small) == 1 else 'have'} fewer usable rows than response.min_rows = "
            f"{least}, the smallest {min(small):.0f}; the pooled model serves "
            f"{'it' if len(small) == 1 else 'them'}"
        )
    if setup.partition_by:
        basis = next(iter(whitenings))
        told_of = (
            _few_have(moments[basis, "partition", column], sizes, least, name)
            for column, name in some.items()
        )
        warnings += filter(None, told_of)
    if lacks:
        warnings.append(_on_partitions(lacks, sizes, whitenings, private=setup.privacy))
    if setup.design == "stratified":
        for basis in whitenings:
            told = [
                merge_strata(
                    moments[basis, "stratum", column if column in some else None]
                ).problems(basis.name, private=setup.privacy)
                for column in internal.values()
            ]
            warnings += said_of_outcomes(told, setup.outcomes)
    never = sum(len(terms) == len(whitenings) for terms in lacks.values())
    return Identified((), tuple(warnings), len(sizes), len(small), never)


def _lost(basis: Basis, sums: MomentSums, outcome: str) -> str:
    """Say what the rows with an outcome do not identify; nothing where they identify the basis."""
    terms = unidentified_in(basis, sums.matrix)
    if not terms:
        return ""
    return (
        f"the {counted(sums.rows, 'usable row')} with the outcome '{outcome}' do not identify "
        f"{', '.join(terms)} of '{basis.name}': wait for more of them, leave it out of "
        "experiment.outcome, or use a smaller basis"
    )


def _few_have(
    having: Mapping[str, MomentSums], sizes: Mapping[str, float], least: int, outcome: str
) -> str:
    """Say how many partitions with enough rows have too few with an outcome; nothing of none.

    ``having`` are the moments of those who have it, by label.
    """
    rows = [
        having[label].rows if label in having else 0.0
        for label, size in sizes.items()
        if size >= least
    ]
    few = [count for count in rows if count < least]
    if not few:
        return ""
    return (
        f"experiment: {len(few)} of {counted(len(rows), 'partition')} with enough usable rows "
        f"{'has' if len(few) == 1 else 'have'} fewer than response.min_rows = {least} with the "
        f"outcome '{outcome}', the smallest {min(few):.0f}; the pooled model serves "
        f"{'it' if len(few) == 1 else 'them'} in that outcome"
    )


def _lacking(
    moments: Mapping[Basis, Mapping[str, MomentSums]], least: int
) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the columns that partitions do not identify, by label and name of the basis.

    Partitions with fewer than so many rows are left out, and what is identified.
    """
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for basis, partitions in moments.items():
        for label, sums in partitions.items():
            terms = unidentified_in(basis, sums.matrix) if sums.rows >= least else ()
            if terms:
                found.setdefault(label, {})[basis.name] = terms
    return found


def _on_partitions(
    lacks: Mapping[str, Mapping[str, tuple[str, ...]]],
    sizes: Mapping[str, float],
    bases: Collection[Basis],
    *,
    private: bool,
) -> str:
    """Say which partitions the pooled model serves, the largest first."""
    named = sorted(lacks, key=lambda label: (-sizes[label], label))[:_EXAMPLES]
    examples = [
        f"{shown(label, private=private)} ({counted(sizes[label], 'row')}: "
        + "; ".join(f"{', '.join(terms)} of '{name}'" for name, terms in lacks[label].items())
        + ")"
        for label in named
    ]
    several = len(bases) > 1
    what = "every basis that is compared" if several else "the basis"
    when = "where one is chosen that they do not identify, " if several else ""
    return (
        f"experiment: the treatments of {len(lacks)} of {counted(len(sizes), 'partition')} do not "
        f"identify {what}: {'; '.join(examples)}{'; ...' if len(lacks) > _EXAMPLES else ''}; "
        f"{when}the pooled model serves them"
    )
