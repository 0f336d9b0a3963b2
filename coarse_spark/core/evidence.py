"""What is told from chance: gains that exceed 1.645 of their standard errors."""

from __future__ import annotations

EVIDENCE = 1.645  # standard errors: one-sided five per cent


def detectable(gain: float, error: float) -> bool:
    """Return whether a gain is more than chance; one that is not is not shown to anybody.

    Parameters
    ----------
    gain : such as of effects that differ, over a constant one, in held-out loss.
    error : standard error of the gain.
    """
    return gain > EVIDENCE * error
