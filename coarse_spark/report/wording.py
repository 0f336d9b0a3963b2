"""Numbers and findings in words. Every sentence is as sure as its interval, never surer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from coarse_spark.core.treatments import Categorical, Dimension
from coarse_spark.report.content import ReportContent
from coarse_spark.text import counted, shown

NONE = "–"
_COMPARED = {
    "segments_features_kmeans": "segments on features (k-means)",
    "segments_features_tree": "segments on features (tree)",
    "segments_responses_kmeans": "segments on responses (k-means)",
    "segments_treatments_kmeans": "segments on own best treatments (k-means)",
    "best_of_grid": "best of a grid",
    "random_menu": "random menu",
}


def letter(position: int) -> str:
    """Return the label of a treatment: A, B, …, Z, AA, …"""
    label = ""
    position += 1
    while position:
        position, rest = divmod(position - 1, 26)
        label = chr(65 + rest) + label
    return label


def decimals_for(errors: Iterable[float]) -> int:
    """Return how many decimals show two digits of the smallest positive error, at most 6."""
    sizes = [abs(error) for error in errors if math.isfinite(error) and error != 0]
    return min(max(1 - math.floor(math.log10(min(sizes))), 0), 6) if sizes else 2


def number(value: Any, decimals: int = 2) -> str:
    """Return a number with thousands separators and a true minus, or a dash for a missing one."""
    if value is None or pd.isna(value):
        return NONE
    text = f"{float(value):,.{decimals}f}"
    if float(text.replace(",", "")) == 0:  # no "-0.00"
        text = text.lstrip("-")
    return text.replace("-", "−")


def count(value: int) -> str:
    """Return an integer with thousands separators."""
    return f"{int(value):,}"


def percent(share: Any) -> str:
    """Return a share as percent; with one decimal near 0 and 100 %, where it tells shares apart."""
    if share is None or pd.isna(share):
        return NONE
    value = 100 * float(share)
    near_an_end = 0.05 <= value < 2 or 98 < value < 99.95
    return f"{number(value, 1 if near_an_end else 0)}%"


def seconds(value: float) -> str:
    """Return a duration."""
    return f"{value / 60:.1f} min" if value >= 120 else f"{value:.1f} s"


def treatment_text(
    content: ReportContent, row: pd.Series[Any] | Mapping[str, Any], *, names: bool = True
) -> str:
    """Return a treatment in words, such as "depth 12.5, days 7", or without names "12.5/7".

    Parameters
    ----------
    content : of the run.
    row : with the user's value of every dimension, by name.
    names : whether to name the dimensions.
    """
    values = [
        _dimension_text(dimension, row[dimension.name]) for dimension in content.space.dimensions
    ]
    if names:
        return ", ".join(
            f"{shown(name)} {value}"
            for name, value in zip(content.space.names, values, strict=True)
        )
    return "/".join(values)


def _dimension_text(dimension: Dimension, value: Any) -> str:
    if isinstance(dimension, Categorical):
        return shown(value)
    if dimension.listed_values is not None:  # as they were written, 0.3 also in single precision
        single = np.float32(value)
        written = Decimal(str(single if single == value else value))
        decimals = max(-int(written.normalize().as_tuple().exponent), 0)
    else:
        # to a hundredth to a thousandth of the range; finer steps than that cannot be told apart in
        # an experiment
        decimals = max(2 - math.floor(math.log10(dimension.upper - dimension.lower)), 0)
    text = number(value, decimals)
    return text.rstrip("0").rstrip(".") if "." in text else text


def sentence(text: str) -> str:
    """Return a text with a capital first letter and a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def is_control(content: ReportContent, position: int) -> bool:
    """Return whether a treatment of the published menu is the control."""
    return bool((np.abs(content.treatments[position] - content.space.control) <= 1e-9).all())


def remark(content: ReportContent, position: int) -> str:
    """Return what a reader should know of a treatment of the published menu, in parentheses.

    Empty where there is nothing.
    """
    row = content.selected.iloc[position]
    words = ["the control"] * is_control(content, position)
    if row["extrapolates"] or row["untried"]:
        words.append("extrapolated" if row["extrapolates"] else "untried")
    return f"({', '.join(words)})" if words else ""


