"""Arithmetic expressions in treatment names, parsed to a safe subset and evaluated with numpy.

Allowed: names, numbers, ``+ - * / **``, comparisons, the words and, or and not, and the functions
min, max, abs, exp, log and where; texts beside == and != alone, to compare with levels. Signs and
words bind as in Python and SQL: ``not`` more than ``and``, ``and`` more than ``or``, comparisons
more than all three. A name that is no identifier stands between backticks, its own backticks
doubled, as in SQL: ```price net` > 2``. An expression never reaches ``eval``: it is parsed once
into Python's syntax tree, every node is checked, and the checked tree is walked.
"""

from __future__ import annotations

import ast
import keyword
import operator
import re
import sys
from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from coarse_spark.core.arrays import FloatArray
from coarse_spark.errors import ExpressionError, nearest

_MAX_LENGTH = 1_000
# keeps the recursion of checking and evaluating far below Python's limit, wherever it starts
_MAX_DEPTH = 100

_LARGEST = sys.float_info.max  # Python's float, which compares with integers of any size
_SHOWN = 120  # characters of an expression that messages repeat

# texts, which may hold anything; names in backticks; words with characters beyond ASCII
_NAME = re.compile(
    r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\""""
    r"""|(?P<quoted>`(?:[^`]|``)+`(?!`))"""
    r"""|(?P<word>(?<![\w.])(?:[A-Za-z_]\w*)?[^\x00-\x7f][\w\u0080-\U0010ffff]*)"""
)

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: np.true_divide,
    ast.Pow: np.power,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
# how other languages write the words
_OTHER_WORDS = {"AND": "and", "&": "and", "OR": "or", "|": "or", "NOT": "not", "~": "not"}
# name: (function of evaluated arguments, least number of arguments, most)
_FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "min": (lambda *values: reduce(np.minimum, values), 2, 16),
    "max": (lambda *values: reduce(np.maximum, values), 2, 16),
    "abs": (np.abs, 1, 1),
    "exp": (np.exp, 1, 1),
    "log": (np.log, 1, 1),
    "where": (
        lambda condition, *values: _unless_nan(np.where(_holds(condition), *values), condition),
        3,
        3,
    ),
}
_ALLOWED = "numbers, names, + - * / **, comparisons, and, or, not, min, max, abs, exp, log, where"


@dataclass(frozen=True)
class Expression:
    """A checked expression such as ``"4 - incentive"``.

    Parameters
    ----------
    text : the expression as the user wrote it.

    Attributes
    ----------
    names : the names it uses.
    tree : its syntax tree.

    Raises
    ------
    ExpressionError : the text is not an expression of the allowed subset.

    Examples
    --------
    >>> cost = Expression("where(depth > 0, 0.5, 0) + 0.1 * depth")
    >>> cost.evaluate({"depth": [0, 10]}, size=2)
    array([0. , 1.5])
    >>> restricted = Expression("depth > 20 and not arm == 'mail'")
    >>> restricted.evaluate({"depth": [30, 30], "arm": ["mail", "phone"]}, size=2)
    array([0., 1.])
    """

    text: str
    names: frozenset[str] = field(init=False, compare=False)
    tree: ast.expr = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        text = str(self.text).strip()
        if not text:
            raise ExpressionError("the expression is empty; write 0 for none")
        if len(text) > _MAX_LENGTH:
            raise ExpressionError(
                f"the expression has {len(text)} characters; at most {_MAX_LENGTH} are read"
            )
        brief = shown(text)
        plain, names = _without_names(text)
        try:
            tree = _Named(names).visit(ast.parse(plain, mode="eval").body)
        except SyntaxError as error:
            raise ExpressionError(
                f"'{brief}' is not an arithmetic expression: {error.msg}"
                f"{_word_hint(text) or _name_hint(text)}"
            ) from None
        except ValueError as error:  # null bytes, lone surrogates
            raise ExpressionError(f"'{brief}' is not an arithmetic expression: {error}") from None
        except (RecursionError, MemoryError):
            raise ExpressionError(
                f"'{brief}' nests too deeply; at most {_MAX_DEPTH} levels are read"
            ) from None
        if _deeper_than(tree, _MAX_DEPTH):
            raise ExpressionError(
                f"'{brief}' nests too deeply; at most {_MAX_DEPTH} levels are read"
            )
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "tree", tree)
        object.__setattr__(self, "names", frozenset(_check(tree, brief)))

    @staticmethod
    def of_tree(tree: ast.expr) -> Expression:
        """Return the expression of a tree that is made of parts of checked ones."""
        expression = object.__new__(Expression)
        text = unparsed(tree)
        object.__setattr__(expression, "text", text)
        object.__setattr__(expression, "tree", tree)
        object.__setattr__(expression, "names", frozenset(_check(tree, shown(text))))
        return expression

    def require_names(self, valid: Collection[str]) -> None:
        """Raise ExpressionError when the expression uses a name outside ``valid``."""
        for name in sorted(self.names - set(valid)):
            known = ", ".join(map(quoted, sorted(valid))) or "none"
            raise ExpressionError(
                f"'{shown(self.text)}' uses the unknown name '{name}'{nearest(name, valid)}; "
                f"known names: {known}"
            )

    def evaluate(self, columns: Mapping[str, npt.ArrayLike], size: int) -> FloatArray:
        """Return the values (size,) on columns of that length.

        Comparisons are 0 and 1, NaN with NaN. So are ``and``, ``or`` and ``not``, for which
        numbers other than 0 hold; NaN counts only where the other sides leave it open, as null
        does in SQL: ``0 and NaN`` is 0, ``1 or NaN`` is 1.

        Parameters
        ----------
        columns : (size,) values by name; a single number stands for all rows.
        size : number of rows.

        Raises
        ------
        ExpressionError : a name that is no column, or texts where numbers are expected.
        """
        self.require_names(columns.keys())
        arrays = {name: np.asarray(columns[name]) for name in self.names}
        with np.errstate(
            all="ignore"
        ):  # NaN and infinities are reported by the caller, who knows the rows
            try:
                value = np.asarray(_evaluate(self.tree, arrays))
            except (TypeError, ValueError) as error:
                raise ExpressionError(
                    f"'{shown(self.text)}' cannot be evaluated: {error}"
                ) from None
        if value.dtype.kind not in "biuf":
            raise ExpressionError(f"'{shown(self.text)}' gives texts, expected numbers")
        return np.array(np.broadcast_to(value, (size,)), dtype=np.float64)


def quoted(name: str) -> str:
    """Return a name as expressions write it, and SQL: in backticks unless it is an identifier.

    Examples
    --------
    >>> quoted("depth"), quoted("price net"), quoted("in")
    ('depth', '`price net`', '`in`')
    """
    plain = name.isidentifier() and not keyword.iskeyword(name)
    return name if plain else "`" + name.replace("`", "``") + "`"


def unparsed(node: ast.expr) -> str:
    """Return a part of a tree as its text."""
    return ast.unparse(_Quoted().visit(deepcopy(node)))


class _Quoted(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(quoted(node.id), node.ctx)


@dataclass(frozen=True)
class _Named(ast.NodeTransformer):
    """Puts names in the place of the words that stood for them."""

    names: Mapping[str, str]

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.names.get(node.id, node.id), node.ctx)


def _without_names(text: str) -> tuple[str, dict[str, str]]:
    """Return a text with a plain word in place of every name that Python would not read as it is.

    Those are names in backticks, and identifiers beyond ASCII, of which Python's parser makes
    others that look alike: of the micro sign the Greek letter.
    """
    word = "name"
    while word in text:
        word += "_"
    names: dict[str, str] = {}

    def replaced(found: re.Match[str]) -> str:
        if found["quoted"] is not None:
            name = found["quoted"][1:-1].replace("``", "`")
        elif found["word"] is not None and found["word"].isidentifier():
            name = found["word"]
        else:
            return found[0]
        names[f"{word}{len(names)}"] = name
        return f" {word}{len(names) - 1} "

    return _NAME.sub(replaced, text).strip(), names


def _deeper_than(tree: ast.expr, levels: int) -> bool:
    level: list[ast.AST] = [tree]
    for _ in range(levels):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return bool(level)


def is_text(node: ast.AST) -> bool:
    """Return whether a part of a tree is a text."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def shown(text: str) -> str:
    """Return an expression as messages repeat it."""
    short = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return short.encode("utf-8", "backslashreplace").decode()


