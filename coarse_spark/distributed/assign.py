"""Assignment as native Spark expressions: the argmax of K priced dot products.

It needs no Python workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.distributed.frames import column, theta_columns


def profit_column(psi: FloatArray) -> Column:
    """Return π(t) = ψ(t)·(θ, 1) of one treatment, ψ (p + 1,), as an expression in theta_0 …"""
    terms = [
        F.lit(float(c)) * F.col(name)
        for c, name in zip(psi[:-1], theta_columns(len(psi) - 1), strict=True)
        if c != 0
    ]
    return reduce(Column.__add__, terms, F.lit(float(psi[-1])))


def best_position(profits: Sequence[Column]) -> Column:
    """Return the position of the largest of K expressions, the first of equals; nulls are none."""
    if len(profits) == 1:
        return F.when(profits[0].isNotNull(), F.lit(0))
    best = F.greatest(*profits)
    position = F.when(profits[0] == best, F.lit(0))
    for index in range(1, len(profits)):
        position = position.when(profits[index] == best, F.lit(index))
    return position


def _of_treatment(values: Sequence[Column]) -> Column:
    """Return which of K values belongs to a unit's treatment_id."""
    # not K cases: Java interprets generated methods of more than 8,000 bytes, ten times as slow
    return F.get(F.array(*values), F.col("treatment_id"))


def assign(
    responses: DataFrame,
    problem: MenuProblem,
    menu: PricedMenu,
    *,
    changed: Column | None = None,
    settled: DataFrame | None = None,
    given: Column | None = None,
) -> DataFrame:
    """Return one row a unit: its treatment, expected profits, regret, runner-up, and what changed.

    A treatment that a unit is not eligible for is none of its choices, whatever it would earn (a
    unit without any gets null); what it costs to switch tells in the choice, not in profits.

    Parameters
    ----------
    responses : unit_id, theta_0 … theta_{p−1} of the problem, granular_profit.
    problem : of the menu, with the rules that have coefficients.
    menu : its treatments, shadow prices and budget price.
    changed : the last column, an expression in treatment_id and further columns of ``responses``;
        default null.
    settled : unit_id, treatment_id of the units whose treatment is settled, to keep limits to the
        unit; all others follow the prices.
    given : the treatment_id of every unit where a rule decides, not what it would earn.
    """
    psi, k, layout = menu.psi, menu.k, problem.layout
    earned, control_psi = psi.copy(), problem.control_psi.copy()
    earned[:, layout.profit.stop : -1] = control_psi[layout.profit.stop : -1] = 0.0
    # what tells in the choice only: rules, prices of limits, and what spending costs
    extra = menu.priced_psi - earned
    profits = responses.withColumns(
        {
            "control_profit": profit_column(control_psi),
            **{f"profit_{i}": profit_column(row) for i, row in enumerate(earned)},
        }
    )
    priced = []
    for i in range(k):
        net = F.col(f"profit_{i}")
        if extra[i].any():
            net = net + profit_column(extra[i])
        rules = np.flatnonzero(psi[i, layout.eligibility] < 0) + layout.eligibility.start
        if rules.size:
            ineligible = reduce(Column.__or__, (F.col(f"theta_{rule}") > 0 for rule in rules))
            net = F.when(~ineligible, net)
        priced.append(net)
    chosen = profits.withColumn("treatment_id", best_position(priced) if given is None else given)
    if settled is not None:
        named = settled.withColumnRenamed("treatment_id", "settled_id")
        choice = F.coalesce("settled_id", "treatment_id")
        chosen = chosen.join(F.broadcast(named), "unit_id", "left")
        chosen = chosen.withColumn("treatment_id", choice)
    # nulls are none: the chosen treatment drops out of the race for the second place
    others = [F.when(F.col("treatment_id") != i, priced[i]) for i in range(k)]
    expected = _of_treatment([F.col(f"profit_{i}") for i in range(k)])
    treatments = problem.space.decode(menu.treatments)
    dimensions = [
        _of_treatment([F.lit(value) for value in treatments[name].tolist()]).alias(name)
        for name in problem.space.names
    ]
    return chosen.select(
        column("unit_id"),
        "treatment_id",
        *dimensions,
        expected.alias("expected_profit"),
        (expected - F.col("control_profit")).alias("expected_incremental_profit"),
        F.greatest(F.col("granular_profit") - expected, F.lit(0.0)).alias("regret"),
        best_position(others).alias("runner_up_treatment_id"),
        (F.lit(None) if changed is None else changed).cast("boolean").alias("changed"),
    )
