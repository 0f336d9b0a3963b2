"""One idea of a place, for configuration, tables and page."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coarse_spark.address import is_local, overlap, resolved
from coarse_spark.config.load import load_configuration
from coarse_spark.errors import ConfigurationError, InvalidInputError

CONFIG = """
experiment: {path: EXPERIMENT, unit_id: id, features: [age], outcome: y}
treatments: {arm: {kind: categorical, levels: [a, b], control: a}}
output: {path: OUTPUT}
"""


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("file:/data/out", "/data/out"),
        ("file:///data/out/", "/data/out"),
        ("FILE:/data/../out", "/out"),
        ("/Volumes/main/shop/out", "/Volumes/main/shop/out"),
        ("~/out", str(Path.home() / "out")),
        ("out", str(Path.cwd() / "out")),
        ("a:b", str(Path.cwd() / "a:b")),
        ("hdfs:/data/out", "hdfs:/data/out"),
        ("dbfs:/data/out", "dbfs:/data/out"),
        ("s3://bucket/out/", "s3://bucket/out"),
        ("abfss://bucket@account/out", "abfss://bucket@account/out"),
    ],
)
def test_places_are_local_paths_or_addresses(place: str, expected: str) -> None:
    assert resolved(place) == expected
    assert resolved(expected) == expected
    assert is_local(expected) == expected.startswith("/")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("${HOME}/out", "has a variable, which nothing fills in"),
        ("s3://${BUCKET}/out", "has a variable, which nothing fills in"),
        ("~nosuchuser/out", "nobody here is called so"),
        ("file://bucket/out", "is on another machine"),
    ],
)
def test_places_that_cannot_be_meant(place: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=message):
        resolved(place)
    file = tmp_path / "run.yml"
    file.write_text(CONFIG.replace("EXPERIMENT", "/data/in").replace("OUTPUT", f'"{place}"'))
    with pytest.raises(ConfigurationError, match=f"output.path: .*{message}"):
        load_configuration(file)


@pytest.mark.parametrize(
    ("output", "experiment", "refused"),
    [
        ("/data/run", "/data/run", True),
        ("/data/run/", "file:/data/run", True),
        ("/data/run/tables", "/data/run", True),
        ("/data", "/data/run", True),
        ("/data/run-2", "/data/run", False),
        ("s3a://bucket/run", "s3://bucket/run/experiment", True),
        ("s3://bucket/run", "hdfs://bucket/run", False),
        ("/dbfs/run", "dbfs:/run", True),
        ("/s3/bucket/run", "s3://bucket/run", False),
        ("/data/run", "hdfs:/data/run", False),
    ],
)
def test_an_output_lies_apart_from_the_inputs(
    output: str, experiment: str, refused: bool, tmp_path: Path
) -> None:
    assert overlap(resolved(output), resolved(experiment)) == refused
    file = tmp_path / "run.yml"
    file.write_text(CONFIG.replace("EXPERIMENT", experiment).replace("OUTPUT", output))
    if not refused:
        load_configuration(file)
        return
    with pytest.raises(ConfigurationError, match=r"lies in experiment\.path, expected a folder"):
        load_configuration(file)


PARTS = st.lists(st.sampled_from(["a", "b", "c.d", "e f"]), max_size=4)


@given(PARTS, PARTS)
def test_places_overlap_exactly_where_one_begins_with_the_other(
    one: list[str], other: list[str]
) -> None:
    shorter = min(len(one), len(other))
    for scheme in ("/", "s3://", "hdfs:/"):
        first, second = scheme + "/".join(one), scheme + "/".join(other) + "/"
        assert overlap(first, second) == (one[:shorter] == other[:shorter])
