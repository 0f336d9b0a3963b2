"""Expressions in treatments and columns of the units, as sums of products a(t)·b(v).

Profit that is such a sum is linear in numbers b(v) of the unit, however many there are: menus,
bounds and assignments need to know nothing of its columns. Sums, differences, products, quotients
by one product, whole powers, and ``where`` with a condition on one side expand; a function of both
sides at once, such as ``max(price, floor)``, does not.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import product

from coarse_spark.core.expressions import Expression, quoted, shown, unparsed
from coarse_spark.errors import ExpressionError

ONE = Expression("1")
_MOST_TERMS = 200  # of an expanded expression: each may become coefficients of every unit
_LARGEST_POWER = 6


@dataclass(frozen=True)
class Term:
    """One product a(t)·b(v).

    Attributes
    ----------
    treatment : a, in the treatment names.
    unit : b, in columns of the units; ``ONE`` for none.
    """

    treatment: Expression
    unit: Expression


def expanded(expression: Expression, unit_columns: Collection[str]) -> tuple[Term, ...]:
    """Return the terms that an expression is the sum of, one a factor b(v).

    A term without columns of the units comes first, others in the order of the text. One whose a(t)
    is the number 0 is left out.

    Parameters
    ----------
    expression : in treatment names and columns of the units.
    unit_columns : which of its names are columns of the units.

    Raises
    ------
    ExpressionError : it is no such sum.

    Examples
    --------
    >>> found = expanded(Expression("(price - unit_cost) * (1 - fee)"), ["unit_cost", "fee"])
    >>> [(term.treatment.text, term.unit.text) for term in found]
    [('price', '1 - fee'), ('-1', 'unit_cost * (1 - fee)')]
    """
    if not expression.names & set(unit_columns):
        alone = [Term(expression, ONE)]
        return tuple(term for term in alone if not _is_zero(term.treatment.tree))
    sums: dict[str, tuple[ast.expr, Expression]] = {}
    for a, b in _Expansion(expression, frozenset(unit_columns)).terms(expression.tree):
        if _is_zero(a):
            continue
        unit = ONE if b is None else Expression.of_tree(b)
        before = sums.get(unit.text)
        sums[unit.text] = (a if before is None else ast.BinOp(before[0], ast.Add(), a), unit)
    terms = [Term(Expression.of_tree(a), unit) for a, unit in sums.values()]
    return tuple(sorted(terms, key=lambda term: term.unit != ONE))


# a(t) and b(v); None for the number 1
_Product = tuple[ast.expr, ast.expr | None]
_UNIT = ast.Constant(1)


@dataclass(frozen=True)
class _Expansion:
    whole: Expression
    units: frozenset[str]

    def terms(self, node: ast.expr) -> list[_Product]:
        """Return the products that a part of the tree is the sum of."""
        found = self._split(node)
        if len(found) > _MOST_TERMS:
            raise ExpressionError(
                f"'{shown(self.whole.text)}' expands into more than {_MOST_TERMS} products of "
                "treatments and columns of the units; prepare columns that hold parts of it"
            )
        return found

    def _split(self, node: ast.expr) -> list[_Product]:
        match node:
            case _ if not self._units_in(node):
                return [(node, None)]
            # numbers are taken out of products, so that 2 * v and v share a factor
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return [(_negative(a), b) for a, b in self.terms(operand)]
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.terms(operand)
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                return self._product(self.terms(left), self.terms(right))
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                return self._product(self.terms(left), [self._inverse(node, right)])
            case _ if not self._treatments_in(node):
                return [(_UNIT, node)]
        return self._mixed(node)

    def _mixed(self, node: ast.expr) -> list[_Product]:
        match node:
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return [*self.terms(left), *self.terms(right)]
            case ast.BinOp(left=left, op=ast.Sub(), right=right):
                return [*self.terms(left), *((_negative(a), b) for a, b in self.terms(right))]
            case ast.BinOp(left=base, op=ast.Pow(), right=ast.Constant(value=power)) if (
                power in range(1, _LARGEST_POWER + 1)
            ):
                return reduce(self._product, [self.terms(base)] * int(power))  # type: ignore[arg-type]
            case ast.Call(func=ast.Name(id="where"), args=[condition, yes, no]):
                return self._where(node, condition, yes, no)
        raise self._refusal(node)

    def _product(self, left: list[_Product], right: list[_Product]) -> list[_Product]:
        if len(left) * len(right) > _MOST_TERMS:
            left = left[:1] * (_MOST_TERMS + 1)  # refused by its length
            right = right[:1]
        return [(_times(a, c), _both(b, d)) for (a, b), (c, d) in product(left, right)]

    def _inverse(self, node: ast.expr, divisor: ast.expr) -> _Product:
        """Return one over a divisor, which is one product."""
        terms = self.terms(divisor)
        if len(terms) != 1:
            raise self._refusal(node)
        a, b = terms[0]
        return ast.BinOp(_UNIT, ast.Div(), a), b and ast.BinOp(_UNIT, ast.Div(), b)

    def _where(
        self, node: ast.expr, condition: ast.expr, yes: ast.expr, no: ast.expr
    ) -> list[_Product]:
        """Return the terms of both cases, each 0 where the other holds."""
        of_units = bool(self._units_in(condition))
        if of_units and self._treatments_in(condition):
            raise self._refusal(node)
        zero, found = ast.Constant(0), list[_Product]()
        for number, case in enumerate((yes, no)):
            for a, b in self.terms(case):
                held = [a if not of_units else b or _UNIT, zero]
                part = _call("where", condition, *(held if number == 0 else held[::-1]))
                if not _is_zero(a):
                    found.append((a, part) if of_units else (part, b))
        return found

    def _units_in(self, node: ast.expr) -> list[str]:
        return [name for name in _names(node) if name in self.units]

    def _treatments_in(self, node: ast.expr) -> list[str]:
        return [name for name in _names(node) if name not in self.units]

    def _refusal(self, node: ast.expr) -> ExpressionError:
        treatment, unit = self._treatments_in(node)[0], self._units_in(node)[0]
        part = unparsed(node)
        return ExpressionError(
            f"'{shown(self.whole.text)}': '{shown(part)}' is no sum of products of treatments and "
            f"columns of the units; prepare a column of the units for each value of "
            f"{quoted(treatment)} that holds it, such as {quoted(f'{unit}_at_5')} for the value 5, "
            f"name it in unit_columns, and write where({quoted(treatment)} == 5, "
            f"{quoted(f'{unit}_at_5')}, ...)"
        )


def _names(node: ast.expr) -> Iterator[str]:
    functions = {id(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)}
    for child in ast.walk(node):
        if isinstance(child, ast.Name) and id(child) not in functions:
            yield child.id


def _is_zero(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=value):
            return value == 0
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _is_zero(operand)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _is_zero(left) or _is_zero(right)
    return False


def _is_one(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value == 1


def _negative(node: ast.expr) -> ast.expr:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return node.operand
    return ast.UnaryOp(ast.USub(), node)


def _times(left: ast.expr, right: ast.expr) -> ast.expr:
    if _is_one(left):
        return right
    return left if _is_one(right) else ast.BinOp(left, ast.Mult(), right)


def _both(left: ast.expr | None, right: ast.expr | None) -> ast.expr | None:
    if left is None or right is None:
        return left or right
    return ast.BinOp(left, ast.Mult(), right)


def _call(name: str, *arguments: ast.expr) -> ast.expr:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])
