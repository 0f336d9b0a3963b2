"""What a user may set about the response learners."""

from __future__ import annotations

from dataclasses import dataclass

from coarse_spark.errors import InvalidInputError, nearest

LEARNERS = ("auto", "sieve", "constant")


@dataclass(frozen=True)
class LearnerSettings:
    """Settings of one response fit.

    Parameters
    ----------
    learner : ``auto`` (the best by cross-validated R-loss), ``sieve`` (penalised splines), or ``constant`` (one effect for all).
    validation_parts : parts the rows are cut into for choosing penalties and learners; where models are cross-fitted the
        folds take their place and are cut further only if there are fewer.
    knots : hinges of a numeric feature.
    min_level_rows, max_levels : rarer categorical levels, or more of them, share the level "other".

    Raises
    ------
    InvalidInputError : an unknown learner or a number outside its range.
    """

    learner: str = "auto"
    validation_parts: int = 5
    knots: int = 6
    min_level_rows: int = 20
    max_levels: int = 50

    def __post_init__(self) -> None:
        if self.learner not in LEARNERS:
            raise InvalidInputError(
                f"learner is {self.learner!r}, expected one of {', '.join(LEARNERS)}{nearest(self.learner, LEARNERS)}"
            )
        for name, least in (("validation_parts", 2), ("knots", 0), ("min_level_rows", 1), ("max_levels", 1)):
            if getattr(self, name) < least:
                raise InvalidInputError(f"{name} is {getattr(self, name)}, expected at least {least}")
