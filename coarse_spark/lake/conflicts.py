"""Conflicts of processes that commit to one table at the same time: one of them wrote nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from tenacity import (
    RetryCallState,
    retry,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from coarse_spark.compatibility import is_conflict

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def retried(
    also: type[Exception] | tuple[()] = (),
    *,
    attempts: int = 20,
    longest: float = 5,
    before_sleep: Callable[[RetryCallState], None] | None = None,
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Return a decorator that tries a function again after a conflict, a little later each time.

    Parameters
    ----------
    also : further errors after which it is tried again.
    attempts : at most; each conflict is the success of another one, so that it takes as many of
        them to use these up.
    longest : seconds between two attempts.
    before_sleep : called between them.
    """
    return retry(
        retry=retry_if_exception(lambda error: isinstance(error, also) or is_conflict(error)),
        stop=stop_after_attempt(attempts),
        wait=wait_random_exponential(multiplier=0.5, max=longest),
        before_sleep=before_sleep,
        reraise=True,
    )
