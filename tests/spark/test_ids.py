"""Ids of every type that is supported, composite ones too: nothing lost, nothing confused."""

# ruff: noqa: E501  # ids stand side by side

from __future__ import annotations

import datetime as dt
import hashlib
import json
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pyspark.sql import functions as F

from coarse_spark.core.basis import Basis
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.limits import SizeLimits
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.profit import Profit
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.distributed.assign import assign
from coarse_spark.distributed.frames import (
    ExperimentSetup,
    column,
    experiment_units,
    id_parts,
    population_units,
    with_id_parts,
)
from coarse_spark.distributed.population import ResponseTable
from coarse_spark.distributed.score import score
from coarse_spark.distributed.validate import validate_tables
from coarse_spark.errors import TableError
from coarse_spark.pipeline.limits import settled_units
from coarse_spark.pipeline.settings import experiment_setup

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from coarse_spark.pipeline import Run

    from .conftest import Promotions

pytestmark = pytest.mark.spark

SPACE = TreatmentSpace.from_dict(
    {"depth": {"kind": "continuous", "lower": 0, "upper": 1, "step": 1, "control": 0}}
)
PROBLEM = MenuProblem.build(SPACE, Basis("linear", SPACE), Profit())
CONTROLS = "".join(map(chr, range(1, 32))) + "\x7f\x85\u2028\u202e"
TEXTS = [
    "", " ", "null", "[]", '["a","b"]', "a", "A", "Zoë", "Zoe\u0308", "日本", "👩\u200d🔬", "'", '"', '""',
    "\\", "\\\\", '\\"', "\\u0041", "a,b", "a/b=c", "`", "${x}", "%s", "{0}", "\x00", CONTROLS, "x" * 5_000,
]  # fmt: skip
NUMBERS = [0, 1, -1, 10, 2**63 - 1, -(2**63), 2**53, 2**53 + 1]
DECIMALS = [Decimal(10**38 - 1), Decimal(1 - 10**38), Decimal(0), Decimal(1), Decimal(2**64)]
DATES = [
    dt.date(1, 1, 1),
    dt.date(2024, 2, 29),
    dt.date(1582, 10, 4),
    dt.date(1970, 1, 1),
    dt.date(9999, 12, 31),
]
PAIRS = [
    ("a", "b,c"), ("a,b", "c"), ("a", '"b'), ('a"', "b"), ('a","b', ""), ("", 'a","b'), ("a", "b"), ("ab", ""),
    ("", "ab"), ("\\", ""), ("", "\\"), ("[", "]"), ("null", "null"), (CONTROLS, "\x00"), ("日", "本"),
]  # fmt: skip


def setup(*ids: str, **changes: Any) -> ExperimentSetup:
    return ExperimentSetup(unit_id=ids, features=("x",), outcome="y", space=SPACE, **changes)


def trial(spark: SparkSession, ids: list[tuple[Any, ...]], schema: str) -> DataFrame:
    """Return an experiment of these ids with all else that it needs."""
    rows = [(*unit, float(i), float(i), float(i % 2)) for i, unit in enumerate(ids)]
    return spark.createDataFrame(rows, f"{schema}, x double, y double, depth double")


@pytest.mark.parametrize(
    ("kind", "ids"),
    [
        ("string", TEXTS),
        ("bigint", NUMBERS),
        ("decimal(38,0)", DECIMALS),
        ("date", DATES),
    ],
)
def test_ids_of_one_column_come_back_as_they_were(
    spark: SparkSession, kind: str, ids: list[Any]
) -> None:
    table = trial(spark, [(unit,) for unit in ids], f"id {kind}")
    assert validate_tables(setup("id"), table).rows == len(ids)
    assert id_parts(table, ["id"]) == {}
    assigned = _assigned(table, setup("id"))
    assert assigned.schema["unit_id"].dataType.simpleString() == kind
    assert sorted(row["unit_id"] for row in assigned.collect()) == sorted(ids)


