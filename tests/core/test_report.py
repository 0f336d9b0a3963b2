from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from coarse_spark.core.basis import Basis
from coarse_spark.core.profit import Profit, profit_matrix
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.core.values import (
    Policy,
    ScoreMoments,
    contrasts,
    policy_values,
    select_menu_size,
)
from coarse_spark.errors import InvalidInputError
from coarse_spark.lake.step_results import (
    AssignResult,
    ChooseResult,
    EvaluateResult,
    FitResult,
    ScoreResult,
    ValidateResult,
)
from coarse_spark.report.content import ReportContent
from coarse_spark.report.limits import limit_sentences
from coarse_spark.report.summary import print_summary
from coarse_spark.report.wording import percent, treatment_text
from coarse_spark.simulate.field import field_simulation

NASTY = '<b>gift</b> & "50 $" [red]card[/red] $x'


def make_content(
    basis: Basis,
    profit: Profit,
    theta: np.ndarray,
    *,
    sizes: tuple[int, ...],
    k: int | None,
    noise: float,
    **texts: Any,
) -> ReportContent:
    """Build the content of a run with known responses: menus by Lloyd, values from noisy scores."""
    space, n = basis.space, len(theta)
    psi = profit.psi(space.candidates, basis)
    profits = profit_matrix(theta, psi)
    rng, rows = np.random.default_rng(0), np.arange(n)
    control = int(np.abs(space.candidates - space.control).sum(axis=1).argmin())
    policies = [
        Policy("control", 1),
        Policy("uniform", 1),
        *(Policy("menu", size) for size in sizes),
        Policy("granular", 0),
    ]
    served = [np.full(n, control), np.full(n, profits.mean(axis=0).argmax())]
    menu_rows = []
    for size in sizes:
        best = np.unique(profits.argmax(axis=1)) if size > 1 else served[1][:1]
        menu = best[np.linspace(0, len(best) - 1, size).astype(int)]
        for _ in range(20):
            segment = profits[:, menu].argmax(axis=1)
            menu = np.array(
                [
                    profits[segment == s].sum(axis=0).argmax() if (segment == s).any() else menu[s]
                    for s in range(size)
                ]
            )
        segment = profits[:, menu].argmax(axis=1)
        served.append(menu[segment])
        shares = np.bincount(segment, minlength=size) / n
        offered = space.decode(space.candidates[menu]).assign(
            k=size,
            treatment_id=range(size),
            share=shares,
            price=0.0,
            extrapolates=False,
            untried=False,
        )
        menu_rows.append(
            offered.assign(
                expected_profit=[
                    profits[segment == s, menu[s]].mean() if shares[s] else np.nan
                    for s in range(size)
                ]
            )
        )
    served.append(profits.argmax(axis=1))
    own = np.column_stack([profits[rows, choice] for choice in served])
    # the noise of a unit is common to the policies that serve it alike, as with debiased scores
    errors = rng.normal(size=profits.shape)
    scores = own + noise * np.column_stack([errors[rows, choice] for choice in served])
    center = np.zeros(scores.shape[1])
    moments = ScoreMoments.of(ScoreMoments.sums(scores, np.ones(n), center), center)
    values = policy_values(policies, moments, 0.95).assign(
        plug_in_value=own.mean(axis=0),
        upper_bound=np.nan,
        model_free_value=np.nan,
        model_free_se=np.nan,
    )
    chosen, rule = select_menu_size(policies, moments)
    chosen = k or chosen
    menu_table = pd.concat(menu_rows, ignore_index=True)
    menu_table["selected"] = menu_table["k"] == chosen
    selected = menu_table[menu_table["selected"]]
    choice = served[2 + sizes.index(chosen)]
    candidates = space.encode(selected)
    segment_theta, segments = [], []
    for s in range(chosen):
        mine = (space.candidates[choice] == candidates[s]).all(axis=1)
        segment_theta.append(theta[mine].mean(axis=0) if mine.any() else theta.mean(axis=0))
        segments.append(
            {
                "treatment_id": s,
                "size": int(mine.sum()),
                "distinguishing": [f"theta {s} is high"],
                "rule": f"age > {s}",
            }
        )
    treatments = np.linspace(space.candidates.min(axis=0), space.candidates.max(axis=0), 3)
    outcomes = [("low", 1.0, 1.01), ("middle", 1.4, 1.38), ("high", 1.7, 1.5)]
    bins = [
        {
            "label": label,
            "rows": 100,
            "observed": observed,
            "fitted": fitted,
            "standard_error": 0.04,
            "treatment": treatment,
        }
        for (label, observed, fitted), treatment in zip(outcomes, treatments.tolist(), strict=True)
    ]
    plug_in = own.mean(axis=0)
    counts = [
        {"treatment": row, "published": True, "folds": 2}
        for row in selected[list(space.names)].to_dict("records")
    ]
    fields = {
        "title": "trial",
        "run_id": "run-7",
        "started_at": "2024-05-06 07:08 UTC",
        "outcome": "spend",
    } | texts
    return ReportContent(
        basis=basis,
        profit=profit,
        validated=ValidateResult(
            experiment_rows=n + 12, usable_rows=n, population_rows=12_345, partitions=5
        ),
        fitted=FitResult(
            observed_treatments=space.bounds.tolist(),
            basis=basis.name,
            models={"own": 3, "pooled": 1, "failed": 1},
        ),
        scored=ScoreResult(units=12_345, granular_value=plug_in[-1]),
        chosen=ChooseResult(
            control_value=plug_in[0],
            uniform_value=plug_in[1],
            sketch_size=100,
            menus={
                size: {
                    "value": value,
                    "upper_bound": value,
                    "sketch_value": value,
                    "switching_cost": 0,
                    "segment_theta": np.array(segment_theta).tolist(),
                }
                for size, value in zip(sizes, plug_in[2:], strict=False)
            },
            passes=[
                {
                    "k": chosen,
                    "number": 1,
                    "value": 1.23,
                    "gain": 0.5,
                    "moved": 1,
                    "step": 0.5,
                    "what": "t1 moved",
                }
            ],
        ),
        evaluated=EvaluateResult(
            k=chosen,
            selection_rule=rule,
            lack_of_fit={"statistic": 25.3, "degrees": 2, "p_value": 3.2e-6, "bins": bins},
            stability={"folds": 2, "resamples": 0, "treatments": counts},
        ),
        assigned=AssignResult(k=chosen),
        menu=menu_table,
        policy_values=values,
        contrasts=contrasts(policies, moments, 0.95),
        segments=pd.DataFrame(segments),
        own_best=space.decode(space.candidates[served[-1][:500]]).assign(
            treatment_id=[
                int((candidates == t).all(axis=1).argmax()) for t in space.candidates[choice[:500]]
            ]
        ),
        timings={"fit": 61.5, "choose": 2.0},
        **fields,
    )


