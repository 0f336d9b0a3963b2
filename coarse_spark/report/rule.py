"""The rule of the published menu in words: whether it decides, and what it loses."""

from __future__ import annotations

from coarse_spark.report.content import ReportContent
from coarse_spark.report.wording import difference_text, identical, undecided


def rule_sentence(content: ReportContent) -> str:
    """Return whether a rule assigns the units and what it loses; empty for one treatment for all.

    Empty too under limits, which no rule keeps.
    """
    if content.assigned.rule is None or content.selected_k == 1:
        return ""
    who = (
        "Units are assigned by a rule over features that SQL can run"
        if content.assigned.by_rule
        else "A rule over features that SQL can run may assign the units instead"
    )
    versus = f"menu of {content.selected_k}"
    row = content.contrast("rule", versus, content.selected_k)
    if row is None:
        return f"{who} (coarse-spark export-rule)."
    if identical(content, row):
        return f"{who}: it does the same as the units' own responses."
    if undecided(row):
        lost = "whether it earns less than the units' own responses would is not settled"
    else:
        verb = "less" if row["difference"] < 0 else "more"
        lost = f"it earns {verb} than the units' own responses would"
    return f"{who}: {lost}, the difference is {difference_text(content, row)}."
