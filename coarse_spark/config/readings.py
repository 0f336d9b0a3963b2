"""What YAML reads texts without quotes as: ``NO`` as false, ``1:8`` as 68, ``010`` as 8.

Where a text may stand as well as a number, such a reading is silent and wrong. There, and wherever
nobody means it, it is refused with the way to write what was meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coarse_spark.config.checks.problem import Key, Problem, brief

_PLAIN_INTEGER = re.compile(r"[-+]?(0|[1-9]\d*)")
_OTHER_BASE = re.compile(r"[-+]?(0[0-7_]+|\d[\d_]*(:[0-5]?\d)+(\.[\d_]*)?)")  # 8, and 60
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


@dataclass(frozen=True)
class Reading:
    """A value without quotes that YAML reads as something else than it looks.

    Attributes
    ----------
    written : the text in the file.
    value : what it is read as.
    """

    written: str
    value: Any

    @property
    def meant(self) -> bool:
        """Whether somebody may mean it: not so numbers to the base of 8 and of 60."""
        return _OTHER_BASE.fullmatch(self.written) is None or isinstance(self.value, str)

    @property
    def read(self) -> str:
        """What it is read as, in words."""
        return "a text" if isinstance(self.value, str) else brief(self.value)

    def hint(self) -> str:
        """Return the reading and the way to quote, for a problem with the value."""
        if not self.written or isinstance(self.value, str):
            return ""
        read = (
            ""
            if self.read.endswith(self.written)
            else f"YAML reads {self.written} as {self.read}; "
        )
        return f'{read}in quotes, "{self.written}", it is a text'

    def refusal(self) -> str:
        """Return the problem with a value that means two things."""
        text = isinstance(self.value, str)
        other = f"{float(self.written):g} for the number" if text else f"{self.read} without"
        return (
            f"found {self.written}, which YAML reads as {self.read}, expected "
            f'"{self.written}" in quotes for the text, or {other}'
        )


def strange(written: str, value: Any) -> bool:
    """Return whether a value without quotes was read as something else than it looks."""
    if isinstance(value, bool):
        return written.lower() not in ("true", "false")
    if isinstance(value, int):
        return _PLAIN_INTEGER.fullmatch(written) is None
    if isinstance(value, float):
        return ":" in written or "_" in written
    # null and dates; numbers that YAML 1.1 wants a point and a sign in
    return not isinstance(value, str) or _EXPONENT.fullmatch(written) is not None


def refuse(content: Mapping[str, Any], readings: Mapping[Key, Reading]) -> Iterator[Problem]:
    """Yield a problem for every reading that is silent and wrong; the text takes its place."""
    for key, reading in readings.items():
        level = _is_level(content, key) and isinstance(reading.value, bool | int | float | str)
        if level or not reading.meant:
            inner: Any = content
            for part in key[:-1]:
                inner = inner[part]
            inner[key[-1]] = reading.written
            yield Problem(key, reading.refusal())


def explained(
    problems: Sequence[Problem], refused: Sequence[Problem], readings: Mapping[Key, Reading]
) -> list[Problem]:
    """Return the problems of fields, with what YAML read where that is behind them.

    Those that a refused reading tells already are left out.
    """
    told = {key for problem in refused for key in _around(problem.key)}
    hints: dict[Key, str] = {}
    for key, reading in readings.items():
        for around in _around(key):
            hints.setdefault(around, reading.hint())
    return [
        Problem(problem.key, f"{problem.message} ({hints[problem.key]})")
        if hints.get(problem.key)
        else problem
        for problem in problems
        if problem.key not in told
    ]


def _around(key: Key) -> tuple[Key, ...]:
    """Return the keys at which a value is told: its own, and that of the list that it stands in."""
    return (key, key[:-1]) if isinstance(key[-1], int) else (key,)


def _is_level(content: Mapping[str, Any], key: Key) -> bool:
    """Return whether a text may stand at a key as well as a number: a level of a treatment."""
    if key[0] != "treatments" or len(key) < 3 or key[-1] == "kind":
        return False
    dimension = content["treatments"][key[1]]
    return not (isinstance(dimension, Mapping) and dimension.get("kind") == "continuous")
