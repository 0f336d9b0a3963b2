"""Checks of the blocks design, response and evaluation: how responses are learned and judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from coarse_spark.config.checks.problem import SPACE, Check, Problem
from coarse_spark.core.basis import Basis, candidate_bases
from coarse_spark.core.learners.shape import check_shape
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError


def _strata(kind: str, strata: tuple[str, ...]) -> Iterator[Problem]:
    if kind == "stratified" and not strata:
        message = (
            "found stratified without strata, expected experiment.strata to name the columns "
            "that treatments were randomized within"
        )
        yield Problem(("design", "kind"), message)


def _rows_a_model(min_rows: int, max_rows: int) -> Iterator[Problem]:
    if min_rows > max_rows:
        yield Problem(
            ("response", "min_rows"),
            f"found {min_rows}, expected at most response.max_rows = {max_rows}",
        )


def _bases(wanted: str | tuple[str, ...], space: TreatmentSpace) -> Iterator[Problem]:
    yield from (problem for _, problem in _compared(wanted, space) if problem is not None)


def _compared(
    wanted: str | tuple[str, ...], space: TreatmentSpace, *, shaped: bool = False
) -> Iterator[tuple[str, Problem | None]]:
    """Yield every basis to compare, with what is wrong with it."""
    for position, name in enumerate(candidate_bases(wanted, space, shaped=shaped)):
        try:
            Basis(name, space)
            yield name, None
        except InvalidInputError as error:
            yield (
                name,
                Problem(
                    ("response", "basis")
                    if isinstance(wanted, str)
                    else ("response", "basis", position),
                    str(error),
                ),
            )


def _shapes(
    wanted: str | tuple[str, ...], shape: Mapping[str, str], space: TreatmentSpace
) -> Iterator[Problem]:
    compared = _compared(wanted, space, shaped=True)
    bases = [basis for basis, problem in compared if problem is None]
    for name, words in shape.items():
        try:
            for basis in bases:
                check_shape({name: words}, Basis(basis, space))
        except InvalidInputError as error:
            yield Problem(("response", "shape", name), f"found '{words}': {error}")


def _resamples(resamples: int) -> Iterator[Problem]:
    if resamples == 1:
        yield Problem(
            ("evaluation", "resamples"), "found 1, which shows no spread, expected 0 or at least 2"
        )


CHECKS: tuple[Check, ...] = (
    (("design.kind", "experiment.strata"), _strata),
    (("response.min_rows", "response.max_rows"), _rows_a_model),
    (("response.basis", SPACE), _bases),
    (("response.basis", "response.shape", SPACE), _shapes),
    (("evaluation.resamples",), _resamples),
)
