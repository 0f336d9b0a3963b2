"""Conflicts of processes that commit to one table at the same time: one of them wrote nothing.

Depending on the versions of Spark and Delta, on Spark Connect, and on what is installed beside
them, a conflict comes as a class of Delta's Python package, of pyspark, py4j or gRPC. All of them
name Delta's own class, or its condition.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from tenacity import (
    RetryCallState,
    retry,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_NAMED = re.compile(
    r"\b(?:Concurrent(?:Write|Append|DeleteRead|DeleteDelete|Transaction|Modification)"
    r"|MetadataChanged|ProtocolChanged)Exception\b"
    r"|\bDELTA_(?:CONCURRENT_\w+|METADATA_CHANGED|PROTOCOL_CHANGED)\b"
)


def is_conflict(error: BaseException) -> bool:
    """Whether another process was first, so that the commit may be tried again.

    Examples
    --------
    >>> is_conflict(RuntimeError("[DELTA_CONCURRENT_APPEND] Files were added by another one."))
    True
    >>> is_conflict(RuntimeError("[DELTA_TABLE_NOT_FOUND] There is no such table."))
    False
    """
    return _NAMED.search(f"{type(error).__name__}: {error}") is not None


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
