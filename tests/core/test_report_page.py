"""The page as a reader meets it: its first screen, any width, print and dark, and honest words."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_report import Page, arms_content, field_content, flowing, summary_of, with_result

from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.report.choice import stability_sentence
from coarse_spark.report.content import ReportContent
from coarse_spark.report.drawing import apart, spread
from coarse_spark.report.page import render_report
from coarse_spark.report.wording import fit_sentence, models_sentence, treatment_text, verdict
from coarse_spark.text import counted


@pytest.fixture(scope="module")
def one() -> ReportContent:
    return field_content(1)


@pytest.fixture(scope="module")
def html(one: ReportContent) -> str:
    return render_report(one)


def left_over(content: ReportContent, *sizes: int) -> ReportContent:
    """Return the content with a first treatment that nobody gets on the menus of some sizes."""
    menu = content.menu.copy()
    for k in sizes:
        first, second = menu.index[menu["k"] == k][:2]
        menu.loc[second, "share"] += menu.loc[first, "share"]
        menu.loc[first, "share"] = 0.0
    return dataclasses.replace(content, menu=menu)


def test_the_first_screen_says_what_to_do_what_it_earns_and_how_sure(
    one: ReportContent, html: str
) -> None:
    text = Page(html).text
    places = [
        text.index(part)
        for part in (
            "Offer 3 treatments",
            "What it earns",
            "Expected profit is",
            "How sure that is",
            verdict(one),
            "It captures",
            "How many treatments?",
        )
    ]
    assert places == sorted(places)
    gain = one.contrast("menu", "control", 3)
    assert gain is not None
    assert f"more than the control (difference {gain['difference']:.3f}, 95% interval" in verdict(
        one
    )


@pytest.mark.parametrize(("noise", "k"), [(0.0, 3), (60.0, 3), (60.0, 1)])
def test_the_verdict_is_as_sure_as_the_intervals(noise: float, k: int) -> None:
    content = field_content(1, noise=noise, k=k)
    shown, _, open_ = verdict(content).partition("does not show")
    assert ("earns more than the control" in open_) == (noise > 0)
    assert ("earns more than the control" in shown) == (noise == 0)
    assert ("best single treatment" in verdict(content)) == (k > 1)
    assert (f"whether K = {k + 1} earns more than K = {k}" in open_) == (noise > 0)


class Places(HTMLParser):
    """Collects what every element stands in."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.inside: list[tuple[str, dict[str, str | None]]] = []
        self.found: list[tuple[str, list[tuple[str, dict[str, str | None]]]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, list(self.inside)))
        if tag not in Page.VOID:
            self.inside.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in Page.VOID:
            self.inside.pop()


def test_what_is_wide_scrolls_in_a_box_that_keyboards_reach(html: str) -> None:
    places = Places(html)
    for tag, inside in places.found:
        boxes = [attributes for _, attributes in inside if attributes.get("class") == "scroll"]
        if tag == "table":
            assert len(boxes) == 1
            assert boxes[0]["tabindex"] == "0"
            assert boxes[0]["aria-label"]
        if tag == "svg":
            assert "figure" in [name for name, _ in inside]
    style = html[html.index("<style>") : html.index("</style>")]
    assert re.search(r"\.scroll \{[^}]*overflow-x: auto", style)
    assert re.search(r"max-width: 40rem\) \{.*?figure \{ overflow-x: auto", style, re.DOTALL)
    assert "overflow-wrap: break-word" in style
    # nothing that is not in such a box insists on more than a phone has
    for rule, size in re.findall(r"([^{}]*)\{[^{}]*?min-width: ([\d.]+)rem", style):
        assert float(size) <= 18 or "figure svg" in rule
    for size in re.findall(r"minmax\(([^,]*),", style):
        assert size.startswith("min(")


