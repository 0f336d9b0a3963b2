"""Amounts in the user's words, and what the menu earns in all."""

from __future__ import annotations

import dataclasses
from io import StringIO

import pytest
from rich.console import Console
from test_report import Page, field_content, flowing, summary_of, with_result

from coarse_spark.report.content import ReportContent
from coarse_spark.report.money import Money, rounded
from coarse_spark.report.page import render_report
from coarse_spark.report.totals import totals, totals_note, totals_sentence


@pytest.fixture(scope="module")
def told() -> ReportContent:
    content = with_result(field_content(1), "scored", weight=12_345.0)
    return dataclasses.replace(content, money=Money("EUR", "customer and month"))


def test_names_of_currencies_stand_behind_numbers_and_signs_before_them() -> None:
    assert Money("EUR").amount("−1,234.50") == "−1,234.50\u00a0EUR"
    assert Money("€").amount("−1,234.50") == "−€1,234.50"
    assert Money("US$").amount("2") == "2\u00a0US$"
    assert Money().amount("2") == "2"
    assert Money("€").amount("–") == "–"  # nothing is no amount


def test_totals_keep_what_stands_behind_the_unit() -> None:
    assert Money("EUR", "customer and month").of_total == "per month"
    assert Money("EUR", "customer").of_total == ""
    assert Money("", "customer").unit == "per customer"


def test_a_total_is_rounded_to_two_digits_of_its_error() -> None:
    assert rounded(190_342.7, 2_345.0) == 190_300.0
    assert rounded(190_342.7, 0.234) == 190_342.7
    assert rounded(190_342.7, 0.0) == 190_342.7


def test_totals_are_values_times_the_weight_of_the_population(told: ReportContent) -> None:
    value, control, uniform = totals(told)
    published = told.published
    assert float(value.total.replace(",", "").removesuffix("\u00a0EUR")) == pytest.approx(
        12_345 * published["value"], abs=12_345 * published["se"] / 10
    )
    low, high = (float(end.replace(",", "")) for end in value.total_interval.split(" to "))
    assert low == pytest.approx(12_345 * published["ci_low"], rel=0.01)
    assert high == pytest.approx(12_345 * published["ci_high"], rel=0.01)
    gain = told.contrast("menu", "uniform", 3)
    assert gain is not None
    assert float(uniform.total.replace(",", "").removesuffix("\u00a0EUR")) == pytest.approx(
        12_345 * gain["difference"], abs=12_345 * gain["se"] / 10
    )
    assert (control.name, uniform.name) == ("above the control", "above the best single treatment")


def test_totals_say_what_they_refer_to(told: ReportContent) -> None:
    assert "times the 12,345 units of the population that are assigned." in totals_note(told)
    other = dataclasses.replace(with_result(told, "scored", weight=24_690.0), population_given=True)
    assert "12,345 units of weight 24,690" in totals_note(other)
    assert "those of the experiment's units, taken for the population's" in totals_note(other)
    assert totals_sentence(other).endswith("; if they are like those of the experiment.")


def test_a_menu_of_one_is_not_told_above_itself_and_old_runs_have_no_totals(
    told: ReportContent,
) -> None:
    assert len(totals(with_result(field_content(1, k=1), "scored", weight=3.0))) == 2
    old = field_content(1)
    assert totals(old) == []
    assert totals_sentence(old) == ""
    assert "in all" not in Page(render_report(old)).text


def test_summary_and_page_speak_the_words_of_the_user(told: ReportContent) -> None:
    text = flowing(summary_of(told))
    assert "EUR per customer and month (95% interval" in text
    assert "Honest: cross-fitted and debiased, EUR per customer and month." in text
    assert "For all 12,345 units that are assigned:" in text
    assert " EUR per month (95% interval" in text
    page = Page(render_report(told)).text
    for words in (
        "Expected profit per customer and month",
        "Expected profit in EUR per customer and month",  # the title of a picture
        "in all per month",
        "above the best single treatment",
    ):
        assert words in page
    assert "per unit" not in page.replace("per unit of the population", "")


def test_words_with_markup_are_words(told: ReportContent) -> None:
    nasty = dataclasses.replace(told, money=Money("<b>$</b>", "[red]unit[/red] & <i>x</i>"))
    page = render_report(nasty)
    assert "<i>x</i>" not in page
    assert "<b>$" not in page
    console = Console(width=200, record=True, file=StringIO())
    console.print(flowing(summary_of(nasty, width=200)), markup=False)
    assert "[red]unit[/red]" in console.export_text()