def value_decimals(content: ReportContent) -> int:
    """Return the decimals at which the policy values of this run are shown."""
    return decimals_for(
        error for error in content.policy_values["se"] if error > _negligible(content)
    )


def interval(row: pd.Series[Any], decimals: int) -> str:
    """Return a confidence interval in words."""
    return f"{number(row['ci_low'], decimals)} to {number(row['ci_high'], decimals)}"


def difference_text(content: ReportContent, row: pd.Series[Any]) -> str:
    """Return a difference with its interval, such as "0.021 (95 % interval −0.079 to 0.120)"."""
    found, ends = _difference(content, row)
    return f"{found} ({ends})"


def _difference(content: ReportContent, row: pd.Series[Any]) -> tuple[str, str]:
    digits = decimals_for(
        [row["se"]] if row["se"] > _negligible(content) else content.policy_values["se"]
    )
    ends = f"{level(content)} interval {interval(row, digits)}"
    return content.money.amount(number(row["difference"], digits)), ends


def level(content: ReportContent) -> str:
    """Return the confidence of the intervals."""
    return f"{100 * content.confidence:g}%"


def captured_text(content: ReportContent, row: pd.Series[Any], reference: str) -> str:
    """Return the captured share of the gain over ``reference``.

    It is in parentheses where the gain itself is not settled.
    """
    share = row[f"captured_of_{reference}"]
    if row["policy"] == "control" and reference == "uniform":
        return NONE  # what is below the best single treatment captures nothing above it
    if not undecided(content.contrast("granular", reference)):
        return percent(share)
    return f"({percent(share)})" if abs(share) <= 1 else NONE


def captured_interval(content: ReportContent, row: pd.Series[Any], reference: str) -> str:
    """Return the interval of the captured share, or that the experiment does not identify it."""
    low, high = (row[f"captured_of_{reference}_{end}"] for end in ("low", "high"))
    if pd.isna(low):
        return "not identified"
    return f"{level(content)} interval {percent(low)} to {percent(high)}"


def _negligible(content: ReportContent) -> float:
    """Return the size below which a difference is rounding: of policies that serve all alike."""
    return 1e-9 * float(content.policy_values["value"].abs().max())


def identical(content: ReportContent, row: pd.Series[Any] | None) -> bool:
    """Return whether two policies served every unit of the experiment alike."""
    return row is not None and max(abs(row["difference"]), row["se"]) <= _negligible(content)


def undecided(row: pd.Series[Any] | None) -> bool:
    """Return whether a difference is unknown, or its interval holds zero."""
    return row is None or not (row["ci_low"] > 0 or row["ci_high"] < 0)


def advice(content: ReportContent) -> str:
    """Return what to do: the treatments of the published menu and how many units get each."""
    menu = content.selected
    if len(menu) == 1:
        return headline(content)
    offers = [
        f"{f'{treatment_text(content, row)} {remark(content, position)}'.rstrip()} to "
        f"{percent(row['share'])}"
        for position, (_, row) in enumerate(menu.iterrows())
    ]
    return f"Offer {len(menu)} treatments: {_join(offers, '; ')}."


def headline(content: ReportContent) -> str:
    """Return what to do in one line: the treatment that everyone gets, or how many there are."""
    if len(content.selected) > 1:
        return f"Offer {len(content.selected)} treatments"
    what = treatment_text(content, content.selected.iloc[0])
    if is_control(content, 0):
        return f"Leave every unit at the control ({what})."
    return f"{f'Offer everyone the same treatment: {what} {remark(content, 0)}'.rstrip()}."


