"""Policy trees: they earn the most, and say so as SQL means it."""

from __future__ import annotations

import re
from itertools import product

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.policy_tree.cells import Cells, roundest
from coarse_spark.core.policy_tree.menu_rule import fit_menu_rule
from coarse_spark.core.policy_tree.rule import (
    AssignmentRule,
    Leaf,
    NumberCondition,
    fit_rule,
    number_text,
    told_of,
)
from coarse_spark.core.policy_tree.search import grow
from coarse_spark.core.policy_tree.sql import to_sql
from coarse_spark.core.profit import Profit
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError

ODD = ["plain", "a=b", "two words", 'quote"d', "back`tick", "it's", "a.b", "order", r"b\s"]
LEVELS = ["x", "it's", 'say "hi"', "a=b", r"back\slash", "", " ", "x,y", "%_", "Zoë"]


def _units(n: int, seed: int, names: list[str] = ODD) -> pd.DataFrame:
    """Return features by turns numbers with NaN, texts with None, whole numbers and booleans."""
    rng, frame = np.random.default_rng(seed), {}
    for position, name in enumerate(names):
        if position % 4 == 0:
            values = rng.normal(size=n) * 10.0 ** rng.integers(-6, 7)
            frame[name] = np.where(rng.random(n) < 0.1, np.nan, values)
        elif position % 4 == 1:
            texts = rng.choice(LEVELS, size=n).astype(object)
            texts[rng.random(n) < 0.1] = None
            frame[name] = texts
        elif position % 4 == 2:
            frame[name] = rng.integers(0, 100, n)
        else:
            frame[name] = rng.random(n) < 0.3
    return pd.DataFrame(frame)


def _in_duckdb(rule: AssignmentRule, table: pa.Table) -> np.ndarray:
    connection = duckdb.connect()
    connection.register("units", table)
    query = f"SELECT {to_sql(rule, 'duckdb')} AS treatment FROM units"  # noqa: S608
    found = connection.sql(query).fetchall()
    return np.array([-1 if row[0] is None else row[0] for row in found])


def test_a_step_is_recovered() -> None:
    rng = np.random.default_rng(0)
    age, channel = rng.integers(18, 91, 8_000), rng.choice(["app", "mail", "post"], 8_000)
    best = np.where(age <= 40, np.where(channel == "post", 2, 1), 0)
    profits = np.eye(3)[best] + rng.normal(size=(8_000, 3))
    features = pd.DataFrame({"noise": rng.normal(size=8_000), "age": age, "channel": channel})
    rule = fit_rule(features, profits, np.ones(8_000), depth=2)
    assert told_of(rule, range(3)) == [
        "age > 40",
        "age <= 40 and channel is not post",
        "age <= 40 and channel is post",
    ]
    np.testing.assert_array_equal(rule.assign(features), best)
    lost = profits.max(axis=1) - profits[np.arange(8_000), best]
    assert rule.lost == pytest.approx(lost.mean())
    shares = {leaf.treatment: leaf.share for leaf in rule.leaves}
    assert shares == pytest.approx({k: (best == k).mean() for k in range(3)})


def test_a_split_that_pays_with_the_next_one_only_is_found() -> None:
    features = pd.DataFrame(list(product("xy", repeat=5)) * 20, columns=list("abcde"))
    n = len(features)
    one = (features["b"] == "x") ^ (features["d"] == "x")
    profits = np.eye(2)[one.astype(int)]
    rule = fit_rule(features, profits, np.ones(n), depth=2)
    np.testing.assert_array_equal(rule.assign(features), one)
    cells = [Cells.of(features[name]) for name in features]
    greedy = grow(cells, profits, np.ones(n), depth=2, min_share=0.01, min_gain=0.0, ahead=False)
    assert greedy.value == n / 2


