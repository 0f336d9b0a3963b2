"""What page and summary say of the rule of the published menu."""

from __future__ import annotations

import dataclasses
from io import StringIO

import pandas as pd
import pytest
from rich.console import Console
from test_report import field_content, with_result

from coarse_spark.report.content import ReportContent
from coarse_spark.report.page import render_report
from coarse_spark.report.rule import rule_sentence
from coarse_spark.report.summary import print_summary

SQL = "CASE\n  WHEN `age` <= 40 THEN 1  -- t1 0.5\n  ELSE 0  -- t1 1\nEND"


def ruled(*, by_rule: bool, difference: float = -0.05, se: float = 0.01) -> ReportContent:
    """Content of a run whose menu of 3 has a rule that loses, or wins, ``difference``."""
    content = field_content(1)
    values, k = content.policy_values, content.selected_k
    menu = values[(values["policy"] == "menu") & (values["k"] == k)]
    rule = menu.assign(
        policy="rule",
        **{name: menu[name] + difference for name in ("value", "ci_low", "ci_high")},
    )
    pairs = content.contrasts
    own = pairs[(pairs["policy"] == "menu") & (pairs["k"] == k)]
    versus = own[own["versus"] == "control"].assign(
        versus=f"menu of {k}",
        difference=difference,
        se=se,
        ci_low=difference - 2 * se,
        ci_high=difference + 2 * se,
    )
    content = dataclasses.replace(
        content,
        policy_values=pd.concat([values, rule], ignore_index=True),
        contrasts=pd.concat([pairs, pd.concat([own, versus]).assign(policy="rule")]),
    )
    means = content.chosen.menus[k].segment_theta
    return with_result(
        content,
        "assigned",
        rule=SQL,
        by_rule=by_rule,
        segment_theta=tuple(tuple(2 * value for value in row) for row in means) if by_rule else (),
    )


def _summary(content: ReportContent) -> str:
    console = Console(file=StringIO(), width=400)
    print_summary(content, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("difference", "se", "told"),
    [
        (-0.05, 0.01, "it earns less than the units' own responses would"),
        (0.05, 0.01, "it earns more than the units' own responses would"),
        (-0.05, 0.1, "whether it earns less than the units' own responses would is not settled"),
        (0.0, 0.0, "it does the same as the units' own responses"),
    ],
)
def test_what_a_rule_loses_is_told(difference: float, se: float, told: str) -> None:
    content = ruled(by_rule=False, difference=difference, se=se)
    sentence = rule_sentence(content)
    assert told in sentence
    assert sentence.startswith("A rule over features that SQL can run may assign the units")
    assert sentence in _summary(content)


def test_the_page_shows_the_rule_and_whether_it_decides() -> None:
    for by_rule in (False, True):
        content = ruled(by_rule=by_rule)
        page, summary = render_report(content), _summary(content)
        assert "WHEN `age` &lt;= 40 THEN 1" in page
        assert ("roughly: " in page) is not by_rule
        assert ("Units are assigned by the rule" in page) is by_rule
        assert ("Units are assigned by a rule over features" in summary) is by_rule
        marked = [line for line in summary.splitlines() if line.strip().startswith("→")]
        assert len(marked) == 1
        assert ("by the rule" in marked[0]) is by_rule
        published = content.value_of("rule" if by_rule else "menu", content.selected_k)
        assert content.published["value"] == published["value"]


def test_segments_are_those_that_the_rule_serves() -> None:
    exact, by_rule = ruled(by_rule=False), ruled(by_rule=True)
    assert by_rule.segment_theta == pytest.approx(2 * exact.segment_theta)


def test_one_treatment_for_all_and_limits_have_no_rule_to_tell() -> None:
    single = field_content(1, k=1)
    assert rule_sentence(with_result(single, "assigned", rule="0", by_rule=True)) == ""
    assert rule_sentence(field_content(1)) == ""
    assert "The rule as SQL" not in render_report(field_content(1))
