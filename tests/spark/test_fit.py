"""Models of partitions on Spark.

What they lean on, what a rare stratum needs, what a population may bring along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from coarse_spark.config.models import Configuration
from coarse_spark.core.learners.model import load_model
from coarse_spark.core.learners.record import ModelRecord

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.spark

ROWS = 3_000


def configuration(**response: Any) -> Configuration:
    return Configuration.model_validate(
        {
            "experiment": {
                "table": "trial",
                "unit_id": "unit_id",
                "partition_by": ["market"],
                "features": ["age", "visits"],
                "outcome": "spend",
                "strata": ["wave"],
            },
            "treatments": {
                "arm": {
                    "kind": "categorical",
                    "levels": ["none", "mail", "visit"],
                    "control": "none",
                }
            },
            "design": {"kind": "stratified"},
            "response": {
                "basis": "levels",
                "learner": "sieve",
                "scale": "additive",
                "folds": 2,
                "min_rows": 300,
                **response,
            },
            "menu": {"sizes": "1-2"},
            "output": {"path": "output"},
        }
    )


@pytest.fixture(scope="module")
def trial() -> pd.DataFrame:
    """Three markets with one response; the wave "late" has 12 units, 10 of 3,000 got a visit."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.uniform(-1, 1, (ROWS, 2)), columns=["age", "visits"])
    frame.insert(0, "unit_id", np.arange(ROWS))
    frame["market"] = np.array(["A", "B", "C"])[np.minimum(np.arange(ROWS) // 1_400, 2)]
    frame["wave"] = np.where(np.arange(ROWS) % 250 == 1, "late", "early")
    frame["arm"] = np.where(np.arange(ROWS) % 330 == 5, "visit", rng.choice(["none", "mail"], ROWS))
    effect = (1 + 2 * frame["age"]) * (frame["arm"] == "mail") + 3 * (frame["arm"] == "visit")
    frame["spend"] = frame["visits"] + effect + rng.normal(size=ROWS)
    return frame


def units(spark: SparkSession, frame: pd.DataFrame, setup: Configuration) -> DataFrame:
    from coarse_spark.distributed.frames import experiment_units
    from coarse_spark.pipeline.settings import experiment_setup

    return experiment_units(spark.createDataFrame(frame), experiment_setup(setup))


def models_of(spark: SparkSession, frame: pd.DataFrame, setup: Configuration) -> DataFrame:
    from coarse_spark.distributed.fit import fit_responses
    from coarse_spark.pipeline.settings import experiment_setup, fit_settings

    return fit_responses(units(spark, frame, setup), experiment_setup(setup), fit_settings(setup))


def test_a_sample_holds_rare_strata_and_treatments_and_keeps_the_means(
    spark: SparkSession, trial: pd.DataFrame
) -> None:
    from coarse_spark.distributed.sample import representative_sample
    from coarse_spark.pipeline.settings import experiment_setup

    rows, setup = units(spark, trial, configuration()), experiment_setup(configuration())
    sample = representative_sample(rows, setup, 300, total=ROWS)
    assert 250 < len(sample) < 450
    assert (sample["stratum"] == "wave=late").sum() == 12
    assert (sample["treatment_0"] == 2).sum() == 10
    # whoever takes the first rows takes their share of the rare ones
    assert 2 <= (sample["treatment_0"].head(len(sample) // 2) == 2).sum() <= 8
    weights = sample.groupby("treatment_0")["weight"].sum() / sample["weight"].sum()
    assert weights[2.0] == pytest.approx(10 / ROWS, rel=0.2)
    again = representative_sample(rows.repartition(5), setup, 300, total=ROWS)
    pd.testing.assert_frame_equal(again, sample)
    everything = representative_sample(rows, setup, ROWS, total=ROWS)
    assert len(everything) == ROWS
    assert set(everything["weight"]) == {1.0}


def test_markets_lean_on_the_pooled_model_that_rare_treatments_do_not_stop(
    spark: SparkSession, trial: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coarse_spark.distributed import fit

    # a plain sample of that size would hold one unit with a visit, or none
    monkeypatch.setattr(fit, "_ENCODER_ROWS", 300)
    models = models_of(spark, trial, configuration()).toPandas()
    full = models[models["fold"] == -1].set_index("partition")
    assert full["status"].to_dict() == {
        "<pooled>": "ok",
        "market=A": "ok",
        "market=B": "ok",
        "market=C": "pooled",
    }
    assert len(models) == 3 * 3 + 1
    for name in ("market=A", "market=B"):
        diagnostics = full.loc[name, "diagnostics"]
        assert diagnostics["effect_weight_pooled"] > 0
        assert "pooled" in full.loc[name, "learner"]
        assert {"rows", "r_loss", "r_loss_constant", "r_loss_gain", "r_loss_gain_error"} <= set(
            diagnostics
        )
        assert full.loc[name, "seconds"] > 0
        theta = load_model(ModelRecord.from_row(full.loc[name])).predict(trial[["age", "visits"]])
        assert np.abs(theta[:, 1] - 1 - 2 * trial["age"]).mean() < 0.35
    alone = models_of(spark, trial, configuration(shrink_to_pooled=False))
    unshrunk = alone.where("partition = 'market=A'").toPandas()
    assert not any("pooled_coefficients" in arrays for arrays in unshrunk["arrays"])


def test_units_of_partitions_that_no_model_knows_are_counted(spark: SparkSession) -> None:
    from coarse_spark.distributed.score import UnseenPartitions, unseen_partitions

    models = spark.createDataFrame(
        [("<pooled>",), ("market=A",), ("market=C",)], "partition string"
    )
    responses = spark.createDataFrame(
        [(f"market={name}",) for name in "AABBCDDE"], "partition string"
    )
    assert unseen_partitions(responses, models) == UnseenPartitions(
        units=5, partitions=3, largest="market=D"
    )
    assert unseen_partitions(responses.where("partition < 'market=B'"), models) is None


def test_a_big_partition_is_cut_into_shards_whose_models_are_averaged(spark: SparkSession) -> None:
    from coarse_spark.distributed.score import predict_folds

    rng, rows = np.random.default_rng(1), 2_400
    frame = pd.DataFrame(rng.uniform(-1, 1, (rows, 2)), columns=["age", "visits"])
    frame["unit_id"], frame["wave"] = np.arange(rows), "only"
    frame["market"] = np.where(frame["unit_id"] < 1_900, "giant", "small")
    frame["arm"] = rng.choice(["none", "mail", "visit"], rows)
    frame["spend"] = (1 + 2 * frame["age"]) * (frame["arm"] == "mail") + rng.normal(size=rows)
    fitted = models_of(spark, frame, configuration(max_rows=700))
    models = fitted.where("status = 'ok' AND fold = -1").toPandas()
    members = models[models["partition"] == "market=giant"].sort_values("member")
    assert members["member"].tolist() == [0, 1, 2]
    assert members["rows"].sum() == 1_900
    assert members["rows"].min() > 500, "the hash cuts evenly"
    assert (models["partition"] == "market=small").sum() == 1
    new = frame[["age", "visits"]].head(50)
    each = [
        load_model(ModelRecord.from_row(row)).predict(new) for row in members.to_dict("records")
    ]
    assert not np.allclose(each[0], each[1])
    np.testing.assert_allclose(
        predict_folds(members, new)[-1],
        np.average(each, axis=0, weights=members["rows"]),
        rtol=1e-12,
    )
