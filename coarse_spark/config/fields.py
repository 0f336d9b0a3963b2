"""Types of the configuration's fields: each says in one phrase what it expected.

Unions are read by one function each instead of by pydantic, which would report one problem for
every member of the union.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, PlainSerializer
from pydantic_core import PydanticCustomError

from coarse_spark.address import is_path, resolved
from coarse_spark.core.expressions import Expression
from coarse_spark.core.learners.settings import LEARNERS, SCALES
from coarse_spark.core.policies import COMPARISONS
from coarse_spark.core.support import SUPPORTS
from coarse_spark.errors import ExpressionError, InvalidInputError, nearest
from coarse_spark.text import REDACTED, is_secret, redact

# the types of problems that the report words itself: "found ..., expected <message>", or the
# message alone
EXPECTED = "expected"
EXPLAINED = "explained"

_IDENTIFIER_PART = re.compile(r"\w[\w-]*")
_RANGE = re.compile(r"\s*(\d+)\s*-\s*(\d+)\s*")
_MEMORY = re.compile(r"[1-9]\d*[mgtMGT]")
_MOST_SIZES = 200

_T = TypeVar("_T")


def expected(phrase: str) -> PydanticCustomError:
    """Return the problem "found <the value>, expected <phrase>"."""
    return PydanticCustomError(EXPECTED, "{phrase}", {"phrase": phrase})


def _no_boolean(value: Any) -> Any:
    # Python counts true as 1; in a configuration it is a slip
    if isinstance(value, bool):
        raise expected("a number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise expected("a text; put it in quotes where YAML reads it as something else")
    if not value.strip():
        raise expected("a text that is not empty")
    return value.strip()


def _column(value: Any) -> str:
    _text(value)
    return str(value)  # blanks at its ends are of the name: the file has it in quotes


def _names(value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(
        isinstance(name, str) and name.strip() for name in names
    ):
        raise expected("a list of column names")
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise expected(f"distinct column names; repeated: {', '.join(repeated)}")
    return tuple(names)


def _at_least_one(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise expected("at least one column name")
    return names


def _unit_id(value: Any) -> str | tuple[str, ...]:
    if not isinstance(value, list | tuple):
        return _column(value)
    names = _at_least_one(_names(value))
    return names if len(names) > 1 else names[0]


def _for_each(check: Callable[[Any], _T]) -> Callable[[Any], _T | dict[str, _T]]:
    """Return a check of one setting, or of a mapping of outcomes to settings."""

    def check_all(value: Any) -> _T | dict[str, _T]:
        if not isinstance(value, Mapping):
            return check(value)
        if not value:
            raise expected("a mapping that names an outcome")
        return {_column(name): check(one) for name, one in value.items()}

    return check_all


def _identifier(value: Any) -> str:
    parts = _text(value).replace("`", "").split(".")
    if len(parts) > 3 or not all(_IDENTIFIER_PART.fullmatch(part) for part in parts):
        raise expected("a name such as catalog.schema.table, of letters, digits, _ and -")
    return ".".join(parts)


def _identifier_part(value: Any) -> str:
    if not _IDENTIFIER_PART.fullmatch(_text(value)):
        raise expected("one name of letters, digits, _ and -")
    return _text(value)


def _location(value: Any) -> str:
    try:
        return resolved(_text(value))
    except InvalidInputError as error:
        raise PydanticCustomError(EXPLAINED, "{message}", {"message": str(error)}) from None


def _place(value: Any) -> str:
    return _location(value) if is_path(_text(value)) else _identifier(value)


def _expression(value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        return Expression(str(value) if number else _text(value)).text
    except ExpressionError as error:
        raise PydanticCustomError(EXPLAINED, "{message}", {"message": str(error)}) from None


def _amounts(value: Any) -> tuple[float, ...]:
    amounts = list(value) if isinstance(value, list | tuple) else [value]
    if not all(_is_number(amount) for amount in amounts):
        raise expected("a list of numbers such as [0.5, 1, 2]")
    return tuple(sorted({float(amount) for amount in amounts}))


def _sizes(value: Any) -> tuple[int, ...]:
    phrase = 'numbers of treatments, each at least 1, such as [1, 2, 5] or "1-6"'
    if isinstance(value, str) and (match := _RANGE.fullmatch(value)):
        low, high = int(match[1]), int(match[2])
        if high - low >= _MOST_SIZES:
            raise expected(f"at most {_MOST_SIZES} sizes")
        value = list(range(low, high + 1))
    sizes = list(value) if isinstance(value, list | tuple) else [value]
    if not sizes or not all(_is_integer(size) and size >= 1 for size in sizes):
        raise expected(phrase)
    return tuple(sorted(set(sizes)))


def _select(value: Any) -> int | str:
    if value == "auto" or (_is_integer(value) and value >= 1):
        return value  # type: ignore[no-any-return]  # checked in the line above
    raise expected("auto, or one of menu.sizes")


def _share(value: Any) -> float | tuple[float, ...]:
    shares = list(value) if isinstance(value, list | tuple) else [value]
    if not shares or not all(_is_number(share) and 0 <= share <= 1 for share in shares):
        raise expected("a share from 0 to 1, or a list with one share for every place on the menu")
    return (
        tuple(float(share) for share in shares) if isinstance(value, list | tuple) else float(value)
    )


def _one_of(known: Sequence[str]) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in known:
            raise expected(f"{' or '.join(known)}{nearest(value, known)}")
        return str(value)

    return check


def _bases(value: Any) -> str | tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if (
        not isinstance(names, list | tuple)
        or not names
        or not all(isinstance(name, str) and name.strip() for name in names)
    ):
        raise expected("auto, a basis such as any+quadratic, or a list of bases to compare")
    names = tuple(name.strip() for name in names)
    if "auto" in names and len(names) > 1:
        raise expected("auto alone, or a list of bases to compare without it")
    return names[0] if isinstance(value, str) else names


def _comparisons(value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        raise expected(f"a list of {', '.join(COMPARISONS)}")
    return tuple(dict.fromkeys(map(_one_of(COMPARISONS), names)))


def _memory(value: Any) -> str:
    if not isinstance(value, str) or not _MEMORY.fullmatch(value):
        raise expected("a size such as 2g or 512m")
    return value


def _eligibility(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise expected(
            "a mapping of boolean columns to expressions in the treatment names, such as "
            "{member: price < 1}"
        )
    return value


def _settings(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(
        isinstance(entry, str | int | float) for entry in value.values()
    ):
        raise expected("a mapping of Spark settings to texts, numbers or true and false")
    # Spark writes its booleans in small letters
    return {
        str(key): str(entry).lower() if isinstance(entry, bool) else str(entry)
        for key, entry in value.items()
    }


def _redacted_settings(settings: dict[str, str]) -> dict[str, str]:
    return {key: REDACTED if is_secret(key) else redact(value) for key, value in settings.items()}


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise expected("true or false")
    return value


def _level(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str):
        raise expected("a text in quotes, a number, or true or false")
    if isinstance(value, float) and not math.isfinite(value):
        raise expected("a finite number")
    return value


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


Text = Annotated[str, BeforeValidator(_text)]
Column = Annotated[str, BeforeValidator(_column)]
UnitId = Annotated[str | tuple[str, ...], BeforeValidator(_unit_id)]
Outcome = Annotated[str | tuple[str, ...], BeforeValidator(_unit_id)]
Columns = Annotated[tuple[str, ...], BeforeValidator(_names)]
ColumnsByOutcome = Annotated[
    tuple[str, ...] | dict[str, tuple[str, ...]], BeforeValidator(_for_each(_names))
]
TableName = Annotated[str, BeforeValidator(_identifier)]
NamePart = Annotated[str, BeforeValidator(_identifier_part)]
# what may hold secrets is redacted in JSON, which is written to tables, and there alone
Address = Annotated[Text, PlainSerializer(redact, when_used="json")]
Location = Annotated[str, BeforeValidator(_location), PlainSerializer(redact, when_used="json")]
Place = Annotated[str, BeforeValidator(_place), PlainSerializer(redact, when_used="json")]
ExpressionText = Annotated[str, BeforeValidator(_expression)]
ByOutcome = Annotated[str | dict[str, str], BeforeValidator(_for_each(_expression))]
Eligibility = Annotated[dict[Column, ExpressionText], BeforeValidator(_eligibility)]
Number = Annotated[float, BeforeValidator(_no_boolean), Field(allow_inf_nan=False)]
Amounts = Annotated[tuple[float, ...], BeforeValidator(_amounts)]
Integer = Annotated[int, BeforeValidator(_no_boolean)]
Sizes = Annotated[tuple[int, ...], BeforeValidator(_sizes)]
Select = Annotated[int | str, BeforeValidator(_select)]
Share = Annotated[float | tuple[float, ...], BeforeValidator(_share)]
Learner = Annotated[str | dict[str, str], BeforeValidator(_for_each(_one_of(LEARNERS)))]
Scale = Annotated[str | dict[str, str], BeforeValidator(_for_each(_one_of(SCALES)))]
SupportRule = Annotated[str, BeforeValidator(_one_of(SUPPORTS))]
Bases = Annotated[str | tuple[str, ...], BeforeValidator(_bases)]
Comparisons = Annotated[tuple[str, ...], BeforeValidator(_comparisons)]
Memory = Annotated[str, BeforeValidator(_memory)]
SparkSettings = Annotated[
    dict[str, str],
    BeforeValidator(_settings),
    PlainSerializer(_redacted_settings, when_used="json"),
]
Flag = Annotated[bool, BeforeValidator(_flag)]
Level = Annotated[bool | int | float | str, BeforeValidator(_level)]
