"""The Spark session: the one that is there, or a quiet local one with Delta."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from pyspark.sql import SparkSession

from coarse_spark.compatibility import has_platform_session, is_client_alone, with_delta
from coarse_spark.errors import RuntimeSetupError
from coarse_spark.lake.java import check_java
from coarse_spark.lake.java_classes import JAVA_OPTIONS, shared_classes

# what a session on one machine with small tables should not spend its time on
_LOCAL_DEFAULTS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.databricks.delta.snapshotPartitions": "1",
    # Java never compiles larger methods, and interprets them: smaller ones take a tenth of the time
    "spark.sql.codegen.hugeMethodLimit": "8000",
    "spark.sql.session.timeZone": "UTC",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # no limit but that of rows: since 4.1 Spark measures a batch again at every row, which takes
    # longer than to move it
    "spark.sql.execution.arrow.maxBytesPerBatch": "2147483647",
    # what is kept is mostly numbers with a fraction, which no scheme of Spark's makes smaller
    "spark.sql.inMemoryColumnarStorage.compressed": "false",
    "spark.log.level": "ERROR",
}


def open_session(
    *,
    master: str = "local[*]",
    driver_memory: str = "2g",
    shuffle_partitions: int | None = None,
    conf: Mapping[str, str] | None = None,
) -> SparkSession:
    """Return the session that is there, or else a local one with Delta.

    There is the active session, or that of the platform (spark-submit, Connect, managed runtimes).
    The arguments only shape a local session: everywhere else the platform's own settings stand.

    Parameters
    ----------
    master : of the local session.
    driver_memory : of its Java process, such as 2g.
    shuffle_partitions : partitions of a shuffle, default the number of cores.
    conf : further Spark settings.

    Raises
    ------
    RuntimeSetupError : a local session is needed and there is only Spark Connect's client, Java or
        Delta's jars are missing, or Spark does not start.
    """
    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    if has_platform_session():
        return SparkSession.builder.getOrCreate()
    if is_client_alone():
        raise RuntimeSetupError(
            "there is only Spark Connect's client here, which needs a server: set SPARK_REMOTE to "
            "its address, such as sc://localhost:15002"
        )
    java = check_java()
    # executors must run the interpreter that has this package, whatever `python3` is on PATH
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    partitions = shuffle_partitions or (os.cpu_count() or 2)
    settings = {
        **_LOCAL_DEFAULTS,
        "spark.driver.memory": driver_memory,
        "spark.sql.shuffle.partitions": str(partitions),
        "spark.default.parallelism": str(partitions),
        "spark.sql.warehouse.dir": str(Path(tempfile.gettempdir()) / "coarse-spark-warehouse"),
        **(conf or {}),
    }
    # in front: those that are given can have it otherwise
    settings[JAVA_OPTIONS] = f"{shared_classes(java)} {settings.get(JAVA_OPTIONS, '')}".strip()
    packages = settings.pop("spark.jars.packages", "")
    builder = SparkSession.builder.appName("coarse_spark").master(master)
    for key, value in settings.items():
        builder = builder.config(key, value)
    try:
        builder = with_delta(builder, packages)
    except ImportError:
        raise RuntimeSetupError(
            "delta-spark is not installed; install the extra: pip install 'coarse-spark[spark]'"
        ) from None
    with _quiet_start() as record:
        try:
            return builder.getOrCreate()
        except Exception as error:
            tail = "\n".join(record.read_text(errors="replace").splitlines()[-15:])
            raise RuntimeSetupError(
                f"local Spark did not start: {error}\nlast lines of its log {record}:\n{tail}"
            ) from error


@contextlib.contextmanager
def _quiet_start() -> Iterator[Path]:
    """Send the standard error of the Java process to a file.

    It inherits ours at its start and keeps it for good; its dependency resolver and log would else
    bury the progress that a person reads. The file has a name only until the process has started:
    what it writes later goes with it, and a file that tells why it did not start stays.
    """
    handle, name = tempfile.mkstemp(prefix="coarse-spark-", suffix=".log")
    sys.stderr.flush()
    saved = os.dup(2)
    os.dup2(handle, 2)
    try:
        yield Path(name)
        with contextlib.suppress(OSError):  # a system may keep files that are open
            Path(name).unlink()
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(handle)
