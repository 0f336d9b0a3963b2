"""Whole runs of the shortest files, and of a finite list that lies beside its file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from fundraising import CELLS, NAMES, donors, named

from coarse_spark.config.load import load_configuration

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from coarse_spark.pipeline import Run

pytestmark = pytest.mark.spark


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
