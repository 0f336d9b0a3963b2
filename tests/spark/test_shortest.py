"""Whole runs of the shortest files, and of a finite list that lies beside its file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from fundraising import CELLS, NAMES, donors, named

from coarse_spark.config.load import load_configuration
from coarse_spark.config.models import Configuration

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from coarse_spark.pipeline import Run

pytestmark = [pytest.mark.spark, pytest.mark.long]


def run_file(spark: SparkSession, folder: Path, trial: pd.DataFrame, text: str) -> Run:
    from coarse_spark.pipeline import run_all
    from coarse_spark.pipeline.present import report, report_content

    trial.to_parquet(folder / "trial.parquet")
    path = folder / "run.yml"
    path.write_text(text.replace("FOLDER", str(folder)))
    run = run_all(spark, load_configuration(path))
    assert report(run, report_content(run), folder / "report.html").exists()
    return run


def test_a_factorial_with_an_untreated_control(spark: SparkSession, tmp_path: Path) -> None:
    trial = donors(6_000, seed=3)
    trial[list(NAMES)] = named(trial)
    named(CELLS).to_csv(tmp_path / "letters.csv", index=False)
    run = run_file(
        spark,
        tmp_path,
        trial,
        """
experiment:
  {path: FOLDER/trial.parquet, unit_id: donor, features: [years, regular], outcome: amount}
treatments: {candidates: letters.csv, control: {ratio: none, size: none, ask: none}}
profit: {cost: 0.02 * (ratio != 'none' and size != 'none')}
response: {learner: sieve, folds: 2}
evaluation: {resamples: 0}
menu: {sizes: 1-2, exclude: ratio == '3' or ask == '1.5' and not size == '25'}
output: {path: FOLDER/tables}
""",
    )
    assert run.record.published_at is not None
    menu = run.lake.read("menu", run.run_id).toPandas()
    offered = menu[list(NAMES)].drop_duplicates()
    listed = run.declared.space.decode(run.declared.space.candidates)
    assert len(offered.merge(listed)) == len(offered)
    assert (offered["ratio"] != "3").all()
    assert len(run.declared.treatments.candidates) == 36


BINARY = "{kind: categorical, levels: ['no', 'yes'], control: 'no'}"
ARMS = "{kind: categorical, levels: [none, men, women], control: none}"
NUMBER = "{kind: continuous, lower: 0, upper: 1, step: 1, control: 0}"


@pytest.mark.parametrize(
    ("dimension", "given"),
    [
        pytest.param(BINARY, ["no", "yes"], marks=pytest.mark.slow, id="binary"),
        pytest.param(ARMS, ["none", "men", "women"], id="arms"),
        pytest.param(NUMBER, [0.0, 1.0], marks=pytest.mark.slow, id="0/1"),
    ],
)
def test_the_shortest_files_run(
    spark: SparkSession, tmp_path: Path, dimension: str, given: list[object]
) -> None:
    rng = np.random.default_rng(0)
    number = rng.integers(0, len(given), 600)
    age = rng.uniform(20, 70, 600)
    buys = rng.random(600) < 0.1 + 0.4 * (number > 0) * (age > 40)
    trial = pd.DataFrame(
        {
            "id": range(600),
            "age": age,
            "offer": [given[n] for n in number],
            "bought": buys.astype(float),
        }
    )
    run = run_file(
        spark,
        tmp_path,
        trial,
        f"""
