"""Forty menus beside what was chosen when ``menu_pins.json`` was written: none may earn less.

PYTHONPATH=.:tests python tests/core/test_menu_pins.py      writes the file anew
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from menus import Budget

from coarse_spark import Profit, TreatmentSpace, choose_menu

if TYPE_CHECKING:
    from coarse_spark.core.menu.menu import Menu

PINS = Path(__file__).with_name("menu_pins.json")
SAME = 1e-9  # of granular − control
CLOSE = 1e-6  # of granular − control: how far what is found between candidates may fall
LOOSER = 0.02  # of granular − control: how far a bound may rise


@dataclass(frozen=True)
class Setting:
    """A treatment space with a basis, a profit and a population, and what the cases ask of them.

    Attributes
    ----------
    units : response coefficients (n, p) drawn by a generator.
    rows : two candidate rows, the first kept on the menu and the second kept small.
    budget : per unit weight, counted by the profit's cost.
    paid : a budget on spending of its own.
    rules : expressions that need eligibility.
    required : a treatment that stays on the menu.
    """

    space: TreatmentSpace
    basis: str
    profit: Profit
    k: int
    units: Callable[[np.random.Generator, int], np.ndarray]
    rows: tuple[int, int]
    budget: float
    paid: Budget
    rules: tuple[str, ...]
    required: dict[str, Any]


def _line_units(rng: np.random.Generator, n: int) -> np.ndarray:
    bend = rng.uniform(0.5, 1.5, n)
    return np.column_stack([rng.normal(size=n), rng.uniform(0.2, 2.0, n) * bend, -bend / 2])


def _plane_units(rng: np.random.Generator, n: int) -> np.ndarray:
    bends = -rng.uniform(0.5, 1, (n, 2))
    return np.column_stack(
        [
            rng.normal(size=n),
            rng.uniform(0, 2, (n, 2)),
            bends[:, 0],
            rng.normal(0, 0.2, n),
            bends[:, 1],
        ]
    )


def _arm_units(rng: np.random.Generator, n: int) -> np.ndarray:
    effects = rng.normal([0, 0.2, 0.3, 0.3, 0.1, 0.7], [0, 0.5, 0.5, 0.6, 0.4, 0.8], (n, 6))
    return rng.normal(size=(n, 1)) + effects


def _mixed_units(rng: np.random.Generator, n: int) -> np.ndarray:
    # 1, mail, app, price, price², mail · (price, price²), app · (price, price²)
    return np.column_stack(
        [
            rng.normal(size=n),
            rng.normal(0.1, 0.3, (n, 2)),
            rng.uniform(0, 2, n),
            -rng.uniform(0.8, 1.4, n),
            rng.uniform(-0.4, 0.8, n),
            -rng.uniform(0, 0.4, n),
            rng.uniform(-0.8, 0.4, n),
            -rng.uniform(0, 0.4, n),
        ]
    )


def _numbers(names: str, **more: Any) -> TreatmentSpace:
    entry = {"kind": "continuous", "lower": 0, "upper": 2, "control": 0, **more}
    return TreatmentSpace.from_dict(dict.fromkeys(names, entry))


MAILS = pd.DataFrame({"mail": ["none", "card", "letter", "call", "visit", "gift"]})
CHANNELS = {"kind": "categorical", "levels": ["mail", "app", "none"], "control": "none"}
PRICES = {"kind": "continuous", "lower": 0, "upper": 1, "control": 0}

SETTINGS = {
    "line": Setting(
        _numbers("t"), "quadratic", Profit("1", "0.3 * t"), 4, _line_units,
        rows=(200, 0), budget=0.15, paid=Budget(0.08, Profit("0.1 * t", "0")),
        rules=("t > 0.9",), required={"t": 0.123},
    ),
    "plane": Setting(
        _numbers("ab"), "quadratic", Profit("1", "0.2 * a + 0.1 * b"), 3, _plane_units,
        rows=(300, 0), budget=0.12, paid=Budget(0.1, Profit("0.2 * a", "0.05 * b")),
        rules=("a > 0.7",), required={"a": 1.5, "b": 0.25},
    ),
    "steps": Setting(
        _numbers("ab", step=0.5), "quadratic", Profit("1", "0.2 * a + 0.1 * b"), 4, _plane_units,
        rows=(24, 6), budget=0.13, paid=Budget(0.05, Profit("0.2 * a", "0")),
        rules=("a > 1", "b > 0.5"), required={"a": 2.0, "b": 2.0},
    ),
    "arms": Setting(
        TreatmentSpace.from_candidates(MAILS, control={"mail": "none"}), "arms",
        Profit("1", "where(mail == 'none', 0, where(mail == 'gift', 0.5, 0.1))"), 3, _arm_units,
        rows=(1, 3), budget=0.2, paid=Budget(0.08, Profit("where(mail == 'gift', 0.2, 0)", "0")),
        rules=("mail == 'gift'",), required={"mail": "card"},
    ),
    "mixed": Setting(
        TreatmentSpace.from_dict({"channel": CHANNELS, "price": PRICES}),
        "levels(channel) * quadratic(price)",
        Profit("2 - price", "where(channel == 'none', 0, 0.1)"), 4, _mixed_units,
        rows=(300, 600), budget=0.06, paid=Budget(0.25, Profit("price", "0")),
        rules=("channel == 'mail'",), required={"channel": "app", "price": 0.5},
    ),
}  # fmt: skip

# units by kind of limits and setting: forty cases
CASES = {
    "free": {"line": 6_000, "plane": 3_000, "steps": 60, "arms": 6_000, "mixed": 600},
    "max_share": {"line": 400, "steps": 1_000, "mixed": 300},
    "min_share": {"plane": 300, "arms": 800},
    "both shares": {"line": 3_000, "steps": 60, "mixed": 400},
    "places": {"plane": 600, "steps": 400, "arms": 3_000},
    "mapping": {"line": 500, "steps": 300, "arms": 400},
    "budget": {"line": 1_000, "plane": 400, "arms": 2_000, "mixed": 300},
    "paid": {"plane": 300, "steps": 600},
    "budget, max_share": {"steps": 60, "arms": 600},
    "eligible": {"line": 2_000, "plane": 600, "steps": 800},
    "eligible, shares": {"steps": 200, "arms": 1_000},
    "eligible, budget": {"line": 300, "steps": 200},
    "switching": {"plane": 500, "arms": 800},
    "required": {"line": 5_000, "mixed": 500},
    "weights": {"steps": 500, "plane": 1_500},
}
NAMES = [f"{kind} on {name}" for kind, settings in CASES.items() for name in settings]


def _limits(kind: str, setting: Setting, theta: np.ndarray, rng: np.random.Generator) -> dict:
    """Return the arguments of ``choose_menu`` that a kind of limits stands for."""
    n, k = len(theta), setting.k
    eligible = {"eligible": {rule: rng.random(n) < 0.6 for rule in setting.rules}}
    places = np.arange(1.0, k + 1) / np.arange(1.0, k + 1).sum()
    kept, small = setting.rows
    if kind == "switching":
        earlier = theta * rng.uniform(0.9, 1.1, theta.shape)
        before = _chosen(setting, earlier)
        rows = before.assign(earlier)
        return {"previous_menu": before, "previous_rows": rows, "switching_cost": 0.05}
    return {
        "free": {},
        "max_share": {"max_share": 1.05 / k},
        "min_share": {"min_share": 0.95 / k},
        "both shares": {"min_share": 0.9 / k, "max_share": 1.1 / k},
        "places": {"min_share": places.tolist(), "max_share": places.tolist()},
        "mapping": {"min_share": {kept: 0.15}, "max_share": {small: 0.05}},
        "budget": {"budget": setting.budget},
        "paid": {"budget": setting.paid},
        "budget, max_share": {"budget": setting.budget, "max_share": 1.2 / k},
        "eligible": eligible,
        "eligible, shares": {**eligible, "min_share": 0.8 / k, "max_share": 1.2 / k},
        "eligible, budget": {**eligible, "budget": setting.budget},
        "required": {"always_offer": [setting.required]},
        "weights": {"weights": rng.uniform(0.1, 3, n)},
    }[kind]


def _chosen(setting: Setting, theta: np.ndarray, **limits: Any) -> Menu:
    return choose_menu(
        theta,
        space=setting.space,
        basis=setting.basis,
        profit=setting.profit,
        k=setting.k,
        starts=3,
        **limits,
    )


def _menu(case: str) -> Menu:
    kind, name = case.split(" on ")
    setting, rng = SETTINGS[name], np.random.default_rng(NAMES.index(case))
    theta = setting.units(rng, CASES[kind][name])
    return _chosen(setting, theta, **_limits(kind, setting, theta, rng))


def _stored(menu: Menu) -> dict[str, Any]:
    """Return what is kept of a menu, its treatments in ascending order."""
    order = np.lexsort(menu.encoded.T[::-1])
    return {
        "value": menu.value,
        "upper_bound": menu.upper_bound,
        "uniform_value": menu.uniform_value,
        "granular_value": menu.granular_value,
        "control_value": menu.control_value,
        "treatments": menu.encoded[order].tolist(),
        "shares": menu.shares[order].tolist(),
    }


@pytest.fixture(scope="module")
def pins() -> dict[str, dict[str, Any]]:
    return json.loads(PINS.read_text())


def test_the_file_holds_the_cases(pins: dict[str, dict[str, Any]]) -> None:
    assert list(pins) == NAMES
    assert len(NAMES) == 40


@pytest.mark.parametrize("case", NAMES)
def test_menus_are_no_worse_than_stored(case: str, pins: dict[str, dict[str, Any]]) -> None:
    found, pin = _stored(_menu(case)), pins[case]
    scale = pin["granular_value"] - pin["control_value"]
    assert found["value"] >= pin["value"] - SAME * scale
    assert found["value"] <= found["upper_bound"]
    assert found["upper_bound"] <= pin["upper_bound"] + LOOSER * scale
    assert found["control_value"] == pytest.approx(pin["control_value"], rel=0, abs=SAME * scale)
    assert found["granular_value"] >= pin["granular_value"] - CLOSE * scale
    # the best single treatment keeps a budget where one can, which costs it
    if not case.startswith(("budget", "paid")) and "budget" not in case:
        assert found["uniform_value"] >= pin["uniform_value"] - CLOSE * scale
    if found["value"] <= pin["value"] + SAME * scale:
        np.testing.assert_allclose(found["treatments"], pin["treatments"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(found["shares"], pin["shares"], rtol=0, atol=1e-6)


if __name__ == "__main__":
    PINS.write_text(json.dumps({case: _stored(_menu(case)) for case in NAMES}, indent=1) + "\n")
