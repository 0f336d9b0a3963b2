"""Two outcomes of which some units lack one, with numbers of the units, on brought responses.

What a run on responses that are brought along publishes is what the functions on arrays say.
"""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from command_line import run_command
from outputs import rows_of
from pyspark.sql import DataFrame

from coarse_spark import choose_menu, honest_values
from coarse_spark.config.load import load_configuration
from coarse_spark.distributed.frames import POOLED
from coarse_spark.errors import TableError
from coarse_spark.lake.step_results import EvaluateResult, FitResult

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

    from coarse_spark.config.models import Configuration
    from coarse_spark.pipeline import Run

pytestmark = [pytest.mark.spark, pytest.mark.long]
SLOW = pytest.mark.slow  # a whole run

UNITS = 3_000
SPENT, REDEEMED = ["s0", "s1", "s2"], ["r0", "r1", "r2"]


def trial() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Units of villages, and predictions of both outcomes that no outcome taught.

    Voucher and wave tell of whom the second is not known yet.
    """
    rng = np.random.default_rng(7)
    a = rng.uniform(-1, 1, UNITS)
    wave = np.where(rng.random(UNITS) < 0.4, "early", "late")
    voucher = rng.choice([0.0, 2.0, 4.0, 6.0, 8.0, 10.0], UNITS)
    theta = np.column_stack([30 + 0 * a, 2.6 + 2.2 * a, -0.1 + 0 * a])
    rates = np.column_stack([0 * a, 0.04 + 0.02 * a, 0 * a])
    phi = np.column_stack([np.ones(UNITS), voucher, voucher**2])
    redeemed = (rng.random(UNITS) < (phi * rates).sum(axis=1)).astype(float)
    redeemed[rng.random(UNITS) > np.where(wave == "early", 0.9, 0.5) - 0.02 * voucher] = np.nan
    village = np.arange(UNITS) // 5
    alike = rng.normal(0, 3, UNITS // 5)[village]
    spend = (phi * theta).sum(axis=1) + alike + rng.normal(0, 4, UNITS)
    units = pd.DataFrame(
        {
            "id": np.arange(UNITS),
            "wave": wave,
            "village": village,
            "rate": rng.uniform(0.2, 0.5, UNITS),
            "postage": rng.uniform(0.2, 1.0, UNITS),
            "voucher": voucher,
            "spend": spend,
            "redeemed": redeemed,
        }
    )
    # the second is badly predicted, so that corrections count
    noise = rng.standard_normal((UNITS, 1))
    brought = pd.DataFrame(
        np.hstack([theta + [0.5, 0.1, 0.0] * noise, 0.5 * rates]), columns=[*SPENT, *REDEEMED]
    )
    return units, brought.assign(id=units["id"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("outcomes")
    units, brought = trial()
    units.to_parquet(place / "trial.parquet", index=False)
    brought.to_parquet(place / "responses.parquet", index=False)
    (place / "run.yml").write_text(
        f"""
experiment:
  path: {place}/trial.parquet
  unit_id: id
  outcome: [spend, redeemed]
  strata: [wave]
  cluster: village
design: {{kind: stratified}}
treatments: {{voucher: {{kind: continuous, lower: 0, upper: 10, step: 2, control: 0}}}}
response: {{basis: quadratic, folds: 2}}
responses:
  experiment: {place}/responses.parquet
  columns: {{redeemed: [{", ".join(REDEEMED)}], spend: [{", ".join(SPENT)}]}}
  out_of_fold: true
profit:
  unit_columns: [rate, postage]
  margin: {{spend: rate, redeemed: -voucher}}
  cost: "where(voucher > 0, postage, 0)"