def findings(content: ReportContent) -> list[str]:
    """Return what the run found about the published menu, one sentence each."""
    policy, k, digits = content.assigned.policy, content.selected_k, value_decimals(content)
    value, control = content.published, content.value_of("control")
    sentences = [
        f"Expected profit is {content.money.amount(number(value['value'], digits))} "
        f"{content.money.each} ({level(content)} interval {interval(value, digits)}), against "
        f"{number(control['value'], digits)} under the control."
    ]
    beyond = int(content.selected["extrapolates"].sum())
    if beyond:
        sentences.append(
            f"The menu holds {counted(beyond, 'treatment')} beyond what the experiment gave "
            "(marked extrapolated): what units do there is the model's word."
        )
    within = int((content.selected["untried"] & ~content.selected["extrapolates"]).sum())
    if within:
        sentences.append(
            f"The menu holds {counted(within, 'treatment')} that nobody in the experiment got "
            "anything near (marked untried): what units do there is read between others, by the "
            "form of the basis."
        )
    gain = content.contrast(policy, "control", k)
    if identical(content, gain):
        sentences.append("On every unit of the experiment the menu does the same as the control.")
    elif gain is not None and undecided(gain):
        sentences.append(
            "This experiment does not show that the menu earns more than the control: "
            f"the difference is {difference_text(content, gain)}."
        )
    elif gain is not None and gain["difference"] < 0:
        sentences.append(
            f"That is less than the control: the difference is {difference_text(content, gain)}."
        )
    return [*sentences, *_over_uniform(content), *_captured(content, value), *_neighbours(content)]


def verdict(content: ReportContent) -> str:
    """Return what the experiment settles about the published menu, and what it does not."""
    k, settled, open_ = content.selected_k, list[str](), list[str]()
    for reference, name in (("control", "the control"), ("uniform", "the best single treatment")):
        gain = content.contrast("menu", reference, k)
        if gain is None or identical(content, gain) or (reference == "uniform" and k == 1):
            continue
        if undecided(gain):
            open_.append(f"whether it earns more than {name}")
        else:
            verb = "more" if gain["difference"] > 0 else "less"
            by = ", ".join(_difference(content, gain))
            settled.append(f"that it earns {verb} than {name} (difference {by})")
    for smaller, larger, row in _steps(content):
        if undecided(row) and not identical(content, row):
            open_.append(f"whether K = {larger} earns more than K = {smaller}")
    if settled and open_:
        return f"The experiment shows {_join(settled)}. It does not show {_join(open_)}."
    if settled or open_:
        verb = "shows" if settled else "does not show"
        return f"The experiment {verb} {_join(settled or open_)}."
    return "Nothing to test: on every unit of the experiment the menu does what the others do."


def adds_nothing(content: ReportContent, k: int) -> str:
    """Return that nobody gets some treatments of the menu of ``k``; empty where all serve."""
    spare = content.spare(k)
    return f"K = {k} adds nothing to K = {k - spare}" if spare else ""


def _over_uniform(content: ReportContent) -> list[str]:
    """Return what the menu adds to the best single treatment; nothing on a menu of one."""
    gain = content.contrast(content.assigned.policy, "uniform", content.selected_k)
    if gain is None or len(content.selected) == 1 or identical(content, gain):
        return []
    if undecided(gain):
        return [
            "Whether it beats the best single treatment is not settled: the difference is "
            f"{difference_text(content, gain)}."
        ]
    verb = "more" if gain["difference"] > 0 else "less"
    return [
        f"It earns {verb} than the best single treatment: the difference is "
        f"{difference_text(content, gain)}."
    ]


def _captured(content: ReportContent, value: pd.Series[Any]) -> list[str]:
    """Return the captured shares, as far as the gains that they are of are known to exist."""
    known: list[str] = []
    doubts: list[str] = []
    source = "brought along" if content.brought else "learned here"
    for reference, name in (("control", "the control"), ("uniform", "the best single treatment")):
        gain, share = content.contrast("granular", reference), value[f"captured_of_{reference}"]
        if gain is None or pd.isna(gain["difference"]):
            continue
        if identical(content, gain):
            doubts.append(
                f"Full personalization as {source} does the same as {name} on every unit: "
                "there is nothing to capture."
            )
        elif undecided(gain):
            doubts.append(
                f"Whether full personalization gains anything over {name} is not settled either "
                f"way: the difference is {difference_text(content, gain)}, so the share of it that "
                "the menu captures is not identified."
            )
        elif gain["difference"] < 0:
            doubts.append(
                f"Full personalization as {source} earns less than {name}: "
                f"{difference_text(content, gain)}."
            )
        elif not pd.isna(share):
            known.append(
                f"{percent(share)} ({captured_interval(content, value, reference)}) of what "
                f"{'it' if known else 'full personalization'} would gain over {name}"
            )
    short = content.contrast(content.assigned.policy, "granular", content.selected_k)
    if known:
        tail = (
            ""
            if short is None
            else f"; menu minus full personalization: {difference_text(content, short)}"
        )
        return [f"It captures {_join(known)}{tail}.", *doubts]
    return doubts


