"""Other versions are tested as declared: pairs within pyproject.toml, few pins, all in the docs."""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matrix
import pytest
from environments import over, pinned
from matrix import CORE, ROWS, Row, agree, counted, differing, judged
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from whole_run import checksum

ROOT = Path(__file__).parents[1]
MATRIX = ROOT / "tests" / "matrix"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PAIRS = sorted(path.stem for path in (MATRIX / "pairs").glob("*.txt"))


def _pins(lines: list[str]) -> dict[str, str]:
    return {
        canonicalize_name(name): version for name, _, version in (x.partition("==") for x in lines)
    }


@pytest.mark.parametrize("pair", [name for name in PAIRS if name.startswith("spark-")])
def test_pairs_are_what_pyproject_allows(pair: str) -> None:
    pins = _pins(Row(pair, "3.11").pins())
    for text in PROJECT["optional-dependencies"]["spark"]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins[wanted.name]), f"{pair}: {wanted}"
    assert pair == "spark-" + pins["pyspark"].rpartition(".")[0]


@pytest.mark.parametrize("pair", PAIRS)
def test_a_pair_pins_little_besides_itself(pair: str) -> None:
    own = _pins(over([], (MATRIX / "pairs" / f"{pair}.txt").read_text().splitlines()))
    whole = _pins(pinned(pair))
    assert 1 <= len(own) <= 5
    assert all(own.values())
    assert own.items() <= whole.items()
    assert len(whole) > 90


def test_pins_give_way_to_those_of_a_pair_whatever_their_spelling() -> None:
    base = ["# tested together", "numpy==2.3.5", "delta_spark==4.4.0", "py4j==0.10.9.9"]
    pair = ["# old", "Delta.Spark==3.3.2", ""]
    assert over(base, pair) == ["Delta.Spark==3.3.2", "numpy==2.3.5", "py4j==0.10.9.9"]


def test_every_pair_has_rows_and_a_place_in_the_docs() -> None:
    text = (ROOT / "docs" / "versions.md").read_text()
    for row in ROWS:
        named = ", ".join(pin.replace("==", " ") for pin in row.pins() if "spark" in pin)
        assert f"| {named} |" in text, row.name
    assert {row.versions for row in ROWS} == set(PAIRS) - {"lowest"}


def test_the_core_has_the_writers_at_one_time() -> None:
    texts = [(ROOT / path).read_text() for path in CORE]
    assert any("test_writers_of_one_run_at_one_time_lose_nothing" in text for text in texts)


def test_outcomes_of_tests_are_read_from_the_last_line() -> None:
    log = "1 passed\n= 1 failed, 30 passed, 2 skipped, 1 error in 62.1s (0:01:02) =\n"
    assert counted(log) == {"failed": 1, "passed": 30, "skipped": 2, "error": 1}
    assert counted("Traceback") == {}


def test_one_bit_of_a_number_changes_the_checksum_and_the_order_of_rows_does_not() -> None:
    rows = [{"unit": 1, "value": 0.1, "theta": [1.0, 2.0]}, {"unit": 2, "value": None, "theta": []}]
    assert checksum(rows) == checksum(rows[::-1])
    others = [{**rows[0], "value": 0.1 + 2**-56}, rows[1]], [rows[0]], [*rows, rows[0]]
    assert len({checksum(rows), *map(checksum, others)}) == 4


def test_tables_that_differ_between_rows_are_named() -> None:
    one = {"checksum": "a", "tables": {"menu": "1", "models": "2"}}
    assert differing([one, one]) == []
    assert differing([one, {"checksum": "b", "tables": {"menu": "1", "models": "3"}}]) == ["models"]
    assert differing([one, {"checksum": None, "tables": None}]) == []


def test_outcomes_of_another_time_are_not_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix, "OUTCOMES", tmp_path)
    assert not agree(ROWS), "nothing ran"
    row, other = ROWS[0], ROWS[1]
    good = {"good": True, "tables": {"menu": "1"}}
    (tmp_path / f"{row.name}.json").write_text(json.dumps(good))
    assert agree(ROWS)
    monkeypatch.setattr(matrix, "interpreter", lambda _: None)
    assert judged(row).startswith("left out, ")
    assert list(tmp_path.iterdir()) == []
    # a row that takes too long, or has no environment, is not good, and the next one has its turn
    monkeypatch.setattr(matrix, "interpreter", lambda version: version)
    (tmp_path / f"{other.name}.json").write_text(json.dumps(good))
    for failure in (
        subprocess.TimeoutExpired(["python"], 1),
        subprocess.CalledProcessError(1, ["uv"]),
    ):

        def fail(_: Row, failure: Exception = failure) -> Iterator[dict[str, Any]]:
            yield {**good, "logs": "here"}
            raise failure

        monkeypatch.setattr(matrix, "run", fail)
        assert judged(ROWS[-1]).startswith("FAILED, see here (Command ")
        assert not agree(ROWS)