def _exhaustive(X: np.ndarray, profits: np.ndarray, weights: np.ndarray, depth: int) -> float:
    """Return what the best of all trees over numbers earns."""
    best = float((weights @ profits).max())
    if depth == 0:
        return best
    for column in X.T:
        for edge in np.unique(column)[:-1]:
            low = column <= edge
            sides = [
                _exhaustive(X[part], profits[part], weights[part], depth - 1)
                for part in (low, ~low)
            ]
            best = max(best, sum(sides))
    return best


@pytest.mark.parametrize("seed", range(4))
def test_depth_two_earns_as_much_as_any_tree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, profits, weights = rng.integers(0, 6, (60, 3)), rng.normal(size=(60, 3)), rng.random(60)
    cells = [Cells.of(column) for _, column in pd.DataFrame(X).items()]
    found = grow(cells, profits, weights, depth=2, min_share=0.0, min_gain=0.0)
    assert found.value == pytest.approx(_exhaustive(X, profits, weights, 2))


def test_levels_are_split_as_well_as_any_two_sets() -> None:
    rng = np.random.default_rng(3)
    texts, profits = rng.choice(list("abcde"), 300), rng.normal(size=(300, 3))
    best = max(
        sum(profits[np.isin(texts, part)].sum(axis=0).max() for part in (some, others))
        for mask in product([False, True], repeat=5)
        for some in [[level for level, held in zip("abcde", mask, strict=True) if held]]
        for others in [sorted(set("abcde") - set(some))]
    )
    cells = [Cells.of(pd.Series(texts))]
    found = grow(cells, profits, np.ones(300), depth=1, min_share=0.0, min_gain=0.0)
    assert found.value == pytest.approx(best)


def test_leaves_are_as_large_as_asked_and_weights_count() -> None:
    rng = np.random.default_rng(4)
    features = pd.DataFrame({"a": rng.random(1_000), "b": rng.random(1_000)})
    weights = rng.exponential(size=1_000)
    profits = rng.normal(size=(1_000, 3))
    rule = fit_rule(features, profits, weights, depth=4, min_share=0.1)
    assert len(rule.leaves) > 2
    assert min(leaf.share for leaf in rule.leaves) >= 0.1
    # a unit of weight 2 is two units
    whole = rng.integers(1, 4, 1_000)
    twice = np.repeat(np.arange(1_000), whole)
    one = fit_rule(features, profits, whole.astype(float), depth=2)
    other = fit_rule(features.iloc[twice], profits[twice], np.ones(len(twice)), depth=2)
    assert one.lost == pytest.approx(other.lost, abs=0.01)


def test_one_treatment_for_all_where_nothing_tells_units_apart() -> None:
    features = pd.DataFrame({"a": [1.0, 2.0, np.nan, 4.0], "b": ["x", None, "x", "y"]})
    rule = fit_rule(features, np.tile([1.0, 3.0], (4, 1)), np.ones(4), depth=3)
    assert (told_of(rule, [0, 1]), to_sql(rule)) == (["nobody", "everyone"], "1")
    empty = pd.DataFrame({"a": [np.nan] * 4, "b": [None] * 4})
    assert fit_rule(empty, np.eye(4), np.ones(4), depth=2).assign(empty).tolist() == [0] * 4