def _steps(content: ReportContent) -> list[tuple[int, int, pd.Series[Any]]]:
    """Return the sizes before and after the published one with what the larger adds."""
    found = []
    for smaller, larger in pairwise(content.menus["k"].tolist()):
        row = content.contrast("menu", f"menu of {smaller}", larger)
        if row is not None and content.selected_k in (smaller, larger):
            found.append((smaller, larger, row))
    return found


def _neighbours(content: ReportContent) -> list[str]:
    """Return how the published size compares with the next smaller and the next larger one."""
    sentences = []
    spare = content.spare(content.selected_k)
    if spare:
        sentences.append(
            f"{adds_nothing(content, content.selected_k)}: nobody gets "
            f"{'a further one' if spare == 1 else f'the {spare} further ones'}."
        )
    for smaller, larger, row in _steps(content):
        if identical(content, row):
            sentences.append(
                f"K = {larger} serves every unit of the experiment as K = {smaller} does."
            )
        elif undecided(row):
            sentences.append(
                f"This run cannot tell K = {smaller} from K = {larger} apart: the difference is "
                f"{difference_text(content, row)}."
            )
        else:
            verb = "adds" if row["difference"] > 0 else "costs"
            sentences.append(
                f"Going from {smaller} to {larger} treatments {verb} profit: the difference is "
                f"{difference_text(content, row)}."
            )
    return sentences


def policy_name(policy: str, k: int) -> str:
    """Return what a policy of ``policy_values`` is called in tables and pictures."""
    if policy in ("menu", "rule"):
        return f"menu of {k}" + (" by the rule" if policy == "rule" else "")
    return _COMPARED.get(policy, policy)


def comparison_sentences(content: ReportContent) -> list[str]:
    """Return how the published menu does against each of the comparisons, one sentence each."""
    sentences = []
    for name, called in _COMPARED.items():
        gain = content.contrast("menu", name, content.selected_k)
        if gain is None:
            continue
        what = f"“{called}” with as many treatments"
        if identical(content, gain):
            sentences.append(f"On every unit of the experiment {what} does the same as the menu.")
        elif undecided(gain):
            sentences.append(
                f"Whether the menu earns more than {what} is not settled: the difference is "
                f"{difference_text(content, gain)}."
            )
        else:
            verb = "more" if gain["difference"] > 0 else "less"
            sentences.append(
                f"The menu earns {verb} than {what}: the difference is "
                f"{difference_text(content, gain)}."
            )
    return sentences


def model_free_sentence(content: ReportContent) -> str:
    """Return what the published menu earns without a model of responses, or why nothing tells."""
    row, digits = content.value_of("menu", content.selected_k), value_decimals(content)
    if not pd.isna(row["model_free_value"]):
        return (
            "Without a model of responses (self-normalised inverse propensity), the menu earns "
            f"{number(row['model_free_value'], digits)} (standard error "
            f"{number(row['model_free_se'], digits)}); honest value "
            f"{number(row['value'], digits)}."
        )
    if content.evaluated.overlap is not None:
        why = "shares of treatments are themselves learned"
    elif content.policy_values["model_free_value"].notna().any():
        why = "some units would get what hardly anybody in their stratum got"
    else:
        why = "treatments are continuous, or too many for any one of them to tell much"
    return f"The check without a model of responses does not apply: {why}."


def fit_sentence(content: ReportContent) -> str:
    """Return how well the basis follows the response, in words."""
    fit = content.evaluated.lack_of_fit
    if fit.untested:
        return f"Whether the basis “{content.basis.name}” fits was not tested: {fit.untested}."
    if fit.degrees == 0:
        return (
            f"The basis “{content.basis.name}” is saturated: it has as many coefficients as there "
            f"are treatments to tell apart ({len(fit.bins)}), which leaves nothing to test."
        )
    if fit.statistic == 0 and fit.p_value == 1:
        return (
            "Whether the basis fits cannot be tested: there are no more clusters than bins of "
            f"treatment ({len(fit.bins)})."
        )
    bins = fit.table
    misses = (bins["observed"] - bins["fitted"]).abs() / bins["standard_error"]
    worst = fit.bins[int(misses.fillna(0.0).to_numpy().argmax())]
    p_value = "p < 0.0001" if fit.p_value < 1e-4 else f"p = {fit.p_value:.2g}"
    text = f"χ² = {number(fit.statistic, 1)}, df = {fit.degrees}, {p_value}"
    if fit.p_value >= 0.05:
        return f"Observed and fitted means agree within noise ({text})."
    return (
        f"The basis “{content.basis.name}” misses part of the response ({text}); the largest miss "
        f"is at {worst.label}: observed {worst.observed:.3g}, fitted {worst.fitted:.3g}."
    )


