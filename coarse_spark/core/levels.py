"""Comparisons of expressions with the levels of treatments: those that can never hold.

``arm == 10`` is false for every treatment where the levels of ``arm`` are the texts '0', '10' and
'20': what it guards, a cost or an exclusion, silently vanishes. Such comparisons are refused before
anything is computed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from coarse_spark.core.expressions import Expression, is_text, quoted, shown, unparsed
from coarse_spark.errors import ExpressionError, nearest

Levels = Mapping[str, Sequence[Any] | None]  # by name; None for numbers of any value

_SHOWN = 10
_EQUALITY = (ast.Eq, ast.NotEq)


def require_levels(expression: Expression, levels: Levels) -> None:
    """Refuse an expression that uses names in a way that can never hold.

    That is equality with what is none of a name's levels, the order of texts, texts beside numbers,
    and texts as numbers or conditions.

    Parameters
    ----------
    expression : of known names.
    levels : of every name in it.

    Raises
    ------
    ExpressionError : with the first such use, and the nearest level.
    """
    for problem in _problems(expression.tree, levels):
        raise ExpressionError(f"'{shown(expression.text)}' {problem}")


def _problems(tree: ast.expr, levels: Levels) -> Iterator[str]:
    compared: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            compared.update(sides)
            for op, pair in zip(node.ops, pairwise(sides), strict=True):
                yield from _comparison(op, *pair, levels)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node not in compared:
            texts = _texts(levels.get(node.id))  # functions are names too
            if texts:
                yield (
                    f"takes '{node.id}' for a number or a condition, whose levels are texts; "
                    f"compare it, such as {quoted(node.id)} == {texts[0]!r}"
                )


def _comparison(op: ast.cmpop, left: ast.expr, right: ast.expr, levels: Levels) -> Iterator[str]:
    whole = unparsed(ast.Compare(left, [op], [right]))
    known, other = _own_levels(left, levels), _own_levels(right, levels)
    if not isinstance(op, _EQUALITY):
        for node, own in ((left, known), (right, other)):
            if _texts(own):
                yield f"orders the levels of {unparsed(node)}, which are texts, in '{whole}'"
    elif known is not None and other is not None:
        if not any(_equal(one, two) for one in known for two in other):
            yield f"compares names that have no level in common, in '{whole}'"
    elif known is not None or other is not None:
        name, own, value = (left, known, right) if known is not None else (right, other, left)
        yield from _with_level(unparsed(name), own or (), value, whole)
    else:
        for node in (left, right):
            if is_text(node):
                yield f"compares a number with the text {unparsed(node)}, in '{whole}'"


def _with_level(name: str, own: Sequence[Any], value: ast.expr, whole: str) -> Iterator[str]:
    """Yield a problem where a name with levels is compared with none of them."""
    constant = _constant(value)
    if constant is None:
        if len(_texts(own)) == len(own):
            yield f"compares '{name}', whose levels are texts, with a number, in '{whole}'"
    elif not any(_equal(level, constant) for level in own):
        listed = ", ".join(map(repr, own[:_SHOWN])) + (", ..." if len(own) > _SHOWN else "")
        yield (
            f"compares '{name}' with {unparsed(value)}, which is none of its levels"
            f"{_nearest(constant, own)}; its levels: {listed}"
        )


def _nearest(value: str | float, own: Sequence[Any]) -> str:
    """Return a hint at the level that was meant: spelt alike, or the number next to it."""
    numbers = [level for level in own if not isinstance(level, str)]
    if not isinstance(value, str) and numbers:
        return f" (did you mean {min(numbers, key=lambda level: abs(level - value))!r}?)"
    text = value if isinstance(value, str) else f"{value:.12g}"
    return nearest(text, own)


def _own_levels(node: ast.expr, levels: Levels) -> Sequence[Any] | None:
    return levels.get(node.id) if isinstance(node, ast.Name) else None


def _texts(own: Sequence[Any] | None) -> list[str]:
    return [level for level in own or () if isinstance(level, str)]


def _constant(node: ast.expr) -> str | float | None:
    """The value of a text, a number or an expression of numbers alone; None of others."""
    if is_text(node):
        return str(ast.literal_eval(node))
    if any(isinstance(part, ast.Name) for part in ast.walk(node)):
        return None
    return float(Expression(unparsed(node)).evaluate({}, 1)[0])


def _equal(level: Any, value: Any) -> bool:
    return isinstance(level, str) == isinstance(value, str) and bool(level == value)
