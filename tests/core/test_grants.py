"""GRANT statements for readers: complete, quoted, printed and never run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from coarse_spark.cli import app
from coarse_spark.config.load import load_configuration
from coarse_spark.config.models import Output
from coarse_spark.errors import InvalidInputError
from coarse_spark.lake.contract import TABLES
from coarse_spark.lake.grants import grants

ROOT = Path(__file__).parents[2]
CATALOG = Output(catalog="main", schema="promotions")


def test_results_are_granted_and_nothing_else() -> None:
    assert grants(CATALOG, "analysts") == [
        "GRANT USE CATALOG ON CATALOG `main` TO `analysts`;",
        "GRANT USE SCHEMA ON SCHEMA `main`.`promotions` TO `analysts`;",
        "GRANT SELECT ON VIEW `main`.`promotions`.`current_assignments` TO `analysts`;",
        "GRANT SELECT ON TABLE `main`.`promotions`.`runs` TO `analysts`;",
        "GRANT SELECT ON TABLE `main`.`promotions`.`menu` TO `analysts`;",
        "GRANT SELECT ON TABLE `main`.`promotions`.`assignments` TO `analysts`;",
        "GRANT SELECT ON TABLE `main`.`promotions`.`policy_values` TO `analysts`;",
        "GRANT SELECT ON TABLE `main`.`promotions`.`contrasts` TO `analysts`;",
        "GRANT SELECT ON TABLE `main`.`promotions`.`segments` TO `analysts`;",
    ]


def test_every_table_is_granted_where_everything_is_asked_for() -> None:
    lines = grants(CATALOG, "analysts", everything=True)
    named = re.findall(r"ON TABLE `main`\.`promotions`\.`(\w+)`", "\n".join(lines))
    assert set(named) == set(TABLES)
    assert {"models", "responses"} <= set(named)


@pytest.mark.parametrize("everything", [False, True])
def test_frontiers_are_granted_where_one_was_asked_for(everything: bool) -> None:
    without = grants(CATALOG, "analysts", everything=everything)
    *others, last = grants(CATALOG, "analysts", frontier=True, everything=everything)
    assert others == without
    assert last == "GRANT SELECT ON TABLE `main`.`promotions`.`frontier` TO `analysts`;"


def test_a_schema_of_the_current_catalog_says_what_is_left() -> None:
    first, second, *_ = grants(Output(schema="promotions"), "analysts")
    assert first.startswith("-- ")
    assert "USE CATALOG" in first
    assert second == "GRANT USE SCHEMA ON SCHEMA `promotions` TO `analysts`;"


@pytest.mark.parametrize(
    ("principal", "quoted"),
    [
        ("ann.lee@example.org", "`ann.lee@example.org`"),
        ("all analysts", "`all analysts`"),
        ("Zoë", "`Zoë`"),
        (":smile: [bold]", "`:smile: [bold]`"),
        ("x` ; DROP TABLE runs; --", "`x`` ; DROP TABLE runs; --`"),
    ],
)
def test_a_principal_is_one_name_whatever_it_holds(principal: str, quoted: str) -> None:
    assert all(
        line.endswith(f" TO {quoted};") for line in grants(CATALOG, principal) if line[:2] != "--"
    )


@pytest.mark.parametrize(
    "principal", ["", "  ", "a\nb", "a\x1b[2J", "a\x00", "a\u202eb", "a\u2028b"]
)
@pytest.mark.parametrize("output", [CATALOG, Output(path="tables")])
def test_control_characters_are_refused_and_not_repeated(principal: str, output: Output) -> None:
    with pytest.raises(InvalidInputError, match="principal") as refused:
        grants(output, principal)
    assert str(refused.value).isprintable()


def test_a_folder_says_in_one_sentence_that_rights_are_those_of_the_storage() -> None:
    (line,) = grants(Output(path="tables"), "analysts")
    assert "GRANT" in line
    assert "storage" in line
    assert line.count(". ") == 0


@pytest.fixture
def config(tmp_path: Path) -> Path:
    content = json.loads(load_configuration(ROOT / "conf" / "promotions.yml").to_json())
    content["output"] = {"catalog": "main", "schema": "promotions"}
    path = tmp_path / "promotions.yml"
    path.write_text(json.dumps(content))
    return path


def test_the_command_prints_statements_without_spark(config: Path) -> None:
    # without a Java, no Spark can start
    done = subprocess.run(
        [sys.executable, "-m", "coarse_spark.cli", "grants", "-c", config, "--to", ":smile: [b]"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAVA_HOME": str(ROOT / "no-java")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == grants(CATALOG, ":smile: [b]")


def test_options_of_the_command(config: Path) -> None:
    def run(*options: str) -> Result:
        return CliRunner().invoke(app, ["grants", "--config", str(config), *options])

    everything = run("--to", "x", "--all")
    assert everything.output.splitlines() == grants(CATALOG, "x", everything=True)
    asked = run("--to", "x", "--set", "frontier={budgets: [1, 2]}")
    assert asked.output.splitlines() == grants(CATALOG, "x", frontier=True)
    refused = run("--to", "a\x1b[2J")
    assert (refused.output, type(refused.exception)) == ("", InvalidInputError)
    folder = run("--to", "x", "--set", "output={path: tables}")
    assert folder.output.splitlines() == grants(Output(path="tables"), "x")
