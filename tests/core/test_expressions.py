"""Expressions give what numpy gives, and nothing outside the safe subset ever runs."""

from __future__ import annotations

import ast
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coarse_spark.core.expressions import Expression, quoted, unparsed
from coarse_spark.errors import ExpressionError

COLUMNS = {
    "a": np.array([-2.0, 0.0, 0.5, 3.0]),
    "b": np.array([1.0, -1.0, 0.0, 2.5]),
    "arm": np.array(["mail", "phone", "mail", "none"]),
}
# what the subset means, written independently for Python's own evaluation
MEANING: dict[str, Any] = {
    "min": lambda first, *rest: _fold(np.minimum, first, rest),
    "max": lambda first, *rest: _fold(np.maximum, first, rest),
    "abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "power": np.power,
    "number": lambda value: np.asarray(value, dtype=float)[()],
    "compared": lambda holds, *operands: _fold(
        lambda so_far, operand: np.where(np.isnan(operand), np.nan, so_far), holds, operands
    ),
    "where": lambda condition, yes, no: np.where(
        np.isnan(condition), np.nan, np.where(np.asarray(condition, dtype=bool), yes, no)
    ),
    "negated": lambda value: _elementwise(lambda x: x if np.isnan(x) else float(x == 0), value),
    # three-valued logic is the minimum and the maximum of 0, 1/2 for NaN, 1
    "all_of": lambda *values: _elementwise(lambda *xs: _known(min(map(_third, xs))), *values),
    "any_of": lambda *values: _elementwise(lambda *xs: _known(max(map(_third, xs))), *values),
    "a": COLUMNS["a"],
    "b": COLUMNS["b"],
    "__builtins__": {},
}


def _fold(function: Any, first: Any, rest: Any) -> Any:
    for other in rest:
        first = function(first, other)
    return first


def _elementwise(function: Any, *values: Any) -> Any:
    return np.vectorize(function, otypes=[float])(*values)


def _third(value: float) -> float:
    return 0.5 if np.isnan(value) else float(value != 0)


def _known(value: float) -> float:
    return np.nan if value == 0.5 else value


