"""Several outcomes in summary, page and pictures: each beside profit."""

from __future__ import annotations

import re
from io import StringIO

import numpy as np
import pytest
from rich.console import Console
from test_report import make_content, with_result

from coarse_spark.core.basis import Basis
from coarse_spark.core.profit import Profit
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.core.values import Policy, ScoreMoments, outcome_values
from coarse_spark.report.content import ReportContent
from coarse_spark.report.outcomes import outcome_rows, outcome_sentences, segment_outcomes
from coarse_spark.report.page import render_report
from coarse_spark.report.summary import print_summary

POLICIES = [Policy("control", 1), Policy("uniform", 1), Policy("menu", 2), Policy("granular", 0)]
OUTCOMES = ("spend", "redeemed")


def shown() -> tuple[np.ndarray, ScoreMoments]:
    """Both outcomes of 50 units under every policy, and their moments."""
    rng = np.random.default_rng(3)
    scores = np.column_stack(
        [level + 0.3 * rng.normal(size=50) for p in range(4) for level in (30 + 4 * p, 0.1 * p)]
    )
    center = np.zeros(8)
    return scores, ScoreMoments.of(ScoreMoments.sums(scores, np.ones(50), center), center)


@pytest.fixture(scope="module")
def content() -> ReportContent:
    space = TreatmentSpace.from_dict(
        {"voucher": {"kind": "continuous", "lower": 0, "upper": 10, "step": 2, "control": 0}}
    )
    a = np.random.default_rng(1).uniform(-1, 1, 300)
    spend = np.column_stack([30 + 0 * a, 2.6 + 2.2 * a, -0.1 + 0 * a])
    redeemed = np.column_stack([0 * a, 0.04 + 0.02 * a, 0 * a])
    found = make_content(
        Basis("quadratic", space),
        Profit({"spend": "0.45", "redeemed": "-voucher"}),
        np.hstack([spend, redeemed]),
        sizes=(1, 2),
        k=2,
        noise=0.5,
        outcome="spend and redeemed",
    )
    rows = outcome_values(OUTCOMES, POLICIES, shown()[1], 0.95).to_dict("records")
    return with_result(found, "evaluated", outcomes=rows)


def test_outcomes_are_means_with_paired_differences_to_the_control() -> None:
    scores, moments = shown()
    found = outcome_values(OUTCOMES, POLICIES, moments, 0.95).set_index(["outcome", "policy"])
    menu = found.loc[("redeemed", "menu")]
    own, control = scores[:, 5], scores[:, 1]
    assert menu["value"] == pytest.approx(own.mean())
    assert menu["se"] == pytest.approx(own.std(ddof=1) / np.sqrt(50))
    assert menu["difference"] == pytest.approx((own - control).mean())
    error = (own - control).std(ddof=1) / np.sqrt(50)
    assert menu["difference_se"] == pytest.approx(error)
    assert menu["difference_low"] == pytest.approx((own - control).mean() - 1.959964 * error)
    assert found.loc[("spend", "control"), "difference_se"] == 0


def test_the_summary_tells_each_outcome(content: ReportContent) -> None:
    spend, redeemed = outcome_sentences(content)
    scores, _ = shown()
    assert spend.startswith(f"spend under the menu: {scores[:, 4].mean():.3f} per unit (95% inter")
    gain = (scores[:, 5] - scores[:, 1]).mean()
    assert f"), +{gain:.3f} (" in redeemed
    text = StringIO()
    print_summary(content, Console(file=text, width=400))
    assert spend in text.getvalue()
    assert redeemed in text.getvalue()


def test_the_page_shows_each_outcome_of_policies_and_treatments(content: ReportContent) -> None:
    page = render_report(content)
    rows = outcome_rows(content)
    assert [row.name for row in rows] == [
        "control",
        "best single treatment",
        "menu of 2",
        "granular",
    ]
    assert [row.selected for row in rows] == [False, False, True, False]
    for row in rows:
        for value, ends, _, _ in row.cells:
            assert f'<td class="n">{value}<br><span class="muted">{ends}</span></td>' in page
    own = segment_outcomes(content)
    assert len(own) == len(content.selected)
    for position, texts in enumerate(own):
        for place, text in enumerate(texts):
            value = content.outcomes(content.treatments, place)[position, position]
            assert text.startswith(f"{OUTCOMES[place]} ")
            assert float(text.split(" ")[1]) == pytest.approx(value, abs=0.001)
            assert text in page
    for title in ("Expected spend", "Expected redeemed", "Expected profit per unit"):
        assert title in page
    # what was kept of the bins is the sum of both in money, which no axis of an outcome has
    assert "squares are observed means" not in page


def test_one_outcome_has_no_table_of_outcomes(content: ReportContent) -> None:
    plain = with_result(content, "evaluated", outcomes=())
    assert outcome_rows(plain) == []
    assert outcome_sentences(plain) == []
    assert not re.search("Honest outcomes", render_report(plain))