def with_result(content: ReportContent, step: str, **fields: Any) -> ReportContent:
    """Return the content with other values in what a step found."""
    result = getattr(content, step)
    other = type(result).model_validate({**dict(result), **fields})
    return dataclasses.replace(content, **{step: other})


def with_comparisons(content: ReportContent, **gains: tuple[float, float]) -> ReportContent:
    """Return the content whose menu earns so much more than others, with standard errors."""
    menu, k = content.value_of("menu", content.selected_k), content.selected_k
    rows = pd.DataFrame(
        [
            {
                "policy": "menu",
                "versus": name,
                "k": k,
                "difference": gain,
                "se": se,
                "ci_low": gain - 2 * se,
                "ci_high": gain + 2 * se,
            }
            for name, (gain, se) in gains.items()
        ]
    )
    values = [
        {**menu, "policy": name, "value": menu["value"] - gain, "plug_in_value": np.nan}
        for name, (gain, _) in gains.items()
    ]
    return dataclasses.replace(
        content,
        contrasts=pd.concat([content.contrasts, rows], ignore_index=True),
        policy_values=pd.concat([content.policy_values, pd.DataFrame(values)], ignore_index=True),
    )


def with_limits(content: ReportContent, kept: dict[str, Any]) -> ReportContent:
    """Return the content whose published menu keeps limits."""
    menus = content.chosen.model_dump()["menus"]
    menus[content.selected_k]["limits"] = kept
    return with_result(content, "chosen", menus=menus)


