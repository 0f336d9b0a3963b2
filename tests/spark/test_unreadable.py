"""Inputs that cannot be read name the file, column or feature, and what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coarse_spark.causes import first_cause
from coarse_spark.config.models import Experiment
from coarse_spark.errors import TableError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


def source(place: Path, form: str = "parquet") -> Experiment:
    return Experiment(path=str(place), format=form, unit_id="id", features=["x"], outcome="y")


def parquet(folder: Path, name: str, **columns: Any) -> Path:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({"id": [1, 2], **columns}), folder / name)
    return folder / name


def test_what_cannot_be_read_is_named_with_a_remedy(spark: SparkSession, tmp_path: Path) -> None:
    from coarse_spark.lake.inputs import read_input

    nanoseconds = pa.array([1, 2], pa.timestamp("ns"))
    parquet(tmp_path / "times", "a.parquet", bought_at=nanoseconds, at=nanoseconds.cast("int64"))
    cut = parquet(tmp_path / "cut", "a.parquet")
    cut.write_bytes(cut.read_bytes()[:100])
    newer = tmp_path / "newer"
    spark.range(2).write.format("delta").save(str(newer))
    log = newer / "_delta_log" / f"{0:020d}.json"
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    for entry in entries:
        if "protocol" in entry:
            features = ["crystalBall"]
            entry["protocol"] = {
                "minReaderVersion": 3,
                "minWriterVersion": 7,
                "readerFeatures": features,
                "writerFeatures": features,
            }
    log.write_text("\n".join(map(json.dumps, entries)) + "\n")
    for checksum in (newer / "_delta_log").glob("*.crc"):
        checksum.unlink()
    for checksum in (newer / "_delta_log").glob(".*.crc"):
        checksum.unlink()
    told = {
        ("times", "parquet"): "a column has the type TIMESTAMP in nanoseconds, which Spark does "
        "not read; write it in microseconds, such as with coerce_timestamps='us' of pandas' "
        "to_parquet (columns: bought_at)",
        ("cut", "parquet"): f"the file {cut} is cut off, damaged or of another format; restore it, "
        "or take it away",
        ("newer", "delta"): "it needs features that Delta Lake 4.4.0 does not have: crystalBall; "
        "use a later version of it, or drop them from the table",
    }
    for (name, form), message in told.items():
        with pytest.raises(TableError) as caught:
            read_input(spark, source(tmp_path / name, form), "experiment")
        place = tmp_path / name
        assert str(caught.value) == f"experiment: {place} ({form}) cannot be read: {message}"


def test_a_file_that_is_cut_off_amid_a_table_is_named(spark: SparkSession, tmp_path: Path) -> None:
    from coarse_spark.lake.inputs import read_input

    parquet(tmp_path / "half", "a.parquet")
    cut = parquet(tmp_path / "half", "b.parquet")
    cut.write_bytes(cut.read_bytes()[:100])
    table = read_input(spark, source(tmp_path / "half"), "experiment")
    with pytest.raises(Exception, match="FAILED_READ_FILE") as caught:
        table.groupBy().sum("id").collect()
    assert first_cause(str(caught.value)) == (
        f"the file {cut} is cut off, damaged or of another format; restore it, or take it away"
    )