def _check(node: ast.expr, text: str) -> set[str]:
    """Return the names used below ``node``.

    Raises
    ------
    ExpressionError : a node outside the subset.
    """
    match node:
        case ast.Constant(value=value):
            _check_constant(value, text)
            return set()
        case ast.Name(id=name):
            return {name}
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            children = [left, right]
        case ast.UnaryOp(op=unary, operand=operand) if type(unary) in (*_UNARY, ast.Not):
            children = [operand]
        case ast.BoolOp(values=values):
            children = values
        case ast.Compare(left=left, ops=ops, comparators=comparators) if all(
            type(op) in _COMPARE for op in ops
        ):
            # levels are texts: they can be told apart, and nothing else can be done with them
            equality = all(isinstance(op, ast.Eq | ast.NotEq) for op in ops)
            children = [
                child for child in (left, *comparators) if not (equality and is_text(child))
            ]
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
            _check_call(name, len(args), text)
            children = args
        case _:
            raise _refusal(f"'{shown(unparsed(node))}'", text)
    return set().union(*(_check(child, text) for child in children))


def _check_constant(value: object, text: str) -> None:
    if isinstance(value, str):
        raise _refusal(f"the text {value!r} outside of == and !=", text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refusal(f"the constant {value!r}", text)
    if value > _LARGEST:
        raise _refusal("a number too large for a float", text)


def _check_call(name: str, arguments: int, text: str) -> None:
    if name not in _FUNCTIONS:
        raise _refusal(f"the function '{name}'{nearest(name, _FUNCTIONS)}", text)
    _, least, most = _FUNCTIONS[name]
    if not least <= arguments <= most:
        expected = f"{least}" if least == most else f"{least} to {most}"
        raise ExpressionError(f"'{text}': {name} takes {expected} arguments, found {arguments}")


def _refusal(found: str, text: str) -> ExpressionError:
    return ExpressionError(
        f"'{text}' contains {found}, which is not allowed; allowed: {_ALLOWED}"
        f"{_word_hint(found) or _name_hint(found)}"
    )


def _word_hint(text: str) -> str:
    found = [word for word in re.findall(r"\w+|[&|~]", _outside(text)) if word in _OTHER_WORDS]
    return f" (write '{_OTHER_WORDS[found[0]]}' for '{found[0]}')" if found else ""


def _name_hint(text: str) -> str:
    """Return how to write words that may be one name, or a word of Python that may be one."""
    if "`" in _outside(text):
        return " (a name in backticks ends with one; a backtick inside is written twice)"
    for found in re.findall(r"[^\W\d]\w*(?:(?: +|\.)[^\W\d]\w*)*", _outside(text)):
        words = re.split(r" +|\.", found)
        reserved = sum(map(keyword.iskeyword, words))
        if reserved == (len(words) == 1) and found not in _OTHER_WORDS.values():
            return f" (where it is a name, write `{found}` with its backticks)"
    return ""


def _outside(text: str) -> str:
    """Return a text without what stands in quotes or backticks."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`", "", text.removeprefix("'").removesuffix("'"))


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
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            value = _evaluate(operand, columns)
            return _unless_nan(np.asarray(~_holds(value), dtype=np.float64), value)
        case ast.UnaryOp(op=unary, operand=operand):
            return _UNARY[type(unary)](_evaluate(operand, columns))
        case ast.BoolOp(op=op, values=children):
            values = [_evaluate(child, columns) for child in children]
            # one side that is false settles an and, one that is true an or: NaN elsewhere is open
            settles = isinstance(op, ast.Or)
            known = [~_is_nan(value) & (_holds(value) == settles) for value in values]
            settled = reduce(np.logical_or, known)
            return np.where(settled, float(settles), reduce(_unless_nan, values, 1.0 - settles))
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            values = [_evaluate(child, columns) for child in (left, *comparators)]
            pairs = zip(ops, values[:-1], values[1:], strict=True)
            checks = [np.asarray(_COMPARE[type(op)](a, b), dtype=bool) for op, a, b in pairs]
            holds = np.asarray(reduce(np.logical_and, checks), dtype=np.float64)
            return reduce(_unless_nan, values, holds)
        case ast.Call(func=ast.Name(id=name), args=args):
            values = [_evaluate(argument, columns) for argument in args]
            return _FUNCTIONS[name][0](*values)
    raise AssertionError(f"unchecked node {ast.dump(node)}")  # pragma: no cover


def _holds(value: Any) -> Any:
    """Return where a condition is not 0.

    Raises
    ------
    TypeError : it is of texts.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError("texts are no conditions; compare them with a level, such as == 'mail'")
    return array != 0


def _is_nan(value: Any) -> Any:
    array = np.asarray(value)
    return np.isnan(array) if array.dtype.kind == "f" else np.zeros(array.shape, dtype=bool)


def _unless_nan(result: Any, value: Any) -> Any:
    """Return ``result``, NaN where ``value`` is: what is undefined must not pass for false."""
    missing = _is_nan(value)
    return np.where(missing, np.nan, result) if missing.any() else result
