"""Rules on Spark: what is published is what the exported SQL says, in Spark and elsewhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from command_line import run_command, started_after
from outputs import rows_of

from coarse_spark.core.policy_tree.rule import fit_rule
from coarse_spark.core.policy_tree.sql import to_sql
from coarse_spark.errors import ConfigurationError
from coarse_spark.lake.step_results import AssignResult, ChooseResult

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from coarse_spark.pipeline import Run

    from .conftest import Promotions

pytestmark = [pytest.mark.spark, pytest.mark.long]

THETA = [f"theta_{position}" for position in range(6)]


@pytest.fixture(scope="module")
def ruled(
    spark: SparkSession,
    finished: Run,
    promotions: Promotions,
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """A published run that assigns by the rule; who is eligible is unknown for some units."""
    from pyspark.sql import functions as F

    from coarse_spark.pipeline import assign, choose, evaluate, publish, score

    folder = tmp_path_factory.mktemp("ruled")
    member = F.when(F.col("unit_id") % 5 != 0, F.col("distance_km") < 5)
    places = promotions.with_columns(spark, folder, {"member": member})
    configuration = promotions.configure(
        **places,
        output__path=folder / "tables",
        menu__eligibility="{member: depth > 12}",
        menu__assignment="rule",
        menu__select=3,
    )
    config = folder / "ruled.yml"
    config.write_text(configuration.to_json())
    with started_after("fit", finished, configuration, "ruled") as run:
        for step in (score, choose, evaluate, assign, publish):
            step(run)
    return run


def _exported(run: Run, dialect: str) -> str:
    config = f"{run.lake.path}/../ruled.yml"
    done = run_command("export-rule", "--config", config, "--dialect", dialect)
    assert done.code == 0, done.err
    return done.out


def _by_sql(run: Run) -> np.ndarray:
    """Return what the exported expression gives every unit of the population, by unit_id."""
    from pyspark.sql import functions as F

    people = run.spark.read.format("delta").load(run.configuration.population.path)
    found = people.select("unit_id", F.expr(_exported(run, "spark")).alias("id"))
    return found.toPandas().sort_values("unit_id")["id"].to_numpy()


def test_every_unit_gets_what_the_exported_sql_says(ruled: Run) -> None:
    given = rows_of(ruled, "assignments")["treatment_id"].to_numpy()
    assert len(set(given.tolist())) > 1
    np.testing.assert_array_equal(_by_sql(ruled), given)
    people = ruled.spark.read.format("delta").load(ruled.configuration.population.path)
    connection = duckdb.connect()
    connection.register("people", people.orderBy("unit_id").toArrow())
    query = f"SELECT {_exported(ruled, 'duckdb')} AS id FROM people ORDER BY unit_id"  # noqa: S608
    np.testing.assert_array_equal(connection.sql(query).df()["id"].to_numpy(), given)
    kept = ruled.result(AssignResult)
    assert kept.by_rule
    assert kept.rule is not None
    # in the table for those who have nothing but SQL
    found = json.loads(rows_of(ruled, "runs")["diagnostics"][0])["assign"]["rule"]
    assert found == kept.rule == _exported(ruled, "spark").rstrip("\n")


def test_eligibility_is_kept_and_profits_are_those_of_the_rule(ruled: Run) -> None:
    responses, assignments = rows_of(ruled, "responses"), rows_of(ruled, "assignments")
    assert 0.1 < responses["eligible_member"].mean() < 0.9
    assert (responses["eligible_member"] | (assignments["depth"] <= 12)).all()
    menu = rows_of(ruled, "menu").query("selected").sort_values("treatment_id")
    psi = ruled.problem.psi_at(ruled.problem.space.encode(menu))
    profits = responses[THETA].to_numpy() @ psi[:, :-1].T + psi[:, -1]
    given = assignments["treatment_id"].to_numpy()
    got = profits[np.arange(len(given)), given]
    np.testing.assert_allclose(assignments["expected_profit"], got, rtol=1e-9)
    shares = pd.Series(given).value_counts(normalize=True).reindex(range(3), fill_value=0.0)
    np.testing.assert_allclose(menu["share"], shares.sort_index(), rtol=1e-12)
    # all units are in the sample that the rule was fitted on
    chosen = ruled.result(ChooseResult).menus[3]
    assert chosen.rule is not None
    assert chosen.value - got.mean() == pytest.approx(chosen.rule.lost, rel=1e-9)
    values = rows_of(ruled, "policy_values").set_index(["policy", "k"])
    assert values.loc[("rule", 3), "plug_in_value"] == pytest.approx(got.mean(), rel=1e-9)
    segments = rows_of(ruled, "segments").set_index("treatment_id")
    assert segments["size"].sum() == len(given)
    assert not segments["rule"].str.contains("of these units").any()


def test_the_honest_loss_is_paired(ruled: Run) -> None:
    values = rows_of(ruled, "policy_values")
    assert values.loc[values["policy"] == "rule", "k"].tolist() == [3]
    values = values.set_index(["policy", "k"])
    pairs = rows_of(ruled, "contrasts").query("policy == 'rule'").set_index("versus")
    assert set(pairs.index) == {"control", "uniform", "granular", "menu of 3"}
    lost = pairs.loc["menu of 3"]
    assert lost["difference"] == pytest.approx(
        values.loc[("rule", 3), "value"] - values.loc[("menu", 3), "value"]
    )
    # on the same units most noise cancels
    assert 0 < lost["se"] < 0.5 * values.loc[("rule", 3), "se"]
    assert pairs.loc["control", "ci_low"] > 0


@pytest.mark.slow
def test_units_that_join_later_are_assigned_by_the_rule(ruled: Run) -> None:
    from pyspark.sql import functions as F

    from coarse_spark.pipeline import assign_new

    path = ruled.configuration.population.path
    joining = ruled.spark.read.format("delta").load(path).limit(200)
    joining = joining.withColumns(
        {
            "unit_id": F.col("unit_id") + 10_000_000,
            "channel": F.when(F.col("unit_id") % 2 == 0, "pigeon"),
            "visits": F.when(F.col("unit_id") % 3 == 0, F.col("visits")),
            "past_spend": F.when(F.col("unit_id") % 4 == 0, float("nan")),
        }
    )
    joining.write.format("delta").mode("append").save(path)
    assert assign_new(ruled.spark, ruled.declared).added == 200
    given = rows_of(ruled, "assignments")["treatment_id"].to_numpy()
    np.testing.assert_array_equal(_by_sql(ruled), given)


def test_spark_reads_sql_as_the_rule_does(spark: SparkSession) -> None:
    from pyspark.sql import functions as F

    rng = np.random.default_rng(0)
    levels = np.array(["it's", r"back\slash", 'say "hi"', "a=b", "", None], dtype=object)
    features = pd.DataFrame(
        {
            "a=b": np.where(rng.random(2_000) < 0.1, np.nan, rng.normal(size=2_000) * 1e-6),
            "two `words`": rng.choice(levels, 2_000),
            "order": rng.integers(0, 50, 2_000),
            'it\'s a "flag"': rng.random(2_000) < 0.4,
        }
    )
    texts = pd.factorize(features["two `words`"])[0]
    best = (features["a=b"] > 1e-7) * 1 + (texts % 3 == 0) * 1 + (features["order"] > 20) * 2
    profits = np.eye(5)[(best % 5).to_numpy()] + 0.3 * features["a=b"].isna().to_numpy()[:, None]
    rule = fit_rule(features, profits, np.ones(2_000), depth=5)
    assert len(rule.leaves) > 6
    table = pa.table(
        {
            # not a number, and null
            "a=b": pa.array([float("nan"), None, 0.0, 1.0, *features["a=b"]]),
            "two `words`": pa.array(["new", None, "it's", "a=b", *features["two `words`"]]),
            "order": pa.array([None, 3, 30, 400, *features["order"]], pa.int64()),
            'it\'s a "flag"': pa.array([None, True, False, True, *features['it\'s a "flag"']]),
        }
    )
    read = table.to_pandas(integer_object_nulls=False)
    read['it\'s a "flag"'] = read['it\'s a "flag"'].astype("boolean")
    expected = rule.assign(read)
    found = spark.createDataFrame(table).select(F.expr(to_sql(rule)).alias("id")).toPandas()
    np.testing.assert_array_equal(found["id"], expected)
    connection = duckdb.connect()
    connection.register("units", table)
    query = f"SELECT {to_sql(rule, 'duckdb')} AS id FROM units"  # noqa: S608
    np.testing.assert_array_equal(connection.sql(query).df()["id"], expected)


def test_limits_that_a_rule_cannot_keep_are_told(promotions: Promotions) -> None:
    with pytest.raises(ConfigurationError, match=r"found rule beside menu\.budget, which no rule"):
        promotions.configure(menu__assignment="rule", menu__budget=0.5)


def test_a_run_that_assigns_exactly_has_a_rule_too(finished: Run, promotions: Promotions) -> None:
    assert finished.result(ChooseResult).menus[2].rule is not None
    assert not finished.result(AssignResult).by_rule
    done = run_command("export-rule", "--config", promotions.config, "--dialect", "duck")
    assert done.code == 2
    assert "dialect: found 'duck', expected spark or" in done.err
