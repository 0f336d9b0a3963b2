"""The page of a run: one HTML file that needs nothing else."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from coarse_spark.errors import InvalidInputError
from coarse_spark.report import wording
from coarse_spark.report.choice import (
    changes_sentence,
    is_rounded,
    sketch_rows,
    stability_rows,
    stability_sentence,
)
from coarse_spark.report.content import ReportContent
from coarse_spark.report.drawing import colour, ink
from coarse_spark.report.frontier import (
    Frontier,
    first_column,
    frontiers_of,
    measure_names,
    sentences,
    table_rows,
    title,
)
from coarse_spark.report.frontier_picture import picture
from coarse_spark.report.limits import limit_sentences
from coarse_spark.report.outcomes import outcome_rows, segment_outcomes
from coarse_spark.report.pictures import comparison_picture, fit_picture, k_curve
from coarse_spark.report.responses import response_picture
from coarse_spark.report.rule import rule_sentence
from coarse_spark.report.totals import totals, totals_note
from coarse_spark.text import printable


def write_report(content: ReportContent, path: str | Path) -> Path:
    """Write the page to ``path`` and return it; the same content gives the same bytes.

    Raises
    ------
    InvalidInputError : the page cannot be written there.
    """
    path = Path(path)
    page = render_report(content)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except (OSError, ValueError) as error:  # names that the system cannot encode are the latter
        why = error.strerror if isinstance(error, OSError) else error
        raise InvalidInputError(
            f"the page cannot be written to {path}: {why}; expected a file's path"
        ) from None
    return path


def render_report(content: ReportContent) -> str:
    """Return the page as HTML. The user's texts are escaped; pictures are the package's own SVG."""
    environment = Environment(
        loader=PackageLoader("coarse_spark.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # what is marked as HTML is of our own making
        finalize=lambda value: (
            printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
        ),
    )
    menu_picture, menu_caption = response_picture(content)
    digits = wording.value_decimals(content)
    earned, *found = wording.findings(content)
    return environment.get_template("page.html.j2").render(
        content=content,
        words=wording,
        advice=wording.headline(content),
        earned=earned,
        verdict=wording.verdict(content),
        findings=[
            *found,
            *limit_sentences(content),
            *filter(None, [rule_sentence(content), changes_sentence(content)]),
        ],
        stability=stability_sentence(content),
        stability_rows=stability_rows(content),
        rounded=is_rounded(content),
        sketch=sketch_rows(content),
        left_out=content.validated.experiment_rows - content.validated.usable_rows,
        rule=wording.sentence(content.evaluated.selection_rule),
        digits=digits,
        level=wording.level(content),
        offers=_offers(content, digits),
        values=_values(content, digits),
        outcomes=outcome_rows(content),
        totals=totals(content),
        totals_note=totals_note(content),
        differences=_differences(content),
        history=_history(content),
        k_curve=_drawn(k_curve(content)),
        compared=wording.comparison_sentences(content),
        comparisons=_drawn(comparison_picture(content)) if len(content.compared) else "",
        frontiers=[
            _frontier(one, place)
            for place, one in enumerate(
                frontiers_of(content.frontier, content.money, content.confidence), start=1
            )
        ],
        menu_picture=_drawn(menu_picture),
        menu_caption=menu_caption,
        fit_picture=_drawn(fit_picture(content)),
    )


def _drawn(picture: str) -> Markup:
    # drawn by this package; texts in pictures are escaped by matplotlib and drawing.to_svg
    return Markup(picture)  # noqa: S704  # nosec B704


def _frontier(frontier: Frontier, place: int) -> dict[str, Any]:
    return {
        "title": title(frontier),
        "sentences": sentences(frontier),
        "picture": _drawn(picture(frontier, place)),
        "of_budget": frontier.of_budget,
        "outcome": frontier.outcome,
        "first": wording.sentence(first_column(frontier)).rstrip("."),
        "level": frontier.level,
        "measures": [wording.sentence(name).rstrip(".") for name in measure_names(frontier)],
        "rows": table_rows(frontier),
        "unit": frontier.money.unit,
    }


def _offers(content: ReportContent, digits: int) -> list[dict[str, Any]]:
    """Return the treatments of the published menu with who gets them."""
    segments = content.segments.set_index("treatment_id")
    outcomes = segment_outcomes(content)
    offers = []
    for position, (_, row) in enumerate(content.selected.iterrows()):
        segment = (
            segments.loc[row["treatment_id"]] if row["treatment_id"] in segments.index else None
        )
        offers.append(
            {
                "letter": wording.letter(position),
                "id": int(row["treatment_id"]),
                "colour": colour(position),
                "ink": ink(position),
                "text": wording.treatment_text(content, row),
                "remark": wording.remark(content, position),
                "share": float(row["share"]),
                "size": None if segment is None else wording.count(segment["size"]),
                "profit": wording.number(row["expected_profit"], digits),
                "gain": wording.number(
                    content.segment_profits[position, position]
                    - content.segment_profits[position, -1],
                    digits,
                ),
                "outcomes": outcomes[position],
                "distinguishing": []
                if segment is None or segment["distinguishing"] is None
                else list(segment["distinguishing"]),
                "rule": "" if segment is None else str(segment["rule"] or ""),
            }
        )
    return offers


def _values(content: ReportContent, digits: int) -> list[dict[str, Any]]:
    rows = []
    names = {
        "control": "control (nobody treated)",
        "uniform": "best single treatment (uniform)",
        "granular": "full personalization (granular)",
    }
    order = {"control": 0, "uniform": 1, "menu": 2, "rule": 3, "granular": 5}
    frame = content.policy_values.assign(
        order=content.policy_values["policy"].map(order).fillna(4)
    ).sort_values(["order", "k"], kind="stable")
    for _, row in frame.iterrows():
        published = row["policy"] == content.assigned.policy and row["k"] == content.selected_k
        rows.append(
            {
                "name": names.get(row["policy"], wording.policy_name(row["policy"], row["k"])),
                "selected": published,
                "value": wording.number(row["value"], digits),
                "interval": wording.interval(row, digits),
                "spare": wording.adds_nothing(content, row["k"]) if row["policy"] == "menu" else "",
                "se": wording.number(row["se"], digits),
                "of_control": wording.captured_text(content, row, "control"),
                "of_uniform": wording.captured_text(content, row, "uniform"),
                "plug_in": wording.number(row["plug_in_value"], digits),
                "model_free": _model_free(row, digits),
                "bound": wording.number(row.get("upper_bound", np.nan), digits),
            }
        )
    return rows


def _model_free(row: pd.Series[Any], digits: int) -> str:
    if pd.isna(row["model_free_value"]):
        return wording.NONE
    value, error = (wording.number(row[f"model_free_{name}"], digits) for name in ("value", "se"))
    return f"{value} ({error})"


def _differences(content: ReportContent) -> list[dict[str, Any]]:
    rows = []
    for _, row in content.contrasts.iterrows():
        digits = wording.decimals_for([row["se"]])
        rows.append(
            {
                "name": wording.policy_name(row["policy"], row["k"]),
                "versus": wording.policy_name(row["versus"], row["k"]),
                "difference": wording.number(row["difference"], digits),
                "interval": wording.interval(row, digits),
                "settled": "the same on every unit"
                if wording.identical(content, row)
                else "no, the interval holds zero"
                if wording.undecided(row)
                else "yes",
            }
        )
    return rows


def _history(content: ReportContent) -> list[dict[str, Any]]:
    """Return the passes for the published size, in the user's numbers."""
    return [asdict(row) for row in content.chosen.passes if row.k == content.selected_k]
