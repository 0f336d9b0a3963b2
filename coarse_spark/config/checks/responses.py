"""Checks of the block responses: what to say and what to leave out."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from coarse_spark.config.checks.problem import GIVEN, SPACE, VALUES, Check, Problem, Values, brief
from coarse_spark.config.defaults import brought_along
from coarse_spark.core.basis import Basis
from coarse_spark.core.policies import ON_FEATURES
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError

# how models are fitted says nothing where none are
_OF_LEARNING: dict[str, tuple[object, ...]] = {
    "response.learner": ("auto",),
    "response.scale": ("auto", "additive"),
    "response.winsorize": (0.0,),
    "response.shape": ({},),
    "response.shrink_to_pooled": (True,),
    "experiment.partition_by": ((),),
}
_MOST_NAMED = 12  # columns of a basis in one sentence
# a spline finds its knots in the data where none are given, and coefficients are of known ones
_NO_KNOTS = re.compile(r"spline(?!\s*\([^)]*\d)")


def _said(values: Values, given: Collection[str]) -> Iterator[Problem]:
    if not brought_along(values, given):
        yield from (
            Problem(
                ("responses",),
                f"found {name} without experiment, expected responses.experiment: the table with "
                "out-of-fold responses of the experiment's units",
            )
            for name in _alone(values)[:1]
        )
        return
    if not values.get("responses.columns", True):
        yield Problem(
            ("responses", "columns"),
            "found none, expected the columns with the response coefficients, in the order of "
            "the columns of response.basis",
        )
    if not values.get("responses.out_of_fold", True):
        yield Problem(
            ("responses", "out_of_fold"),
            "found false, expected true, which declares that every unit of responses.experiment "
            "was predicted by models that saw none of its fold (responses.fold), or none of the "
            "experiment: honest values rest on that",
        )
    apart = values.get("population.table") is not None or values.get("population.path") is not None
    if apart and values.get("responses.population", "") is None:
        yield Problem(
            ("responses", "population"),
            "found none, expected the table with the responses of the population's units",
        )
    unit_id = values.get("experiment.unit_id") or ()
    ids = {unit_id} if isinstance(unit_id, str) else set(unit_id)
    taken: dict[str, str] = {}
    for outcome, names in _columns_of(values):
        for position, name in enumerate(names):
            if name in ids or name in taken:
                what = "the unit_id" if name in ids else f"of {taken[name]} already"
                yield Problem(
                    ("responses", "columns", *outcome, position),
                    f"found '{name}', which is {what}, expected a column of coefficients",
                )
        taken |= dict.fromkeys(names, "".join(outcome))


def _columns_of(values: Values) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return the columns of each outcome that they are given for; its name, or nothing, first."""
    columns: Any = values.get("responses.columns") or ()
    if isinstance(columns, Mapping):
        return [((str(outcome),), tuple(names)) for outcome, names in columns.items()]
    return [((), tuple(columns))]


def _alone(values: Values) -> list[str]:
    """Return the keys that say something where no responses are named."""
    keys = ("population", "columns", "fold", "out_of_fold")
    return [key for key in keys if values.get(f"responses.{key}")]


def _left_out(values: Values, given: Collection[str]) -> Iterator[Problem]:
    if not brought_along(values, given):
        return
    for key, silent in _OF_LEARNING.items():
        if values.get(key, silent[0]) not in silent:
            yield Problem(
                tuple(key.split(".")),
                f"found {brief(values[key])}, which says how responses are learned, and they are "
                "brought along: leave it out",
            )
    if values.get("evaluation.resamples"):
        yield Problem(
            ("evaluation", "resamples"),
            f"found {values['evaluation.resamples']}, expected 0: responses that are brought along "
            "do not tell the noise of the models that gave them",
        )


def _features(values: Values, given: Collection[str]) -> Iterator[Problem]:
    """Yield what needs features where there are none."""
    if values.get("experiment.features", True):
        return
    key = ("experiment", "features")
    if not brought_along(values, given):
        if _alone(values):
            return
        found = "found []" if "experiment.features" in given else "the key is missing"
        yield Problem(key, f"{found}, expected at least one column name")
        return
    if values.get("design.kind") == "learned":
        yield Problem(
            key,
            "found none, expected what treatments were given by: design.kind is learned",
        )
    if values.get("menu.assignment") == "rule":
        yield Problem(
            key, "found none, expected what the rule may look at: menu.assignment is rule"
        )
    asked = set(values.get("evaluation.comparisons") or ()) & set(ON_FEATURES)
    if asked:
        yield Problem(
            key,
            f"found none, expected what units are compared by: evaluation.comparisons has "
            f"{', '.join(sorted(asked))}",
        )


def _basis(values: Values, given: Collection[str], space: TreatmentSpace) -> Iterator[Problem]:
    wanted = values.get("response.basis")
    if not brought_along(values, given) or not values.get("responses.columns") or wanted is None:
        return
    key = ("response", "basis")
    if wanted == "auto" or not isinstance(wanted, str) or _NO_KNOTS.search(wanted):
        found = wanted if isinstance(wanted, str) else ", ".join(wanted)
        yield Problem(
            key,
            f"found {found}, expected the one basis that responses.columns are coefficients of"
            f"{', with its knots' if 'spline' in found else ''}; arms where they are the expected "
            "outcomes under the treatments",
        )
        return
    try:
        basis = Basis(wanted, space)
    except InvalidInputError:  # a check of its own reports it
        return
    for outcome, columns in _columns_of(values):
        if len(columns) != basis.size:
            named = ", ".join(basis.columns[:_MOST_NAMED])
            more = ", …" if basis.size > _MOST_NAMED else ""
            yield Problem(
                ("responses", "columns", *outcome),
                f"found {len(columns)}, expected {basis.size}, one for every column of the basis "
                f"{wanted} in this order: {named}{more}",
            )


CHECKS: tuple[Check, ...] = (
    ((VALUES, GIVEN), _said),
    ((VALUES, GIVEN), _left_out),
    ((VALUES, GIVEN), _features),
    ((VALUES, GIVEN, SPACE), _basis),
)
