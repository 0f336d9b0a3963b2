"""The loan experiment of Karlan & Zinman (2008), whose rates were randomized within strata.

It is run where its data are at hand. The file is read from ../shared/data beside the repository, or
from where COARSE_SPARK_LOANS says.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from coarse_spark.lake.step_results import ValidateResult

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from coarse_spark.config.models import Configuration

ROOT = Path(__file__).parents[2]
DATA = Path(
    os.environ.get(
        "COARSE_SPARK_LOANS", ROOT.parent / "shared" / "data" / "karlan_zinman_2008.parquet"
    )
)
CLASSES = {"s_risk=high", "s_risk=low", "s_risk=medium"}

pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"the loan experiment is not at {DATA}")


def configure(folder: Path, learner: str) -> Configuration:
    """Prepare the experiment's table as conf/loans.yml tells; return the configuration for it."""
    from coarse_spark.config.load import load_configuration

    mailers = pd.read_parquet(DATA)
    mailers = mailers[mailers["s_wave"] > 1]
    mailers["profit"] = mailers["y_gross_interest"] - mailers["y_past_due_avg"].fillna(0)
    mailers.rename_axis("mailer").reset_index().to_parquet(folder / "experiment.parquet")
    settings = {
        "experiment.path": folder / "experiment.parquet",
        "output.path": folder / "tables",
        "response.learner": learner,
        "response.folds": 2,
        "menu.sizes": "1-2",
        "menu.starts": 3,
    }
    return load_configuration(
        ROOT / "conf" / "loans.yml", {key: str(value) for key, value in settings.items()}
    )


def test_every_risk_class_says_what_its_model_gains_over_one_effect_for_all(
    spark: SparkSession, tmp_path: Path
) -> None:
    from coarse_spark.pipeline import fit, start_run

    run = start_run(spark, configure(tmp_path, "sieve"))
    fit(run)
    assert run.result(ValidateResult).usable_rows == 48_852
    models = run.lake.read("models", run.run_id).toPandas()
    own = models[models["partition"] != "<pooled>"]
    assert set(own["partition"]) == CLASSES
    assert (own["status"] == "ok").all()
    status = own[own["fold"] == -1].set_index("partition")
    for partition, row in status.iterrows():
        diagnostics = dict(row["diagnostics"])
        gain, error = diagnostics["r_loss_gain"], diagnostics["r_loss_gain_error"]
        assert np.isfinite([gain, error]).all()
        assert error > 0
        assert gain == pytest.approx(
            diagnostics["r_loss_constant"] - diagnostics["r_loss"], rel=1e-6, abs=1e-6
        )
        # a gain within its noise is shown to nobody, unless all classes together show it
        shown = row["learner"] != "constant"
        assert shown == (gain > (0 if row["learner"] == "pooled" else 1.645 * error)), partition
    # rates vary over the class's own range: beyond it a class's treatments would be extrapolated
    assert not any("t_offer_rate" in warning for warning in run.record.warnings)


@pytest.mark.slow
def test_nothing_surer_than_the_experiment_is_claimed(spark: SparkSession, tmp_path: Path) -> None:
    from coarse_spark.pipeline import run_all

    run = run_all(spark, configure(tmp_path, "auto"))
    values = run.lake.read("policy_values", run.run_id).toPandas()
    assert np.isfinite(values[["value", "se", "ci_low", "ci_high"]]).all(axis=None)
    assert (values["se"] > 0.5).all(), "263 rand of noise a mailer over 48,852 mailers, debiased"
    menu = run.lake.read("menu", run.run_id).toPandas()
    assert (menu["t_offer_rate"] <= 7.75).all()
    assert not menu["extrapolates"].any()
    contrasts = run.lake.read("contrasts", run.run_id).toPandas()
    against = contrasts[contrasts["versus"] == "uniform"]
    # two policies that serve everybody alike differ by rounding
    assert ((against["ci_low"] <= 1e-6) & (against["ci_high"] >= -1e-6)).all(), (
        "the experiment cannot show that personalizing pays"
    )
