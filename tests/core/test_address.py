"""One idea of a place, for configuration, tables and page."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coarse_spark.address import is_local, local_path, on_volume, overlap, resolved
from coarse_spark.config.load import load_configuration
from coarse_spark.errors import ConfigurationError, InvalidInputError
from coarse_spark.pipeline.present import asked_page

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
        ("dbfs:/run", "/Volumes/run", False),
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


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("/data/out", "/data/out"),
        ("file:///data/out", "/data/out"),
        ("dbfs:/data/out/", "/dbfs/data/out"),
        ("DBFS:///data/out", "/dbfs/data/out"),
        ("/Volumes/main/shop/files/out", "/Volumes/main/shop/files/out"),
        ("dbfs:/Volumes/main/shop/files/out", "/Volumes/main/shop/files/out"),
        ("s3://bucket/out", None),
        ("abfss://bucket@account/out", None),
        ("hdfs:/data/out", None),
    ],
)
def test_where_local_programs_find_a_place(place: str, expected: str | None) -> None:
    assert local_path(resolved(place)) == expected
    assert on_volume(resolved(place)) == ("/Volumes" in place)


def test_a_page_beside_the_tables_of_an_input_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.yml"
    places = CONFIG.replace("EXPERIMENT", "dbfs:/data/in").replace(
        "OUTPUT", "/data/out, page: PAGE"
    )
    for page in ("/dbfs/data/in/pages", "dbfs:/data"):
        file.write_text(places.replace("PAGE", page))
        with pytest.raises(ConfigurationError, match=r"output\.page: .*lies in experiment\.path"):
            load_configuration(file)
    file.write_text(places.replace("PAGE", "dbfs:/data/pages"))
    assert asked_page(load_configuration(file), str(tmp_path / "a.html")) == tmp_path / "a.html"


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("/Volumes/no/such/volume/pages/a.html", "this machine has no /Volumes/no/such/volume;"),
        ("dbfs:/pages/a.html", "/dbfs/pages/a.html cannot be written, .* has no /dbfs;"),
        (
            "s3://_me:word@bucket/a.html",
            r"cannot write s3://\*\*\*@bucket/a.html; expected a local",
        ),
    ],
)
def test_a_page_that_programs_of_this_machine_do_not_reach(
    page: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "run.yml"
    file.write_text(CONFIG.replace("EXPERIMENT", "/data/in").replace("OUTPUT", str(tmp_path)))
    with pytest.raises(InvalidInputError, match=f"--report: .*{message}"):
        asked_page(load_configuration(file), page)
    assert not Path("dbfs:").exists()
    assert not Path("/Volumes").exists()


PARTS = st.lists(st.sampled_from(["a", "b", "c.d", "e f"]), max_size=4)


@given(PARTS, PARTS)
def test_places_overlap_exactly_where_one_begins_with_the_other(
    one: list[str], other: list[str]
) -> None:
    shorter = min(len(one), len(other))
    for scheme in ("/", "s3://", "hdfs:/"):
        first, second = scheme + "/".join(one), scheme + "/".join(other) + "/"
        assert overlap(first, second) == (one[:shorter] == other[:shorter])
