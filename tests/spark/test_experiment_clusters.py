"""Clusters on Spark: folds, sums over clusters, what validate says, and a whole run."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from coarse_spark.config.models import Configuration
from coarse_spark.core.basis import Basis
from coarse_spark.core.design import corrected
from coarse_spark.core.lack_of_fit import TreatmentBins, bin_columns, bin_scatter, bin_sums
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.profit import Profit
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.core.values import Policy, ScoreMoments
from coarse_spark.errors import TableError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from coarse_spark.distributed.validate import TableReport

pytestmark = pytest.mark.spark

ROWS = 3_000


def configuration(**experiment: Any) -> Configuration:
    return Configuration.model_validate(
        {
            "experiment": {
                "table": "trial",
                "unit_id": "unit_id",
                "features": ["age", "region"],
                "outcome": "spend",
                **experiment,
            },
            "treatments": {
                "arm": {"kind": "categorical", "levels": ["none", "mail"], "control": "none"}
            },
            "design": {"kind": "randomized"},
            "response": {"basis": "levels", "learner": "sieve", "scale": "additive", "folds": 5},
            "menu": {"sizes": "1-2"},
            "output": {"path": "output"},
        }
    )


def trial(*, by: str = "village") -> pd.DataFrame:
    """Units in 100 villages of 8 regions and in 1,200 households; treatments ``by`` one of them."""
    rng = np.random.default_rng(0)
    household = rng.integers(0, 1_200, ROWS)
    village = rng.integers(0, 100, 1_200)[household]
    number = {"village": village, "household": household, "unit_id": np.arange(ROWS)}[by]
    common = rng.normal(size=100)[village]
    treated = rng.integers(0, 2, ROWS)[number]
    return pd.DataFrame(
        {
            "unit_id": np.arange(ROWS),
            "village": village,
            "household": [f"house {one}" for one in household],
            "region": [f"region {one % 8}" for one in village],
            "age": rng.uniform(-1, 1, ROWS),
            "arm": np.where(treated == 1, "mail", "none"),
            "spend": treated + common + 0.5 * rng.normal(size=ROWS),
        }
    )


def units(spark: SparkSession, frame: pd.DataFrame, config: Configuration) -> DataFrame:
    from coarse_spark.distributed.frames import experiment_units
    from coarse_spark.pipeline.settings import experiment_setup

    return experiment_units(spark.createDataFrame(frame), experiment_setup(config))


def report(spark: SparkSession, frame: pd.DataFrame, config: Configuration) -> TableReport:
    from coarse_spark.pipeline.settings import check_tables

    return check_tables(config, spark.createDataFrame(frame))


def test_a_fold_is_that_of_the_cluster_and_of_the_unit_where_it_has_none(
    spark: SparkSession,
) -> None:
    frame = trial()
    plain = units(spark, frame, configuration()).toPandas().set_index("unit_id")
    assert "cluster" not in plain
    # a text that is some unit's id is not that unit
    frame["village"] = frame["village"].astype(str).where(frame["village"] >= 10, None)
    found = units(spark, frame, configuration(cluster="village")).toPandas().set_index("unit_id")
    alone = frame["village"].isna().to_numpy()
    assert (found["fold"][alone] == plain["fold"][alone]).all()
    assert found["cluster"][alone].is_unique
    by_village = found.assign(village=frame["village"])[~alone]
    assert len(by_village[["village", "fold", "cluster"]].drop_duplicates()) == 90
    assert found["cluster"].nunique() == 90 + alone.sum()
    assert found["fold"].nunique() == 5
    assert (found["key"] == plain["key"]).all(), "units are still told apart"


def test_sums_over_clusters_are_those_of_one_machine(spark: SparkSession) -> None:
    """Clusters are spread over tasks and batches, and each has units in several bins."""
    from coarse_spark.distributed.evaluate import FoldMenus, evaluate

    rng, size = np.random.default_rng(1), 4_000
    space = TreatmentSpace.from_dict(
        {"t": {"kind": "continuous", "lower": 0, "upper": 1, "step": 0.25, "control": 0}}
    )
    basis = Basis("linear", space)
    problem = MenuProblem.build(space, basis, Profit("1", "0.3 * t"))
    policies = [
        Policy("control", 1),
        Policy("uniform", 1),
        Policy("menu", 2),
        Policy("granular", 0),
    ]
    menus = FoldMenus(
        PricedMenu.build(problem, np.array([[0.5]])),
        {2: PricedMenu.build(problem, np.array([[0.0], [1.0]]))},
    )
    cluster = np.minimum(rng.integers(0, 400, size), 300) * 2**53  # one of them is large
    frame = pd.DataFrame(
        {
            "cluster": cluster,
            "fold": cluster // 2**53 % 3,
            "weight": rng.uniform(0.5, 2, size),
            "outcome": rng.normal(size=400)[cluster // 2**53] + rng.normal(size=size),
            "treatment_0": rng.integers(0, 5, size) / 4,
            **{f"representer_{j}": rng.normal(size=size) for j in range(2)},
            **{f"theta_{j}": rng.normal(size=size) for j in range(2)},
        }
    )
    bins, center = TreatmentBins.fit(frame[["treatment_0"]].to_numpy(), space), np.full(4, 0.1)
    arguments: dict[str, Any] = {
        "policies": policies,
        "fold_menus": dict.fromkeys(range(3), menus),
        "bins": bins,
        "center": center,
    }
    held = spark.createDataFrame(frame).repartition(5)
    small = "spark.sql.execution.arrow.maxRecordsPerBatch"
    before = spark.conf.get(small)
    try:
        spark.conf.set(small, "70")
        found = evaluate(held, problem, **arguments)
    finally:
        spark.conf.set(small, before)

    theta, T = frame[["theta_0", "theta_1"]].to_numpy(), frame[["treatment_0"]].to_numpy()
    phi, y = basis(T), frame["outcome"].to_numpy()
    debiased = corrected(theta, phi, y, frame[["representer_0", "representer_1"]].to_numpy())
    own = problem.granular(theta)[0][:, 0]
    given = [np.zeros(size), np.full(size, 0.5), (theta[:, 1] > 0.3).astype(float), own]
    scores = np.column_stack([debiased[:, 0] + debiased[:, 1] * t - 0.3 * t for t in given])
    sums = ScoreMoments.sums(scores, frame["weight"].to_numpy(), center, cluster)
    expected = ScoreMoments.of(sums, center)
    assert (found.moments.units, found.moments.clusters) == (size, len(np.unique(cluster)))
    np.testing.assert_allclose(found.moments.mean, expected.mean, rtol=1e-10)
    np.testing.assert_allclose(found.moments.covariance, expected.covariance, rtol=1e-9)
    number = bins.assign(T)
    columns = bin_columns(T, phi, y, np.einsum("ij,ij->i", phi, theta))
    np.testing.assert_allclose(found.bins, bin_sums(bins.size, number, columns), rtol=1e-10)
    scatter = bin_scatter(bins.size, number, columns, cluster)
    assert found.scatter is not None
    np.testing.assert_allclose(found.scatter, scatter, rtol=1e-9, atol=1e-9)
    ignored = evaluate(held.drop("cluster"), problem, **arguments)
    assert ignored.scatter is None
    np.testing.assert_allclose(ignored.moments.mean, expected.mean, rtol=1e-10)
    assert not np.allclose(ignored.moments.covariance, expected.covariance, rtol=0.1)


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=40), st.lists(st.integers(0, 40), max_size=6))
def test_batches_are_cut_between_values_only(values: list[int], cuts: list[int]) -> None:
    from coarse_spark.distributed.aggregate import _uncut

    ends = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    rows = pa.RecordBatch.from_pandas(
        pd.DataFrame({"cluster": sorted(values), "place": range(len(values))}).astype("int64")
    )
    given_ = (rows.slice(start, end - start) for start, end in pairwise(ends))
    found = list(_uncut(given_, "cluster"))
    places = [place for batch in found for place in batch.column("place").to_pylist()]
    assert places == list(range(len(values)))
    shown = [set(batch.column("cluster").to_pylist()) for batch in found]
    assert sum(map(len, shown)) == len(set(values))
    assert all(shown)


@pytest.mark.long
def test_treatments_that_were_given_to_villages_are_told_of(spark: SparkSession) -> None:
    found, mailed = report(spark, trial(), configuration()), (trial()["arm"] == "mail").mean()
    assert found.warnings == (
        "experiment: of two units with the same 'village' 100% got the same treatment, "
        f"{mailed**2 + (1 - mailed) ** 2:.0%} would by chance (likewise with 'household'); "
        "if treatments were given to such units together, name the column as experiment.cluster, "
        "or standard errors are too small",
    )
    assert found.clusters is None
    (household,) = report(spark, trial(by="household"), configuration()).warnings
    assert "same 'household' 100%" in household
    assert "village" not in household
    # pandas makes double of whole numbers with gaps
    gaps = (
        trial().drop(columns="household").assign(village=lambda t: t["village"].where(t.index > 9))
    )
    assert "same 'village' 100%" in report(spark, gaps, configuration()).warnings[0]
    (missing,) = report(spark, gaps, configuration(cluster="village")).warnings
    assert "10 of 3000 rows have a null cluster 'village'" in missing
    # a column that names the treatment is no cluster of units
    alone = trial(by="unit_id").assign(letter=lambda table: "the " + table["arm"])
    assert report(spark, alone, configuration()).warnings == ()
    # nor does it matter what nobody can ask Spark for
    twice = alone.assign(Letter=alone["letter"])
    assert report(spark, twice, configuration()).warnings == ()
    declared = report(spark, trial(), configuration(cluster="village"))
    assert (declared.warnings, declared.clusters) == ((), 100)


def test_units_without_a_cluster_and_few_clusters_are_told_of(spark: SparkSession) -> None:
    frame = trial()
    frame["village"] = frame["village"].astype(str).where(frame["village"] > 0, None)
    missing = int(frame["village"].isna().sum())
    found = report(spark, frame, configuration(cluster="village"))
    assert found.warnings == (
        f"experiment: {missing} of 3000 rows have a null cluster 'village', so each is a cluster "
        "of its own",
    )
    assert found.clusters == 99 + missing
    few = report(spark, trial(), configuration(cluster="region"))
    assert few.warnings == (
        "experiment: the usable rows are of 8 clusters of 'region', and so few hardly show what "
        "clusters differ by: standard errors are rough, intervals take Student's t with at most 7 "
        "degrees of freedom",
    )


def test_fewer_clusters_than_folds_and_clusters_of_one_fold_are_problems(
    spark: SparkSession,
) -> None:
    frame = trial().assign(region=lambda table: table["village"] % 4)
    with pytest.raises(TableError) as caught:
        report(spark, frame, configuration(cluster="region"))
    assert (
        "experiment: the usable rows are of 4 clusters of 'region', which cannot be cut into "
        "response.folds = 5 folds"
    ) in str(caught.value)
    hashed = units(spark, trial(), configuration(cluster="village")).toPandas()
    village = trial().set_index("unit_id")["village"].reindex(hashed["unit_id"]).to_numpy()
    together = np.unique(village[hashed["fold"].isin([0, 3])])
    frame = trial().assign(village=lambda table: together[table["village"] % 6])
    with pytest.raises(TableError, match="6 clusters of 'village', which a hash puts into 2 of"):
        report(spark, frame, configuration(cluster="village"))
    with pytest.raises(TableError, match=r"cluster column 'vilage' is missing.*'village'"):
        report(spark, trial(), configuration(cluster="vilage"))


def test_a_partition_within_a_cluster_is_served_by_the_pooled_model(spark: SparkSession) -> None:
    from coarse_spark.distributed.fit import fit_responses
    from coarse_spark.pipeline.settings import experiment_setup, fit_settings

    # region 0 is one cluster; the others have twelve villages each
    frame = trial()
    frame["village"] = np.where(frame["region"] == "region 0", 1_000, frame["village"])
    config = configuration(cluster="village", partition_by=["region"]).with_response(min_rows=100)
    found = report(spark, frame, config)
    assert (found.partitions, found.small_partitions) == (8, 1)
    assert found.warnings == (
        "experiment: 1 of 8 partitions have rows in fewer than 3 of response.folds = 5 folds, "
        "which no cluster crosses; the pooled model serves them",
    )
    models = fit_responses(
        units(spark, frame, config), experiment_setup(config), fit_settings(config)
    ).toPandas()
    full = models[models["fold"] == -1].set_index("partition")["status"]
    assert full.pop("region=region 0") == "pooled"
    assert (full == "ok").all()
    assert (models[models["status"] == "ok"].groupby("partition").size() == 6).all()


def test_a_partition_of_a_cluster_in_each_of_two_folds_is_served_by_the_pooled_model(
    spark: SparkSession,
) -> None:
    from coarse_spark.distributed.fit import fit_responses
    from coarse_spark.pipeline.settings import experiment_setup, fit_settings

    frame = trial()
    config = configuration(cluster="village", partition_by=["region"])
    config = config.with_response(min_rows=100, folds=2)
    folds = units(spark, frame, config).toPandas().set_index("unit_id")["fold"]
    first, second = (int(frame["village"][folds[folds == fold].index].iloc[0]) for fold in (0, 1))
    inside = frame["region"] == "region 0"
    frame.loc[inside, "village"] = np.where(np.arange(inside.sum()) % 2, first, second)
    # the village of another region is not in two
    frame = frame[inside | ~frame["village"].isin([first, second])]
    models = fit_responses(
        units(spark, frame, config), experiment_setup(config), fit_settings(config)
    ).toPandas()
    full = models[models["fold"] == -1].set_index("partition")
    served = full.loc["region=region 0"]
    assert (served["status"], served["error"]) == (
        "pooled",
        f"its {inside.sum()} rows of 2 clusters leave no two parts outside every fold",
    )
    assert (full.drop("region=region 0")["status"] == "ok").all()


@pytest.mark.slow
def test_a_whole_run_is_judged_by_its_clusters(spark: SparkSession, tmp_path: Path) -> None:
    from coarse_spark.lake.step_results import EvaluateResult, ValidateResult
    from coarse_spark.pipeline import run_all

    trial().to_parquet(tmp_path / "trial.parquet")
    results = {}
    for name in (None, "village"):
        config = configuration(cluster=name).model_dump(by_alias=True)
        config["experiment"] |= {
            "table": None,
            "path": str(tmp_path / "trial.parquet"),
            "format": "parquet",
        }
        config["output"] = {"path": str(tmp_path / str(name))}
        run = run_all(spark, Configuration.model_validate(config))
        values = run.lake.read("policy_values", run.run_id).toPandas()
        results[name] = values.set_index(["policy", "k"])
        assert run.result(ValidateResult).clusters == (None if name is None else 100)
        assert run.result(EvaluateResult).k == 1
    ignored, clustered = results[None], results["village"]
    # four fifths of the outcome's variance are the village's, and 30 units in each
    assert (clustered["se"] > 3 * ignored["se"]).all()
    reach = (clustered["ci_high"] - clustered["value"]) / clustered["se"]
    # 100 villages, of which not all that got a treatment make up its value
    assert ((reach >= stats.t.ppf(0.975, 99)) & (reach < stats.t.ppf(0.975, 15))).all()
    control = clustered.loc[("control", 1)]
    assert control["ci_low"] < 0 < control["ci_high"]