def _combine(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(children, children)
    return st.one_of(
        st.tuples(
            st.sampled_from(["+", "-", "*", "/", "**", "<", "<=", ">", ">=", "==", "!="]), pair
        ).map(lambda item: f"({item[1][0]} {item[0]} {item[1][1]})"),
        st.tuples(st.sampled_from("+-"), children).map(lambda item: f"({item[0]}{item[1]})"),
        st.tuples(st.sampled_from(["abs", "exp", "log"]), children).map(
            lambda item: f"{item[0]}({item[1]})"
        ),
        st.tuples(st.sampled_from(["min", "max"]), st.lists(children, min_size=2, max_size=3)).map(
            lambda item: f"{item[0]}({', '.join(item[1])})"
        ),
        st.tuples(children, children, children).map(lambda item: f"where({', '.join(item)})"),
        # without parentheses, so that precedence is put to the test as well
        st.tuples(st.sampled_from(["and", "or"]), st.lists(children, min_size=2, max_size=3)).map(
            lambda item: f"({f' {item[0]} '.join(item[1])})"
        ),
        st.tuples(children, children, children).map(
            lambda item: f"({item[0]} or not {item[1]} < 1 and {item[2]})"
        ),
    )


numbers = st.sampled_from(["0", "1", "2", "3.5", "0.25", "1e-3", "100"])
expressions = st.recursive(st.one_of(numbers, st.sampled_from(["a", "b"])), _combine, max_leaves=8)


@settings(max_examples=400, deadline=None)
@given(expressions)
def test_values_equal_numpys(text: str) -> None:
    class Floats(ast.NodeTransformer):
        """Numpy's numbers, comparisons and powers.

        Python's own raise where numpy gives inf or NaN, or round otherwise.

        Comparisons with NaN are NaN.
        """

        def visit_Constant(self, node: ast.Constant) -> ast.AST:
            return ast.Call(ast.Name("number", ast.Load()), [node], [])

        def visit_Compare(self, node: ast.Compare) -> ast.AST:
            self.generic_visit(node)
            holds = ast.Call(ast.Name("number", ast.Load()), [node], [])
            return ast.Call(
                ast.Name("compared", ast.Load()), [holds, node.left, *node.comparators], []
            )

        def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
            self.generic_visit(node)
            if not isinstance(node.op, ast.Not):
                return node
            return ast.Call(ast.Name("negated", ast.Load()), [node.operand], [])

        def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
            self.generic_visit(node)
            name = "all_of" if isinstance(node.op, ast.And) else "any_of"
            return ast.Call(ast.Name(name, ast.Load()), node.values, [])

        def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
            self.generic_visit(node)
            return (
                ast.Call(ast.Name("power", ast.Load()), [node.left, node.right], [])
                if isinstance(node.op, ast.Pow)
                else node
            )

    tree = ast.fix_missing_locations(Floats().visit(ast.parse(text, mode="eval")))
    with np.errstate(all="ignore"):
        expected = eval(compile(tree, "reference", "eval"), MEANING)  # noqa: S307  # our own text
        expected = np.broadcast_to(np.asarray(expected, dtype=float), (4,))
    np.testing.assert_array_equal(Expression(text).evaluate(COLUMNS, 4), expected)


ATTACKS = [
    "__import__('os').system('touch owned')",
    "(lambda: 1)()",
    "[x for x in (1, 2)]",
    "a.__class__.__mro__",
    "a[0]",
    "eval('1')",
    "open('/etc/passwd')",
    "f'{a}'",
    "(a := 3)",
    "exp(*a)",
    "min(a, *b)",
    "exp(x=1)",
    "where.__globals__",
    "{'a': 1}",
    "a if b else 1",
    "a and 'x'",
    "not 'x'",
    "arm == 'mail' or 'phone'",
    "a AND b",
    "a && b",
    "!a",
    "a // 2",
    "a % 2",
    "a @ b",
    "a << 2",
    "~a",
    "a in b",
    "a is b",
    "True",
    "None",
    "...",
    "1j",
    "b'x'",
    "'x'",
    "'x' + 'y'",
    "'x' * 9",
    "where(1, 'x', 2)",
    "min('x', a)",
    "'x' < a",
    "a; b",
    "import os",
    "a = 1",
    "",
    "   ",
    "a +",
    "1e999",
    "1" * 400,
    "a\x00",
    "\ud800",
    "+".join(["a"] * 300),
    "-" * 900 + "1",
    "(" * 500 + "a" + ")" * 499,
    "[" + "-" * 900 + "1]",
    "a" * 1001,
]


class Watch:
    """Records what the interpreter audits: executed code, opened files, started processes."""

    def __init__(self) -> None:
        self.on = False
        self.events: list[str] = []
        sys.addaudithook(self._hear)  # cannot be taken off again, hence the switch

    def _hear(self, event: str, _arguments: object) -> None:
        if self.on and event.split(".")[0] in (
            "exec",
            "open",
            "os",
            "subprocess",
            "socket",
            "import",
        ):
            self.events.append(event)

    def __enter__(self) -> Watch:
        self.events, self.on = [], True
        return self

    def __exit__(self, *_: object) -> None:
        self.on = False


WATCH = Watch()


def test_the_watch_hears_code() -> None:
    with WATCH:
        eval("1 + 1")  # noqa: S307  # this is what it has to hear
    assert WATCH.events == ["exec"]


@pytest.mark.parametrize("text", ATTACKS, ids=[f"{text[:24]!r}" for text in ATTACKS])
def test_everything_else_is_refused_before_it_runs(text: str) -> None:
    with WATCH, pytest.raises(ExpressionError) as caught:
        Expression(text)
    assert WATCH.events == []
    assert len(str(caught.value)) < 400


@pytest.mark.filterwarnings(
    "ignore:invalid:SyntaxWarning"
)  # of Python's parser, on texts such as 1or
@settings(max_examples=500, deadline=None)
@given(st.text(alphabet="ab01.+-*/()<>=!,'\"[]{}_:@ \n\tlogexpminwhrs#\\", max_size=40))
def test_any_text_is_refused_or_gives_floats(text: str) -> None:
    try:
        expression = Expression(text)
        value = expression.evaluate(COLUMNS, 4)
    except ExpressionError:
        return
    assert value.shape == (4,)
    assert value.dtype == np.float64
    assert expression.names <= COLUMNS.keys()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("where(arm == 'mail', a, 10)", [-2.0, 10.0, 0.5, 10.0]),
        ("arm != 'none'", [1.0, 1.0, 1.0, 0.0]),
        ("0 < a < 1", [0.0, 0.0, 1.0, 0.0]),
        ("4 - a", [6.0, 4.0, 3.5, 1.0]),
        ("-a ** 2", [-4.0, -0.0, -0.25, -9.0]),
        ("7", [7.0, 7.0, 7.0, 7.0]),
        ("log(a) > -1", [np.nan, 0.0, 1.0, 1.0]),
        ("where(log(a) > -1, 1, 2)", [np.nan, 2.0, 1.0, 1.0]),
        ("where(a > 0, log(a) > -1, 0)", [0.0, 0.0, 1.0, 1.0]),
        ("a > 0 and b > 0", [0.0, 0.0, 0.0, 1.0]),
        ("a or b", [1.0, 1.0, 1.0, 1.0]),
        # not binds more than and, and and more than or; comparisons bind more than all
        ("not a == 0 and b > 0 or arm == 'none'", [1.0, 0.0, 0.0, 1.0]),
        ("not (a == 0 or arm == 'none')", [1.0, 0.0, 1.0, 0.0]),
        # what is undefined counts only where the other side leaves it open
        ("a > 0 and log(a) > -1", [0.0, 0.0, 1.0, 1.0]),
        ("log(a) > -1 and a > -9", [np.nan, 0.0, 1.0, 1.0]),
        ("log(a) > -1 or a < 0", [1.0, 0.0, 1.0, 1.0]),
        ("not log(a) > -1", [np.nan, 1.0, 0.0, 0.0]),
        ("1 - (not a)", [1.0, 0.0, 1.0, 1.0]),
    ],
)
def test_known_values(text: str, expected: list[float]) -> None:
    np.testing.assert_array_equal(Expression(text).evaluate(COLUMNS, 4), expected)


