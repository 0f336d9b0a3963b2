"""The tables of two small runs beside those of the day when ``run_pins.json`` was written.

COARSE_SPARK_WRITE_PINS=1 python -m pytest tests/spark/test_run_pins.py      writes it anew
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from coarse_spark.lake.tables import Lake
    from coarse_spark.pipeline import Run

    from .conftest import Process

pytestmark = pytest.mark.spark

PINS = Path(__file__).with_name("run_pins.json")
WRITE = "COARSE_SPARK_WRITE_PINS"
SAME = 1e-9  # of granular − control, both plug-in
CLOSE = 1e-6  # of the same, and of treatments
LOOSER = 0.02  # of the same: how far a bound may rise
FLIPPED = 2  # units on the border between two treatments that are equal only up to CLOSE

VALUES = ["value", "se", "plug_in_value", "upper_bound"]


def _stored(lake: Lake, run_id: str) -> dict[str, Any]:
    """Return what is kept of a run: menus by size, values by policy and size, units.

    What menus are compared with, which has no plug-in value, is left out.
    """
    menu, values, assignments = (
        lake.read(name, run_id).drop("run_id").toPandas()
        for name in ("menu", "policy_values", "assignments")
    )
    names = [name for name in assignments.columns if name in menu.columns]
    names = [name for name in names if name not in ("treatment_id", "expected_profit")]
    menus = {
        str(k): {
            "treatments": rows[names].to_numpy(float).tolist(),
            "share": rows["share"].tolist(),
            "selected": bool(rows["selected"].any()),
        }
        for k, rows in menu.sort_values("treatment_id").groupby("k")
    }
    values = values[values["plug_in_value"].notna()].sort_values(["policy", "k"])
    kept = values[VALUES].astype(object)
    return {
        "menus": menus,
        "values": {
            f"{policy} {k}": row
            for policy, k, row in zip(
                *values[["policy", "k"]].to_numpy().T,
                kept.where(kept.notna(), None).to_dict("records"),
                strict=True,
            )
        },
        "units": assignments["treatment_id"].value_counts().sort_index().tolist(),
    }


@pytest.fixture(scope="module")
def runs(spark: SparkSession, finished: Run, thornton: Process) -> dict[str, dict[str, Any]]:
    from coarse_spark.lake.tables import Lake

    assert thornton.done.returncode == 0, thornton.done.stderr
    found = {
        "promotions": _stored(finished.lake, finished.run_id),
        "thornton": _stored(Lake(spark, path=str(thornton.tables)), "process"),
    }
    if os.environ.get(WRITE):
        PINS.write_text(json.dumps(found, indent=1) + "\n")
    return found


def _same_menus(found: dict[str, Any], pin: dict[str, Any]) -> dict[str, bool]:
    """Return by size whether a menu has the treatments that were stored."""
    return {
        k: np.allclose(found["menus"][k]["treatments"], menu["treatments"], rtol=0, atol=CLOSE)
        for k, menu in pin["menus"].items()
    }


@pytest.mark.parametrize("name", ["promotions", "thornton"])
def test_runs_are_no_worse_than_stored(name: str, runs: dict[str, dict[str, Any]]) -> None:
    found, pin = runs[name], json.loads(PINS.read_text())[name]
    assert set(found["menus"]) == set(pin["menus"])
    assert set(found["values"]) == set(pin["values"])
    same = _same_menus(found, pin)
    plug_in = {policy: row["plug_in_value"] for policy, row in pin["values"].items()}
    scale = plug_in["granular 0"] - plug_in["control 1"]
    for policy, before in pin["values"].items():
        now = found["values"][policy]
        kind, k = policy.split()
        assert (
            now["plug_in_value"]
            >= before["plug_in_value"] - (SAME if kind == "menu" else CLOSE) * scale
        ), policy
        if before["upper_bound"] is not None:
            assert now["upper_bound"] >= now["plug_in_value"] - SAME * scale, policy
            assert now["upper_bound"] <= before["upper_bound"] + LOOSER * scale, policy
        if kind != "menu" or same[k]:
            for entry in ("value", "se"):
                assert now[entry] == pytest.approx(before[entry], rel=0, abs=CLOSE), policy


@pytest.mark.parametrize("name", ["promotions", "thornton"])
def test_equal_menus_serve_the_same_units(name: str, runs: dict[str, dict[str, Any]]) -> None:
    found, pin = runs[name], json.loads(PINS.read_text())[name]
    for k, equal in _same_menus(found, pin).items():
        now, before = found["menus"][k], pin["menus"][k]
        total = sum(pin["units"])
        if not equal:
            continue
        np.testing.assert_allclose(now["share"], before["share"], rtol=0, atol=FLIPPED / total)
        if now["selected"] and before["selected"]:
            np.testing.assert_allclose(found["units"], pin["units"], rtol=0, atol=FLIPPED)
