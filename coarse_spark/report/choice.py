"""The choice of the menu in words and rows: how sure, whom it changes, what the sketch lost."""

from __future__ import annotations

from typing import Any

from coarse_spark.report.content import ReportContent
from coarse_spark.report.wording import NONE, count, number, percent, treatment_text, value_decimals

_SHOWN = 12  # treatments in the table


def changes_sentence(content: ReportContent) -> str:
    """Return how many units get another treatment than in the earlier run; empty without one."""
    changes = content.assigned.changes
    if changes is None:
        return ""
    share = percent(changes.changed / changes.units) if changes.units else NONE
    moved = f"{count(changes.changed)} of {count(changes.units)} units ({share})"
    text = f"Against run {changes.previous_run}, {moved} get another treatment"
    if changes.new:
        text += f"; {count(changes.new)} had none"
    cost = content.chosen.menus[content.selected_k].switching_cost
    if cost:
        text += f". That costs {number(cost, value_decimals(content))} per unit of the population"
        text += ", which plug-in values of menus are less of and honest values are not"
    return f"{text}."


def stability_sentence(content: ReportContent) -> str:
    """Return how sure the treatments of the published menu are."""
    stability = content.evaluated.stability
    published = [row for row in stability.treatments if row.published]
    if stability.expected_loss is None:
        often = sum(row.folds >= stability.folds / 2 for row in published)
        return (
            f"To the nearest step, {often} of the {len(published)} treatments are on at least half "
            f"of the {stability.folds} menus that were each chosen without one fold of the "
            "experiment."
        )
    often = sum((row.frequency or 0.0) >= 0.5 for row in published)
    loss = number(stability.expected_loss, value_decimals(content) + 1)
    return (
        f"To the nearest step, {often} of the {len(published)} treatments are chosen in at least "
        f"half of {stability.resamples} redraws of the responses with their estimation noise; "
        f"such menus lose {loss} per unit on average."
    )


def stability_rows(content: ReportContent) -> list[dict[str, Any]]:
    """Return the treatments of the published menu and those chosen most often, with how often."""
    stability = content.evaluated.stability
    shown = max(_SHOWN, sum(row.published for row in stability.treatments))
    return [
        {
            "text": treatment_text(content, row.treatment),
            "published": row.published,
            "folds": f"{row.folds} of {stability.folds}",
            "frequency": percent(row.frequency),
        }
        for row in stability.treatments[:shown]
    ]


def sketch_rows(content: ReportContent) -> list[dict[str, Any]]:
    """Return for every size the plug-in value on the sketch and on all units.

    The difference is in % of granular − control.
    """
    whole = (
        content.value_of("granular")["plug_in_value"] - content.value_of("control")["plug_in_value"]
    )
    rows = []
    for k, menu in content.chosen.menus.items():
        exact = menu.value
        effect = f"{100 * (exact - menu.sketch_value) / whole:.2g}%" if whole > 0 else NONE
        rows.append(
            {
                "k": k,
                "exact": f"{exact:.6g}",
                "sketch": f"{menu.sketch_value:.6g}",
                "effect": effect,
            }
        )
    return rows
