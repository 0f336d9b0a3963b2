"""Units that join after publication: treated as by a full run, once, whatever is cut short."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from command_line import run_command

from coarse_spark.errors import InvalidInputError, RunTakenError, TableError
from coarse_spark.lake.step_results import (
    ChooseResult,
    Extension,
    FitResult,
    ValidateResult,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from coarse_spark.config.models import Configuration
    from coarse_spark.pipeline import Run

    from .conftest import Promotions

pytestmark = [pytest.mark.spark, pytest.mark.slow]

SMALL = {
    "menu__sizes": "[3]",
    "menu__select": 3,
    "menu__sketch_cells": 200,
    "menu__starts": 1,
}
RULES = "{member: depth > 6}"


def _publish(
    spark: SparkSession,
    finished: Run,
    configuration: Configuration,
    run_id: str,
    like: Run | None = None,
) -> Run:
    """Publish a run with the models of ``finished``, and with the menu of a run ``like`` it."""
    from pyspark.sql import functions as F

    from coarse_spark.lake.contract import ASSIGNMENTS, MENU, MODELS
    from coarse_spark.pipeline import assign, choose, publish, score, start_run
    from coarse_spark.pipeline.rules import find_previous

    models, menu, given = (
        finished.lake.read(name, finished.run_id).drop("run_id")
        for name in ("models", "menu", "assignments")
    )
    with start_run(spark, configuration, run_id) as run:
        if configuration.menu.previous_run == "earlier":  # a run that has every second unit
            earlier = menu.where("k = 3").withColumn("selected", F.lit(True))
            had = given.withColumn("treatment_id", (F.col("unit_id") % 3).cast("int"))
            run.lake.replace(MENU, "earlier", earlier)
            run.lake.replace(ASSIGNMENTS, "earlier", had.where("unit_id % 2 = 0"))
        run.replace(MODELS, models)
        previous, known = find_previous(run), finished.result(ValidateResult)
        run.keep(known.model_copy(update={"previous_run": previous}))
        run.keep(finished.result(FitResult))
        score(run)
        if like is None:
            choose(run)
        else:
            run.replace(MENU, like.lake.read("menu", like.run_id).drop("run_id"))
            run.keep(like.result(ChooseResult))
        assign(run)
        publish(run)
    return run


@dataclass(frozen=True)
class Case:
    """A published run whose population lacks units that another run had from the start.

    Attributes
    ----------
    run : it.
    whole : the other one, with equal models and menu.
    people : the rows of all units, one in ``later`` of which joins after publication.
    path : of the population's table.
    """

    spark: SparkSession
    run: Run
    whole: Run | None
    people: DataFrame
    path: Path

    def join(self, condition: str) -> None:
        """Let units join the population."""
        self.people.where(condition).write.format("delta").mode("append").save(str(self.path))

    def sql(self, text: str) -> None:
        self.spark.sql(text.format(f"delta.`{self.path}`"))

    def extend(self, **arguments: Any) -> Extension:
        from coarse_spark.pipeline import assign_new

        return assign_new(self.spark, self.run.declared, **arguments).extensions[-1]

    def rows(self, table: str, run: Run | None = None) -> pd.DataFrame:
        run = self.run if run is None else run
        rows = run.lake.read(table, run.run_id).drop("run_id").toPandas()
        return rows.sort_values("unit_id", ignore_index=True)

    def assert_as_whole(self, units: pd.Series, searched: float = 1e-9) -> None:
        """Units got what they got in the other run, in both tables.

        ``searched`` is how closely own best treatments agree.
        """
        for table, close in (("responses", searched), ("assignments", 1e-9)):
            mine, theirs = (
                rows[rows["unit_id"].isin(units)].reset_index(drop=True)
                for rows in (self.rows(table), self.rows(table, self.whole))
            )
            pd.testing.assert_frame_equal(mine, theirs, rtol=close, atol=1e-9)

    def assert_publishable(self) -> None:
        from coarse_spark.lake.runs import RunRecord
        from coarse_spark.pipeline.checks import check_publishable
        from coarse_spark.pipeline.operate import run_of

        record = RunRecord.load(self.run.lake, self.run.run_id)
        assert (record.status, record.owner) == ("published", None)
        check_publishable(run_of(self.run.lake, record), population=False)


def _case(
    spark: SparkSession,
    finished: Run,
    promotions: Promotions,
    folder: Path,
    later: str,
    *,
    prepare: Callable[[DataFrame], DataFrame] = lambda table: table,
    fed: bool = False,
    compared: bool = True,
    **overrides: object,
) -> Case:
    people = prepare(spark.read.format("delta").load(promotions.paths["population"])).persist()
    paths = {name: folder / name for name in ("experiment", "population", "all")}
    prepare(spark.read.format("delta").load(promotions.paths["experiment"])).write.format(
        "delta"
    ).save(str(paths["experiment"]))
    people.write.format("delta").save(str(paths["all"]))
    people.where(f"NOT ({later})").write.format("delta").save(str(paths["population"]))
    if fed:
        spark.sql(
            f"ALTER TABLE delta.`{paths['population']}` "
            "SET TBLPROPERTIES (delta.enableChangeDataFeed = true)"
        )

    def configure(population: str, tables: str) -> Configuration:
        return promotions.configure(
            experiment__path=paths["experiment"],
            population__path=paths[population],
            output__path=folder / tables,
            **{**SMALL, **overrides},
        )

    whole = _publish(spark, finished, configure("all", "whole"), "whole") if compared else None
    part = _publish(spark, finished, configure("population", "tables"), "part", like=whole)
    return Case(spark, part, whole, people, paths["population"])


@pytest.fixture(scope="module")
def case(
    spark: SparkSession,
    finished: Run,
    promotions: Promotions,
    tmp_path_factory: pytest.TempPathFactory,
) -> Case:
    folder = tmp_path_factory.mktemp("joining")
    return _case(spark, finished, promotions, folder, "unit_id % 10 = 0", fed=True)


def test_units_of_the_change_feed_get_what_a_full_run_gives_them(case: Case) -> None:
    before = {table: case.rows(table) for table in ("responses", "assignments")}
    case.join("unit_id % 30 = 0")
    case.sql("UPDATE {} SET visits = visits + 1 WHERE unit_id IN (1, 2, 3)")
    case.sql("DELETE FROM {} WHERE unit_id = 4")
    # one that came and went again is nobody
    case.sql("DELETE FROM {} WHERE unit_id = 30")
    told = run_command("assign", "--config", _file(case), "--new")
    assert told.code == 0, told.err
    assert "99 units added; 3 units changed; 1 unit left the population" in told.out
    added = case.rows("assignments")["unit_id"].loc[lambda ids: ids % 10 == 0]
    assert len(added) == 99
    case.assert_as_whole(added)
    for table, rows in before.items():
        now = case.rows(table)
        old = now[now["unit_id"].isin(rows["unit_id"])].reset_index(drop=True)
        pd.testing.assert_frame_equal(old, rows, check_exact=True)
    case.assert_publishable()
    again = case.extend()
    assert (again.added, again.changed, again.deleted) == (0, 0, 0)


def _file(case: Case) -> Path:
    path = case.path.parent / "case.yml"
    path.write_text(case.run.declared.to_json())
    return path


def test_a_call_that_was_cut_short_leaves_nothing_to_see_and_is_healed(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coarse_spark.lake.lease import Lease

    case.join("unit_id % 30 = 10")
    before, append = case.rows("assignments"), Lease.append

    def cut_short(self: Lease, schema: Any, rows: Any) -> None:
        if schema.name == "assignments":
            raise KeyboardInterrupt
        append(self, schema, rows)

    with monkeypatch.context() as patched:
        patched.setattr(Lease, "append", cut_short)
        with pytest.raises(KeyboardInterrupt):
            case.extend()
    pd.testing.assert_frame_equal(case.rows("assignments"), before, check_exact=True)
    assert len(case.rows("responses")) == len(before) + 100
    case.assert_publishable()
    found = case.extend()
    assert (found.added, found.changed, found.deleted) == (100, 0, 0)
    case.assert_as_whole(case.rows("responses")["unit_id"].loc[lambda ids: ids % 30 == 10])
    case.assert_publishable()


def test_a_process_taken_for_dead_adds_nobody_when_it_wakes_up(case: Case) -> None:
    from coarse_spark.lake.contract import ASSIGNMENTS
    from coarse_spark.lake.lease import Lease
    from coarse_spark.lake.runs import RunRecord

    sleeper = Lease(case.run.lake, RunRecord.load(case.run.lake, "part"))
    with sleeper.working(), pytest.raises(RunTakenError, match="part is being worked on"):
        case.extend()
    before = case.rows("assignments")
    case.extend()
    rows = case.run.lake.read("assignments", "part").drop("run_id").limit(5)
    sleeper.append(ASSIGNMENTS, rows)  # not written: the table has seen a later owner
    pd.testing.assert_frame_equal(case.rows("assignments"), before, check_exact=True)
    case.assert_publishable()


def test_rows_that_no_run_would_accept_are_refused(case: Case) -> None:
    before = case.rows("responses")
    case.join("unit_id = 20")
    case.join("unit_id = 20")
    with pytest.raises(TableError, match=r"1 unit ids occur in 2 rows.* such as 20 \(2 times\)"):
        case.extend()
    case.sql("DELETE FROM {} WHERE unit_id = 20")
    case.people.where("unit_id = 20").selectExpr(
        "* EXCEPT (unit_id, past_spend)", "CAST(NULL AS BIGINT) AS unit_id",
        "double('inf') AS past_spend",
    ).write.format("delta").mode("append").save(str(case.path))  # fmt: skip
    with pytest.raises(TableError, match=r"(?s)2 problems.*null unit_id.*infinite feature"):
        case.extend()
    case.sql("DELETE FROM {} WHERE unit_id IS NULL")
    pd.testing.assert_frame_equal(case.rows("responses"), before, check_exact=True)
    case.assert_publishable()


def test_an_overwrite_changes_only_who_differs(case: Case) -> None:
    table = case.spark.read.format("delta").load(str(case.path))
    changed = table.selectExpr(
        "* EXCEPT (visits, age)", "visits + int(unit_id = 7) AS visits", "age + 1 AS age"
    )
    types = [f"CAST({f.name} AS {f.dataType.simpleString()}) AS {f.name}" for f in table.schema]
    changed.where("unit_id <> 8").selectExpr(*types).write.format("delta").mode("overwrite").save(
        str(case.path)
    )
    case.join("unit_id % 30 = 20")
    found = case.extend()
    assert (found.added, found.changed, found.deleted) == (100, 1, 1)


def test_without_a_change_feed_two_versions_are_compared_while_both_are_there(case: Case) -> None:
    from pyspark.sql import functions as F

    case.sql("ALTER TABLE {} SET TBLPROPERTIES (delta.enableChangeDataFeed = false)")
    case.sql("DELETE FROM {} WHERE unit_id IN (11, 12)")
    # another value in a column that the run does not read is no change
    case.sql("UPDATE {} SET channel = NULL, age = 1 WHERE unit_id IN (13, 14, 15)")
    case.sql("UPDATE {} SET age = 1 WHERE unit_id = 16")
    case.join("unit_id = 30")
    found = case.extend()
    assert (found.added, found.changed, found.deleted, found.untold) == (1, 3, 2, None)
    case.assert_as_whole(pd.Series([30]))
    # the same rows in a table that was created again
    copy = case.path.with_name("copy")
    case.spark.read.format("delta").load(str(case.path)).write.format("parquet").save(str(copy))
    shutil.rmtree(case.path)
    case.spark.read.parquet(str(copy)).write.format("delta").save(str(case.path))
    found = case.extend()
    # all that the run has and the population has not
    there = {row["unit_id"] for row in case.spark.read.parquet(str(copy)).collect()}
    missing = set(case.rows("responses")["unit_id"]) - there
    assert {11, 12} <= missing
    assert (found.added, found.changed, found.deleted) == (0, None, len(missing))
    assert "cannot be read any more as it was at" in str(found.untold)
    assert "changed units cannot be counted" in str(found)
    case.assert_publishable()
    texts = case.spark.read.parquet(str(copy)).withColumn("unit_id", F.expr("string(unit_id)"))
    texts.write.format("delta").mode("overwrite").option("overwriteSchema", "true").save(
        str(case.path)
    )
    told = "population: the unit_id is of type string, expected bigint, as in run part: units of"
    with pytest.raises(TableError, match=told):
        case.extend()


def test_only_the_current_run_gets_units(
    case: Case, spark: SparkSession, promotions: Promotions, tmp_path: Path
) -> None:
    from coarse_spark.pipeline import assign_new

    with pytest.raises(InvalidInputError, match=r"run other is not the current one.* part"):
        case.extend(run_id="other")
    with pytest.raises(InvalidInputError, match="started with another configuration"):
        assign_new(
            spark,
            promotions.configure(output__path=case.path.with_name("tables"), menu__seed=9),
        )
    with pytest.raises(TableError, match=r"no run in .* is published"):
        assign_new(spark, promotions.configure(output__path=tmp_path / "empty"))


def test_eligibility_and_earlier_treatments_hold_for_new_units(
    spark: SparkSession, finished: Run, promotions: Promotions, tmp_path: Path
) -> None:
    case = _case(
        spark, finished, promotions, tmp_path, "unit_id % 10 < 2",
        prepare=lambda table: table.selectExpr("*", "visits > 4 AS member"),
        menu__eligibility=RULES, menu__previous_run="earlier", menu__switching_cost=0.05,
    )  # fmt: skip
    case.join("unit_id % 10 < 2")
    found = case.extend()
    assert (found.added, found.changed, found.deleted) == (600, 0, 0)
    # penalties are as large as the units scored together ask for, and so is rounding beside them
    case.assert_as_whole(case.rows("responses")["unit_id"], searched=1e-6)
    new = case.rows("assignments").query("unit_id % 10 < 2")
    assert new["changed"].isna().sum() == 300
    assert new["changed"].sum() > 0
    case.assert_publishable()


def _spent(case: Case, rows: pd.DataFrame) -> float:
    """Return the discount per unit of rows of assignments."""
    responses = case.rows("responses").set_index("unit_id").loc[rows["unit_id"]]
    theta = responses[[f"theta_{position}" for position in range(6)]].to_numpy()
    treatments = case.run.problem.space.encode(rows)
    outcomes = np.einsum("ij,ij->i", theta, case.run.problem.basis(treatments))
    return float((outcomes * treatments[:, 0] / 100).mean())


def test_limits_hold_over_published_and_new_units(
    spark: SparkSession, finished: Run, promotions: Promotions, tmp_path: Path
) -> None:
    case = _case(
        spark, finished, promotions, tmp_path, "unit_id % 3 = 0", compared=False,
        menu__budget=0.3, menu__max_share=0.4, menu__min_share=0.25,
        menu__spending_per_outcome="depth / 100", menu__spending_per_unit="0",
        treatments__depth__step=10, treatments__days__step=7,
    )  # fmt: skip
    before = case.rows("assignments")
    case.join("unit_id % 3 = 0")
    found = case.extend()
    now = case.rows("assignments")
    assert found.added == len(now) - len(before) == 1_000
    counts = now["treatment_id"].value_counts()
    assert counts.max() <= 0.4 * 3_000
    assert counts.min() >= 0.25 * 3_000
    assert _spent(case, now) <= 0.3 + 1e-9
    old = now[now["unit_id"].isin(before["unit_id"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(old, before, check_exact=True)
    case.assert_publishable()


def test_units_that_limits_or_eligibility_leave_nothing_are_not_added(
    spark: SparkSession, finished: Run, promotions: Promotions, tmp_path: Path
) -> None:
    for name, overrides, message in (
        (
            "share",
            {"menu__min_share": 0.3, "menu__always_offer": "[{depth: 0, days: 0}]"},
            r"new units cannot be added to run part within its limits, as its \d+ units keep "
            r"their treatments: .*has a minimum share of 0\.3.*nearest feasible minimum is "
            r"0\.\d+; nobody was added, start a new run$",
        ),
        (
            "none",
            {"menu__sizes": "[1]", "menu__select": 1},
            r"new units may get none of the treatments of the menu of run part",
        ),
    ):
        case = _case(
            spark, finished, promotions, tmp_path / name, "NOT member",
            prepare=lambda table: table.selectExpr("*", "visits > 4 AS member"),
            compared=False, menu__eligibility=RULES, **overrides,
        )  # fmt: skip
        before = case.rows("assignments")
        case.join("NOT member")
        with pytest.raises(InvalidInputError, match=message):
            case.extend()
        pd.testing.assert_frame_equal(case.rows("assignments"), before, check_exact=True)
        case.assert_publishable()