@pytest.mark.parametrize("seed", range(12))
def test_sql_means_what_the_rule_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = list(rng.permutation(ODD)[:4])
    features = _units(600, seed, names)
    # responses that lean on features, missing ones too, so that all kinds of conditions occur
    codes = np.column_stack([Cells.of(features[name]).codes for name in names])
    profits = np.column_stack([rng.permutation(80)[codes].sum(axis=1) for _ in range(3)])
    rule = fit_rule(features, profits.astype(float), np.ones(600), depth=4)
    assert len(rule.leaves) > 3
    np.testing.assert_array_equal(
        _in_duckdb(rule, pa.Table.from_pandas(features, preserve_index=False)),
        rule.assign(features),
    )
    # further units: nulls in every column, NaN, levels and numbers that were never seen
    strange = _units(600, seed + 100, names)
    for name in names[1::4]:
        strange.loc[rng.random(600) < 0.3, name] = "never seen"
    for name in names[0::4]:
        strange[name] *= 10
    table = pa.Table.from_pandas(strange, preserve_index=False)
    nulls = [pa.array(rng.random(600) < 0.15) for _ in names]
    columns = [
        pa.array(
            [None if gone else value for gone, value in zip(null.to_pylist(), held, strict=True)],
            type=table.schema.field(name).type,
        )
        for name, null, held in zip(
            names, nulls, (table.column(name).to_pylist() for name in names), strict=True
        )
    ]
    table = pa.table(dict(zip(names, columns, strict=True)))
    as_read = pd.DataFrame(
        {
            name: pd.Series(
                table.column(name).to_pylist(),
                dtype="boolean" if pa.types.is_boolean(kind) else _dtype(kind),
            )
            for name, kind in zip(names, table.schema.types, strict=True)
        }
    )
    np.testing.assert_array_equal(_in_duckdb(rule, table), rule.assign(as_read))


def _dtype(kind: pa.DataType) -> str:
    return "object" if pa.types.is_string(kind) else "float64"


def test_a_value_that_is_no_number_is_missing_in_sql_too() -> None:
    values = np.repeat([1.0, 2.0, 3.0, np.nan], 50)
    for goes_with in ([1, 0, 0, 1], [1, 0, 0, 0]):
        best = np.repeat(goes_with, 50)
        features = pd.DataFrame({"a": values})
        rule = fit_rule(features, np.eye(2)[best], np.ones(200), depth=1)
        np.testing.assert_array_equal(rule.assign(features), best)
        table = pa.table({"a": pa.array([float("nan"), None, 1.0, 3.0], from_pandas=False)})
        assert _in_duckdb(rule, table).tolist() == [goes_with[i] for i in (3, 3, 0, 2)]


def test_columns_of_single_precision_are_compared_alike() -> None:
    prices = np.arange(1, 200, dtype=np.float32) / np.float32(20)
    for last in range(1, 60, 4):
        best = (np.arange(199) > last).astype(int)
        features = pd.DataFrame({"price": prices.astype(np.float64)})  # as Spark hands them over
        rule = fit_rule(features, np.eye(2)[best], np.ones(199), depth=1, min_share=0.0)
        table = pa.table({"price": pa.array(prices)})
        np.testing.assert_array_equal(_in_duckdb(rule, table), rule.assign(features))


def test_who_may_get_nothing_is_told() -> None:
    leaf = Leaf({}, 1, 1.0, 2.0)
    rule = AssignmentRule((leaf,), requires=(("a",), ("b", "c")), order=(0, 1))
    columns = {"a": [True, False, False], "b": [True, True, True], "c": [True, True, None]}
    assert _in_duckdb(rule, pa.table(columns)).tolist() == [1, 1, -1]
    eligible = {name: [bool(value) for value in values] for name, values in columns.items()}
    assert rule.assign(pd.DataFrame(index=range(3)), eligible).tolist() == [1, 1, -1]