experiment: {{path: FOLDER/trial.parquet, unit_id: id, features: [age], outcome: bought}}
treatments: {{offer: {dimension}}}
output: {{path: FOLDER/tables}}
""",
    )
    assert run.record.published_at is not None
    assert run.declared.menu.sizes == tuple(range(1, len(given) + 1))
    values = run.lake.read("policy_values", run.run_id).toPandas().set_index(["policy", "k"])
    assert values["value"].loc["menu", 2] > values["value"].loc["control", 1]
    # chances may be predicted a little outside 0 … 1, which is told; there is nothing else to mend
    told = [text for text in run.record.warnings if "outcomes lie between 0 and 1" not in text]
    assert told == []


def test_columns_of_any_name_and_ids_of_any_digits(spark: SparkSession, tmp_path: Path) -> None:
    """A whole run of CSV files whose names no language takes for names, and units that join it."""
    from coarse_spark.pipeline import assign_new, read_run, run_all
    from coarse_spark.pipeline.present import report, report_content

    price, word, may, shop = "preis.`netto`", "lambda", "darf.`er`", "shop.nr"
    ids = [shop, "k`"]
    micro, composed, decomposed = "\u00b5", "caf\u00e9", "cafe\u0301"
    features = [micro, "\u03bc", composed, decomposed, "a = b, (c)", shop]
    rng = np.random.default_rng(0)
    n = 600
    trial = pd.DataFrame({name: rng.normal(size=n).round(3) for name in features[:4]})
    trial["a = b, (c)"] = [("East", "West")[i % 2] for i in range(n)]
    trial[shop] = [("01", "1", "1.0")[i % 3] for i in range(n)]
    trial["k`"] = [f"{number:06d}" for number in range(n)]
    trial[may] = [str(number % 4 > 0).lower() for number in range(n)]
    trial[price] = rng.integers(0, 2, n)
    trial[word] = [("010", "1e1")[i] for i in rng.integers(0, 2, n)]
    trial["in"] = (trial[price] * (trial[micro] > 0) + rng.normal(size=n) / 4).round(3)
    trial.to_csv(tmp_path / "trial.csv", index=False)
    people = trial[[*ids, *features[:5], may]].head(100)
    people.to_csv(tmp_path / "people.csv", index=False)
    number = {"kind": "continuous", "lower": 0, "upper": 1, "step": 1, "control": 0}
    configuration = Configuration.model_validate(
        {
            "experiment": {
                "path": str(tmp_path / "trial.csv"),
                "unit_id": ids,
                "partition_by": [shop],
                "features": features,
                "outcome": "in",
            },
            "population": {"path": str(tmp_path / "people.csv")},
            "treatments": {
                price: number,
                word: {"kind": "categorical", "levels": ["010", "1e1"], "control": "010"},
            },
            "profit": {"cost": "0.1 * `preis.``netto``` + 0.01 * (`lambda` == '1e1')"},
            "response": {"learner": "sieve", "folds": 2, "min_rows": 100, "scale": "additive"},
            "evaluation": {"resamples": 0, "comparisons": []},
            "menu": {"sizes": [2], "eligibility": {may: "`preis.``netto``` > 0"}},
            "output": {"path": str(tmp_path / "tables [1]*")},
        }
    )
    run = run_all(spark, configuration)
    assert run.record.warnings == []
    page = report(run, report_content(run), tmp_path / "report.html").read_text()
    assert price in page
    assigned = run.lake.current_assignments().toPandas()
    assert {tuple(unit) for unit in assigned[ids].to_numpy()} == {
        tuple(unit) for unit in people[ids].to_numpy()
    }
    barred = people.loc[people[may] == "false", "k`"]
    assert (assigned.loc[assigned["k`"].isin(barred), price] == 0).all()
    assert assigned[price].max() == 1
    partitions = run.lake.read("responses", run.run_id).select("partition").distinct().collect()
    assert {row[0] for row in partitions} == {f"{shop}={key}" for key in ("01", "1", "1.0")}

    more = pd.concat([people, trial[people.columns].iloc[[200]]])
    more.loc[more.index[-1], "a = b, (c)"] = "east"
    more.to_csv(tmp_path / "people.csv", index=False)
    added = assign_new(spark, configuration)
    assert added.extensions[-1].added == 1
    told = "usable row of the experiment has, such as 'east' (did you mean 'East'?)"
    warnings = read_run(spark, configuration).record.warnings
    assert [told in warning for warning in warnings] == [True]
