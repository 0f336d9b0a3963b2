"""What a user may set about the response learners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from coarse_spark.errors import InvalidInputError, nearest

LEARNERS = ("auto", "sieve", "boosting", "constant")
SCALES = ("auto", "additive", "relative", "logistic")

_ROWS_A_COLUMN = 20
_LEAST = {"validation_parts": 2, "knots": 0, "max_columns": 2, "min_level_rows": 1, "max_levels": 1}


@dataclass(frozen=True)
class LearnerSettings:
    """Settings of one response fit.

    Parameters
    ----------
    learner : ``sieve`` (penalised splines and products), ``boosting`` (trees with coefficient
        leaves), ``auto`` (both, stacked by held-out R-loss), or ``constant`` (one effect for all).
        Any of them falls back to the constant effect where the data show no heterogeneity.
    scale : ``additive``, E[y | x, t] = φ(t)·θ(x) as it stands, ``relative``, a multiple of a
        positive baseline, b(x)·φ(t)·ρ(x), for outcomes whose effects and noise grow with the unit,
        ``logistic``, b(x) + b(x)(1 − b(x))·φ(t)·ρ(x), for chances and shares from 0 to 1; or
        ``auto``, what held-out rows and the outcomes' range speak for (``choose_scale``), to be
        settled before a fit.
    validation_parts : parts the rows are cut into for choosing penalties, rounds and weights; where
        models are cross-fitted the folds take their place and are cut further only if there are
        fewer.
    knots : hinges of a numeric feature.
    max_columns : columns of the encoded features, in few rows one for every twenty; many features
        get fewer hinges and only the most promising products.
    min_level_rows, max_levels : rarer categorical levels, or more of them, share the level "other".
    residualize : learn effects from what treatments deviate by from their means given x, as is
        needed where treatments were not randomized (Robinson 1988).
    winsorize : share of the rows on either side whose outcomes are clipped to that quantile; 0 for
        none. Reported in the record.
    shape : words such as ``{"price": "decreasing concave"}`` that every unit's response is
        projected to (``learners.shape``).

    Raises
    ------
    InvalidInputError : an unknown learner or a number outside its range.

    Examples
    --------
    >>> LearnerSettings(learner="sieve", shape={"price": "decreasing"}).validation_parts
    5
    >>> LearnerSettings(learner="seive")
    Traceback (most recent call last):
    ...
    coarse_spark.errors.InvalidInputError: learner is 'seive', expected one of auto, sieve, \
boosting, constant (did you mean 'sieve'?)
    """

    learner: str = "auto"
    scale: str = "additive"
    validation_parts: int = 5
    knots: int = 6
    max_columns: int = 160
    min_level_rows: int = 20
    max_levels: int = 50
    residualize: bool = False
    winsorize: float = 0.0
    shape: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        for name, known in {"learner": LEARNERS, "scale": SCALES}.items():
            if (given := getattr(self, name)) not in known:
                raise InvalidInputError(
                    f"{name} is {given!r}, expected one of {', '.join(known)}"
                    f"{nearest(given, known)}"
                )
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise InvalidInputError(
                    f"{name} is {getattr(self, name)}, expected at least {least}"
                )
        if not 0 <= self.winsorize < 0.5:
            raise InvalidInputError(
                f"winsorize is {self.winsorize}, expected a share from 0 to below 0.5"
            )

    def borne_by(self, rows: int) -> LearnerSettings:
        """Return the settings with no more columns than so many rows bear.

        More of them cost time and find no more than chance.
        """
        borne = max(rows // _ROWS_A_COLUMN, _LEAST["max_columns"])
        return replace(self, max_columns=min(self.max_columns, borne))

    @property
    def encoding(self) -> dict[str, int]:
        """The part that ``FeatureEncoder.fit`` takes."""
        return {
            name: getattr(self, name)
            for name in ("knots", "min_level_rows", "max_levels", "max_columns")
        }
