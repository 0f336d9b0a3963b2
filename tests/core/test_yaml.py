"""What YAML makes of texts without quotes is told where it matters, whatever the size of a file."""

# ruff: noqa: E501  # a message a line

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coarse_spark.config.load import load_configuration
from coarse_spark.errors import ConfigurationError

BASE = """\
experiment: {path: units, unit_id: id, partition_by: [market], features: [age], outcome: y}
treatments:
  arm: {kind: categorical, levels: [mail, LEVEL], control: mail}
  depth: {kind: continuous, lower: 0, upper: 20, step: 10, control: 0}
profit: {cost: 1}
menu: {sizes: [2]}
output: {path: out}
"""


def told(text: str, folder: Path, **overrides: str) -> list[str]:
    """Return the problems of a configuration, without their places."""
    path = folder / "run.yml"
    path.write_text(text, encoding="utf-8")
    try:
        load_configuration(
            path, {key.replace("__", "."): value for key, value in overrides.items()}
        )
    except ConfigurationError as error:
        return str(error).replace(str(path), "run.yml").splitlines()
    return []


REFUSED = ["null", "~", "2024-03-01", "1:8", "12:30", "010", "0x1f", "1_000", "1e3", "NO", "off"]


@pytest.mark.parametrize("level", REFUSED)
def test_a_level_that_is_read_otherwise_is_taken_in_quotes(level: str, tmp_path: Path) -> None:
    assert len(told(BASE.replace("LEVEL", level), tmp_path)) == 2
    assert told(BASE.replace("LEVEL", f'"{level}"'), tmp_path) == []


def test_readings_that_are_meant_are_taken(tmp_path: Path) -> None:
    text = BASE.replace("LEVEL", "true, 1.5, -3").replace("upper: 20", "upper: 1e2")
    assert told(text + "privacy: yes\n", tmp_path) == []


def test_readings_of_overrides_are_told_like_those_of_the_file(tmp_path: Path) -> None:
    text = BASE.replace("LEVEL", "sms")
    assert told(text, tmp_path, treatments__arm__control="NO")[1:] == [
        '  --set treatments.arm.control: treatments.arm.control: found NO, which YAML reads as false, expected "NO" in quotes for the text, or false without',
    ]
    assert told(text, tmp_path, profit="{cost: 1, cost: 2}")[1:] == [
        "  --set profit: profit.cost: the key occurs twice, first in line 1; expected it once"
    ]
    # what an override replaces is told no longer
    assert told(text.replace("[market]", "[1:8]"), tmp_path, experiment__partition_by="[m]") == []


def test_merges_that_explode_are_refused(tmp_path: Path) -> None:
    keys = ", ".join(f"k{number}: 1" for number in range(9))
    bomb = f"a0: &a0 {{{keys}}}\n" + "".join(
        f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 9)}]}}\n"
        for level in range(1, 40)
    )
    assert told(bomb + BASE.replace("LEVEL", "sms"), tmp_path) == [
        "run.yml: not valid YAML: its merges (<<) repeat keys, expected at most 100000 in all"
    ]


def test_merges_that_somebody_writes_are_taken(tmp_path: Path) -> None:
    text = BASE.replace("LEVEL", "sms").replace(
        "treatments:", "treatments:\n  other: {<<: *arm, control: sms}"
    )
    moved = text.replace("  arm: {", "  arm: &arm {").splitlines(keepends=True)
    moved[2], moved[3] = moved[3], moved[2]
    assert told("".join(moved), tmp_path) == []


def test_large_files_have_short_reports(tmp_path: Path) -> None:
    text = BASE.replace("LEVEL", "sms")
    many = ", ".join(f"f{number}" for number in range(20_000))
    assert told(text.replace("[age]", f"[{many}]"), tmp_path) == []
    repeated = told(text.replace("[age]", f"[{many}, f7]"), tmp_path)
    assert repeated[1].endswith("expected distinct column names; repeated: f7")
    named = "".join(
        f"  t{number}: {{kind: continuous, lower: 0, upper: 1, control: 0}}\n"
        for number in range(1_000)
    )
    grid = told(text.replace("profit:", named + "profit:"), tmp_path)
    assert grid[1].endswith(
        "treatments: the treatment grid has 2 x 3 x 2 x 2 x 2 x 2 x ... (1002 treatments) points, at most 20000 are searched; use larger steps"
    )
    unknown = told(text + "".join(f"x{number}: 1\n" for number in range(500)), tmp_path)
    assert (unknown[0], len(unknown), unknown[-1]) == (
        "run.yml has 500 problems:", 102, "  and 400 further problems"
    )  # fmt: skip
    always = ", ".join(["{arm: mail, depth: 0}"] * 5_000)
    assert told(text.replace("[2]}", f"[2], always_offer: [{always}]}}"), tmp_path)[1:] == [
        "  run.yml:6: menu.always_offer: found 5000 treatments, expected no more than the smallest of menu.sizes, 2"
    ]


def test_a_list_of_treatments_beside_the_home_of_nobody(tmp_path: Path) -> None:
    start, end = BASE.index("treatments:"), BASE.index("profit:")
    listed = "treatments: {control: {depth: 0}, candidates: ~nosuchuser/offers.csv}\n"
    (problem,) = told(BASE[:start] + listed + BASE[end:], tmp_path)[1:]
    assert problem.startswith("  run.yml:2: treatments.candidates: found '~nosuchuser/offers.csv'")
    assert problem.endswith("'~nosuchuser/offers.csv': nobody here is called so")


plain = st.one_of(
    st.from_regex(r"[-+]?[0-9][0-9_:.eExXoO+-]{0,6}", fullmatch=True),
    st.sampled_from(
        [
            "yes",
            "No",
            "ON",
            "off",
            "true",
            "FALSE",
            "y",
            "n",
            "null",
            "~",
            "NULL",
            ".inf",
            ".5",
            "1.",
            "=",
            "0b11",
            "+1",
        ]
    ),
    st.text(alphabet="abNOyes019:._-", min_size=1, max_size=5),
)


@settings(max_examples=200, deadline=None)
@given(plain)
@example("1:8")
@example("010")
@example("1.5e3")
def test_a_level_is_what_it_looks_like_or_one_problem(
    tmp_path_factory: pytest.TempPathFactory, level: str
) -> None:
    """Whoever knows no YAML reads a level as true, false, a decimal number, or a text."""
    folder = tmp_path_factory.getbasetemp()
    text = BASE.replace("LEVEL", level)
    try:
        yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return
    found = told(text, folder)
    if found:
        assert len(found) == 2, found
        quoted = text.replace(f" {level}]", f' "{level}"]')
        assert told(quoted, folder) == []
        return
    _, taken = load_configuration(folder / "run.yml").treatments["arm"].levels
    if isinstance(taken, bool):
        assert level.lower() == str(taken).lower()
    elif isinstance(taken, int | float):
        assert float(level) == taken
        assert not set(level) & set("_eE:")
    else:
        assert taken == level