def test_names_are_known() -> None:
    expression = Expression("  where(arm == 'mail', max(a, 2), exp(b)) ")
    assert expression.text == "where(arm == 'mail', max(a, 2), exp(b))"
    assert expression.names == {"arm", "a", "b"}
    assert expression == Expression("where(arm == 'mail', max(a, 2), exp(b))")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "4 - tnc",
            "'4 - tnc' uses the unknown name 'tnc' (did you mean 'tinc'?); known names: depth, "
            "tinc",
        ),
        ("price", "'price' uses the unknown name 'price'; known names: depth, tinc"),
        ("DEPTH", "'DEPTH' uses the unknown name 'DEPTH' (did you mean 'depth'?)"),
    ],
)
def test_unknown_names(text: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        Expression(text).require_names(["tinc", "depth"])
    assert str(caught.value).startswith(message)


# what Python's parser refuses, splits, reads as a word of its own or makes another name of
ODD_NAMES = [
    "price net", "price.net", "a`b", "`", "``", "in", "lambda", "None", "min", "where", "1st",
    "\u00b5", "\u03bc", "caf\u00e9", "cafe\u0301", "\ufb01n", "x\u00b9", "a-b", "'", '"',
    "\n", "#", " a", "a ", "\ud800", "\x00", "name", "name0", "name_0", "a=b", "a'b\"", "\\",
]  # fmt: skip
names = st.one_of(
    st.sampled_from(ODD_NAMES),
    st.text(st.characters(), max_size=12),
    st.text("a`'\" \\µ", max_size=6),
).filter(bool)


@settings(max_examples=400, deadline=None)
@given(names, names)
def test_any_name_quoted_is_read_as_itself(one: str, other: str) -> None:
    text = f"where({quoted(one)} > 2,{quoted(other)}, 7)"
    read = Expression(text)
    assert read.names == {one, other}
    # what is shown of a part can be written again, also in backticks where it needs none
    assert Expression(unparsed(read.tree)).names == read.names
    always = "`" + one.replace("`", "``") + "`"
    found = Expression(f"{always} * 2").evaluate({one: [1.0, 4.0]}, 2)
    assert found.tolist() == [2.0, 8.0]


@given(st.text(st.characters(), min_size=1, max_size=8), st.text(max_size=8))
def test_what_stands_in_quotes_is_no_name(name: str, level: str) -> None:
    text = f"{quoted(name)} == {level!r}"
    assert Expression(text).names == {name}
    assert Expression(text).evaluate({name: [level, level + "x"]}, 2).tolist() == [1.0, 0.0]


def test_names_that_look_alike_are_told_apart() -> None:
    micro, greek = "\u00b5", "\u03bc"
    read = Expression(f"{micro} + 10 * {greek}")
    assert read.evaluate({micro: [1.0], greek: [2.0]}, 1).tolist() == [21.0]
    looks = r"did you mean '\\u03bc', which looks like '\\xb5'\?"
    with pytest.raises(ExpressionError, match=looks):
        Expression(micro).require_names([greek, "depth"])
    with pytest.raises(ExpressionError, match="known names: `a b`, depth"):
        Expression("x").require_names(["a b", "depth"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sqrt(a)", "contains the function 'sqrt', which is not allowed"),
        ("mni(a, 2)", "contains the function 'mni' (did you mean 'min'?), which is not allowed"),
        ("where(a, 1)", "where takes 3 arguments, found 2"),
        ("min(a)", "min takes 2 to 16 arguments, found 1"),
        ("a +", "'a +' is not an arithmetic expression: invalid syntax"),
        (
            "a % 2",
            "'a % 2' contains 'a % 2', which is not allowed; allowed: numbers, names, + - * / **, "
            "comparisons",
        ),
        ("", "the expression is empty; write 0 for none"),
        (
            "a > 1 AND b > 1",
            "'a > 1 AND b > 1' is not an arithmetic expression: invalid syntax (write 'and' for "
            "'AND')",
        ),
        ("(a > 1) | (b > 1)", "(write 'or' for '|')"),
        ("~(a > 1)", "(write 'not' for '~')"),
        ("arm == 'mail' or 'phone'", "contains the text 'phone' outside of == and !="),
        ("price net > 2", "invalid syntax (where it is a name, write `price net` with its"),
        ("min(price.net, 2)", "(where it is a name, write `price.net` with its backticks)"),
        ("lambda + 1", "(where it is a name, write `lambda` with its backticks)"),
        ("`price net", "'`price net' is not an arithmetic expression: invalid syntax"),
        ("`` + 1", "'`` + 1' is not an arithmetic expression: invalid syntax"),
        ("`x y` in (1, 2)", "contains '`x y` in (1, 2)', which is not allowed"),
    ],
)
def test_messages(text: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        Expression(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "arm",
        "arm + 1",
        "arm < 3",
        "where(a, arm, 1)",
        "exp(arm)",
        "a and arm",
        "not arm",
        "where(arm, 1, 2)",
    ],
)
def test_levels_are_no_numbers(text: str) -> None:
    with pytest.raises(ExpressionError, match=r"cannot be evaluated|gives texts, expected numbers"):
        Expression(text).evaluate(COLUMNS, 4)
