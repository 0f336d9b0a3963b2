"""One run with partitions and strata of many kinds that do not identify the basis, and no rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from coarse_spark.lake.step_results import (
    EvaluateResult,
    FitResult,
    ScoreResult,
    StrataMerged,
    ValidateResult,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from coarse_spark.pipeline import Run

pytestmark = [pytest.mark.spark, pytest.mark.long]

UNITS, NOBODY, LONE = 2_400, 60, 40
CONFIGURATION = """\
experiment:
  path: {folder}/experiment.parquet
  format: parquet
  unit_id: customer
  partition_by: [market]
  features: [need]
  outcome: spend
  weight: weight
  strata: [wave]
treatments:
  price: {{kind: continuous, lower: 0, upper: 4.0e-6, step: 1.0e-6, control: 0}}
  arm: {{kind: categorical, levels: [none, mail, visit], control: none}}
design: {{kind: stratified}}
response: {{basis: [levels + linear, levels + quadratic], learner: sieve, scale: additive, folds: 2,
  min_rows: 100}}
profit: {{margin: 1, cost: 200000 * price}}
menu: {{sizes: 1-2, starts: 3, sketch_cells: 500}}
evaluation: {{resamples: 0}}
output: {{path: {folder}/tables}}
"""


def experiment() -> pd.DataFrame:
    """A trial whose prices are below 0.000004; the expected outcome of the control is ``base``."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"customer": np.arange(UNITS), "need": rng.uniform(-1, 1, UNITS)})
    frame["market"] = np.repeat(
        ["A", "B", "controls", "no visits", "two prices", "few"], [900, 900, 200, 200, 180, 20]
    )
    # lone units of A, a stratum that got nothing, and two large ones of unlike mixes
    frame["wave"] = np.where(frame.index % 2 == 0, "early", "late")
    frame.loc[: LONE - 1, "wave"] = [f"lone {number}" for number in range(LONE)]
    frame.loc[frame["market"] == "controls", "wave"] = "left alone"
    late = frame["wave"].to_numpy() == "late"
    shares = np.where(late[:, None], [0.6, 0.2, 0.2], [0.2, 0.4, 0.4])
    arm = (rng.random(UNITS)[:, None] > shares.cumsum(axis=1)).sum(axis=1)
    price = rng.integers(0, 5, UNITS)
    arm[frame["market"] == "no visits"] %= 2
    price[frame["market"] == "two prices"] %= 2
    arm[frame["market"] == "controls"] = price[frame["market"] == "controls"] = 0
    frame["price"], frame["arm"] = 1e-6 * price, np.array(["none", "mail", "visit"])[arm]
    frame["base"] = 2 + frame["need"] + late
    effect = (1 + frame["need"]) * (arm == 1) + 0.5 * (arm == 2) + 0.8 * price - 0.15 * price**2
    frame["spend"] = frame["base"] + effect + rng.normal(size=UNITS)
    return frame.assign(weight=1.0)


