"""Every error that coarse_spark raises on purpose, under one root.

Each carries one sentence that says what was wrong, where, what was expected and, where there is
one, the nearest valid name. The command line turns them into exit codes: 2 for what the user can
mend before a run, 1 for a run that failed.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class CoarseSparkError(Exception):
    """Root of all errors raised on purpose."""

    exit_code = 1


class InvalidInputError(CoarseSparkError, ValueError):
    """An argument, expression or array that cannot be used."""

    exit_code = 2


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
    """
    matches = get_close_matches(str(name), [str(item) for item in valid], n=1, cutoff=0.5)
    return f" ({label} '{matches[0]}'?)" if matches else ""
