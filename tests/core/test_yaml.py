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


@pytest.mark.parametrize(
    ("level", "message"),
    [
        ("null", 'found null, expected a text in quotes, a number, or true or false (in quotes, "null", it is a text)'),
        ("~", 'found null, expected a text in quotes, a number, or true or false (YAML reads ~ as null; in quotes, "~", it is a text)'),
        ("2024-03-01", 'found the date 2024-03-01, expected a text in quotes, a number, or true or false (in quotes, "2024-03-01", it is a text)'),
        ("[a]", "found ['a'], expected a text in quotes, a number, or true or false"),
        (".nan", "found nan, expected a finite number"),
        ("1:8", 'found 1:8, which YAML reads as 68, expected "1:8" in quotes for the text, or 68 without'),
        ("12:30", 'found 12:30, which YAML reads as 750, expected "12:30" in quotes for the text, or 750 without'),
        ("1:8.5", 'found 1:8.5, which YAML reads as 68.5, expected "1:8.5" in quotes for the text, or 68.5 without'),
        ("010", 'found 010, which YAML reads as 8, expected "010" in quotes for the text, or 8 without'),
        ("0x1f", 'found 0x1f, which YAML reads as 31, expected "0x1f" in quotes for the text, or 31 without'),
        ("1_000", 'found 1_000, which YAML reads as 1000, expected "1_000" in quotes for the text, or 1000 without'),
        ("1e3", 'found 1e3, which YAML reads as a text, expected "1e3" in quotes for the text, or 1000 for the number'),
        ("NO", 'found NO, which YAML reads as false, expected "NO" in quotes for the text, or false without'),
        ("yes", 'found yes, which YAML reads as true, expected "yes" in quotes for the text, or true without'),
        ("off", 'found off, which YAML reads as false, expected "off" in quotes for the text, or false without'),
    ],
)  # fmt: skip
def test_a_level_that_is_read_otherwise_is_one_problem_with_its_way_out(
    level: str, message: str, tmp_path: Path
) -> None:
    text = BASE.replace("LEVEL", level)
    assert told(text, tmp_path) == [
        "run.yml has 1 problem:", f"  run.yml:3: treatments.arm.levels[1]: {message}"
    ]  # fmt: skip
    if level not in ("[a]", ".nan"):
        quoted = text.replace(f" {level}]", f' "{level}"]')
        assert told(quoted, tmp_path) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("unit_id: id", "unit_id: no", 'experiment.unit_id: found false, expected a text; put it in quotes where YAML reads it as something else (YAML reads no as false; in quotes, "no", it is a text)'),
        ("unit_id: id", "unit_id: 12:30", 'experiment.unit_id: found 12:30, which YAML reads as 750, expected "12:30" in quotes for the text, or 750 without'),
        ("features: [age]", "features: [age, y1, NO]", "experiment.features: found ['age', 'y1', false], expected a list of column names (YAML reads NO as false; in quotes, \"NO\", it is a text)"),
        ("features: [age]", "features: [age, 007]", 'experiment.features[1]: found 007, which YAML reads as 7, expected "007" in quotes for the text, or 7 without'),
        ("partition_by: [market]", "partition_by: [2024-01-01]", 'experiment.partition_by: found [the date 2024-01-01], expected a list of column names (in quotes, "2024-01-01", it is a text)'),
        ("upper: 20", "upper: 1:8", 'treatments.depth.upper: found 1:8, which YAML reads as 68, expected "1:8" in quotes for the text, or 68 without'),
        ("upper: 20", "upper: 020", 'treatments.depth.upper: found 020, which YAML reads as 16, expected "020" in quotes for the text, or 16 without'),
        ("upper: 20", "upper: on", 'treatments.depth.upper: found true, expected a number (YAML reads on as true; in quotes, "on", it is a text)'),
        ("{cost: 1}", "{cost: where(arm == 'sms', 2, 0.5)}", "profit.cost: the commas in {…} end the value, expected quotes around it: \"where(arm == 'sms', 2, 0.5)\""),
        ("{cost: 1}", "{cost: max(depth, min(2, 3)), margin: 2}", 'profit.cost: the commas in {…} end the value, expected quotes around it: "max(depth, min(2, 3))"'),
        ("{sizes: [2]}", "{sizes: [2], eligibility: {vip: where(depth > 3, 1, 0), old: arm == 'sms'}}", 'menu.eligibility.vip: the commas in {…} end the value, expected quotes around it: "where(depth > 3, 1, 0)"'),
        ("unit_id: id", "unit_id: id, unit_id: di", "experiment.unit_id: the key occurs twice, first in line 1; expected it once"),
        ("upper: 20", "upper: 20, lower: 1", "treatments.depth.lower: the key occurs twice, first in line 4; expected it once"),
        ("path: out", "path: ~nosuchuser/out", "output.path: '~nosuchuser/out': nobody here is called so"),
    ],
)  # fmt: skip
def test_other_readings_and_slips_are_one_problem(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    assert old in BASE
    _, problem = told(BASE.replace("LEVEL", "sms").replace(old, new), tmp_path)
    assert problem.split(": ", 1)[1] == message


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("menu: {seed: 2024-13-01}\n", "run.yml:1: not valid YAML: 2024-13-01 cannot be read; in quotes it is a text, month must be in 1..12"),
        ("profit:\n  cost: 'sms' == arm\n", "run.yml:2: not valid YAML: while parsing a block mapping, expected <block end>, but found '<scalar>'; a value that begins with a quote ends with it: put all of it in quotes"),
    ],
)  # fmt: skip
def test_what_is_no_yaml_names_its_line(text: str, message: str, tmp_path: Path) -> None:
    assert told(text, tmp_path) == [message]


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
        for number in range(3_500)
    )  # 2 ** 14000 points have more digits than Python writes
    grid = told(text.replace("profit:", named + "profit:"), tmp_path)
    assert grid[1].endswith(
        "treatments: the treatment grid has 2 x 3 x 2 x 2 x 2 x 2 x ... (3502 treatments) points, at most 20000 are searched; use larger steps"
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