def test_conditions_read_like_a_persons() -> None:
    rng = np.random.default_rng(5)
    n = 4_000
    features = pd.DataFrame(
        {
            "tiny": rng.uniform(1e-7, 3e-7, n),
            "huge": rng.uniform(1e12, 3e12, n),
            "age": rng.integers(18, 91, n),
            "level": rng.choice(list("abcdef"), n),
        }
    )
    band = (features["age"] > 30) & (features["age"] <= 45)
    best = np.select(
        [band & (features["tiny"] < 2e-7), band, features["huge"] > 2e12], [1, 2, 3], 0
    )
    rule = fit_rule(features, np.eye(4)[best], np.ones(n), depth=4)
    assert (rule.assign(features) == best).mean() > 0.95
    text = to_sql(rule)
    assert not re.search(r"\d[eE][+-]?\d", text)
    for line in text.splitlines():
        for name in features:
            for sign in (">", "<="):
                assert line.count(f"`{name}` {sign} ") <= 1, line
    assert any("`age` > 30 AND `age` <= 45" in line for line in text.splitlines()), text
    assert "30 < age <= 45" in " ".join(told_of(rule, range(4)))
    # no more digits than tell the units apart
    for number in re.findall(r"(?:>|<=) ([\d.]+)", text):
        assert len(number.replace(".", "").strip("0")) <= 5, number


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(finite, finite)
def test_rounding_keeps_the_split(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    if low == high:
        return
    limit = roundest(low, high)
    assert low <= limit < high
    assert float(number_text(limit)) == limit
    assert "e" not in number_text(limit)
    assert len(number_text(limit).strip("-0.")) <= max(len(number_text(low).strip("-0.")), 1)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_rule_splits_the_rows_it_was_fitted_on_as_its_tree(data: st.DataObject) -> None:
    numbers = st.one_of(
        st.none(), st.floats(allow_nan=False, width=data.draw(st.sampled_from([32, 64])))
    )
    values = data.draw(st.lists(numbers, min_size=2, max_size=40))
    features = pd.DataFrame({"a": pd.Series(values, dtype="float64")})
    rng = np.random.default_rng(len(values))
    profits = rng.normal(size=(len(values), 3))
    rule = fit_rule(features, profits, np.ones(len(values)), depth=3, min_share=0.0)
    got = profits[np.arange(len(values)), rule.assign(features)]
    lost = (profits.max(axis=1) - got).mean()
    assert lost == pytest.approx(rule.lost, abs=1e-9)


def _members() -> tuple[MenuProblem, PricedMenu]:
    space = TreatmentSpace.from_dict(
        {"arm": {"kind": "categorical", "levels": ["none", "mail", "gift"], "control": "none"}}
    )
    problem = MenuProblem.build(space, "arms", Profit())
    problem = problem.with_eligibility(["arm == 'gift'"], np.full(3, 3.0), np.array([0.5]))
    return problem, PricedMenu.build(problem, problem.candidates)


def test_who_is_not_eligible_gets_what_earns_most_of_the_rest() -> None:
    rng = np.random.default_rng(6)
    problem, menu = _members()
    age, member = rng.integers(18, 91, 2_000), rng.random(2_000) < 0.5
    theta = np.zeros((2_000, 4))
    theta[:, 1], theta[:, 2], theta[:, 3] = 1.0, np.where(age > 40, 2.0, 0.0), ~member
    features = pd.DataFrame({"age": age, "channel": "x"})
    rule = fit_menu_rule(
        features, theta, np.ones(2_000), problem, menu, depth=2, eligible=["is member"]
    )
    expected = np.where((age > 40) & member, 2, 1)
    np.testing.assert_array_equal(rule.assign(features, {"is member": member}), expected)
    assert rule.lost == pytest.approx(0.0)
    assert to_sql(rule, "duckdb").splitlines() == [
        "CASE",
        '  WHEN "age" <= 40 THEN 1',
        '  WHEN "is member" THEN 2',
        "  ELSE 1",
        "END",
    ]
    table = pa.table({"age": [50, 50, 50, None, 20], "is member": [True, False, None, True, True]})
    assert _in_duckdb(rule, table).tolist() == [2, 1, 1, 2, 1]
    with pytest.raises(
        InvalidInputError, match=r"'is member' is missing \(did you mean 'is membr'"
    ):
        rule.assign(features, {"is membr": member})


def test_an_unknown_dialect_is_told() -> None:
    rule = fit_rule(pd.DataFrame({"a": [1.0, 2.0]}), np.eye(2), np.ones(2), depth=1)
    with pytest.raises(InvalidInputError, match="dialect: found 'duckbd', expected spark or"):
        to_sql(rule, "duckbd")
    assert to_sql(rule, "ansi", labels=["one\nDROP", "two"]).splitlines() == [
        "CASE",
        '  WHEN "a" > 1 OR "a" IS NULL THEN 1  -- two',
        r"  ELSE 0  -- one\x0aDROP",
        "END",
    ]


def test_without_features_everyone_gets_the_best_treatment() -> None:
    profits = np.eye(2)[[0, 1, 1, 1]]
    rule = fit_rule(pd.DataFrame(index=range(4)), profits, np.ones(4), depth=2)
    assert rule.leaves == (Leaf({}, 1, 1.0, 0.75),)
    assert rule.assign(pd.DataFrame(index=range(3))).tolist() == [1, 1, 1]
    assert to_sql(rule) == "1"


@pytest.mark.parametrize("count", [0, 4])
def test_units_of_no_weight_are_refused(count: int) -> None:
    features = pd.DataFrame({"a": np.arange(float(count))})
    with pytest.raises(InvalidInputError, match=rf"weights: found a sum of 0 over {count} units"):
        fit_rule(features, np.ones((count, 2)), np.zeros(count), depth=1)


@pytest.mark.parametrize("known", [[1.0], [0.0, 1.0], [-5.0, 2.0, 7.0]])
def test_a_number_splits_on_whether_it_is_missing(known: list[float]) -> None:
    features = pd.DataFrame({"member": [*known, np.nan] * 30})
    best = features["member"].isna().to_numpy().astype(int)
    rule = fit_rule(features, np.eye(2)[best], np.ones(len(best)), depth=2)
    assert told_of(rule, [0, 1]) == ["member is not missing", "member is missing"]
    np.testing.assert_array_equal(rule.assign(features), best)
    values = [float("nan"), None, -1e9, 0.0, 1e9]
    table = pa.table({"member": pa.array(values, pa.float64(), from_pandas=False)})
    assert _in_duckdb(rule, table).tolist() == [1, 1, 0, 0, 0]
    turned = AssignmentRule((*rule.leaves, Leaf({}, 1, 1.0, 0.0)))  # the other leaf is written
    assert _in_duckdb(turned, table).tolist() == [1, 1, 0, 0, 0]
    assert '"member" IS NOT NULL THEN' in to_sql(turned, "ansi")


def test_missing_numbers_are_told_below_other_splits() -> None:
    rng = np.random.default_rng(6)
    a = np.where(rng.random(3_000) < 0.3, np.nan, rng.integers(0, 50, 3_000))
    features = pd.DataFrame({"a": a, "b": rng.integers(0, 60, 3_000)})
    best = np.where(np.isnan(a), np.where(features["b"] <= 30, 0, 1), np.where(a <= 20, 2, 3))
    rule = fit_rule(features, np.eye(4)[best], np.ones(3_000), depth=2)
    assert told_of(rule, range(4)) == [
        "a is missing and b <= 30",
        "a is missing and b > 30",
        "a <= 20",
        "a > 20",
    ]
    np.testing.assert_array_equal(rule.assign(features), best)
    table = pa.Table.from_pandas(features, preserve_index=False)
    np.testing.assert_array_equal(_in_duckdb(rule, table), best)


def test_conditions_on_missing_numbers_combine_as_they_hold() -> None:
    values = pd.Series([np.nan, -1.0, 0.0, 1.0, 2.0])
    ends = [None, 0.0, 1.0]
    conditions = [
        NumberCondition(low, high, missing)
        for low, high, missing in product(ends, ends, [False, True])
        if (low, high, missing) != (None, None, True)
    ]
    for one, other in product(conditions, repeat=2):
        both = one.and_(other)
        np.testing.assert_array_equal(both.holds(values), one.holds(values) & other.holds(values))
        alone = both.holds(values).tolist() == [True, False, False, False, False]
        assert both.words("m", gaps=True).endswith("m is missing") == alone
        leaves = (Leaf({"m": both}, 0, 0.1, 0.0), Leaf({}, 1, 0.9, 0.0))
        table = pa.table({"m": pa.array(values, from_pandas=False)})
        assert (_in_duckdb(AssignmentRule(leaves), table) == 0).tolist() == [*both.holds(values)]
