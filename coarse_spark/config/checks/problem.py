"""What checks across fields share: what they read, and what they find."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Key = tuple[str | int, ...]
Values = Mapping[str, Any]  # validated values by dotted key, such as "menu.sizes"

# what a check may ask for beside the values of single fields
VALUES = "<values>"  # all that are valid: for checks that also work where some are missing
NAMES = "<treatment names>"  # names of all treatments of the configuration, valid or not
SPACE = "<space>"  # the treatment space, once it can be built


@dataclass(frozen=True)
class Problem:
    """What is wrong with the value at ``key``, its path in the configuration."""

    key: Key
    message: str


_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 60
_repr.maxlevel = 2


def brief(value: object) -> str:
    """Return a value as a problem shows it: short, however large the value is."""
    return _repr.repr(value)


# what a check reads, in the order of its arguments, and the check
Check = tuple[tuple[str, ...], Callable[..., Iterator[Problem]]]