def test_composite_ids_come_back_in_parts_that_are_never_confused(spark: SparkSession) -> None:
    ids = [
        (*pair, NUMBERS[i % 8], DECIMALS[i % 5], DATES[i % 5])
        for i, pair in enumerate([*PAIRS, *((text, text) for text in TEXTS)])
    ]
    names = ("shop", "Kundé.`x`", "number", "code", "day")
    types = ("string", "string", "bigint", "decimal(38,0)", "date")
    table = trial(
        spark, ids, "shop string, `Kundé.``x``` string, number bigint, code decimal(38,0), day date"
    )
    assert validate_tables(setup(*names), table).rows == len(ids)
    assert id_parts(table, names) == dict(zip(names, types, strict=True))

    assigned = _assigned(table, setup(*names))
    assert assigned.columns[:7] == ["unit_id", *names, "treatment_id"]
    assert tuple(assigned.schema[name].dataType.simpleString() for name in names) == types
    rows = assigned.collect()
    assert {tuple(row[name] for name in names) for row in rows} == set(ids)
    assert len({row["unit_id"] for row in rows}) == len(rows) == len(ids)
    for row in rows:
        assert json.loads(row["unit_id"]) == [str(row[name]) for name in names]
    # who joins on the parts finds everybody once
    keys = table.select(*map(column, names))
    assert keys.join(spark.createDataFrame(rows, assigned.schema), list(names)).count() == len(ids)


def _assigned(table: DataFrame, described: ExperimentSetup) -> DataFrame:
    """Return the assignments of a table's units within limits: driver and executors handle ids."""
    folds = experiment_units(table, described)
    assert folds.where("fold BETWEEN 0 AND 4").count() == table.count()
    responses = population_units(table, described, None).selectExpr(
        "unit_id", "weight", "0D AS theta_0", "feature_0 - 2 AS theta_1", "9D AS granular_profit"
    )
    limits = SizeLimits(np.array([0.4, 0.4]), np.array([0.6, 0.6]))
    menu = PricedMenu.build(PROBLEM, np.array([[0.0], [1.0]]), limits=limits)
    settled = settled_units(ResponseTable(responses, PROBLEM), menu, 1e9)
    assigned = assign(responses, PROBLEM, menu, settled=settled)
    assert assigned.where("treatment_id = 0").count() >= 0.4 * table.count()
    return with_id_parts(assigned, id_parts(table, described.unit_id))


@pytest.mark.parametrize("kind", ["string", "decimal(38,0)", "date"])
def test_units_score_alike_whatever_the_type_of_their_id(
    spark: SparkSession, promotions: Promotions, finished: Run, kind: str
) -> None:
    number = "date_add(DATE'2000-01-01', CAST(unit_id AS int))" if kind == "date" else "unit_id"
    population = finished.population.withColumn("id", F.expr(f"CAST({number} AS {kind})"))
    described = replace(experiment_setup(finished.configuration), unit_id=("id",))
    scored = score(
        population_units(population, described, None),
        finished.lake.read("models", finished.run_id).where("fold = -1"),
        features=described.features,
        problem=finished.problem,
        keep=["unit_id"],
        granular=False,
    )
    responses = finished.lake.read("responses", finished.run_id).select("unit_id", "theta_0")
    number = F.col("id").alias("number"), "unit_id"
    pairs = scored.select(F.col("unit_id").alias("number"), F.col("theta_0").alias("found")).join(
        population.select(*number).join(responses, "unit_id"), "number"
    )
    assert pairs.where("found = theta_0").count() == pairs.count() == responses.count()


def test_ids_of_one_column_hash_as_ever(spark: SparkSession) -> None:
    # folds and samples of runs that are there rest on these
    table = trial(spark, [(1,), (2,), (3,)], "id bigint")
    rows = experiment_units(table, setup("id", seed=3)).orderBy("unit_id").collect()
    assert [(row["key"], row["fold"]) for row in rows] == PINNED
    texts = table.selectExpr("CAST(id AS string) AS id", "x", "y", "depth")
    same = experiment_units(texts, setup("id", seed=3)).orderBy("unit_id").collect()
    assert [(row["key"], row["fold"]) for row in same] == PINNED


PINNED = [(2096242775107662424, 2), (3952467236160045040, 0), (2654587076176934058, 0)]