def basis_sentence(content: ReportContent) -> str:
    """Return which basis was chosen and how the others did, in words; empty where one was given."""
    losses = content.fitted.basis_losses
    if not losses:
        return ""
    least = min(losses.values())
    digits = (
        max(4 - math.floor(math.log10(least)), 0) if least > 0 else 6
    )  # bases differ in the third digit or later
    worse = sorted((loss, name) for name, loss in losses.items() if name != content.basis.name)
    found = [
        f"mean squared error {number(least, digits)}",
        *(f"“{name}” {number(loss, digits)}" for loss, name in worse),
    ]
    return (
        f"Of the bases compared “{content.basis.name}” predicts held-out outcomes best: "
        f"{_join(found)}."
    )


def scale_sentence(content: ReportContent) -> str:
    """Return how responses are scaled, unless as they are, and how the scales did, in words."""
    scale, losses = content.fitted.scale, content.fitted.scale_losses
    if scale == "additive":
        return ""
    if "," in scale:
        return f"The outcomes are learned on scales of their own: {scale}."
    sentence, reason = {
        "relative": (
            "The coefficients are learned as multiples of each unit's expected outcome",
            "outcomes are never negative",
        ),
        "logistic": (
            "The coefficients are learned in proportion to b (1 − b), b being each unit's expected "
            "outcome: as effects on the logit of a chance",
            "outcomes lie from 0 to 1",
        ),
    }[scale]
    if not losses:
        return f"{sentence}."
    less = 1 - losses[scale] / losses["additive"]
    if less <= 0:
        return (
            f"{sentence}: {reason}, and learning them as they are predicts held-out ones no better "
            "by more than chance."
        )
    return (
        f"{sentence}, which predicts held-out outcomes better than learning them as they are "
        f"({percent(less)} less weighted squared error)."
    )


def design_sentence(content: ReportContent) -> str:
    """Return how well the treatments of a learned design overlap, in words.

    Empty where treatments were randomized.
    """
    overlap = content.evaluated.overlap
    if overlap is None:
        return ""
    return (
        "How treatments depend on the units was learned. "
        f"On {counted(overlap.rows, 'unit')}, out of fold: "
        "smallest eigenvalue of the treatments' covariance given the features "
        f"{number(overlap.smallest_eigenvalue)} (1: fully randomized), "
        f"lifted for {percent(overlap.lifted_share)} of the units; "
        f"effective rows {percent(overlap.effective_rows / overlap.rows)}; "
        f"imbalance after weighting {number(overlap.imbalance)}"
        f"{f' where {overlap.imbalanced}' if overlap.imbalanced else ''}."
    )


def models_sentence(content: ReportContent) -> str:
    """Return how the partitions are served, or where responses come from, in words."""
    if content.brought:
        return (
            f"Responses were brought along, from {shown(content.brought)}: no model was fitted "
            "here, and that those of the experiment are out of fold is declared, not known."
        )
    models = content.fitted.models
    own, others = ("its" if n == 1 else "their" for n in (models.own, models.unidentified))
    why = f" ({count(models.unidentified)} because {others} rows do not support a model)"
    parts = [
        f"{count(models.own)} with a model of {own} own",
        f"{count(models.pooled)} served by the pooled model{why if models.unidentified else ''}",
    ]
    if models.failed:
        parts.append(f"{count(models.failed)} failed")
    return f"Partitions: {_join(parts)}."


def _join(parts: Sequence[str], separator: str = ", ") -> str:
    if separator == ", " and len(parts) > 1:
        return f"{', '.join(parts[:-1])} and {parts[-1]}"
    return separator.join(parts)
