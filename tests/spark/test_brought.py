"""Responses brought along: a whole run on them, what is asked of their tables, and new units."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from command_line import run_command

from coarse_spark.config.load import load_configuration
from coarse_spark.core.basis import Basis
from coarse_spark.core.profit import Profit, profit_matrix
from coarse_spark.errors import TableError
from coarse_spark.lake.step_results import EvaluateResult
from coarse_spark.simulate.field import field_simulation

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from coarse_spark.config.models import Configuration

pytestmark = [pytest.mark.spark, pytest.mark.long]

UNITS, SERVED = 3_000, 1_500
NAMES = ["level", "slope", "curve"]


@dataclass(frozen=True)
class Trial:
    """Tables of a simulated experiment and of true responses of its units and of others.

    Attributes
    ----------
    folder : of the tables.
    theta : (n, 3) true responses of the units that are served.
    """

    folder: Path
    theta: np.ndarray

    def configure(self, **overrides: object) -> Configuration:
        given = {key.replace("__", "."): str(value) for key, value in overrides.items()}
        return load_configuration(self.folder / "trial.yml", given)


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    folder = tmp_path_factory.mktemp("brought")
    people = field_simulation(UNITS + SERVED, dimensions=1, seed=3)
    units = pd.DataFrame({"id": range(len(people.y)), "t1": people.T["t1"], "y": people.y})
    # good models, not perfect ones: what they miss is known to no unit's own outcome
    noise = 0.1 * np.random.default_rng(0).standard_normal(people.theta.shape)
    responses = pd.DataFrame(people.theta + noise, columns=NAMES).assign(id=units["id"])
    # a text of the name of a response: types of responses are their own
    told = units[:UNITS].assign(**{NAMES[0]: "as agreed"})
    told.to_parquet(folder / "experiment.parquet", index=False)
    units.loc[UNITS:, ["id"]].to_parquet(folder / "population.parquet", index=False)
    folds = np.where(np.arange(UNITS) % 3, "first", "second")
    of_experiment = responses[:UNITS].assign(part=folds)
    of_experiment.to_parquet(folder / "of_experiment.parquet", index=False)
    responses[UNITS:].assign(note="x").to_csv(folder / "of_population.csv", index=False)
    (folder / "trial.yml").write_text(
        f"""
experiment: {{path: {folder}/experiment.parquet, unit_id: id, outcome: y}}
treatments: {{t1: {{kind: continuous, lower: 0, upper: 2, control: 0}}}}
design: {{kind: randomized}}
response: {{basis: quadratic, folds: 2}}
responses:
  experiment: {folder}/of_experiment.parquet
  population: {folder}/of_population.csv
  columns: [{", ".join(NAMES)}]
  fold: part
  out_of_fold: true