def nobody() -> pd.DataFrame:
    """Rows of weight 0, of which nothing is right."""
    ids = np.arange(NOBODY) + UNITS
    ids[:5] = 0
    return pd.DataFrame(
        {
            "customer": ids,
            "need": 1e9,
            "market": np.repeat(["nowhere", "A"], NOBODY // 2),
            "wave": "void",
            "price": 7.0,
            "arm": "fax",
            "spend": np.nan,
            "weight": 0.0,
        }
    )


@pytest.fixture(scope="module")
def run(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Run:
    from coarse_spark.config.load import load_configuration
    from coarse_spark.pipeline import run_all

    folder = tmp_path_factory.mktemp("strata")
    rows = pd.concat([experiment().drop(columns="base"), nobody()], ignore_index=True)
    rows.to_parquet(folder / "experiment.parquet")
    (folder / "run.yml").write_text(CONFIGURATION.format(folder=folder))
    return run_all(spark, load_configuration(folder / "run.yml"), "small")


def test_partitions_that_do_not_identify_the_basis_are_served_by_the_pooled_model(run: Run) -> None:
    fitted = run.result(FitResult)
    assert fitted.basis == "levels + quadratic"
    rows = run.lake.read("models", "small").where("fold = -1").toPandas().set_index("partition")
    assert rows["status"].to_dict() == {
        "<pooled>": "ok",
        "market=A": "ok",
        "market=B": "ok",
        "market=controls": "pooled",
        "market=no visits": "pooled",
        "market=two prices": "pooled",
        "market=few": "pooled",
    }
    pooled = rows.loc[rows["status"] == "pooled", "error"].str.removeprefix("its ").to_dict()
    what = "do not identify {} of 'levels + quadratic'"
    everything = what.format("arm = mail, arm = visit, price, price^2")
    assert pooled == {
        "market=controls": f"200 rows with 1 distinct treatment {everything}",
        "market=no visits": f"200 rows with 10 distinct treatments {what.format('arm = visit')}",
        "market=two prices": f"180 rows with 6 distinct treatments {what.format('price^2')}",
        "market=few": "20 usable rows, fewer than response.min_rows = 100",
    }
    models = fitted.models
    assert (models.own, models.pooled, models.unidentified, models.failed) == (2, 4, 3, 0)
    (told,) = (text for text in run.record.warnings if "do not identify every basis" in text)
    for name in ("controls", "no visits", "two prices"):
        assert f"market={name} (" in told


def test_strata_that_do_not_identify_it_are_merged_and_counted(run: Run) -> None:
    merged = run.result(EvaluateResult).strata_merged
    # the lone units together are as good as a stratum; those left alone join the late ones
    late = (experiment()["wave"] == "late").sum()
    assert merged == StrataMerged(
        strata=LONE + 3,
        unidentified=LONE + 1,
        unidentified_rows=LONE + 200,
        groups=2,
        merged=LONE + 2,
        merged_rows=LONE + 200 + late,
    )
    (told,) = (text for text in run.record.warnings if "strata do not identify 'levels + q" in text)
    assert f"{LONE + 1} of {LONE + 3} strata do not identify" in told
    assert "wave=left alone (200 units)" in told
    assert f"the {LONE + 200 + late:,} units of 2 groups" in told
    assert not any("have fewer than 30 effective rows" in text for text in run.record.warnings)


def test_rows_of_weight_0_are_no_rows_from_the_first_step_to_the_last(run: Run) -> None:
    checked = run.result(ValidateResult)
    assert (checked.usable_rows, checked.population_rows, checked.partitions) == (UNITS, UNITS, 6)
    assert f"{NOBODY} of {UNITS + NOBODY} rows have weight 0" in " ".join(run.record.warnings)
    assert run.result(ScoreResult).units == UNITS
    read = {name: run.lake.read(name, "small").toPandas() for name in ("assignments", "segments")}
    assert sorted(read["assignments"]["unit_id"]) == list(range(UNITS))
    assert read["segments"]["size"].sum() == UNITS
    values = run.lake.read("policy_values", "small").toPandas().set_index("policy")
    assert (values["n"] == UNITS).all()
    # the control of the units left alone and of the late ones is known from both
    control = values.loc["control"]
    assert abs(control["value"] - experiment()["base"].mean()) < 4 * control["se"]
    assert control["se"] < 0.2


def test_the_experiment_is_read_as_if_they_were_not_there(spark: SparkSession, run: Run) -> None:
    from coarse_spark.distributed.frames import experiment_units
    from coarse_spark.pipeline.settings import experiment_setup

    setup = experiment_setup(run.configuration)
    alone = spark.createDataFrame(experiment().drop(columns="base"))
    found, expected = (
        experiment_units(table, setup).toPandas().sort_values("key", ignore_index=True)
        for table in (run.experiment, alone)
    )
    pd.testing.assert_frame_equal(found, expected)


def test_who_loses_all_weight_leaves_the_population_and_who_gains_some_joins(
    spark: SparkSession, run: Run
) -> None:
    from coarse_spark.distributed.changes import changes_between, changes_in_feed
    from coarse_spark.pipeline.settings import experiment_setup

    setup, known = (
        experiment_setup(run.configuration),
        spark.createDataFrame([(1,), (2,)], "unit_id int"),
    )
    columns = "customer int, market string, need double, weight double"
    before = [(1, "A", 0.0, 1.0), (2, "A", 0.0, 1.0), (3, "A", 0.0, 0.0), (4, "A", 0.0, 0.0)]
    now = [(1, "A", 0.0, 1.0), (2, "A", 0.0, 0.0), (3, "A", 0.0, 2.0), (4, "A", 9.0, 0.0)]
    between = changes_between(
        known,
        spark.createDataFrame(now, columns),
        spark.createDataFrame(before, columns),
        setup,
        "weight",
    )
    events = [(*row, "update_postimage", 7) for row in now[1:]]
    events += [(5, "A", 0.0, 0.0, "insert", 7), (5, "A", 0.0, 1.0, "update_postimage", 8)]
    feed = spark.createDataFrame(events, f"{columns}, _change_type string, _commit_version long")
    fed = changes_in_feed(known, feed, setup, "weight")
    assert fed is not None
    for found, joined in ((between, [3]), (fed, [3, 5])):
        assert (found.changed, found.deleted) == (0, 1)
        assert sorted(row["customer"] for row in found.rows.collect()) == joined
