"""Java's archive of Spark's classes, with which a local session starts in two thirds of the time.

Java reads, checks and links some twenty thousand classes until the first Delta table is written. It
can archive them as they are then, and map them the next time (JEP 350, dynamic class data sharing).
An archive is of one Java and one Spark; one that does not fit any more Java leaves alone.
"""

from __future__ import annotations

import hashlib
import os
import subprocess  # nosec B404  # a session of its own is what Java archives
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from coarse_spark.causes import first_cause
from coarse_spark.errors import RuntimeSetupError
from coarse_spark.lake.java import Java

if TYPE_CHECKING:
    import pyarrow

JAVA_OPTIONS = "spark.driver.extraJavaOptions"

_FIRST = 13  # version of Java that archives classes at its end


def shared_classes(java: Java) -> str:
    """Return the options that start Java with the archive, none where there is no archive."""
    archive = _archive(java)
    # what Java has to say of an archive that does not fit would go to the output of a command
    return f'-XX:SharedArchiveFile="{archive}" -Xlog:disable' if archive.exists() else ""


def archive_classes(java: Java) -> None:
    """Make the archive where there is none yet; sessions start without it where that fails."""
    archive = _archive(java)
    if java.major < _FIRST or archive.exists():
        return
    sys.stderr.write("archiving Spark's classes for Java (once, under a minute)\n")
    part = archive.with_suffix(f".{os.getpid()}")
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        # Java writes it after its session has ended, and keeps the output open until it is done
        made = subprocess.run(  # noqa: S603  # nosec B603
            [sys.executable, "-m", __name__, str(part)], capture_output=True, text=True, check=False
        )
        if made.returncode:
            raise RuntimeSetupError(first_cause(made.stderr))
        part.replace(archive)
    except (OSError, RuntimeSetupError) as error:
        part.unlink(missing_ok=True)
        sys.stderr.write(f"warning: sessions start slower, without an archive: {error}\n")


def _archive(java: Java) -> Path:
    """Return where the archive of a Java and the Spark that is installed is, or would be."""
    import pyspark

    # the names of its jars have versions
    jars = sorted(Path(pyspark.__file__).with_name("jars").glob("*.jar"))
    name = hashlib.sha256("\n".join([java.answer, *map(str, jars)]).encode()).hexdigest()[:16]
    return Path(sys.prefix, "share", "coarse_spark", f"java-classes-{name}.jsa")


def _load_classes(archive: Path) -> None:
    """Do a little of all that runs do, in a session whose Java archives its classes at its end."""
    from pyspark.sql import functions as F

    from coarse_spark.lake.session import open_session

    spark = open_session(conf={JAVA_OPTIONS: f'-XX:ArchiveClassesAtExit="{archive}"'})
    with tempfile.TemporaryDirectory() as folder:
        table, columns = f"{folder}/table", "x double, name string, part int"
        few = spark.createDataFrame([(0.5, "a", 0), (1.5, "b", 1)], columns)
        few.write.format("delta").partitionBy("part").save(table)
        writer = few.write.format("delta").mode("overwrite").option("replaceWhere", "part >= 0")
        writer.save(table)
        rows = spark.read.format("delta").load(table).persist()
        spark.sql("DESCRIBE FUNCTION sum").collect()
        names = rows.groupBy("name").agg(F.max("x").alias("most"))
        joined = rows.join(F.broadcast(names), "name").mapInArrow(_same, "x double")
        joined.union(rows.select("x")).agg(F.sum("x"), F.count("*")).collect()
        one = rows.groupBy("part")
        one.cogroup(one).applyInPandas(lambda left, _: left, rows.schema).orderBy("x").toPandas()
    spark.stop()


def _same(batches: Iterator[pyarrow.RecordBatch]) -> Iterator[pyarrow.RecordBatch]:
    return (batch.select(["x"]) for batch in batches)


if __name__ == "__main__":
    _load_classes(Path(sys.argv[1]))