@pytest.mark.parametrize(
    "kind", ["double", "float", "timestamp", "boolean", "binary", "array<string>", "struct<a:int>"]
)
def test_other_types_are_refused_alone_and_as_parts(spark: SparkSession, kind: str) -> None:
    table = trial(spark, [("a",), ("b",)], "id string").selectExpr(
        "*", f"CAST(NULL AS {kind}) AS other"
    )
    expected = (
        f"experiment: the unit_id column 'other' is of type {kind}, "
        "expected string, an integer type, decimal or date"
    )
    for ids in (["other"], ["id", "other"]):
        assert _problems(setup(*ids), table) == [expected]


def _problems(described: ExperimentSetup, table: DataFrame) -> list[str]:
    with pytest.raises(TableError) as caught:
        validate_tables(described, table)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def test_null_and_repeated_composite_ids_have_examples(spark: SparkSession) -> None:
    ids = [("CH", 1), ("CH", 1), ("CH", 1), ("DE", 1), ("D\x1b", 2), ("D\x1b", 2)]
    nulls = [(None, 4), ("CH", None), ("AT", None), ("DE", None), (None, None)]
    table = trial(spark, [*ids, *nulls], "market string, customer int")
    assert _problems(setup("market", "customer"), table) == [
        "experiment: 2 of 11 rows have a null unit_id 'market' (such as market=null/customer=null "
        "and market=null/customer=4), expected an id in every row",
        "experiment: 4 of 11 rows have a null unit_id 'customer' (such as "
        "market=null/customer=null and market=DE/customer=null), expected an id in every row",
        "experiment: 2 unit ids occur in 5 rows, expected one row a unit; such as "
        r"market=CH/customer=1 (3 times), market=D\x1b/customer=2 (2 times)",
    ]


def test_private_messages_hold_hashes_that_can_be_compared(spark: SparkSession) -> None:
    def sign(value: object) -> str:
        return "#" + hashlib.sha256(str(value).encode()).hexdigest()[:8]

    table = trial(
        spark, [("CH", 7), ("CH", 7), ("Bern", None)], "market string, customer int"
    ).replace({1.0: 5.0}, subset="depth")
    described = setup(
        "market", "customer", strata=("market",), design="stratified", privacy=True, folds=2
    )
    found = _problems(described, table)
    assert found == [
        "experiment: 1 of 3 rows have a null unit_id 'customer' (such as "
        f"market={sign('Bern')}/customer=null), expected an id in every row",
        f"experiment: 1 of 3 rows have a treatment 'depth' outside the declared space (from "
        f"{sign(5.0)} to {sign(5.0)}), expected 0 to 1 or the control 0",
        "experiment: 1 unit ids occur in 2 rows, expected one row a unit; such as "
        f"market={sign('CH')}/customer={sign(7)} (2 times)",
    ]
    assert not any(word in line for word in ("CH", "Bern", "5.0") for line in found)
    alone = trial(spark, [(7,), (7,)], "customer int")
    assert _problems(setup("customer", privacy=True, folds=2), alone) == [
        f"experiment: 1 unit ids occur in 2 rows, expected one row a unit; such as {sign(7)} "
        "(2 times)"
    ]


def test_instants_are_called_alike_in_every_time_zone(spark: SparkSession) -> None:
    # a model must be found by the name of its partition in a session of another time zone
    setup = ExperimentSetup(
        ("unit_id",), (), "y", SPACE, partition_by=("wave",), strata=("wave",), cluster="wave"
    )
    texts = ["2024-03-31 00:30:00", "2024-11-03 05:59:59.000001", "1883-11-18 12:00:00", None]
    rows = [(number, text, 1.0, 0.0) for number, text in enumerate(texts)]
    table = spark.createDataFrame(rows, "unit_id int, text string, y double, depth double")
    instant = F.to_timestamp(F.concat("text", F.lit("+00:00")))
    table = table.withColumn("wave", instant)
    columns = ["unit_id", "partition", "stratum", "fold", "cluster"]
    zone, found = "spark.sql.session.timeZone", {}
    before = spark.conf.get(zone)
    try:
        for name in ("UTC", "Asia/Kathmandu", "America/St_Johns"):
            spark.conf.set(zone, name)
            units = experiment_units(table, setup).select(*columns)
            found[name] = sorted(map(tuple, units.collect()))
    finally:
        spark.conf.set(zone, before)
    assert [row[1] for row in found["UTC"]] == [f"wave={text or '<null>'}" for text in texts]
    assert found["Asia/Kathmandu"] == found["America/St_Johns"] == found["UTC"]