profit: {{cost: 0.3 * t1, currency: EUR}}
menu: {{sizes: [1, 3], select: 3, sketch_cells: 300, starts: 2}}
population: {{path: {folder}/population.parquet}}
output: {{path: {folder}/tables}}
"""
    )
    return Trial(folder, people.theta[UNITS:])


@pytest.fixture(scope="module")
def said(spark: SparkSession, trial: Trial) -> str:
    done = run_command("run", "--config", trial.folder / "trial.yml", "--run-id", "brought")
    assert done.code == 0, done.err
    return " ".join(done.out.split())


def test_a_run_takes_responses_as_they_are_and_fits_nothing(
    spark: SparkSession, trial: Trial, said: str
) -> None:
    tables = trial.folder / "tables"
    models = spark.read.format("delta").load(str(tables / "models")).collect()
    assert [(row["status"], row["rows"], row["arrays"]) for row in models] == [
        ("brought", UNITS, None)
    ]
    responses = spark.read.format("delta").load(str(tables / "responses")).toPandas()
    brought = pd.read_csv(trial.folder / "of_population.csv")
    found = brought.merge(responses, left_on="id", right_on="unit_id")
    assert len(found) == SERVED
    for position, name in enumerate(NAMES):
        np.testing.assert_allclose(found[f"theta_{position}"], found[name], rtol=1e-12)
    assert "Responses were brought along, from" in said
    assert "EUR" in said
    page = (tables / "report.html").read_text(encoding="utf-8")
    assert "no model was fitted here" in page
    assert "learner and menu were judged" not in page
    assert "learned from" not in page


def test_the_menu_is_nearly_the_best_and_honest_values_are_true(
    spark: SparkSession, trial: Trial, said: str
) -> None:
    config = trial.configure()
    space, profit = config.space, Profit(cost="0.3 * t1")
    psi = profit.psi(space.candidates, Basis("quadratic", space))
    true = profit_matrix(trial.theta, psi)
    tables = trial.folder / "tables"
    given = spark.read.format("delta").load(str(tables / "assignments")).toPandas()
    given = given.sort_values("unit_id")
    at = profit.psi(given[["t1"]].to_numpy(float), Basis("quadratic", space))
    earned = (at[:, :-1] * trial.theta).sum(axis=1) + at[:, -1]
    uniform, granular = true.mean(axis=0).max(), true.max(axis=1).mean()
    assert (earned.mean() - uniform) / (granular - uniform) > 0.65
    values = spark.read.format("delta").load(str(tables / "policy_values")).toPandas()
    menu = values[(values["policy"] == "menu") & (values["k"] == 3)].iloc[0]
    # the units of the experiment are other ones, of the same kind
    assert abs(menu["value"] - earned.mean()) < 4 * menu["se"]
    assert menu["se"] < 0.05


def test_a_fold_that_no_cluster_is_in_is_left_out(spark: SparkSession, trial: Trial) -> None:
    from coarse_spark.pipeline import run_all

    units = pd.read_parquet(trial.folder / "experiment.parquet")
    units.assign(shop=units["id"] % 6).to_parquet(trial.folder / "shops.parquet", index=False)
    configuration = trial.configure(
        experiment__path=trial.folder / "shops.parquet",
        experiment__cluster="shop",
        response__folds=6,
        responses__fold="null",
        menu__sizes="[2]",
        menu__select=2,
        evaluation__resamples=0,
        evaluation__comparisons="[]",
        output__path=trial.folder / "shops",
    )
    run = run_all(spark, configuration, "shops")
    found = run.result(EvaluateResult)
    assert 2 <= found.stability.folds < 6
    values = spark.read.format("delta").load(str(trial.folder / "shops" / "policy_values"))
    assert values.where("value is null or isnan(value) or isnan(se)").count() == 0


def test_in_sample_responses_are_told_and_out_of_fold_ones_are_not(
    spark: SparkSession, trial: Trial, said: str, tmp_path: Path
) -> None:
    from coarse_spark.pipeline.settings import check_tables, read_responses, read_tables

    def warnings(config: Configuration) -> tuple[str, ...]:
        tables = read_tables(spark, config)
        return check_tables(config, *tables, read_responses(spark, config)).warnings

    assert "in-sample" not in said
    assert warnings(trial.configure()) == ()
    units = pd.read_parquet(trial.folder / "experiment.parquet")
    responses = pd.read_parquet(trial.folder / "of_experiment.parquet")
    phi = np.column_stack([np.ones(UNITS), units["t1"], units["t1"] ** 2])
    residual = units["y"] - (phi * responses[NAMES]).sum(axis=1)
    # what least squares near the unit, with the unit in it, would add
    drawn = phi @ np.linalg.inv(phi.T @ phi / UNITS) * 0.3 * residual.to_numpy()[:, None]
    place = tmp_path / "seen.parquet"
    responses[NAMES] += drawn
    responses.to_parquet(place, index=False)
    (told,) = warnings(trial.configure(responses__experiment=place))
    assert told.startswith("responses.experiment: the responses look in-sample: what predictions")


def _refused(spark: SparkSession, config: Configuration) -> str:
    from coarse_spark.pipeline.settings import check_tables, read_responses, read_tables

    with pytest.raises(TableError) as refused:
        check_tables(config, *read_tables(spark, config), read_responses(spark, config))
    return str(refused.value)


def test_every_problem_of_the_tables_has_a_sentence(
    spark: SparkSession, trial: Trial, tmp_path: Path
) -> None:
    responses = pd.read_parquet(trial.folder / "of_experiment.parquet")

    def refused(rows: pd.DataFrame, **more: Any) -> str:
        place = tmp_path / "wrong.parquet"
        rows.to_parquet(place, index=False)
        return _refused(spark, trial.configure(responses__experiment=place, **more))

    text = refused(responses.drop(columns="curve").assign(slope="1"))
    assert "responses.experiment: the response column 'curve' is missing" in text
    assert "the response column 'slope' is of type string, expected a numeric type" in text
    wrong = responses.copy()
    wrong.loc[3, "slope"], wrong.loc[4, "slope"], wrong.loc[5, "curve"] = np.nan, None, np.inf
    wrong["id"] = wrong["id"].astype("Int64")
    wrong.loc[7:9, "id"] = None
    text = refused(pd.concat([wrong, wrong[:2]]))
    assert "3 of 3002 rows have a null unit_id 'id', expected an id in every row" in text
    assert "2 of 3002 rows have a null, NaN or infinite response 'slope'" in text
    assert "1 of 3002 rows have a null, NaN or infinite response 'curve'" in text
    assert "2 unit ids occur in 4 rows, expected one row a unit; such as 0 (2 times)" in text
    units = pd.read_parquet(trial.folder / "experiment.parquet")
    units.assign(village=units["id"] // 4).to_parquet(tmp_path / "villages.parquet", index=False)
    villages = {"experiment__path": tmp_path / "villages.parquet", "experiment__cluster": "village"}
    assert (
        "the folds of 'part' split 750 clusters of 'village', expected all units of a cluster in "
        "one fold" in refused(responses, **villages)
    )
    text = refused(responses.assign(part="one"))
    assert "the column 'part' has 1 fold, expected response.folds = 2" in text
    text = refused(responses[7:], responses__population=trial.folder / "of_experiment.parquet")
    assert (
        "responses.experiment: 7 of 3,000 units of the experiment have no row, such as 0, expected "
        "the response of every unit" in text
    )
    assert "responses.population: 1,500 of 1,500 units of the population have no row" in text


@pytest.mark.slow
def test_units_that_join_need_their_responses(spark: SparkSession, trial: Trial, said: str) -> None:
    from coarse_spark.pipeline import assign_new

    config = trial.configure()
    units = trial.folder / "population.parquet"
    people, known = pd.read_parquet(units), pd.read_csv(trial.folder / "of_population.csv")
    later = pd.DataFrame({"id": [10_001, 10_002]})
    pd.concat([people, later]).to_parquet(units, index=False)
    with pytest.raises(TableError, match=r"2 of 2 units of the population have no row"):
        assign_new(spark, config, "brought")
    best = pd.DataFrame([[0.0, 9.0, 0.0, 10_001], [0.0, -9.0, 0.0, 10_002]], columns=[*NAMES, "id"])
    pd.concat([known, best]).to_csv(trial.folder / "of_population.csv", index=False)
    assert assign_new(spark, config, "brought").extensions[-1].added == 2
    table = spark.read.format("delta").load(str(trial.folder / "tables" / "assignments"))
    given = table.toPandas().set_index("unit_id")["t1"]
    assert given[10_001] == given.max()
    assert given[10_002] == given.min()


@pytest.mark.slow
def test_a_run_goes_on_where_it_stopped_and_arms_are_brought_along_too(
    spark: SparkSession, trial: Trial, tmp_path: Path
) -> None:
    from coarse_spark.pipeline import fit, run_all, start_run

    rng = np.random.default_rng(5)
    outcomes = pd.DataFrame(
        rng.normal([0.0, 0.2, 0.1], 1.0, (1_000, 3)), columns=["none", "a", "b"]
    )
    arm = rng.integers(0, 3, 1_000)
    units = pd.DataFrame(
        {
            "id": [f"u{i}" for i in range(1_000)],
            "age": rng.uniform(20, 60, 1_000),
            "offer": outcomes.columns.to_numpy()[arm],
            "y": outcomes.to_numpy()[range(1_000), arm],
        }
    )
    units.to_parquet(tmp_path / "trial.parquet", index=False)
    outcomes.assign(id=units["id"]).to_parquet(tmp_path / "outcomes.parquet", index=False)
    (tmp_path / "arms.yml").write_text(
        f"""
experiment: {{path: {tmp_path}/trial.parquet, unit_id: id, features: [age], outcome: y}}
treatments: {{offer: {{kind: categorical, levels: [none, a, b], control: none}}}}
design: {{kind: randomized}}
response: {{basis: arms, folds: 2}}
responses: {{experiment: {tmp_path}/outcomes.parquet, columns: ["none", a, b], out_of_fold: true}}
menu: {{sizes: "1-2", select: 2, sketch_cells: 200, starts: 2, assignment: rule}}
output: {{path: {tmp_path}/tables}}
"""
    )
    config = load_configuration(tmp_path / "arms.yml")
    with start_run(spark, config, "halves") as run:
        fit(run)
    finished = run_all(spark, config, "halves")
    assert finished.record.status == "published"
    values = finished.lake.read("policy_values", "halves").toPandas()
    granular = values[values["policy"] == "granular"].iloc[0]
    best = outcomes.to_numpy().max(axis=1).mean()
    assert abs(granular["value"] - best) < 4 * granular["se"]
