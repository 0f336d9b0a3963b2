"""What page and summary say of the choice of the menu: how sure, whom it changes, the sketch."""

from __future__ import annotations

from io import StringIO
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from test_report import field_content, with_result

from coarse_spark.report.choice import (
    changes_sentence,
    sketch_rows,
    stability_rows,
    stability_sentence,
)
from coarse_spark.report.content import ReportContent
from coarse_spark.report.page import render_report
from coarse_spark.report.summary import print_summary

COUNTS = [(0.5, 5, 0.95), (1.0, 2, 0.4), (1.5, 3, 0.5), (0.75, 4, 0.45)]
COUNTS += [(t, 0, 0.01) for t in np.linspace(0.01, 0.2, 20)]


def changed(*, cost: float = 0.0, **counts: Any) -> ReportContent:
    """Content of a run after the run "spring", whose menu pays ``cost`` for its changes."""
    content = field_content(1)
    menus = {
        k: menu.model_copy(update={"switching_cost": cost})
        for k, menu in content.chosen.menus.items()
    }
    paid = with_result(content, "chosen", menus=menus)
    return with_result(paid, "assigned", changes={"previous_run": "spring", **counts})


def test_nothing_is_said_of_changes_without_an_earlier_run() -> None:
    assert changes_sentence(field_content(1)) == ""


def test_changes_are_counted_and_priced() -> None:
    content = changed(units=10_000, changed=1_234, new=50, cost=0.25)
    sentence = changes_sentence(content)
    assert sentence.startswith(
        "Against run spring, 1,234 of 10,000 units (12%) get another treatment; 50 had none. "
        "That costs 0.25"
    )
    assert sentence in render_report(content)
    console = Console(file=StringIO(), width=400)
    print_summary(content, console)
    assert sentence in console.file.getvalue()  # type: ignore[attr-defined]
    assert changes_sentence(changed(units=0, changed=0, new=9_000)) == (
        "Against run spring, 0 of 0 units (–) get another treatment; 9,000 had none."
    )


@pytest.mark.parametrize(
    ("resamples", "loss", "expected"),
    [
        (50, 0.0123, "2 of the 3 treatments are chosen in at least half of 50 redraws"),
        (0, None, "2 of the 3 treatments are on at least half of the 5 menus"),
    ],
)
def test_how_sure_the_choice_is(resamples: int, loss: float | None, expected: str) -> None:
    treatments = [
        {
            "treatment": {"t1": t},
            "published": place < 3,
            "folds": folds,
            "frequency": frequency if resamples else None,
        }
        for place, (t, folds, frequency) in enumerate(COUNTS)
    ]
    stability = {
        "folds": 5,
        "resamples": resamples,
        "expected_loss": loss,
        "treatments": treatments,
    }
    content = with_result(field_content(1), "evaluated", stability=stability)
    assert expected in stability_sentence(content)
    assert (loss is None) == ("lose" not in stability_sentence(content))
    rows = stability_rows(content)
    assert len(rows) == 12
    assert [row["published"] for row in rows[:4]] == [True, True, True, False]
    assert rows[1]["folds"] == "2 of 5"
    assert rows[0]["frequency"] == ("95%" if resamples else "–")
    page = render_report(content)
    assert "How sure is the choice?" in page
    assert "t1 0.75" in page


def test_the_sketch_is_shown_beside_the_population() -> None:
    content = field_content(1)
    menus = {
        k: menu.model_copy(update={"value": 0.6 + k / 100, "sketch_value": 0.6})
        for k, menu in content.chosen.menus.items()
    }
    content = with_result(content, "chosen", menus=menus)
    whole = (
        content.value_of("granular")["plug_in_value"] - content.value_of("control")["plug_in_value"]
    )
    rows = sketch_rows(content)
    assert [row["k"] for row in rows] == [1, 2, 3, 4]
    assert float(rows[0]["effect"].rstrip("%")) == pytest.approx(100 * 0.01 / whole, rel=0.05)
    # of everyone: what the assignments earn
    assert rows[2]["exact"] == f"{content.chosen.menus[3].value:.6g}"
    assert rows[1]["exact"] == "0.62"
    assert "The sketch against the full population" in render_report(content)
