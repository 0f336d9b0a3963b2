"""Several outcomes in words: what each is under the policies, and for whom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coarse_spark.lake.step_results import OutcomeValue
from coarse_spark.report.content import ReportContent
from coarse_spark.report.wording import decimals_for, level, number, policy_name

_SHOWN = {"control": "control", "uniform": "best single treatment", "granular": "granular"}


@dataclass(frozen=True)
class OutcomeRow:
    """One policy in the table of outcomes.

    Attributes
    ----------
    name : of the policy.
    selected : whether it is what is published.
    cells : for every outcome its value with interval, and the difference to the control with its.
    """

    name: str
    selected: bool
    cells: tuple[tuple[str, str, str, str], ...]


def outcome_sentences(content: ReportContent) -> list[str]:
    """Return a sentence for each of several outcomes under what is published; none for one."""
    what = "rule" if content.assigned.policy == "rule" else "menu"
    sentences = []
    for outcome in _several(content):
        row = _value(content, outcome, content.assigned.policy, content.selected_k)
        if row is None:
            continue
        value, ends, difference, wide = _cells(content, row)
        sentences.append(
            f"{outcome} under the {what}: {value} {content.money.each} ({level(content)} interval "
            f"{ends}), {difference} ({wide}) against the control."
        )
    return sentences


def outcome_rows(content: ReportContent) -> list[OutcomeRow]:
    """Return the honest outcomes of the policies; none where there is one outcome."""
    policies = list(dict.fromkeys((row.policy, row.k) for row in content.evaluated.outcomes))
    rows = []
    for policy, k in policies:
        found = [_value(content, outcome, policy, k) for outcome in _several(content)]
        rows.append(
            OutcomeRow(
                _SHOWN.get(policy, policy_name(policy, k)),
                policy == content.assigned.policy and k == content.selected_k,
                tuple(_cells(content, row) for row in found if row is not None),
            )
        )
    return rows


def segment_outcomes(content: ReportContent) -> list[list[str]]:
    """Return for every treatment of the menu the outcomes of its units, by their responses.

    Each with its difference to the control; nothing where there is one outcome.
    """
    texts: list[list[str]] = [[] for _ in range(len(content.selected))]
    for place, outcome in enumerate(_several(content)):
        digits = _digits(content, outcome)
        own = np.diag(content.outcomes(content.treatments, place))
        control = content.outcomes(content.space.control[None, :], place)[:, 0]
        for text, value, base in zip(texts, own, control, strict=True):
            gain = _signed(value - base, digits)
            text.append(f"{outcome} {number(value, digits)} ({gain})")
    return texts


def _several(content: ReportContent) -> tuple[str, ...]:
    names = content.profit.outcomes
    return names if len(names) > 1 else ()


def _value(content: ReportContent, outcome: str, policy: str, k: int) -> OutcomeValue | None:
    return next(
        (
            row
            for row in content.evaluated.outcomes
            if (row.outcome, row.policy, row.k) == (outcome, policy, k)
        ),
        None,
    )


def _digits(content: ReportContent, outcome: str) -> int:
    errors = [row.se for row in content.evaluated.outcomes if row.outcome == outcome]
    return decimals_for(errors)


def _signed(value: float, digits: int) -> str:
    text = number(value, digits)
    return text if text.startswith("−") or not value else f"+{text}"


def _cells(content: ReportContent, row: OutcomeValue) -> tuple[str, str, str, str]:
    digits = _digits(content, row.outcome)
    same = row.policy == "control"
    fine = decimals_for([row.difference_se])
    return (
        number(row.value, digits),
        f"{number(row.ci_low, digits)} to {number(row.ci_high, digits)}",
        "" if same else _signed(row.difference, fine),
        ""
        if same
        else f"{number(row.difference_low, fine)} to {number(row.difference_high, fine)}",
    )
