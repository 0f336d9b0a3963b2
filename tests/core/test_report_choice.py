"""What the page and the summary say of the choice of the menu: how sure it is, whom it changes, what the sketch made of it."""

from __future__ import annotations

from io import StringIO

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from test_report import field_content

from coarse_spark.report.choice import (
    changes_sentence,
    sketch_rows,
    stability_rows,
    stability_sentence,
)
from coarse_spark.report.content import Changes, Stability
from coarse_spark.report.page import render_report
from coarse_spark.report.summary import print_summary

TABLE = pd.DataFrame(
    {
        "t1": [0.5, 1.0, 1.5, 0.75, *np.linspace(0.01, 0.2, 20)],
        "published": [True] * 3 + [False] * 21,
        "folds": [5, 2, 3, 4, *[0] * 20],
        "frequency": [0.95, 0.4, 0.5, 0.45, *[0.01] * 20],
    }
)


def test_nothing_is_said_of_what_was_not_looked_at() -> None:
    content = field_content(1)
    assert changes_sentence(content) == stability_sentence(content) == ""
    assert stability_rows(content) == sketch_rows(content) == []
    page = render_report(content)
    assert "How sure is the choice?" not in page
    assert "The sketch against" not in page


def test_changes_are_counted_and_priced() -> None:
    content = field_content(1, changes=Changes("spring", 10_000, 1_234, 50), switching_cost=0.25)
    sentence = changes_sentence(content)
    assert sentence.startswith(
        "Against run spring, 1,234 of 10,000 units (12%) get another treatment; 50 had none. That costs 0.25"
    )
    assert sentence in render_report(content)
    console = Console(file=StringIO(), width=400)
    print_summary(content, console)
    assert sentence in console.file.getvalue()  # type: ignore[attr-defined]
    free = field_content(1, changes=Changes("spring", 0, 0, 9_000))
    assert (
        changes_sentence(free)
        == "Against run spring, 0 of 0 units (–) get another treatment; 9,000 had none."
    )


@pytest.mark.parametrize(
    ("resamples", "loss", "expected"),
    [
        (50, 0.0123, "2 of the 3 treatments are chosen in at least half of 50 redraws"),
        (0, None, "2 of the 3 treatments are on at least half of the 5 menus"),
    ],
)
def test_how_sure_the_choice_is(resamples: int, loss: float | None, expected: str) -> None:
    content = field_content(1, stability=Stability(TABLE, 5, resamples, loss))
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
    content = field_content(
        1, sketch=pd.DataFrame({"k": [1, 2], "exact": [0.6, 0.7], "sketch": [0.6, 0.69]})
    )
    whole = (
        content.value_of("granular")["plug_in_value"] - content.value_of("control")["plug_in_value"]
    )
    rows = sketch_rows(content)
    assert [row["k"] for row in rows] == [1, 2]
    assert rows[0]["effect"] == "0%"
    assert float(rows[1]["effect"].rstrip("%")) == pytest.approx(100 * 0.01 / whole, rel=0.05)
    assert "The sketch against the full population" in render_report(content)