def colours(html: str, begin: str) -> dict[str, str]:
    """Return the variables of the rule ``:root`` after a place in the style sheet."""
    rule = re.search(r":root \{([^}]*)\}", html[html.index(begin) :])
    assert rule is not None
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]+)", rule[1]))


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = np.array([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("begin", ["<style>", "prefers-color-scheme: dark", "@media print"])
def test_texts_are_read_on_their_grounds_in_light_dark_and_print(html: str, begin: str) -> None:
    found = colours(html, begin)
    pairs = [("ink", "paper"), ("ink", "panel"), ("muted", "paper"), ("muted", "panel")]
    pairs += [("accent", "paper"), ("warn", "warn-panel")]
    for text, ground in pairs:
        low, high = sorted(luminance(found[name]) for name in (text, ground))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)  # WCAG 2.2, level AA


def test_what_is_folded_away_is_printed(html: str) -> None:
    printed = html[html.index("@media print") : html.index("</style>")]
    assert "details::details-content { content-visibility: visible" in printed


def test_a_saturated_basis_leaves_nothing_to_test(one: ReportContent) -> None:
    fit = one.evaluated.lack_of_fit
    for changes, expected in [
        ({"statistic": 0.0, "degrees": 0, "p_value": 1.0}, "which leaves nothing to test"),
        ({"statistic": 0.0, "degrees": 2, "p_value": 1.0}, "cannot be tested"),
        (
            {"statistic": 0.0, "degrees": 0, "p_value": np.nan, "untested": "rows are few"},
            "fits was not tested: rows are few.",
        ),
    ]:
        content = with_result(one, "evaluated", lack_of_fit=fit.model_copy(update=changes))
        assert expected in fit_sentence(content)
        for text in (flowing(summary_of(content)), Page(render_report(content)).text):
            assert expected in text
            assert "χ²" not in text
            assert "agree within noise" not in text
    assert "χ²" in fit_sentence(one)


def test_steps_are_said_of_what_has_steps_only(one: ReportContent) -> None:
    arms = arms_content()
    assert "nearest step" not in stability_sentence(arms)
    assert "nearest step" not in render_report(arms)
    assert "8 steps" not in render_report(arms)
    assert stability_sentence(one).startswith("To the nearest step, 3 of the 3 treatments are")
    assert "Treatment, to the nearest step" in render_report(one)


def test_one_of_a_thing_is_singular(one: ReportContent) -> None:
    assert [counted(n, "unit") for n in (0, 1, 2, 1200)] == [
        "0 units",
        "1 unit",
        "2 units",
        "1,200 units",
    ]
    assert counted(2, "stratum", "strata") == "2 strata"
    single = field_content(1, sizes=(1,), k=1)
    assert "the treatment is on 2 of the 2 menus" in stability_sentence(single)
    stability = {**dict(one.evaluated.stability), "resamples": 10, "expected_loss": 0.1}
    often = [row.model_copy(update={"frequency": 0.4}) for row in stability["treatments"]]
    rare = with_result(one, "evaluated", stability={**stability, "treatments": often})
    assert "0 of the 3 treatments are chosen" in stability_sentence(rare)
    often[0] = often[0].model_copy(update={"frequency": 0.5})
    once = with_result(one, "evaluated", stability={**stability, "treatments": often})
    assert "1 of the 3 treatments is chosen" in stability_sentence(once)
    counts = one.fitted.models.model_copy(update={"own": 1, "pooled": 1, "unidentified": 1})
    assert models_sentence(with_result(one, "fitted", models=counts)).startswith(
        "Partitions: 1 with a model of its own, 1 served by the pooled model (1 because its"
    )
    few = with_result(single, "validated", usable_rows=1, clusters=1, experiment_rows=1)
    few = with_result(few, "scored", units=1)
    few = with_result(
        few, "assigned", changes={"previous_run": "a", "units": 1, "changed": 1, "new": 0}
    )
    for text in (flowing(summary_of(few)), Page(render_report(few)).text):
        assert not re.search(
            r"(?<![\d.,])1 (units|treatments|clusters|rows|menus|coefficients)\b", text
        )


def test_treatments_that_nobody_gets_are_no_part_of_a_menu(one: ReportContent) -> None:
    content = left_over(one, 3, 4)
    assert len(content.selected) == 2
    assert content.segment_theta.shape == (2, one.basis.size)
    summary, page = flowing(summary_of(content)), Page(render_report(content)).text
    for text in (summary, page):
        assert "Offer 2 treatments" in text
        assert "K = 4 adds nothing to K = 3" in text
        assert "K = 3 adds nothing to K = 2: nobody gets a further one." in text
        assert "to 0%" not in text
    first = one.selected.iloc[0]
    assert f"to {100 * first['share']:.0f}%" in flowing(summary_of(one))
    assert treatment_text(content, first) not in summary
    assert "adds nothing" not in summary_of(one) + render_report(one)


def test_raw_means_of_learned_designs_are_called_confounded(one: ReportContent, html: str) -> None:
    assert "confounded" not in html
    for design, what in (("learned", "which units got"), ("stratified", "which strata got")):
        page = render_report(dataclasses.replace(one, design=design))
        assert (
            page.count(f"confounded by {what} which treatment") == 2
        )  # the menu's picture, and the fit
        assert "observed mean (raw, confounded)" in page


def test_shares_of_nothing_are_not_shown() -> None:
    content = field_content(1, noise=60.0)
    assert not re.search(r"\([−\d,]*\d{3}%\)", summary_of(content).replace("(100%)", ""))
    control = next(line for line in summary_of(content).splitlines() if "–  control" in line)
    assert control.split()[-2:-1] == ["–"]  # captured of uniform


def test_numbers_of_single_precision_are_shown_as_they_were_meant() -> None:
    values = [float(np.float32(0.3)), 0.25, 1e6]
    ask = {"kind": "continuous", "values": values, "control": 0}
    content: Any = SimpleNamespace(space=TreatmentSpace.from_dict({"ask": ask}))
    texts = [treatment_text(content, {"ask": value}) for value in values]
    assert texts == ["ask 0.3", "ask 0.25", "ask 1,000,000"]


def test_letters_stand_beside_each_other() -> None:
    for places in ([0.5, 0.5, 0.5], [0.0, 0.01, 0.9], [0.99, 1.0, 0.2], [0.4]):
        moved = spread(np.array(places), 0.1, 0.0, 1.0)
        assert moved.min() >= -1e-12
        assert moved.max() <= 1 + 1e-12
        order = np.argsort(places, kind="stable")
        assert (np.diff(moved[order]) >= 0.1 - 1e-12).all()
    apart = np.array([0.7, 0.1, 0.4])
    np.testing.assert_array_equal(spread(apart, 0.1, 0.0, 1.0), apart)


def test_discs_do_not_cover_each_other() -> None:
    rng = np.random.default_rng(0)
    for places in (np.zeros((5, 2)), rng.uniform(0, 60, size=(8, 2)), np.array([[3.0, 4.0]])):
        sizes = rng.uniform(9, 20, size=len(places))
        moved = apart(places, sizes)
        distance = np.hypot(*(moved[:, None] - moved).transpose(2, 0, 1))
        others = ~np.eye(len(places), dtype=bool)
        assert (distance >= 0.98 * (sizes[:, None] + sizes) / 2)[others].all()
        assert np.isfinite(moved).all()
    far = np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])
    np.testing.assert_array_equal(apart(far, np.full(3, 20.0)), far)


def test_responses_that_were_brought_along_are_said_to_be(one: ReportContent) -> None:
    brought = dataclasses.replace(one, brought="main.models.responses")
    text, learned = Page(render_report(brought)).text, Page(render_report(one)).text
    assert "Responses were brought along, from main.models.responses: no model was fitted" in text
    assert "brought along" in flowing(summary_of(brought))
    for words in (
        "The coefficients are learned from the experiment",
        "learner and menu were judged",
        "assigned; learned from",
        "responses and menu are learned",
        "Models that were fitted without one fold",
    ):
        assert words in learned
        assert words not in text
