"""Arithmetic expressions in treatment names, parsed to a safe subset and evaluated with numpy.

Allowed: names, numbers, ``+ - * / **``, comparisons, and the functions min, max, abs, exp, log and where. Text never reaches
``eval``: it is parsed once into Python's syntax tree, every node is checked, and the checked tree is walked.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from coarse_spark.errors import ExpressionError, nearest

FloatArray = npt.NDArray[np.float64]

_MAX_LENGTH = 1_000  # keeps the recursion of parsing and walking far below Python's limit

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: np.true_divide,
    ast.Pow: np.power,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
# name: (function of evaluated arguments, least number of arguments, most)
_FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "min": (lambda *values: reduce(np.minimum, values), 2, 16),
    "max": (lambda *values: reduce(np.maximum, values), 2, 16),
    "abs": (np.abs, 1, 1),
    "exp": (np.exp, 1, 1),
    "log": (np.log, 1, 1),
    "where": (np.where, 3, 3),
}
_ALLOWED = "numbers, names, + - * / **, comparisons, min, max, abs, exp, log, where"


@dataclass(frozen=True)
class Expression:
    """A checked expression such as ``"4 - incentive"``.

    Parameters
    ----------
    text : the expression as the user wrote it.

    Raises
    ------
    ExpressionError : the text is not an expression of the allowed subset.
    """

    text: str
    names: frozenset[str] = field(init=False, compare=False)
    _tree: ast.expr = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        text = str(self.text).strip()
        if not text:
            raise ExpressionError("the expression is empty; write 0 for none")
        if len(text) > _MAX_LENGTH:
            raise ExpressionError(f"the expression has {len(text)} characters; at most {_MAX_LENGTH} are read")
        try:
            tree = ast.parse(text, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            detail = getattr(error, "msg", None) or "it nests too deeply"
            raise ExpressionError(f"'{text}' is not an arithmetic expression: {detail}") from None
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "_tree", tree)
        object.__setattr__(self, "names", frozenset(_check(tree, text)))

    def require_names(self, valid: Collection[str]) -> None:
        """Raise ExpressionError when the expression uses a name outside ``valid``."""
        for name in sorted(self.names - set(valid)):
            known = ", ".join(sorted(valid)) or "none"
            raise ExpressionError(f"'{self.text}' uses the unknown name '{name}'{nearest(name, valid)}; known names: {known}")

    def evaluate(self, columns: Mapping[str, npt.ArrayLike], size: int) -> FloatArray:
        """Evaluate on columns of length ``size``; returns a float array (size,), comparisons as 0 and 1."""
        self.require_names(columns.keys())
        arrays = {name: np.asarray(columns[name]) for name in self.names}
        with np.errstate(all="ignore"):  # NaN and infinities are reported by the caller, who knows the rows
            try:
                value = np.asarray(_evaluate(self._tree, arrays), dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise ExpressionError(f"'{self.text}' cannot be evaluated: {error}") from None
        return np.array(np.broadcast_to(value, (size,)))


def _check(node: ast.expr, text: str) -> set[str]:
    """Return the names used below ``node``; raise ExpressionError at the first node outside the subset."""

    def refuse(found: str) -> ExpressionError:
        return ExpressionError(f"'{text}' contains {found}, which is not allowed; allowed: {_ALLOWED}")

    def names_of(*nodes: ast.expr) -> set[str]:
        return set().union(*(_check(child, text) for child in nodes))

    match node:
        case ast.Constant(value=bool()):
            raise refuse(f"the constant {node.value}")
        case ast.Constant(value=int() | float() | str()):
            return set()
        case ast.Name(id=name):
            return {name}
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return names_of(left, right)
        case ast.UnaryOp(op=unary, operand=operand) if type(unary) in _UNARY:
            return names_of(operand)
        case ast.Compare(left=left, ops=ops, comparators=comparators) if all(type(op) in _COMPARE for op in ops):
            return names_of(left, *comparators)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
            if name not in _FUNCTIONS:
                raise refuse(f"the function '{name}'{nearest(name, _FUNCTIONS)}")
            _, least, most = _FUNCTIONS[name]
            if not least <= len(args) <= most:
                expected = f"{least}" if least == most else f"{least} to {most}"
                raise ExpressionError(f"'{text}': {name} takes {expected} arguments, found {len(args)}")
            return names_of(*args)
        case _:
            raise refuse(f"'{ast.unparse(node)}'")


def _evaluate(node: ast.expr, columns: Mapping[str, npt.NDArray[Any]]) -> Any:
    match node:
        case ast.Constant(value=str() as value):
            return value
        case ast.Constant(value=value):
            return np.float64(value)  # type: ignore[arg-type]  # _check let only numbers through
        case ast.Name(id=name):
            column = columns[name]
            return column.astype(np.float64) if column.dtype.kind in "biuf" else column
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_evaluate(left, columns), _evaluate(right, columns))
        case ast.UnaryOp(op=unary, operand=operand):
            return _UNARY[type(unary)](_evaluate(operand, columns))
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            values = [_evaluate(child, columns) for child in (left, *comparators)]
            pairs = zip(ops, values[:-1], values[1:], strict=True)
            checks = [np.asarray(_COMPARE[type(op)](a, b), dtype=bool) for op, a, b in pairs]
            return np.asarray(reduce(np.logical_and, checks), dtype=np.float64)
        case ast.Call(func=ast.Name(id=name), args=args):
            values = [_evaluate(argument, columns) for argument in args]
            if name == "where":
                values[0] = np.asarray(values[0]) != 0
            return _FUNCTIONS[name][0](*values)
    raise AssertionError(f"unchecked node {ast.dump(node)}")  # pragma: no cover
