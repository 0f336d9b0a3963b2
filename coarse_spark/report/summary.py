"""The summary of a run on the terminal."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from coarse_spark.report.choice import changes_sentence, stability_sentence
from coarse_spark.report.content import ReportContent
from coarse_spark.report.frontier import Frontier, frontiers_of, printed, sentences, title
from coarse_spark.report.limits import limit_sentences
from coarse_spark.report.outcomes import outcome_sentences
from coarse_spark.report.rule import rule_sentence
from coarse_spark.report.totals import totals_sentence
from coarse_spark.report.wording import (
    adds_nothing,
    advice,
    basis_sentence,
    captured_text,
    comparison_sentences,
    count,
    design_sentence,
    findings,
    fit_sentence,
    interval,
    level,
    models_sentence,
    number,
    percent,
    scale_sentence,
    treatment_text,
    value_decimals,
)
from coarse_spark.text import counted, printable


def print_summary(content: ReportContent, console: Console) -> None:
    """Print what to do and how sure that is, in about a screen; reads well from 100 columns on.

    Values are honest (cross-fitted, debiased) unless they are marked as plug-in. The published menu
    is marked with an arrow.
    """
    rows = content.validated
    unusable = rows.experiment_rows - rows.usable_rows
    left_out = f" ({count(unusable)} left out)" if unusable else ""
    clusters = "" if rows.clusters is None else f" in {counted(rows.clusters, 'cluster')}"
    console.print()
    console.print(_text(content.title, "bold") + _text(f"  run {content.run_id}", "dim"))
    console.print(
        _text(
            f"{counted(rows.usable_rows, 'unit')} of the experiment{clusters}{left_out}, "
            f"{count(content.scored.units)} of the population; outcome {content.outcome}",
            style="dim",
        )
    )
    console.print()
    console.print(_menus(content))
    console.print(
        _text(
            f"Honest: cross-fitted and debiased, {content.money.unit}. "
            "Plug-in: by the estimated responses themselves, optimistic.",
            "dim",
        )
    )
    if any(
        captured_text(content, content.menus.iloc[0], reference).startswith("(")
        for reference in ("control", "uniform")
    ):
        console.print(
            _text("In parentheses: a share of a gain that this experiment does not settle.", "dim")
        )
    if content.menu["untried"].any():
        console.print(
            _text(
                "* Nobody in the experiment got anything near: what units do there is the model's "
                "word.",
                "dim",
            )
        )
    console.print()
    lines = [
        (advice(content), "bold"),
        *((line, "") for line in findings(content)),
        *((line, "") for line in (totals_sentence(content), *limit_sentences(content)) if line),
        *((line, "") for line in outcome_sentences(content)),
    ]
    lines += [(line, "") for line in comparison_sentences(content)]
    further = [
        f"Choice of K: {content.evaluated.selection_rule.rstrip('.')}.",
        basis_sentence(content),
        scale_sentence(content),
        rule_sentence(content),
        changes_sentence(content),
        stability_sentence(content),
        fit_sentence(content),
        design_sentence(content),
        models_sentence(content),
    ]
    lines += [(line, "") for line in further if line]
    lines += [(f"Warning: {warning}", "yellow") for warning in content.warnings]
    bullets = Table.grid(padding=(0, 1))
    for line, style in lines:
        bullets.add_row(_text("•", style), _text(line, style))
    console.print(bullets)
    print_frontiers(frontiers_of(content.frontier, content.money, content.confidence), console)


def print_frontiers(frontiers: Iterable[Frontier], console: Console) -> None:
    """Print the table of every frontier with what it says of the run's own choice."""
    for frontier in frontiers:
        console.print()
        console.print(_text(title(frontier), "bold"))
        console.print(printed(frontier))
        for sentence in sentences(frontier):
            console.print(_text(f"• {sentence}"))


def _text(text: str, style: str = "") -> Text:
    """Return a text that is no markup: names may hold square brackets, and worse."""
    return Text(printable(text), style)


def _menus(content: ReportContent) -> Table:
    digits = value_decimals(content)
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column("\nK", justify="right", no_wrap=True)
    table.add_column(_text(f"\ntreatments ({'/'.join(content.space.names)})"), overflow="fold")
    table.add_column("shares\n%", overflow="fold")
    table.add_column("honest\nprofit", justify="right", no_wrap=True)
    table.add_column(f"{level(content)}\ninterval", justify="right", no_wrap=True)
    table.add_column("captured\nof control", justify="right", no_wrap=True)
    table.add_column("captured\nof uniform", justify="right", no_wrap=True)
    table.add_column("plug-in\nprofit", justify="right", no_wrap=True)

    def add(
        name: str, offers: str, shares: str, policy: str, k: int | None = None, style: str = ""
    ) -> None:
        row = content.value_of(policy, k)
        numbers = (
            number(row["value"], digits),
            interval(row, digits),
            captured_text(content, row, "control"),
            captured_text(content, row, "uniform"),
            number(row["plug_in_value"], digits),
        )
        mark = "→" if policy == content.assigned.policy and k == content.selected_k else ""
        table.add_row(
            mark, name, *(_text(text) for text in (offers, shares, *numbers)), style=style
        )

    add("–", "control", "", "control", style="dim")
    single = content.menus.loc[content.menus["k"] == 1, "value"]
    if not np.isclose(single, content.value_of("uniform")["value"]).any():
        add("1", "uniform", "", "uniform", style="dim")
    ruled = set(content.policy_values.loc[content.policy_values["policy"] == "rule", "k"])
    for k in content.menus["k"].astype(int):
        menu, offers, shares = content.menu_of(k), adds_nothing(content, k), ""
        if not offers or k == content.selected_k:
            menu = menu[menu["share"] > 0]
            offers = ", ".join(
                treatment_text(content, row, names=False) + "*" * bool(row["untried"])
                for _, row in menu.iterrows()
            )
            shares = ", ".join(percent(share).removesuffix("%") for share in menu["share"])
        add(str(k), offers, shares, "menu", k, "bold green" if k == content.selected_k else "")
        if k in ruled:
            add(str(k), "the same, by the rule", "", "rule", k)
    add("∞", "granular: no limit", "", "granular", style="dim")
    return table
