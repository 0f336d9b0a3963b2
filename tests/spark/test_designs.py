"""A response with a jump, of units not treated at random: basis and design are learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from coarse_spark.lake.step_results import EvaluateResult, FitResult

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from coarse_spark.pipeline import Run

pytestmark = pytest.mark.long

UNITS = 4_000
CONFIGURATION = """\
experiment:
  path: {folder}/experiment.parquet
  format: parquet
  unit_id: customer
  features: [need, age]
  outcome: spend
treatments:
  rebate: {{kind: continuous, lower: 0, upper: 3, control: 0}}
design: {{kind: learned}}
response: {{basis: [linear, quadratic, any+linear], learner: constant, folds: 2}}
profit: {{margin: 1, cost: 0.2 * rebate}}
menu: {{sizes: 1-2, starts: 3, sketch_cells: 500, always_offer: [{{rebate: 3}}]}}
evaluation: {{resamples: 0}}
output: {{path: {folder}/tables}}
"""


def rebates() -> pd.DataFrame:
    """Rebates from 0.4 to 2 or none: the needy get more and larger ones, and respond more."""
    rng = np.random.default_rng(0)
    need, age = rng.uniform(-1, 1, (2, UNITS))
    treated = rng.random(UNITS) < 0.5 + 0.3 * need
    rebate = np.where(treated, 0.4 + 1.6 * rng.random(UNITS) ** np.exp(-need), 0.0)
    table = pd.DataFrame({"customer": np.arange(UNITS), "need": need, "age": age, "rebate": rebate})
    # E[spend | unit, rebate] = base + jump · 1{rebate > 0} + slope · rebate
    table["base"], table["jump"], table["slope"] = (
        2 + 2 * need + age,
        1 + 0.8 * need,
        0.5 + 0.4 * need,
    )
    mean = table["base"] + table["jump"] * (rebate > 0) + table["slope"] * rebate
    return table.assign(spend=mean + rng.normal(size=UNITS))


@pytest.fixture(scope="module")
def confounded(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Run:
    from coarse_spark.config.load import load_configuration
    from coarse_spark.pipeline import assign, choose, evaluate, fit, open_run, score, start_run

    folder = tmp_path_factory.mktemp("rebates")
    rebates().drop(columns=["base", "jump", "slope"]).to_parquet(folder / "experiment.parquet")
    (folder / "run.yml").write_text(CONFIGURATION.format(folder=folder))
    configuration = load_configuration(folder / "run.yml")
    with start_run(spark, configuration, "rebates") as started:
        fit(started)
    # another command goes on from the record alone
    run = open_run(spark, configuration, "rebates")
    for step in (score, choose, evaluate, assign):
        step(run)
    return run


def table(run: Run, name: str) -> pd.DataFrame:
    return run.lake.read(name, run.run_id).drop("run_id").toPandas()


def test_one_basis_is_chosen_kept_and_used_by_later_commands(confounded: Run) -> None:
    fitted = confounded.result(FitResult)
    assert fitted.basis == "any+linear"
    assert set(fitted.basis_losses) == {"linear", "quadratic", "any+linear"}
    assert min(fitted.basis_losses, key=fitted.basis_losses.__getitem__) == "any+linear"
    assert confounded.problem.basis.columns == ("1", "any(rebate)", "rebate")
    assert confounded.declared.bases == ("linear", "quadratic", "any+linear")
    assert [
        name for name in table(confounded, "responses").columns if name.startswith("theta_")
    ] == [
        "theta_0",
        "theta_1",
        "theta_2",
    ]


def test_honest_values_cover_the_truth_where_a_randomized_design_would_not(confounded: Run) -> None:
    truth = rebates()
    values = table(confounded, "policy_values").set_index("policy")
    control = values.loc["control"]
    assert abs(control["value"] - truth["base"].mean()) < 3 * control["se"]
    offered = float(table(confounded, "menu").query("k == 1")["rebate"].iloc[0])
    assert offered == 3.0
    everybody = (truth["base"] + truth["jump"] + truth["slope"] * offered).mean() - 0.2 * offered
    uniform = values.loc["menu"].query("k == 1").iloc[0]
    assert abs(uniform["value"] - everybody) < 3 * uniform["se"]
    # the same experiment read as randomized: the treated spend more because they are needy
    phi = confounded.problem.basis(truth[["rebate"]].to_numpy())
    naive = np.linalg.lstsq(phi, truth["spend"].to_numpy(), rcond=None)[0]
    psi = confounded.problem.psi_at(np.array([[0.0], [offered]]))
    assert naive @ psi[0, :-1] + psi[0, -1] < control["ci_low"] - 3 * control["se"]
    assert naive @ psi[1, :-1] + psi[1, -1] > uniform["ci_high"] + 3 * uniform["se"]


def test_overlap_is_kept_and_told(confounded: Run) -> None:
    from coarse_spark.pipeline.present import report_content
    from coarse_spark.report.wording import design_sentence

    overlap = confounded.result(EvaluateResult).overlap
    assert overlap is not None
    assert overlap.rows == UNITS
    assert overlap.smallest_eigenvalue < 0.6, "units in need are hardly ever left alone"
    assert overlap.lifted_share < 0.02
    assert 0.2 < overlap.effective_rows / UNITS < 0.9
    assert overlap.imbalance < 0.2
    assert any("the design is learned" in warning for warning in confounded.record.warnings)
    content = report_content(confounded)
    assert "How treatments depend on the units was learned. On 4,000 units" in design_sentence(
        content
    )
    assert content.fitted.basis_losses.keys() == {"linear", "quadratic", "any+linear"}


def test_treatments_beyond_the_experiment_are_marked_and_warned_of(confounded: Run) -> None:
    menu = table(confounded, "menu")
    assert menu["extrapolates"].tolist() == (menu["rebate"] > 2.03).tolist()
    assert menu["extrapolates"].any()
    assert "treatment 'rebate' is offered from 0 to 3 but was observed from 0 to 1.99" in " ".join(
        confounded.record.warnings
    )