def field_content(
    dimensions: int,
    *,
    sizes: tuple[int, ...] = (1, 2, 3, 4),
    k: int | None = 3,
    noise: float = 1.0,
    **texts: Any,
) -> ReportContent:
    names = [f"t{j + 1}" for j in range(dimensions)]
    space = TreatmentSpace.from_dict(
        {name: {"kind": "continuous", "lower": 0, "upper": 2, "control": 0} for name in names}
    )
    theta = field_simulation(4_000, dimensions, seed=1).theta
    profit = Profit(cost=" + ".join(f"0.3*{name}" for name in names))
    return make_content(
        Basis("quadratic", space), profit, theta, sizes=sizes, k=k, noise=noise, **texts
    )


def arms_content(**texts: Any) -> ReportContent:
    space = TreatmentSpace.from_dict(
        {NASTY: {"kind": "categorical", "levels": ["none", NASTY, "mail"], "control": "none"}}
    )
    base = np.random.default_rng(2).normal([0.0, 0.3, 0.2], 1.0, size=(3_000, 3))
    return make_content(
        Basis("arms", space), Profit(), base, sizes=(1, 2, 3), k=2, noise=0.5, **texts
    )


class Page(HTMLParser):
    """Collects what a browser would: visible text, tags, and whether tags close in order."""

    VOID = frozenset({"meta", "br", "link", "img", "path", "use"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags, self.open = "", [], []  # type: ignore[var-annotated]
        self.feed(html)
        self.close()
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


def page_of(content: ReportContent, folder: Path) -> tuple[str, Page]:
    from coarse_spark.report.page import write_report

    html = write_report(content, folder / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == []
    return html, page


def summary_of(content: ReportContent, width: int = 100) -> str:
    console = Console(width=width, record=True, file=StringIO())
    print_summary(content, console)
    return console.export_text()


def flowing(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@pytest.fixture(scope="module")
def one() -> ReportContent:
    return field_content(1)


@pytest.fixture(scope="module")
def two() -> ReportContent:
    return field_content(2)


@pytest.mark.parametrize(
    "build",
    [
        lambda: field_content(1),
        lambda: field_content(2),
        arms_content,
        lambda: field_content(1, sizes=(1,), k=1),
    ],
)
def test_page_needs_nothing_from_outside_and_has_unique_ids(build: Any, tmp_path: Path) -> None:
    html, page = page_of(build(), tmp_path)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "metadata"}
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert not re.search(r"url\((?!#)|@import", html)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    referred = re.findall(r"url\(#([^)]+)\)", html) + [
        a["xlink:href"][1:] for _, a in page.tags if "xlink:href" in a
    ]
    assert set(referred) <= set(ids)
    pictures = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(pictures) == 3
    assert all(picture["role"] == "img" and len(picture["aria-label"]) > 30 for picture in pictures)


def test_page_says_what_to_do_and_what_it_earns(one: ReportContent, tmp_path: Path) -> None:
    _, page = page_of(one, tmp_path)
    assert "Offer 3 treatments" in page.text
    value = one.value_of("menu", 3)
    assert (
        f"Expected profit is {value['value']:.3f} per unit (95% interval "
        f"{value['ci_low']:.3f} to {value['ci_high']:.3f})" in page.text
    )
    for _, row in one.selected.iterrows():
        assert f"t1 {row['t1']:.2f}".rstrip("0").rstrip(".") in page.text
        assert f"to {100 * row['share']:.0f}% of the units" in page.text
    for expected in (
        "run-7",
        "2024-05-06 07:08 UTC",
        "12,345",
        "theta 2 is high",
        "age > 2",
        "Time: 63.5 s",
        "t1 moved",
        "1 failed",
    ):
        assert expected in page.text
    for row in one.policy_values.itertuples():
        assert f"{row.value:.3f}".replace("-", "−") in page.text


def test_same_content_gives_the_same_bytes(two: ReportContent) -> None:
    from coarse_spark.report.page import render_report

    assert render_report(two) == render_report(two)


def test_captured_shares_are_those_of_the_values(one: ReportContent) -> None:
    text, value = flowing(summary_of(one)), one.value_of("menu", 3)
    shares = [
        f"{percent(value[f'captured_of_{reference}'])} (95% interval "
        f"{percent(value[f'captured_of_{reference}_low'])} to "
        f"{percent(value[f'captured_of_{reference}_high'])}) of what "
        for reference in ("control", "uniform")
    ]
    assert f"It captures {shares[0]}full personalization would gain over the control" in text
    assert f"{shares[1]}it would gain over the best single treatment" in text


def test_comparisons_are_told_as_sure_as_they_are(one: ReportContent, tmp_path: Path) -> None:
    compared = with_comparisons(
        one,
        segments_features_kmeans=(0.5, 0.1),
        segments_features_tree=(0.1, 0.1),
        segments_responses_kmeans=(0.0, 0.0),
        random_menu=(-0.5, 0.1),
    )
    page, text = page_of(compared, tmp_path)[1].text, flowing(summary_of(compared))
    for told in (page, text):
        assert (
            "The menu earns more than “segments on features (k-means)” with as many treatments: "
            "the difference is 0.50 (95% interval 0.30 to 0.70)." in told
        )
        assert "Whether the menu earns more than “segments on features (tree)” with as" in told
        assert "“segments on responses (k-means)” with as many treatments does the same as" in told
        assert "The menu earns less than “random menu”" in told
        assert "best of a grid" not in told
    assert "Against what else could be done" in page
    assert "Against what else could be done" not in page_of(one, tmp_path)[1].text


def test_the_check_without_a_model_is_told_or_why_there_is_none(
    one: ReportContent, tmp_path: Path
) -> None:
    why = "does not apply: treatments are continuous, or too many for any one of them to tell much."
    assert f"The check without a model of responses {why}" in page_of(one, tmp_path)[1].text
    menu = (one.policy_values["policy"] == "menu") & (one.policy_values["k"] == one.selected_k)
    checked = dataclasses.replace(
        one,
        policy_values=one.policy_values.assign(
            model_free_value=np.where(menu, 1.25, np.nan), model_free_se=np.where(menu, 0.5, np.nan)
        ),
    )
    page = page_of(checked, tmp_path)[1].text
    assert re.search(r"the menu earns 1\.250* \(standard error 0\.50*\); honest value", page)


def test_wide_intervals_are_admitted(tmp_path: Path) -> None:
    content = field_content(1, noise=60.0)
    page = page_of(content, tmp_path)[1].text
    for text in (page, flowing(summary_of(content))):
        assert "does not show that the menu earns more than the control" in text
        assert "Whether it beats the best single treatment is not settled" in text
        assert "Whether full personalization gains anything over the control is not settled" in text
        assert "It captures" not in text
        assert "This run cannot tell K = 2 from K = 3 apart" in text
        assert "This run cannot tell K = 3 from K = 4 apart" in text


def test_clear_differences_are_called_clear() -> None:
    text = flowing(summary_of(field_content(1, noise=0.0)))
    assert "It earns more than the best single treatment" in text
    assert "Going from 2 to 3 treatments adds profit" in text
    assert "not settled" not in text
    assert "cannot tell" not in text


def test_a_menu_that_loses_is_said_to_lose() -> None:
    content = field_content(1, noise=0.1)
    flipped = content.contrasts.assign(difference=-content.contrasts["difference"])
    flipped[["ci_low", "ci_high"]] = -content.contrasts[["ci_high", "ci_low"]].to_numpy()
    text = flowing(summary_of(dataclasses.replace(content, contrasts=flipped)))
    assert "That is less than the control" in text
    assert "It earns less than the best single treatment" in text
    assert "It captures" not in text


def test_user_texts_are_escaped_everywhere(tmp_path: Path) -> None:
    content = arms_content(title=NASTY, outcome=NASTY, warnings=(NASTY,), run_id=NASTY)
    html, page = page_of(content, tmp_path)
    assert "<b>" not in html
    assert page.text.count(NASTY) >= 6
    assert not any(tag == "b" for tag, _ in page.tags)
    summary = flowing(summary_of(content, width=250))
    assert summary.count(NASTY) >= 4


@pytest.mark.filterwarnings("error:Glyph")
def test_control_characters_and_secrets_stay_out_of_page_and_summary(tmp_path: Path) -> None:
    hostile, secret = "a\x1b[2J\x9b\u202eb\x00c", "s3a://_me:hunter2@bucket/x"
    space = TreatmentSpace.from_dict(
        {hostile: {"kind": "categorical", "levels": ["none", hostile, "mail"], "control": "none"}}
    )
    base = np.random.default_rng(2).normal([0.0, 0.3, 0.2], 1.0, size=(3_000, 3))
    content = make_content(
        Basis("arms", space), Profit(), base, sizes=(1, 2, 3), k=2, noise=0.5,
        title=hostile + secret, outcome=hostile, warnings=(hostile + secret,), run_id=hostile,
    )  # fmt: skip
    html, page = page_of(content, tmp_path)
    summary = summary_of(content, width=250)
    for text in (html, summary):
        assert not set(text) & set("\x1b\x9b\u202e\x00")
        assert "hunter2" not in text
        assert "s3a://***@bucket/x" in text
    escaped = r"a\x1b[2J\x9b\u202eb\x00c"
    assert page.text.count(escaped) >= 6
    assert flowing(summary).count(escaped) >= 4


def test_a_single_treatment_needs_no_plural(tmp_path: Path) -> None:
    content = field_content(2, sizes=(1,), k=1)
    page = page_of(content, tmp_path)[1].text
    best = content.selected.iloc[0]
    assert f"Offer everyone the same treatment: t1 {best['t1']:.3g}, t2 {best['t2']:.3g}." in page
    assert "cannot tell" not in page


def test_nothing_to_gain_is_said_plainly(tmp_path: Path) -> None:
    space = TreatmentSpace.from_dict(
        {"fee": {"kind": "continuous", "lower": 0, "upper": 2, "control": 0}}
    )
    theta = np.tile([5.0, 0.0, 0.0], (50, 1)) + np.random.default_rng(0).normal(size=(50, 1)) * [
        1,
        0,
        0,
    ]
    content = make_content(
        Basis("quadratic", space), Profit(cost="fee"), theta, sizes=(1, 2), k=1, noise=0.0
    )
    assert content.policy_values["captured_of_control"].isna().all()
    page = page_of(content, tmp_path)[1].text
    for text in (page, flowing(summary_of(content))):
        assert "Leave every unit at the control (fee 0)." in text
        assert "On every unit of the experiment the menu does the same as the control." in text
        assert "there is nothing to capture" in text
        assert "nan" not in text.lower()


def test_summary_fits_a_hundred_columns_and_marks_the_published_menu(two: ReportContent) -> None:
    lines = summary_of(two).splitlines()
    assert max(map(len, lines)) <= 100
    marked = [line for line in lines if line.startswith("→")]
    assert len(marked) == 1
    assert marked[0].split()[1] == "3"
    numbers = re.findall(r"−?\d+\.\d{3}", marked[0])
    value = two.value_of("menu", 3)
    assert numbers[:3] == [f"{value[name]:.3f}" for name in ("value", "ci_low", "ci_high")]


def test_lack_of_fit_names_the_worst_bin(one: ReportContent) -> None:
    text = flowing(summary_of(one))
    assert (
        "misses part of the response (χ² = 25.3, df = 2, p < 0.0001); the largest miss is at high"
        in text
    )
    fit = one.evaluated.lack_of_fit.model_copy(update={"p_value": 0.4})
    good = with_result(one, "evaluated", lack_of_fit=fit)
    assert "agree within noise" in flowing(summary_of(good))


def test_the_basis_that_was_chosen_is_named_with_the_losses_of_the_others(
    one: ReportContent, tmp_path: Path
) -> None:
    losses = {"linear": 1.23456, "quadratic": 1.2, "spline(t1, 0.5, 1, 1.5)": 1.201}
    content = with_result(one, "fitted", basis_losses=losses)
    expected = (
        "Of the bases compared “quadratic” predicts held-out outcomes best: mean squared "
        "error 1.2000, "
        "“spline(t1, 0.5, 1, 1.5)” 1.2010 and “linear” 1.2346."
    )
    assert expected in flowing(summary_of(content))
    assert expected in page_of(content, tmp_path)[1].text
    assert "Of the bases compared" not in summary_of(one)


def test_relative_responses_are_told_with_how_the_scales_did(
    one: ReportContent, tmp_path: Path
) -> None:
    sentence = "learned as multiples of each unit's expected outcome"
    for losses, expected in [
        ({}, f"{sentence}."),
        ({"additive": 2.0, "relative": 1.9}, "(5% less weighted squared error)."),
        ({"additive": 2.0, "relative": 2.01}, "no better by more than chance."),
    ]:
        content = with_result(one, "fitted", scale="relative", scale_losses=losses)
        for text in (flowing(summary_of(content)), unescape(page_of(content, tmp_path)[1].text)):
            assert sentence in text
            assert expected in text
    assert sentence not in flowing(summary_of(one))


def test_logistic_responses_are_told_with_how_the_scales_did(one: ReportContent) -> None:
    sentence = "learned in proportion to b (1 − b), b being each unit's expected outcome"
    for losses, expected in [
        ({}, "the logit of a chance."),
        ({"additive": 2.0, "relative": 2.1, "logistic": 1.9}, "(5% less weighted squared error)."),
        ({"additive": 2.0, "relative": 2.1, "logistic": 2.01}, "outcomes lie from 0 to 1, and"),
    ]:
        content = with_result(one, "fitted", scale="logistic", scale_losses=losses)
        text = flowing(summary_of(content))
        assert sentence in text
        assert expected in text


def test_partitions_whose_treatments_do_not_identify_the_basis_are_told(
    one: ReportContent, tmp_path: Path
) -> None:
    models = one.fitted.models.model_copy(update={"pooled": 4, "unidentified": 3})
    content = with_result(one, "fitted", models=models)
    expected = "4 served by the pooled model (3 because their rows do not support a model)"
    assert expected in flowing(summary_of(content))
    assert expected in page_of(content, tmp_path)[1].text
    assert "identify" not in flowing(summary_of(one))


def test_treatments_beyond_the_experiment_are_marked(one: ReportContent, tmp_path: Path) -> None:
    second_one = one.menu["treatment_id"] == 1
    marked = one.menu.assign(extrapolates=second_one, untried=second_one)
    content = dataclasses.replace(one, menu=marked)
    summary, page = flowing(summary_of(content)), page_of(content, tmp_path)[1].text
    second = f"{one.selected.iloc[1]['t1']:.2f}".rstrip("0")
    assert re.search(rf"t1 {second} \(extrapolated\) to \d+%", summary)
    assert re.search(r"\d\*, ", summary)
    assert page.count("(extrapolated)") == 2
    for text in (summary, page):
        assert "holds 1 treatment beyond what the experiment gave" in text
        assert "extrapolated" not in flowing(summary_of(one))


def test_treatments_that_nobody_got_are_marked(one: ReportContent, tmp_path: Path) -> None:
    marked = one.menu.assign(untried=one.menu["treatment_id"] == 1)
    content = dataclasses.replace(one, menu=marked)
    summary, page = flowing(summary_of(content)), page_of(content, tmp_path)[1].text
    second = f"{one.selected.iloc[1]['t1']:.2f}".rstrip("0")
    assert re.search(rf"t1 {second} \(untried\) to \d+%", summary)
    assert re.search(r"\d\*, ", summary)
    assert "* Nobody in the experiment got anything near" in summary
    assert page.count("(untried)") == 2
    for text in (summary, page):
        assert "holds 1 treatment that nobody in the experiment got anything near" in text
    assert "untried" not in flowing(summary_of(one))
    assert "anything near" not in flowing(summary_of(one))


def test_optional_parts_may_be_missing(one: ReportContent, tmp_path: Path) -> None:
    bare = dataclasses.replace(
        with_result(one, "chosen", passes=()), timings={}, contrasts=one.contrasts.iloc[:0]
    )
    _, page = page_of(bare, tmp_path)
    assert "Last passes over the population" not in page.text
    assert "Time: " not in page.text
    assert "It captures" not in summary_of(
        bare
    )  # without contrasts nothing says that the gain exists


def test_a_jump_at_the_control_is_not_joined_by_the_curve(tmp_path: Path) -> None:
    space = TreatmentSpace.from_dict(
        {"incentive": {"kind": "continuous", "lower": 0, "upper": 3, "control": 0}}
    )
    theta = np.random.default_rng(3).normal([0.3, 0.3, 0.2], 0.05, size=(2_000, 3))
    content = make_content(
        Basis("any+log1p", space), Profit("4 - incentive"), theta, sizes=(1, 2), k=2, noise=0.3
    )
    from coarse_spark.report.responses import _axis

    grid = _axis(content, 0, 50)
    assert (grid != 0).all()
    curve = content.outcomes(grid[:, None])
    assert np.abs(np.diff(curve, axis=1)).max() < 0.05
    assert (curve[:, 0] - content.outcomes(space.control[None, :])[:, 0] > 0.15).all()
    assert "Offer 2 treatments" in page_of(content, tmp_path)[1].text


def _one_segment(content: ReportContent) -> ChooseResult:
    menus = {
        k: menu.model_copy(update={"segment_theta": menu.segment_theta[:1]})
        for k, menu in content.chosen.menus.items()
    }
    return content.chosen.model_copy(update={"menus": menus})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {"menu": c.menu.drop(columns="share")}, "table 'menu' lacks the column 'share'"),
        (
            lambda c: {"menu": c.menu.rename(columns={"t1": "t_1"})},
            r"lacks the column 't1' \(did you mean 't_1'\?\)",
        ),
        (
            lambda c: {"policy_values": c.policy_values[c.policy_values["policy"] != "granular"]},
            "no row for the policy 'granular'",
        ),
        (
            lambda c: {"evaluated": c.evaluated.model_copy(update={"k": 9})},
            "no menu of 9",
        ),
        (lambda c: {"chosen": _one_segment(c)}, r"shape \(1, 3\), expected \(3, 3\)"),
    ],
)
def test_incomplete_content_is_refused(one: ReportContent, change: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        dataclasses.replace(one, **change(one))


def test_drawing_leaves_the_users_matplotlib_alone(one: ReportContent, tmp_path: Path) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    page_of(one, tmp_path)
    assert dict(mpl.rcParams) == before


def test_summary_and_page_say_that_clusters_count(one: ReportContent, tmp_path: Path) -> None:
    clustered = with_result(one, "validated", clusters=240)
    assert "in 240 clusters" in flowing(summary_of(clustered))
    assert "in 240 clusters, which intervals count" in page_of(clustered, tmp_path)[1].text
    assert "clusters" not in summary_of(one) + page_of(one, tmp_path)[1].text


def test_content_and_summary_import_neither_matplotlib_nor_pyspark() -> None:
    code = (
        "import sys, coarse_spark.report.summary; sys.exit(any(m in sys.modules for m in "
        "('matplotlib', 'pyspark', 'jinja2')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_limits_say_what_binds_and_what_one_more_is_worth() -> None:
    content = field_content(1)
    prices = np.zeros(len(content.menu))
    rows = np.flatnonzero(content.menu["k"] == content.selected_k)
    prices[rows[0]], prices[rows[2]] = 0.125, -0.5
    kept = {
        "min_share": [0.1] * 3,
        "max_share": [1.0] * 3,
        "budget": 0.5,
        "spending": 0.4999,
        "budget_price": 1.7,
        "deciding": {"prices": prices[rows], "budget_price": 1.7, "reach": 0.0},
    }
    limited = dataclasses.replace(
        with_limits(content, kept), menu=content.menu.assign(shadow_price=prices)
    )
    first, second, third = limit_sentences(limited)
    names = [treatment_text(limited, row) for _, row in limited.selected.iterrows()]
    assert first == f"One more unit that may take {names[0]} would be worth 0.125."
    assert second == f"One unit less that has to take {names[2]} would be worth 0.500."
    assert (
        third == "The menu spends 0.500 of the 0.500 that the budget allows per unit; one more of "
        "budget would earn 1.70."
    )
    console = Console(record=True, width=160, file=StringIO())
    print_summary(limited, console)
    text = " ".join(console.export_text().split())
    assert all(sentence in text for sentence in (first, second, third))
    slack = dataclasses.replace(
        with_limits(content, kept | {"spending": 0.25, "budget_price": 0.0}),
        menu=content.menu.assign(shadow_price=0.0),
    )
    assert limit_sentences(slack) == [
        "The limits on shares bind no treatment.",
        "The menu spends 0.250 of the 0.500 that the budget allows per unit; the budget does "
        "not bind.",
    ]
    assert limit_sentences(content) == []
    totals = [
        {"name": "budget", "allowed": 0.5, "used": 0.5, "price": 1.7},
        {"name": "mailed", "allowed": 0.4, "used": 0.4, "price": 0.25},
        {"name": "orders", "at_most": False, "allowed": 0.38, "used": 0.39, "price": 0.0},
    ]
    deciding = {"prices": [0.0] * 3, "limit_prices": [1.7, 0.25, 0.0], "reach": 0.0}
    free = {"min_share": [0.0] * 3, "max_share": [1.0] * 3, "totals": totals, "deciding": deciding}
    assert limit_sentences(with_limits(content, free)) == [
        third,
        "The menu comes to 0.400 of mailed per unit, which the limit asks to be at most 0.400; one "
        "more of mailed that is allowed would earn 0.250.",
        "The menu comes to 0.390 of orders per unit, which the limit asks to be at least 0.380; "
        "the limit does not bind.",
    ]


def test_listed_values_are_shown_as_they_were_written() -> None:
    ask = {"kind": "continuous", "values": [60, 100.25, 5000], "control": 0}
    content: Any = SimpleNamespace(space=TreatmentSpace.from_dict({"ask": ask}))
    texts = [treatment_text(content, {"ask": value}) for value in (0.0, 60.0, 100.25, 5000.0)]
    assert texts == ["ask 0", "ask 60", "ask 100.25", "ask 5,000"]
