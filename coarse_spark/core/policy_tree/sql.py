"""A rule as a SQL CASE expression that treats null, NaN and unseen levels as the rule does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from coarse_spark.core.policy_tree.rule import (
    AssignmentRule,
    Condition,
    NumberCondition,
    number_text,
)
from coarse_spark.errors import InvalidInputError, nearest
from coarse_spark.text import shown

# of a decimal literal: engines hold no more, and compare no more of them exactly with a double
_DIGITS, _SIGNIFICANT = 38, 15


@dataclass(frozen=True)
class Dialect:
    """How an engine quotes.

    Attributes
    ----------
    quote : around names; doubled within.
    escaped : text -> what stands between single quotes.
    isnan : whether it has numbers that are none and the function ``isnan``.
    """

    quote: str
    escaped: Callable[[str], str]
    isnan: bool

    def name(self, text: str) -> str:
        """Return the name of a column."""
        return f"{self.quote}{text.replace(self.quote, 2 * self.quote)}{self.quote}"

    def text(self, value: str) -> str:
        """Return a literal."""
        return f"'{self.escaped(value)}'"

    def number(self, value: float) -> str:
        """Return a literal with all its digits, never as 1e-05."""
        text = number_text(value)
        significant = len(Decimal(text).as_tuple().digits)
        if significant <= _SIGNIFICANT and len(text) <= _DIGITS:
            return text
        return f"CAST('{text}' AS DOUBLE)"


def _doubled(text: str) -> str:
    return text.replace("'", "''")


def _backslashed(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


DIALECTS = {
    "spark": Dialect("`", _backslashed, isnan=True),
    "databricks": Dialect("`", _backslashed, isnan=True),
    "duckdb": Dialect('"', _doubled, isnan=True),
    "ansi": Dialect('"', _doubled, isnan=False),
}


def to_sql(
    rule: AssignmentRule,
    dialect: str = "spark",
    *,
    features: Mapping[str, str] | None = None,
    eligible: Mapping[str, str] | None = None,
    labels: Sequence[str] = (),
) -> str:
    """Return an expression whose value is the treatment's position on the menu.

    It is null for units that may get none of the treatments.

    Parameters
    ----------
    rule : the rule.
    dialect : spark or databricks (names in backticks), duckdb or ansi (in double quotes). Of these,
        ansi knows no NaN: there it compares as the engine has it.
    features : feature -> its name in the table, by default the same.
    eligible : column that a treatment requires -> its name in the table, by default the same.
    labels : of the treatments, written behind them as comments.

    Raises
    ------
    InvalidInputError : an unknown dialect.

    Examples
    --------
    >>> from coarse_spark.core.policy_tree.rule import AssignmentRule, Leaf, NumberCondition
    >>> young = Leaf({"age": NumberCondition(None, 40.0, missing=False)}, 1, 0.4, 2.0)
    >>> old = Leaf({"age": NumberCondition(40.0, None, missing=True)}, 0, 0.6, 1.0)
    >>> print(to_sql(AssignmentRule((young, old))))
    CASE
      WHEN `age` <= 40 THEN 1
      ELSE 0
    END
    """
    if dialect not in DIALECTS:
        raise InvalidInputError(
            f"dialect: found '{dialect}', expected {' or '.join(DIALECTS)}"
            f"{nearest(dialect, DIALECTS)}"
        )
    spoken = DIALECTS[dialect]

    def name(column: str, named: Mapping[str, str] | None) -> str:
        return spoken.name(column if named is None else named[column])

    def then(treatment: int) -> str:
        return f"{treatment}  -- {shown(labels[treatment])}" if labels else str(treatment)

    def lines(treatment: int, conditions: Sequence[str] = ()) -> list[str]:
        found = []
        for choice, required in rule.choices(treatment):
            wanted = [*conditions, *(name(column, eligible) for column in required)]
            if len(wanted) > 1:
                wanted = [f"({text})" if " OR " in text else text for text in wanted]
            kept = f"WHEN {' AND '.join(wanted)} THEN" if wanted else "ELSE"
            found.append(f"  {kept} {then(choice)}")
        return found

    body = []
    for leaf in rule.leaves:
        if leaf.treatment != rule.usual:
            body += lines(
                leaf.treatment,
                [
                    _condition(spoken, name(key, features), one)
                    for key, one in leaf.conditions.items()
                ],
            )
    body += lines(rule.usual)
    if len(body) == 1 and body[0].startswith("  ELSE "):
        return body[0].removeprefix("  ELSE ")
    return "\n".join(["CASE", *body, "END"])


def _condition(dialect: Dialect, name: str, condition: Condition) -> str:
    """Return one condition; it is true or not, where a value is missing too."""
    missing = [f"{name} IS NULL"]
    if isinstance(condition, NumberCondition):
        ends = _ends(dialect, name, condition)
        # NaN is above all numbers in these engines
        if dialect.isnan and condition.high is not None:
            missing.append(f"isnan({name})")
        if condition.missing_alone:
            return " OR ".join(missing)
        held = " AND ".join(ends)
        if condition.missing:
            held = f"({held})" if len(ends) > 1 else held
    else:
        if not condition.levels:
            return f"{name} IS NULL" if condition.listed else f"{name} IS NOT NULL"
        texts = [dialect.text(level) for level in condition.levels]
        if len(texts) == 1:
            held = f"{name} {'=' if condition.listed else '<>'} {texts[0]}"
        else:
            held = f"{name} {'IN' if condition.listed else 'NOT IN'} ({', '.join(texts)})"
    return " OR ".join([held, *missing]) if condition.missing else held


def _ends(dialect: Dialect, name: str, condition: NumberCondition) -> list[str]:
    """Return what holds of the numbers for which a condition does."""
    ends = []
    if condition.low is not None:
        ends.append(f"{name} > {dialect.number(condition.low)}")
    if condition.high is not None:
        ends.append(f"{name} <= {dialect.number(condition.high)}")
    if not ends:
        ends.append(f"{name} IS NOT NULL")
    if dialect.isnan and condition.high is None and not condition.missing:
        ends.append(f"NOT isnan({name})")
    return ends
