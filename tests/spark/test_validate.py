"""Every message of the table checks, on real Spark tables; and a clean table that has none."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from coarse_spark.config.models import Configuration
from coarse_spark.distributed.frames import experiment_units
from coarse_spark.distributed.validate import TableReport
from coarse_spark.errors import TableError
from coarse_spark.pipeline.settings import check_tables, experiment_setup

pytestmark = pytest.mark.spark

_DOUBLES, _TEXTS = ("age", "spend", "w", "depth"), ("market", "channel", "wave", "arm")
SCHEMA = pa.schema(
    [
        ("unit_id", pa.int64()),
        *((name, pa.string()) for name in _TEXTS),
        *((name, pa.float64()) for name in _DOUBLES),
    ]
)


def configuration(**changes: Any) -> Configuration:
    content: dict[str, Any] = {
        "experiment": {
            "table": "trial",
            "unit_id": "unit_id",
            "partition_by": ["market"],
            "features": ["age", "channel"],
            "outcome": "spend",
            "weight": "w",
            "strata": ["wave"],
        },
        "treatments": {
            "depth": {"kind": "continuous", "lower": 0, "upper": 40, "step": 10, "control": 0},
            "arm": {"kind": "categorical", "levels": ["mail", "phone"], "control": "mail"},
        },
        "design": {"kind": "stratified"},
        "response": {"basis": "levels + linear", "folds": 2, "min_rows": 3},
        "output": {"path": "output"},
    }
    for key, value in changes.items():
        content[key] = content.get(key, {}) | value if isinstance(value, dict) else value
    return Configuration.model_validate(content)


def rows(count: int = 12) -> list[dict[str, Any]]:
    """Clean rows: every combination of depth and arm occurs, markets A and B have half each."""
    return [
        {
            "unit_id": i,
            "market": "AB"[i % 2],
            "age": 20.0 + i,
            "channel": None if i == 3 else "web",
            "wave": "1",
            "spend": float(i),
            "w": 1.0,
            "depth": 10.0 * (i % 4),
            "arm": ("mail", "phone")[i % 3 == 0],
        }
        for i in range(count)
    ]


def table(spark: Any, content: list[dict[str, Any]]) -> Any:
    # from Arrow: None stays null and NaN stays NaN, and no Python worker starts
    return spark.createDataFrame(pa.Table.from_pylist(content, SCHEMA))


def population(spark: Any, content: list[dict[str, Any]]) -> Any:
    return table(spark, content).select("unit_id", "market", "age", "channel", "w")


def problems(
    spark: Any, content: list[dict[str, Any]], config: Configuration | None = None
) -> list[str]:
    with pytest.raises(TableError) as caught:
        check_tables(config or configuration(), table(spark, content))
    head, *lines = str(caught.value).splitlines()
    assert head == f"the tables have {len(lines)} problem{'s' if len(lines) > 1 else ''}:"
    return [line.strip() for line in lines]


def test_clean_tables_have_no_problem_and_are_counted(spark: Any) -> None:
    report = check_tables(configuration(), table(spark, rows()), population(spark, rows(5)))
    assert report == TableReport(
        rows=12, usable_rows=12, partitions=2, small_partitions=0, population_rows=5, warnings=()
    )
    assert check_tables(configuration(), table(spark, rows())).population_rows == 12


def test_rows_without_outcome_or_treatment_are_left_out_with_a_warning(spark: Any) -> None:
    content = rows()
    content[0]["spend"] = None
    content[1]["depth"] = None
    content[2]["depth"] = content[2]["spend"] = None
    report = check_tables(configuration(), table(spark, content))
    assert (report.rows, report.usable_rows) == (12, 9)
    assert report.warnings == (
        "experiment: 2 of 12 rows have no spend, so they are left out",
        "experiment: 2 of 12 rows have no depth, so they are left out",
    )


def test_small_partitions_are_counted_on_usable_rows(spark: Any) -> None:
    content = rows()
    content[0]["market"] = None
    content[1]["spend"] = None
    report = check_tables(configuration(response={"min_rows": 6}), table(spark, content))
    assert (report.partitions, report.small_partitions) == (3, 3)
    sizes = "3 of 3 partitions have fewer usable rows than response.min_rows = 6, the smallest 1"
    assert report.warnings[-1] == f"experiment: {sizes}; the pooled model serves them"


def test_an_experiment_without_partitions_has_no_small_ones(spark: Any) -> None:
    whole = configuration(experiment={"partition_by": []}, response={"min_rows": 100})
    report = check_tables(whole, table(spark, rows()))
    assert (report.partitions, report.small_partitions, report.warnings) == (1, 1, ())


def test_strata_that_do_not_identify_the_basis_are_named_counted_and_merged(spark: Any) -> None:
    content = rows(16)
    for row in content[:7]:
        row |= {"wave": "flat" if row["unit_id"] < 4 else "phoned", "arm": "phone"}
    for row in content[:4]:
        row["depth"] = 20.0
    content[4]["spend"] = None
    report = check_tables(configuration(), table(spark, content))
    assert report.warnings[1:] == (
        "2 of 3 strata do not identify 'levels + linear' (wave=flat (4 units), wave=phoned "
        "(2 units)): merged with 1 of the nearest treatment mix, so that honest values take "
        "treatments as given alike to the 15 units of 1 group of strata, and are biased as far as "
        "they were not",
    )
    plain = configuration(design={"kind": "randomized"})
    assert check_tables(plain, table(spark, content)).warnings == report.warnings[:1]


def test_partitions_that_do_not_identify_a_basis_are_named(spark: Any) -> None:
    content = [row | {"market": "ABCD"[row["unit_id"] // 12]} for row in rows(48)]
    for row in content[12:24]:
        row |= {"depth": 0.0, "arm": "mail"}
    for row in content[24:36]:
        row["depth"] = 10.0 * (row["unit_id"] % 2)
    for row in content[38:]:
        row["spend"] = None
    plain = configuration(design={"kind": "randomized"}, response={"basis": "levels + quadratic"})
    report = check_tables(plain, table(spark, content))
    assert (report.partitions, report.small_partitions, report.unidentified_partitions) == (4, 1, 2)
    assert report.warnings[1:] == (
        "experiment: 1 of 4 partitions has fewer usable rows than response.min_rows = 3, the "
        "smallest 2; the pooled model serves it",
        "experiment: the treatments of 2 of 4 partitions do not identify the basis: market=B "
        "(12 rows: arm = phone, depth, depth^2 of 'levels + quadratic'); market=C (12 rows: "
        "depth^2 of 'levels + quadratic'); the pooled model serves them",
    )
    several = configuration(
        design={"kind": "randomized"},
        response={"basis": ["levels + linear", "levels + quadratic", "levels + cubic"]},
    )
    report = check_tables(several, table(spark, content))
    assert report.unidentified_partitions == 1
    assert report.warnings[-1] == (
        "experiment: the treatments of 2 of 4 partitions do not identify every basis that is "
        "compared: market=B (12 rows: arm = phone, depth of 'levels + linear'; arm = phone, depth, "
        "depth^2 of 'levels + quadratic'; arm = phone, depth, depth^2, depth^3 of 'levels + "
        "cubic'); market=C (12 rows: depth^2 of 'levels + quadratic'; depth^2, depth^3 of 'levels "
        "+ cubic'); where one is chosen that they do not identify, the pooled model serves them"
    )


def test_what_nobody_got_is_one_problem(spark: Any) -> None:
    arm = {"kind": "categorical", "levels": ["mail", "phone", "fax", "visit"], "control": "mail"}
    depth = {"kind": "continuous", "lower": 0, "upper": 40, "step": 10, "control": 0}
    content = [*rows(), rows(13)[-1] | {"arm": "fax", "w": 0.0}]
    declared = configuration(treatments={"arm": arm, "depth": depth})
    assert problems(spark, content, declared) == [
        "experiment: treatment 'arm' is fax or visit in no usable row, expected some units of "
        "every declared level to learn its effect from: leave it out of treatments.arm.levels",
    ]
    two = [row | {"depth": 10.0 * (row["unit_id"] % 2)} for row in rows()]
    (line,) = problems(spark, two, configuration(response={"basis": "levels + quadratic"}))
    assert line.startswith(
        "experiment: basis 'levels + quadratic': the observed treatments do not identify its "
        "column 'depth^2'"
    )


def test_rows_of_weight_0_are_no_rows(spark: Any) -> None:
    nobody: dict[str, Any] = {"w": 0.0, "spend": float("nan"), "depth": 99.0, "arm": "fax"}
    content = [*rows(), *(row | nobody | {"market": "Z", "wave": None} for row in rows(4))]
    report = check_tables(configuration(), table(spark, content))
    zero = "4 of 16 rows have weight 0 in 'w', so they are left out"
    assert report.warnings == (f"experiment: {zero}",)
    assert (report.rows, report.usable_rows, report.partitions) == (16, 12, 2)
    assert report.population_rows == 12
    weighed = configuration(population={"table": "people", "weight": "w"})
    people = [*rows(), *(row | {"w": 0.0} for row in rows(16)[12:])]
    report = check_tables(weighed, table(spark, rows()), table(spark, people))
    assert (report.population_rows, report.warnings) == (12, (f"population: {zero}",))


def test_without_keys_the_experiment_is_one_partition(spark: Any) -> None:
    report = check_tables(configuration(experiment={"partition_by": []}), table(spark, rows()))
    assert (report.partitions, report.small_partitions) == (1, 0)


def test_missing_columns_and_unfit_types_come_all_at_once(spark: Any) -> None:
    trial = spark.createDataFrame(
        [(1, "A", [1.0], "x", 1.0, True, "7")],
        "Unit_ID bigint, marketing string, age array<double>, spend string, w double, "
        "depth boolean, arm string",
    )
    people = spark.createDataFrame(
        [(1, "A", "old", 3.0)], "unit_id bigint, market string, age string, channel double"
    )
    with pytest.raises(TableError) as caught:
        check_tables(configuration(), trial.drop("arm").selectExpr("*", "1 AS arm"), people)
    lines = [line.strip() for line in str(caught.value).splitlines()[1:]]
    has = "the table has Unit_ID, marketing, age, spend, w, depth, arm"
    assert lines == [
        "experiment: the partition key column 'market' is missing (did you mean 'marketing'?); "
        f"{has}",
        "experiment: the feature column 'age' is of type array<double>, "
        "expected a numeric, boolean or string type",
        f"experiment: the feature column 'channel' is missing; {has}",
        f"experiment: the unit_id column 'unit_id' is missing (did you mean 'Unit_ID'?); {has}",
        f"experiment: the stratum column 'wave' is missing (did you mean 'age'?); {has}",
        "experiment: the outcome column 'spend' is of type string, expected a numeric type",
        "experiment: the treatment column 'depth' is of type boolean, expected a numeric type",
        "experiment: the treatment column 'arm' is of type int, "
        "expected string, as the declared levels are texts",
    ]


def test_a_feature_must_be_of_like_type_in_both_tables(spark: Any) -> None:
    people = population(spark, rows(4)).selectExpr(
        "unit_id", "market", "CAST(age AS string) AS age", "channel", "w"
    )
    with pytest.raises(
        TableError,
        match=r"population: feature 'age' is of type string, "
        r"expected a type like the experiment's, double, such as CAST\(age AS double\) makes",
    ):
        check_tables(configuration(), table(spark, rows()), people)
    # 'true' is no text that people write, and 1 is none either
    flags = table(spark, rows()).selectExpr("* EXCEPT (channel)", "age > 25 AS `my channel`")
    config = configuration(experiment={"features": ["age", "my channel"]})
    for there in ("'True'", "1"):
        people = flags.selectExpr("unit_id", "market", "age", f"{there} AS `my channel`")
        with pytest.raises(TableError, match=r"such as CAST\(`my channel` AS boolean\) makes"):
            check_tables(config, flags, people)


@pytest.mark.long
def test_levels_and_partitions_that_the_population_spells_otherwise(spark: Any) -> None:
    content = [
        row | {"channel": ("web", "Caf\u00e9", "mail order")[row["unit_id"] % 3]}
        for row in rows(36)
    ]
    trial = table(spark, content)
    people = [row | ({"channel": "web "} if i < 2 else {}) for i, row in enumerate(content)]
    people[2] |= {"channel": None}  # what is missing is no level
    people[3] |= {"channel": "Cafe\u0301", "w": 0.0}  # who has no weight is no unit
    report = check_tables(
        configuration(population={"weight": "w"}), trial, population(spark, people)
    )
    told = (
        "2 of 35 units (5.7%) have a level of the feature 'channel' that no usable row of the "
        "experiment has, such as 'web ' (did you mean 'web'?)"
    )
    assert report.warnings == (
        "population: 1 of 36 rows have weight 0 in 'w', so they are left out",
        f"population: {told}; no model knows it",
    )

    def found(changed: dict[str, Any], **config: Any) -> list[str]:
        there = population(spark, [row | changed for row in content])
        with pytest.raises(TableError) as caught:
            check_tables(configuration(**config), trial, there)
        return [line.strip() for line in str(caught.value).splitlines()[1:]]

    limit = (
        "expected at most 5.0% (population.max_unseen_share): write levels alike in both tables, "
        "or leave the feature out"
    )
    config = configuration(population={"weight": "w", "max_unseen_share": 0.05})
    with pytest.raises(TableError) as caught:
        check_tables(config, trial, population(spark, people))
    assert str(caught.value).endswith(f"  population: {told}, {limit}")
    all_of = "36 of 36 units (100.0%) have a level of the feature 'channel' that no usable row"
    (problem,) = found({"channel": "WEB"})
    assert f"{all_of} of the experiment has, such as 'WEB' (did you mean 'web'?), expec" in problem
    (problem,) = found({"channel": "Cafe\u0301"})
    assert r"(did you mean 'Caf\xe9', which looks like 'Cafe\u0301'?), expected" in problem
    (problem,) = found({"channel": "7"})
    assert "such as '7' (the experiment has mostly 'web'), expected" in problem
    (problem,) = found({"channel": "WEB"}, privacy=True)
    assert problem.startswith(f"population: {all_of} of the experiment has, such as '#")
    assert "web" not in problem
    assert found({"market": "a"}) == [
        "population: no partition is one of the experiment's: such as market=a here, market=A "
        "there; expected the values of experiment.partition_by to be written alike in both tables"
    ]
    # one market of theirs is enough: others may be new, which models of the feature do not know
    some = population(spark, [*content[:1], *(row | {"market": "C"} for row in content[1:])])
    assert check_tables(configuration(), trial, some).warnings == ()
    keyed = configuration(experiment={"features": ["age", "market"]})
    assert check_tables(keyed, trial, some).warnings == (
        "population: 35 of 36 units (97.2%) have a level of the feature 'market' that no usable "
        "row of the experiment has, such as 'C' (the experiment has mostly 'B'); no model knows it",
    )


@pytest.mark.long
def test_keys_of_whole_numbers_are_written_alike_whatever_their_type(spark: Any) -> None:
    def keyed(kind: str, key: str = "unit_id % 2 + 1") -> Any:
        return table(spark, rows()).selectExpr("* EXCEPT (market)", f"CAST({key} AS {kind}) market")

    for kind in ("double", "float", "decimal(9, 2)", "string"):
        report = check_tables(configuration(), keyed("bigint"), keyed(kind))
        assert (report.partitions, report.warnings) == (2, ())
        assert check_tables(configuration(), keyed(kind)).partitions == 2
    zeros = keyed("string", "concat('0', unit_id % 2 + 1)")
    with pytest.raises(TableError, match="market=02 here, market=2 there"):
        check_tables(configuration(), keyed("double"), zeros)
    # fractions stay what they are
    halves = keyed("decimal(9, 2)", "unit_id % 2 + 1.5")
    with pytest.raises(TableError, match=r"market=2.50 here, market=2 there"):
        check_tables(configuration(), keyed("int"), halves)
    units = experiment_units(
        keyed("double", "IF(unit_id = 0, 'NaN', '-0.0')"), experiment_setup(configuration())
    )
    assert {row["partition"] for row in units.collect()} == {"market=NaN", "market=0"}


def test_columns_that_differ_in_case_only(spark: Any) -> None:
    trial = table(spark, rows())
    trial = trial.toDF(*["AGE" if name == "channel" else name for name in trial.columns])
    with pytest.raises(TableError, match="the columns AGE, age differ in case only"):
        check_tables(configuration(experiment={"features": ["age"]}), trial)


def test_null_and_repeated_unit_ids(spark: Any) -> None:
    content = rows(14)
    for position, unit in enumerate([None, None, 5, 5, 5, 6, 6, 7, 7, 8, 8, 100, 101, 102]):
        content[position]["unit_id"] = unit
    assert problems(spark, content) == [
        "experiment: 2 of 14 rows have a null unit_id 'unit_id', expected an id in every row",
        "experiment: 4 unit ids occur in 9 rows, expected one row a unit; "
        "such as 5 (3 times), 6 (2 times), 7 (2 times)",
    ]


def test_treatments_outside_the_space(spark: Any) -> None:
    content = rows()
    for position, value in {
        0: -5.0,
        1: 41.0,
        2: float("inf"),
        3: float("nan"),
        4: 12.5,
        5: 40.0000001,
    }.items():
        content[position]["depth"] = value
    content[6]["arm"], content[7]["arm"] = "fax", "Mail "
    assert problems(spark, content, configuration(response={"basis": "arms"})) == [
        "experiment: 1 of 12 rows have NaN as treatment 'depth', expected a number or null",
        "experiment: 3 of 12 rows have a treatment 'depth' outside the declared space "
        "(from -5.0 to inf), expected 0 to 40 or the control 0",
        "experiment: 2 of 12 rows have an undeclared level of treatment 'arm' (from Mail  to fax), "
        "expected one of mail, phone (for 'Mail ' did you mean 'mail'?)",
        "experiment: 1 of 12 rows have a treatment 'depth' between candidates (from 12.5 to 12.5), "
        "expected steps of 10 from 0 with response.basis arms, or another basis",
    ]


def test_arms_are_of_listed_treatments_alone(spark: Any) -> None:
    content = configuration(menu={"sizes": [1, 2]}, response={"basis": "arms"}).model_dump(
        by_alias=True
    )
    trial = rows(12)  # of depth 0, 10, 20, 30 by mail and by phone
    values = {"kind": "continuous", "values": [10, 20], "control": 0}
    listed = [{"depth": depth, "arm": arm} for depth in (10, 20, 30) for arm in ("mail", "phone")]
    control = {"depth": 0, "arm": "mail"}
    for treatments, message in (
        (
            {"depth": values | {"values": [10, 30]}, "arm": content["treatments"]["arm"]},
            "experiment: 3 of 12 rows have a treatment 'depth' between candidates (from 20.0 to "
            "20.0), expected one of 10, 30, 0 with response.basis arms, or another basis",
        ),
        (
            {"candidates": listed, "control": control},
            "experiment: 1 of 12 rows have a treatment that is none of treatments.candidates (such "
            "as depth=0.0/arm=phone), expected one of them or the control with response.basis "
            "arms, or another basis",
        ),
    ):
        arms = Configuration.model_validate({**content, "treatments": treatments})
        assert problems(spark, trial, arms) == [message]
        # what auto compares leaves arms out where they do not suit
        auto = arms.with_response(basis="auto")
        assert check_tables(auto, table(spark, trial)).usable_rows == 12


def test_a_control_outside_the_bounds_is_inside_the_space(spark: Any) -> None:
    treatments = {
        "depth": {"kind": "continuous", "lower": 10, "upper": 40, "step": 10, "control": 0}
    }
    report = check_tables(configuration(treatments=treatments), table(spark, rows()))
    assert report.usable_rows == 12
    content = rows()
    content[0]["depth"] = 5.0
    (line,) = problems(spark, content, configuration(treatments=treatments))
    assert (
        "1 of 12 rows have a treatment 'depth' outside the declared space (from 5.0 to 5.0)" in line
    )


def test_treatments_without_variation_among_usable_rows(spark: Any) -> None:
    content = rows()
    for position, row in enumerate(content):
        row["arm"] = "phone" if position == 0 else "mail"
        row["depth"] = 20.0
    content[0]["spend"] = None
    assert problems(spark, content) == [
        "experiment: treatment 'depth' is 20.0 in all usable rows, "
        "expected at least two values to learn its effect from",
        "experiment: treatment 'arm' is mail in all usable rows, "
        "expected at least two values to learn its effect from",
    ]


def test_values_that_are_no_finite_numbers(spark: Any) -> None:
    content = rows()
    content[0]["spend"], content[1]["spend"] = float("nan"), float("-inf")
    content[2]["w"], content[3]["w"], content[4]["w"], content[5]["w"] = (
        None,
        float("nan"),
        -2.0,
        -3.0,
    )
    content[6]["wave"] = None
    content[7]["age"], content[8]["age"] = float("inf"), float("nan")
    assert problems(spark, content) == [
        "experiment: 1 of 12 rows have an infinite feature 'age', "
        "expected a number, or null where it is unknown",
        "experiment: 1 of 12 rows have a null weight 'w', expected a number in every row",
        "experiment: 1 of 12 rows have a weight 'w' that is NaN or infinite, "
        "expected a number of at least 0",
        "experiment: 2 of 12 rows have a negative weight 'w' (from -3.0 to -2.0), "
        "expected a number of at least 0",
        "experiment: 1 of 12 rows have a null stratum 'wave', expected a value in every row",
        "experiment: 2 of 12 rows have an outcome 'spend' that is NaN or infinite, "
        "expected a number or null",
    ]


def test_nothing_usable(spark: Any) -> None:
    assert problems(spark, []) == ["experiment: the table has no rows"]
    assert problems(spark, [row | {"spend": None} for row in rows()]) == [
        "experiment: none of the 12 rows has both an outcome and a treatment, "
        "so nothing can be learned"
    ]
    assert problems(spark, [row | {"w": 0.0} for row in rows()]) == [
        "experiment: the weights 'w' sum to 0, expected some weight above 0"
    ]
    few = [
        row | {"spend": row["spend"] if position in (0, 1) else None}
        for position, row in enumerate(rows())
    ]
    assert problems(spark, few, configuration(response={"folds": 3})) == [
        "experiment: 2 usable rows are too few to learn and to judge from, expected at least one "
        "for each of the 3 response.folds"
    ]


def test_the_population_is_checked_by_its_own_weight(spark: Any) -> None:
    people = rows(6)
    people[0]["w"], people[1]["w"], people[2]["unit_id"], people[3]["unit_id"] = -1.0, None, None, 4
    with pytest.raises(TableError) as caught:
        check_tables(
            configuration(population={"table": "people", "weight": "w"}),
            table(spark, rows()),
            population(spark, people),
        )
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        "population: 1 of 6 rows have a null unit_id 'unit_id', expected an id in every row",
        "population: 1 of 6 rows have a null weight 'w', expected a number in every row",
        "population: 1 of 6 rows have a negative weight 'w' (from -1.0 to -1.0), "
        "expected a number of at least 0",
        "population: 1 unit ids occur in 2 rows, expected one row a unit; such as 4 (2 times)",
    ]
    assert (
        check_tables(
            configuration(), table(spark, rows()), population(spark, people[4:]).drop("w")
        ).population_rows
        == 2
    )
    with pytest.raises(TableError, match="population: the table has no rows"):
        check_tables(configuration(), table(spark, rows()), population(spark, []))


def test_names_with_dots_backticks_and_braces(spark: Any) -> None:
    odd = "age.of {low} `it`"
    content = rows()
    content[0]["age"] = float("inf")
    trial = table(spark, content).withColumnRenamed("age", odd)
    with pytest.raises(TableError) as caught:
        check_tables(configuration(experiment={"features": [odd, "channel"]}), trial)
    assert f"1 of 12 rows have an infinite feature '{odd}'" in str(caught.value)


def test_integer_decimal_and_boolean_columns_pass(spark: Any) -> None:
    trial = table(spark, rows()).selectExpr(
        "CAST(unit_id AS string) AS unit_id",
        "market",
        "CAST(age AS decimal(10, 2)) AS age",
        "age > 25 AS channel",
        "wave",
        "CAST(spend AS int) AS spend",
        "CAST(w AS float) AS w",
        "CAST(depth AS smallint) AS depth",
        "arm",
    )
    assert check_tables(configuration(), trial).usable_rows == 12


def test_the_field_experiment_of_thornton(spark: Any) -> None:
    from coarse_spark.config.load import load_configuration
    from coarse_spark.lake.inputs import read_input

    config = load_configuration("conf/thornton.yml")
    report = check_tables(config, read_input(spark, config.experiment, "experiment"))
    assert (report.rows, report.usable_rows, report.partitions, report.small_partitions) == (
        4820,
        2834,
        1,
        0,
    )
    assert report.warnings == (
        "experiment: 1926 of 4820 rows have no got, so they are left out",
        "experiment: 1919 of 4820 rows have no tinc, so they are left out",
    )


def test_rules_of_eligibility_need_boolean_columns_and_null_counts_as_false(spark: Any) -> None:
    config = configuration(
        menu={"eligibility": {"adult": "depth > 10", "age": "arm == 'phone'"}, "sizes": [2]}
    )
    trial = table(spark, rows()).selectExpr("*", "CASE WHEN unit_id > 2 THEN age > 25 END AS adult")
    people = trial.selectExpr("unit_id", "market", "age", "channel", "w", "adult AS adlt")
    with pytest.raises(TableError) as caught:
        check_tables(config, trial, people)
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        "experiment: the eligibility column 'age' is of type double, expected boolean",
        "population: the eligibility column 'age' is of type double, expected boolean",
        "population: the eligibility column 'adult' is missing (did you mean 'adlt'?); "
        "the table has unit_id, market, age, channel, w, adlt",
    ]
    config = configuration(menu={"eligibility": {"adult": "depth > 10"}, "sizes": [2]})
    assert check_tables(config, trial).warnings == (
        "experiment: 3 of 12 rows have a null eligibility 'adult', which counts as false",
    )
