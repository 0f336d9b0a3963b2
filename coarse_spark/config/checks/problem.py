"""What checks across fields share: what they read, and what they find."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

Key = tuple[str | int, ...]
Values = Mapping[str, Any]  # validated values by dotted key, such as "menu.sizes"

# what a check may ask for beside the values of single fields
VALUES = "<values>"  # all that are valid: for checks that also work where some are missing
NAMES = "<treatment names>"  # names of all treatments of the configuration, valid or not
GIVEN = "<given keys>"  # dotted keys that the user gave, not left to their defaults
SPACE = "<space>"  # the treatment space, once it can be built


@dataclass(frozen=True)
class Problem:
    """What is wrong with the value at ``key``, its path in the configuration."""

    key: Key
    message: str


class _Brief(reprlib.Repr):
    """Values as YAML has them, and short however large they are."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 60
        self.maxlevel = 2

    def repr_bool(self, value: bool, _: int) -> str:
        return str(value).lower()

    def repr_NoneType(self, *_: object) -> str:  # noqa: N802  # reprlib looks for a type's name
        return "null"

    def repr_date(self, value: date, _: int) -> str:
        return f"the date {value}"

    repr_datetime = repr_date


def brief(value: object) -> str:
    """Return a value as a problem shows it."""
    return _Brief().repr(value)


# what a check reads, in the order of its arguments, and the check
Check = tuple[tuple[str, ...], Callable[..., Iterator[Problem]]]
