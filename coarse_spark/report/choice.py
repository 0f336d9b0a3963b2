"""The choice of the menu in words and rows: how sure, whom it changes, what the sketch lost."""

from __future__ import annotations

from typing import Any

from coarse_spark.report.content import ReportContent
from coarse_spark.report.wording import (
    NONE,
    count,
    number,
    percent,
    sentence,
    treatment_text,
    value_decimals,
)
from coarse_spark.text import counted

_SHOWN = 12  # treatments in the table


def changes_sentence(content: ReportContent) -> str:
    """Return how many units get another treatment than in the earlier run; empty without one."""
    changes = content.assigned.changes
    if changes is None:
        return ""
    share = percent(changes.changed / changes.units) if changes.units else NONE
    moved = f"{count(changes.changed)} of {counted(changes.units, 'unit')} ({share})"
    verb = "gets" if changes.changed == 1 else "get"
    text = f"Against run {changes.previous_run}, {moved} {verb} another treatment"
    if changes.new:
        text += f"; {count(changes.new)} had none"
    cost, money = content.chosen.menus[content.selected_k].switching_cost, content.money
    if cost:
        amount = money.amount(number(cost, value_decimals(content)))
        text += f". That costs {amount} per unit of the population"
        text += ", which plug-in values of menus are less of and honest values are not"
    return f"{text}."


def stability_sentence(content: ReportContent) -> str:
    """Return how sure the treatments of the published menu are."""
    stability = content.evaluated.stability
    published = [row for row in stability.treatments if row.published]
    alone = len(published) == 1
    if stability.expected_loss is None:
        often = sum(row.folds >= stability.folds / 2 for row in published)
        how = "on the responses of one fold" if content.brought else "without one fold"
        menus = f"{stability.folds} menus that were each chosen {how} of the experiment"
        text = (
            f"the treatment is on {published[0].folds} of the {menus}."
            if alone
            else f"{often} of the {len(published)} treatments {'is' if often == 1 else 'are'} on "
            f"at least half of the {menus}."
        )
    else:
        often = sum((row.frequency or 0.0) >= 0.5 for row in published)
        loss = content.money.amount(number(stability.expected_loss, value_decimals(content) + 1))
        redraws = f"{stability.resamples} redraws of the responses with their estimation noise"
        chosen = (
            f"the treatment is chosen in {percent(published[0].frequency)} of {redraws}"
            if alone
            else f"{often} of the {len(published)} treatments {'is' if often == 1 else 'are'} "
            f"chosen in at least half of {redraws}"
        )
        text = f"{chosen}; such menus lose {loss} {content.money.each} on average."
    return sentence(f"to the nearest step, {text}" if is_rounded(content) else text)


def is_rounded(content: ReportContent) -> bool:
    """Return whether treatments are counted in steps of their range, see ``stability.rounded``."""
    return bool(content.space.continuous.any()) and not content.basis.is_arms


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
