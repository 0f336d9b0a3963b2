"""Every error that coarse_spark raises on purpose, under one root.

Each carries one sentence that says what was wrong, where, what was expected and, where there is
one, the nearest valid name. The command line turns them into exit codes: 2 for what the user can
mend before a run, 1 for a run that failed.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from unicodedata import normalize

from coarse_spark.text import printable


class CoarseSparkError(Exception):
    """Root of all errors raised on purpose; their messages are printable wherever they show."""

    exit_code = 1

    def __str__(self) -> str:
        return printable(super().__str__())


class InvalidInputError(CoarseSparkError, ValueError):
    """An argument, expression or array that cannot be used."""

    exit_code = 2


class TooFewRowsError(InvalidInputError):
    """Rows too few, or outcomes too rare, for a model of their own, though not for one of more."""


class ExpressionError(InvalidInputError):
    """A margin, cost or exclusion expression outside the safe subset, or with unknown names."""


class ConfigurationError(InvalidInputError):
    """A configuration file with one or more problems; the message lists all of them."""


class TableError(InvalidInputError):
    """An input table that is missing, or lacks columns, types, keys or values that are needed."""


class RunTakenError(CoarseSparkError):
    """A run that another process works on, or that somebody changed in the meantime."""

    exit_code = 2


class RunFinalError(CoarseSparkError):
    """A run that was published, and that no step changes any more."""

    exit_code = 2


class RuntimeSetupError(CoarseSparkError):
    """Java, Spark or Delta is missing or of a version that cannot work."""

    exit_code = 2


class RunError(CoarseSparkError):
    """A step of a run failed; the message names step, partition where there is one, and cause."""


def nearest(name: object, valid: Iterable[object], *, label: str = "did you mean") -> str:
    """Return a hint at the valid name nearest to ``name``, or an empty text where none is near.

    Parameters
    ----------
    name : that is not valid.
    valid : names.
    label : words before the name.

    Examples
    --------
    >>> nearest("pirce", ["price", "depth"])
    " (did you mean 'price'?)"
    >>> nearest("EAST ", ["East", "West"])
    " (did you mean 'East'?)"
    """
    text = str(name)
    known: dict[str, str] = {}
    for item in map(str, valid):
        known.setdefault(_folded(item), item)
    matches = get_close_matches(_folded(text), known, n=1, cutoff=0.5)
    if not matches:
        return ""
    found = known[matches[0]]
    if found != text and normalize("NFKC", found) == normalize("NFKC", text):
        return f" ({label} {found!a}, which looks like {text!a}?)"
    return f" ({label} '{found}'?)"


def _folded(text: str) -> str:
    """Return what a reader takes a name for, whatever its case, blanks at its ends and encoding."""
    return normalize("NFKC", text).strip().casefold()
