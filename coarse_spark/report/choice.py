"""The choice of the menu in words and rows: how sure it is, what it changes for units, and what the sketch made of it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from coarse_spark.report.content import ReportContent, Stability
from coarse_spark.report.wording import NONE, count, number, percent, treatment_text, value_decimals

_SHOWN = 12  # treatments in the table


def changes_sentence(content: ReportContent) -> str:
    """Return how many units get another treatment than in the earlier run; empty without one."""
    changes = content.changes
    if changes is None:
        return ""
    share = percent(changes.changed / changes.units) if changes.units else NONE
    moved = f"{count(changes.changed)} of {count(changes.units)} units ({share})"
    text = f"Against run {changes.previous_run}, {moved} get another treatment"
    if changes.new:
        text += f"; {count(changes.new)} had none"
    if content.switching_cost:
        text += f". That costs {number(content.switching_cost, value_decimals(content))} per unit of the population"
        text += ", which plug-in values of menus are less of and honest values are not"
    return f"{text}."


def stability_sentence(content: ReportContent) -> str:
    """Return how sure the treatments of the published menu are; empty where it was not looked at."""
    stability = content.stability
    if stability is None:
        return ""
    published = stability.table[stability.table["published"]]
    if stability.expected_loss is None:
        often = int((published["folds"] >= stability.folds / 2).sum())
        return (
            f"To the nearest step, {often} of the {len(published)} treatments are on at least half of the {stability.folds} menus "
            "that were each chosen without one fold of the experiment."
        )
    often = int((published["frequency"] >= 0.5).sum())
    digits = value_decimals(content) + 1
    return (
        f"To the nearest step, {often} of the {len(published)} treatments are chosen in at least half of {stability.resamples} "
        "redraws of the responses with their estimation noise; such menus lose "
        f"{number(stability.expected_loss, digits)} per unit on average."
    )


def stability_rows(content: ReportContent) -> list[dict[str, Any]]:
    """Return the treatments of the published menu and those chosen most often, with how often."""
    stability = content.stability
    if stability is None:
        return []
    shown = max(_SHOWN, int(stability.table["published"].sum()))
    return [
        {
            "text": treatment_text(content, row),
            "published": bool(row["published"]),
            "folds": f"{int(row['folds'])} of {stability.folds}",
            "frequency": _frequency(stability, row),
        }
        for _, row in stability.table.head(shown).iterrows()
    ]


def _frequency(stability: Stability, row: pd.Series[Any]) -> str:
    return percent(row["frequency"]) if stability.resamples else NONE


def sketch_rows(content: ReportContent) -> list[dict[str, Any]]:
    """Return for every size the plug-in value on the sketch and on all units, and the difference in % of granular − control."""
    whole = (
        content.value_of("granular")["plug_in_value"] - content.value_of("control")["plug_in_value"]
    )
    return [
        {
            "k": int(row["k"]),
            "exact": f"{row['exact']:.6g}",
            "sketch": f"{row['sketch']:.6g}",
            "effect": f"{100 * (row['exact'] - row['sketch']) / whole:.2g}%" if whole > 0 else NONE,
        }
        for _, row in content.sketch.iterrows()
    ]