menu: {{sizes: [2], select: 2, sketch_cells: 300, starts: 2}}
output: {{path: {place}/tables}}
"""
    )
    return place


@pytest.fixture(scope="module")
def configuration(folder: Path) -> Configuration:
    return load_configuration(folder / "run.yml")


@pytest.fixture(scope="module")
def run(spark: SparkSession, folder: Path, configuration: Configuration) -> Run:
    from coarse_spark.pipeline.start import read_run

    done = run_command("run", "--config", folder / "run.yml", "--run-id", "two")
    assert done.code == 0, done.err
    return read_run(spark, configuration, "two")


@SLOW
def test_published_values_are_those_of_arrays(run: Run) -> None:
    units, brought = trial()
    profit = run.declared.profit_function
    common = {"space": run.problem.space, "basis": "quadratic", "profit": profit, "units": units}
    theta = {"spend": brought[SPENT], "redeemed": brought[REDEEMED]}
    menu = choose_menu(theta, k=2, **common)
    found = honest_values(
        theta,
        units[["voucher"]],
        units[["spend", "redeemed"]],
        [menu],
        strata=units["wave"],
        groups=units["village"],
        **common,
    )
    mine = found.policy_values.set_index("policy")
    published = rows_of(run, "policy_values").set_index("policy")
    # neither of these depends on a search
    for policy in ("control", "granular"):
        for name in ("value", "se"):
            assert published.loc[policy, name] == pytest.approx(mine.loc[policy, name], rel=1e-9)
    (difference,), (expected,) = (
        rows[(rows["policy"] == "granular") & (rows["versus"] == "control")][
            ["difference", "se"]
        ].to_numpy()
        for rows in (rows_of(run, "contrasts"), found.contrasts)
    )
    np.testing.assert_allclose(difference, expected, rtol=1e-9)
    _check_outcomes(run, theta, units)
    # folds choose menus of their own, which are much alike
    assert abs(published.loc["menu", "value"] - mine.loc["menu", "value"]) < mine.loc["menu", "se"]
    free = published.loc["menu"]
    assert abs(free["model_free_value"] - free["value"]) < 4 * free["model_free_se"]


def _check_outcomes(run: Run, theta: dict[str, pd.DataFrame], units: pd.DataFrame) -> None:
    """Each outcome by its formula: who got what, in the stratum, and has it counts for more."""
    basis, best = run.problem.basis, rows_of(run, "responses")["best_voucher"].to_numpy()
    phi, wave = basis(units[["voucher"]].to_numpy()), units["wave"].to_numpy()
    found = {(row.outcome, row.policy): row for row in run.result(EvaluateResult).outcomes}
    for outcome, of in theta.items():
        y, responses = units[outcome].to_numpy(), of.to_numpy()
        has, under = ~np.isnan(y), basis(best[:, None])
        scores, control = (responses * under).sum(axis=1), responses[:, 0].copy()
        for label in ("early", "late"):
            inside = wave == label
            used = inside & has
            inverse = np.linalg.inv(phi[used].T @ phi[used] / inside.sum())
            residual = (y - (phi * responses).sum(axis=1))[used]
            alpha = phi[used] @ inverse * residual[:, None]
            scores[used] += (alpha * under[used]).sum(axis=1)
            control[used] += alpha[:, 0]
        assert found[outcome, "granular"].value == pytest.approx(scores.mean(), rel=1e-9)
        assert found[outcome, "control"].value == pytest.approx(control.mean(), rel=1e-9)
        gain = scores - control
        assert found[outcome, "granular"].difference == pytest.approx(gain.mean(), rel=1e-9)
        villages = np.bincount(units["village"], gain - gain.mean())
        error = np.sqrt((villages**2).sum() * len(villages) / (len(villages) - 1)) / UNITS
        assert found[outcome, "granular"].difference_se == pytest.approx(error, rel=1e-6)


@SLOW
def test_responses_are_as_brought_and_profit_is_of_both(run: Run) -> None:
    units, brought = trial()
    responses = rows_of(run, "responses").sort_values("unit_id", ignore_index=True)
    models = run.result(FitResult).models
    assert (models.own, models.pooled, models.failed) == (0, 0, 0)
    names = [f"theta_{position}" for position in range(6)]
    np.testing.assert_allclose(responses[names], brought[[*SPENT, *REDEEMED]], rtol=1e-12)
    given = rows_of(run, "assignments").sort_values("unit_id", ignore_index=True)
    voucher = given["voucher"].to_numpy()
    phi = np.column_stack([np.ones(UNITS), voucher, voucher**2])
    spend, redeemed = ((phi * brought[columns]).sum(axis=1) for columns in (SPENT, REDEEMED))
    expected = units["rate"] * spend - voucher * redeemed - units["postage"] * (voucher > 0)
    np.testing.assert_allclose(given["expected_profit"], expected, rtol=1e-9)


def _checked(spark: SparkSession, configuration: Configuration, **columns: object) -> list[str]:
    from pyspark.sql import functions as F

    from coarse_spark.pipeline.settings import check_tables, read_responses, read_tables

    experiment, population = read_tables(spark, configuration)
    for name, value in columns.items():
        experiment = experiment.withColumn(name, F.expr(str(value)))
    responses = read_responses(spark, configuration)
    return list(check_tables(configuration, experiment, population, responses).warnings)


def test_it_is_told_how_many_lack_an_outcome(
    spark: SparkSession, configuration: Configuration
) -> None:
    lack = int(trial()[0]["redeemed"].isna().sum())
    (told,) = _checked(spark, configuration, wave="wave")
    assert told.startswith(
        f"experiment: {lack} of {UNITS} rows have no redeemed but another outcome, so redeemed is "
        "valued by the others"
    )
    (told,) = _checked(spark, configuration, spend="if(redeemed is null, null, spend)")
    assert told == (
        f"experiment: {lack} of {UNITS} rows have none of spend, redeemed, so they are left out"
    )
    with pytest.raises(TableError, match="1 of 3000 usable rows have the outcome 'redeemed'"):
        _checked(spark, configuration, redeemed="if(id = 5, 1.0, null)")
    narrow = (
        "the 5 usable rows that have the outcome 'redeemed' are in 1 of response.folds = 2 folds, "
        "which no cluster of 'village' crosses, expected rows in at least 2"
    )
    with pytest.raises(TableError, match=narrow):
        _checked(spark, configuration, redeemed="if(village = 3, 1.0, null)")
    given = configuration.model_dump(by_alias=True, exclude_unset=True)
    given["experiment"] |= {"partition_by": ["wave"], "features": ["rate"]}
    given["response"] |= {"min_rows": 850}
    declared = type(configuration).model_validate(
        {key: value for key, value in given.items() if key != "responses"}
    )
    told = _checked(spark, declared)
    assert any("so redeemed is learned and valued by the others" in text for text in told)
    late = trial()[0].query("wave == 'late'")["redeemed"].notna().sum()
    assert (
        "experiment: 1 of 2 partitions with enough usable rows has fewer than response.min_rows = "
        f"850 with the outcome 'redeemed', the smallest {late}; the pooled model serves it in that "
        "outcome"
    ) in told
    few = r"rows with the outcome 'redeemed' do not identify voucher\^2 of 'quadratic': wait for"
    with pytest.raises(TableError, match=few):
        _checked(spark, configuration, redeemed="if(voucher <= 2, redeemed, null)")


def test_each_outcome_is_learned_from_the_units_that_have_it(
    spark: SparkSession, configuration: Configuration
) -> None:
    from coarse_spark.core.learners.folds import ALL_FOLDS
    from coarse_spark.core.learners.settings import LearnerSettings
    from coarse_spark.distributed.fit import FitSettings, fit_responses
    from coarse_spark.distributed.frames import experiment_units
    from coarse_spark.pipeline.settings import experiment_setup, read_tables
    from coarse_spark.pipeline.steps.fit import _outcomes

    experiment, _ = read_tables(spark, configuration)
    setup = replace(experiment_setup(configuration), features=("rate",))
    learner = LearnerSettings(learner="sieve", scale="additive")
    settings = FitSettings(configuration.basis, learner, 10**6, 10**6, shrink_to_pooled=True)
    rows = {}
    for outcome in _outcomes(configuration, experiment_units(experiment, setup), setup):
        fitted = fit_responses(outcome.units, setup, settings)
        models = fitted.where(f"partition = '{POOLED}'").toPandas()
        rows[outcome.name] = models.set_index("fold")["rows"]
    whole, have = UNITS, int(trial()[0]["redeemed"].notna().sum())
    assert rows["spend"][ALL_FOLDS] == whole
    assert rows["redeemed"][ALL_FOLDS] == have
    # the same folds: a unit is out of both models or of none
    assert rows["spend"][[0, 1]].sum() == whole
    assert rows["redeemed"][[0, 1]].sum() == have


def test_outcomes_share_the_knots_of_all_units(
    spark: SparkSession, configuration: Configuration
) -> None:
    from pyspark.sql import functions as F

    from coarse_spark.core.basis import place_knots
    from coarse_spark.distributed.frames import experiment_units
    from coarse_spark.pipeline.settings import experiment_setup, read_tables
    from coarse_spark.pipeline.steps.fit import _outcomes

    given = configuration.model_dump(by_alias=True, exclude_unset=True)
    learned = {key: value for key, value in given.items() if key != "responses"}
    learned["experiment"] = {**given["experiment"], "features": ["rate"]}
    learned["response"] = {"basis": "spline", "folds": 2, "scale": "additive"}
    declared = type(configuration).model_validate(learned)
    setup = experiment_setup(declared)
    experiment, _ = read_tables(spark, configuration)
    # nearly all who have the first got little, and those who have the second got much
    spend = F.expr("if(voucher > 4 and id % 20 > 0, null, spend)")
    units = experiment_units(experiment.withColumn("spend", spend), setup)
    names = [found.basis.basis.name for found in _outcomes(declared, units, setup)]
    observed = np.array([row["treatment_0"] for row in units.select("treatment_0").collect()])
    everybody = place_knots("spline", setup.space, observed[:, None])
    assert names == [everybody, everybody]


def test_the_fit_is_tested_on_outcomes_in_the_money_of_their_units(
    configuration: Configuration,
) -> None:
    from coarse_spark.distributed.outcomes import OutcomeWeights

    problem, units = configuration.problem_within(None), trial()[0].fillna(0.0)
    factors = problem.of_profit.factor_values(units[["rate", "postage"]].to_numpy())
    y = units[["spend", "redeemed"]].to_numpy()
    # vouchers of 0 to 10, of 5 on average
    expected = units["rate"] * units["spend"] + 5 * units["redeemed"]
    np.testing.assert_allclose(OutcomeWeights.of(problem).summed(y, factors), expected, rtol=1e-12)


# partition, outcome, rows and what became of its model
FATES = [
    (POOLED, 0, 900, "ok"),
    (POOLED, 1, 200, "ok"),
    ("both", 0, 500, "ok"),
    ("both", 1, 100, "ok"),
    ("first", 0, 300, "ok"),
    ("first", 1, 10, "pooled"),
    ("broken", 0, 60, "pooled"),
    ("broken", 1, 50, "failed"),
    ("neither", 0, 40, "pooled"),
    ("neither", 1, 40, "pooled"),
    ("unknown", 0, 70, "ok"),  # where nobody has the second one
]


def test_a_partition_is_served_and_counted_outcome_by_outcome(spark: SparkSession) -> None:
    from coarse_spark.distributed.score import serving_models
    from coarse_spark.pipeline.steps.fit import _by_partition

    rows = spark.createDataFrame(FATES, "partition string, outcome int, rows int, status string")
    served = serving_models(rows, 2).toPandas()
    assert served.set_index(["models_of", "outcome"])["partition"].to_dict() == {
        (POOLED, 0): POOLED,
        (POOLED, 1): POOLED,
        ("both", 0): "both",
        ("both", 1): "both",
        ("first", 0): "first",
        ("first", 1): POOLED,
        ("unknown", 0): "unknown",
        ("unknown", 1): POOLED,
    }
    found = _by_partition(rows, 2, 50).toPandas().set_index("partition")
    assert sorted(found.index) == ["both", "broken", "first", "neither", "unknown"]
    assert found.index[found["own"]].tolist() == ["both"]
    assert found.index[found["unidentified"]].tolist() == ["broken"]
    assert found["failed"][found["failed"] > 0].to_dict() == {"broken": 1}
    brought = spark.createDataFrame([("all", 0, 900, "brought")], rows.schema)
    assert not _by_partition(brought, 2, 50).head(1), "nothing is fitted"


@SLOW
def test_an_outcome_of_few_units_leaves_the_others_their_models(
    spark: SparkSession, configuration: Configuration
) -> None:
    from pyspark.sql import functions as F

    from coarse_spark.core.learners.settings import LearnerSettings
    from coarse_spark.core.menu.problem.problem import MenuProblem
    from coarse_spark.core.profit import Profit
    from coarse_spark.distributed.fit import FitSettings, fit_responses
    from coarse_spark.distributed.frames import experiment_units
    from coarse_spark.distributed.score import score
    from coarse_spark.pipeline.settings import experiment_setup, read_tables
    from coarse_spark.pipeline.steps.fit import _outcomes

    experiment, _ = read_tables(spark, configuration)
    setup = replace(
        experiment_setup(configuration), features=("rate",), partition_by=("wave",), cluster=None
    )
    units = experiment_units(experiment, setup).cache()
    learner = LearnerSettings(learner="sieve", scale="additive")
    # both waves have enough of the first outcome, and the late one too few of the second
    settings = FitSettings(configuration.basis, learner, 850, 10**6, shrink_to_pooled=False)
    models = [
        fit_responses(outcome.units, setup, settings).withColumn("outcome", F.lit(number)).cache()
        for number, outcome in enumerate(_outcomes(configuration, units, setup))
    ]
    status = models[1].where("fold = -1").toPandas().set_index("partition")["status"].to_dict()
    assert status == {POOLED: "ok", "wave=early": "ok", "wave=late": "pooled"}

    def scored(problem: MenuProblem, *of: DataFrame) -> pd.DataFrame:
        rows = reduce(DataFrame.unionByName, of).where("fold = -1")
        found = score(
            units,
            rows,
            features=setup.features,
            problem=problem,
            keep=["unit_id", "partition"],
            granular=False,
        )
        return found.toPandas().sort_values("unit_id", ignore_index=True)

    both = scored(configuration.problem_within(None), *models)
    one = MenuProblem.build(setup.space, configuration.basis, Profit())
    first, second = (scored(one, rows) for rows in models)
    theta = [f"theta_{position}" for position in range(6)]
    np.testing.assert_array_equal(both[theta[:3]], first[theta[:3]])
    np.testing.assert_array_equal(both[theta[3:]], second[theta[:3]])
    assert first["served_by"].tolist() == first["partition"].tolist()
    assert both["served_by"].tolist() == second["served_by"].tolist()
    assert set(second["served_by"]) == {"wave=early", POOLED}


@SLOW
def test_with_a_learned_design_the_chance_of_an_outcome_is_learned_too(
    spark: SparkSession, configuration: Configuration
) -> None:
    from coarse_spark.core.learners.settings import LearnerSettings
    from coarse_spark.distributed.design import design_of, with_representer
    from coarse_spark.distributed.frames import experiment_units
    from coarse_spark.pipeline.settings import experiment_setup, read_tables

    experiment, _ = read_tables(spark, configuration)
    setup = replace(experiment_setup(configuration), design="learned", features=("rate",))
    units = experiment_units(experiment, setup)
    design = design_of(units, setup, configuration.basis, LearnerSettings())
    rows = with_representer(units, design, 6).toPandas().sort_values("unit_id", ignore_index=True)
    alpha = rows[[f"representer_{position}" for position in range(6)]].to_numpy()
    has = rows["outcome_1"].notna().to_numpy()
    assert np.abs(alpha[:, 0]).min() > 0
    assert not alpha[~has, 3:].any()
    counted = alpha[has, 3] / alpha[has, 0]
    np.testing.assert_allclose(alpha[has, 4:], alpha[has, 1:3] * counted[:, None], rtol=1e-9)
    known = trial()[0]
    chance = np.where(known["wave"] == "early", 0.9, 0.5) - 0.02 * known["voucher"].to_numpy()
    assert np.abs(1 / counted - chance[has]).mean() < 0.06
