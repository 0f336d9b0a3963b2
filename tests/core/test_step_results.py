"""What steps found survives JSON exactly, and nothing else is read as such."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from pydantic import ValidationError

from coarse_spark.core.basis import Basis
from coarse_spark.core.overlap import Overlap
from coarse_spark.core.policy_tree.rule import (
    AssignmentRule,
    Leaf,
    LevelCondition,
    NumberCondition,
)
from coarse_spark.core.support import Support
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.lake.step_results import (
    AssignResult,
    ChooseResult,
    EvaluateResult,
    FitResult,
    LimitsKept,
    NewUnits,
    ScoreResult,
    StepResult,
    ValidateResult,
    results_from_json,
    results_to_json,
)

SPACE = TreatmentSpace.from_dict(
    {
        "t": {"kind": "continuous", "lower": 0, "upper": 2, "control": 0},
        "level": {"kind": "categorical", "levels": ["a", "b", "c"], "control": "a"},
    }
)
GIVEN = np.array([[0.0, 2], [0.1 + 0.2, 1], [2.0, 0]])


def results() -> dict[str, StepResult]:
    menu = {
        "value": 1.5,
        "upper_bound": math.inf,
        "sketch_value": 1.25,
        "switching_cost": 0.0,
        "segment_theta": [[1.0, 2.0], [-0.1, 1e-300]],
        "limits": LimitsKept(
            min_share=(0.1, 0.0),
            max_share=(1.0, 1.0),
            budget=3.0,
            deciding={"prices": [0.0, -0.5], "budget_price": 0.25, "reach": 1e-9},
        ),
        "rule": AssignmentRule(
            (
                Leaf({"age": NumberCondition(0.1 + 0.2, None, missing=True)}, 0, 0.75, -1.5),
                Leaf({"age": NumberCondition(None, 0.1 + 0.2, missing=False)}, 1, 0.25, 2.5),
                Leaf({"a=b": LevelCondition(("it's",), listed=False, missing=False)}, 1, 0.0, 0.0),
            ),
            requires=(("member",), ()),
            order=(1, 0),
            gaps=("age",),
            lost=0.125,
        ),
    }
    line = {"k": 2, "number": 1, "value": 1.0, "gain": -math.inf, "moved": 1, "step": 0.1}
    row = {"label": "t < 1", "rows": 7, "observed": 1, "fitted": 2, "standard_error": 0.5}
    counts = {"folds": 2, "published": True}
    when = datetime(2026, 1, 31, 9, 15, 2, 123, tzinfo=UTC)
    look = {"when": when, "snapshot": "7@2026-01-31T09:15:02.000Z", "deleted": 2}
    found = (
        ValidateResult(experiment_rows=10, usable_rows=9, population_rows=5, partitions=2),
        FitResult(
            observed_treatments=[[0.0, 2.0], [0, 1, 2]],
            support=Support.of(GIVEN, Basis("any + linear + levels", SPACE)),
            basis="spline(t, 0.5)",
            basis_losses={"linear": 1.25, "spline(t, 0.5)": 1.0},
            bases_left_out={"cubic": "not identified"},
            models={"own": 1, "pooled": 0, "failed": 0},
        ),
        ScoreResult(units=5, granular_value=2.0, pooled_units=1),
        ChooseResult(
            control_value=0.0,
            uniform_value=1.0,
            sketch_size=4,
            menus={2: menu, 10: menu},
            passes=[{**line, "what": "t 1 moved to 2"}],
        ),
        EvaluateResult(
            k=2,
            selection_rule="K = 2 as configured",
            overlap=Overlap(9, 0.5, 0.01, 8.5, 0.1),
            lack_of_fit={
                "statistic": 3.0,
                "degrees": 1,
                "p_value": 0.08,
                "bins": [{**row, "treatment": [0.5, 1]}],
            },
            stability={
                "folds": 2,
                "resamples": 3,
                "expected_loss": 0.5,
                "treatments": [
                    {"treatment": {"t": 0.5, "level": level}, "frequency": 0.25, **counts}
                    for level in ("NaN", "1", 1, True)
                ],
            },
        ),
        AssignResult(
            k=2,
            changes={"previous_run": "spring", "units": 4, "changed": 1, "new": 1},
            by_rule=True,
            rule="CASE WHEN `age` <= 0.5 THEN 1 ELSE 0 END",
            segment_theta=[[0.5, -1.0], [0.25, 1e-300]],
        ),
        NewUnits(
            extensions=[
                {**look, "added": 3, "changed": 1},
                {**look, "added": 0, "changed": None, "untold": "people has no versions"},
            ]
        ),
    )
    return {result.step: result for result in found}


def test_every_step_survives_the_round_trip() -> None:
    kept = results()
    found = results_from_json(results_to_json(kept))
    assert found == kept
    assert list(found) == ["validate", "fit", "score", "choose", "evaluate", "assign", "new_units"]
    levels = [row.treatment["level"] for row in found["evaluate"].stability.treatments]  # type: ignore[attr-defined]
    assert [(type(level), level) for level in levels] == [
        (str, "NaN"),
        (str, "1"),
        (int, 1),
        (bool, True),
    ]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_come_back(number: float) -> None:
    kept = {"score": ScoreResult(units=1, granular_value=number)}
    (found,) = results_from_json(results_to_json(kept)).values()
    assert isinstance(found, ScoreResult)
    assert found.granular_value == pytest.approx(number, nan_ok=True)


@pytest.mark.parametrize(
    "text",
    [
        '{"selected_k": 3}',
        '{"score": {"units": 1}}',
        '{"score": {"units": 1, "granular_value": 1, "scored_units": 1}}',
        '{"score": 3}',
        "[]",
        "{",
    ],
)
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # whatever is wrong: the run says so in a sentence
        results_from_json(text)


def test_results_never_change() -> None:
    result = results()["score"]
    with pytest.raises(ValidationError):
        result.units = 3  # type: ignore[attr-defined]
    assert json.loads(results_to_json({})) == {}


def test_a_support_is_read_as_it_was_kept_even_after_use() -> None:
    kept = results()["fit"]
    assert isinstance(kept, FitResult)
    assert kept.support is not None
    assert kept.support.tried(GIVEN).all()
    read = results_from_json(results_to_json({"fit": kept}))["fit"]
    assert read == kept
    assert isinstance(read, FitResult)
    assert read.support is not None
    assert read.support.tried(GIVEN).all()
    assert not read.support.tried(np.array([[2.0, 2]])).any()


@pytest.mark.parametrize(
    ("outcomes", "rates"), [((0, 1), True), ((0.2, 0.9), True), ((0, 2), False), ((-0.1, 1), False)]
)
def test_outcomes_between_0_and_1_are_rates(outcomes: tuple[float, float], rates: bool) -> None:
    found = results()["fit"]
    assert isinstance(found, FitResult)
    assert not found.rates, "runs of earlier versions do not know"
    assert found.model_copy(update={"outcomes": outcomes}).rates == (0,) * rates
    several = found.model_copy(update={"outcome_ranges": ((0, 9), outcomes), "outcomes": None})
    assert several.rates == (1,) * rates
    assert [several.scale_of(number) for number in (0, 1)] == [found.scale] * 2
    named = several.model_copy(update={"scale": "additive, logistic"})
    assert [named.scale_of(number) for number in (0, 1)] == ["additive", "logistic"]
