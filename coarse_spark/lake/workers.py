"""Whether the workers' Python has this package: asked before a run begins, not found amid it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pyspark.sql import SparkSession

from coarse_spark import __version__
from coarse_spark.causes import first_cause
from coarse_spark.compatibility import works_here
from coarse_spark.distributed.at_once import begun
from coarse_spark.errors import RuntimeSetupError

if TYPE_CHECKING:
    import pyarrow

# what functions on workers import, and with it every library that they need
_NEEDED = ("coarse_spark.distributed.fit", "coarse_spark.distributed.score")
_ANSWER = "place string, version string, trouble string"
RECIPE = (
    "bring it to them: 'make zip' and --py-files dist/coarse_spark.zip where they have the "
    "libraries that it needs; or 'make archive' and --archives "
    "dist/coarse_spark_environment.tar.gz#environment with "
    "--conf spark.pyspark.python=./environment/bin/python and --conf "
    "spark.pyspark.driver.python=PYTHON, that of the driver which has coarse_spark; or install it "
    "on every worker. "
    "A .whl in --py-files is shipped and ignored; see 'Clusters' in the documentation"
)


def check_workers(spark: SparkSession) -> None:
    """Raise where workers cannot import this package in this version; one small job of seconds.

    As many tasks ask as a cluster has cores: an executor that comes later may differ. Workers that
    are this machine's own processes are only started, beside what follows: they import for seconds.

    Raises
    ------
    RuntimeSetupError : they cannot; the message says how they get it.
    """
    # as many tasks as there are cores
    asked = spark.range(1_000).select("id").mapInArrow(_question(_NEEDED), _ANSWER)
    if works_here(spark):
        begun(spark, asked.collect)
        return
    try:
        answers = asked.distinct().collect()
    except Exception as error:  # their Python does not even start, or is of another version
        cause = first_cause(f"{type(error).__name__}: {error}")
        raise RuntimeSetupError(f"Python functions do not run on the workers: {cause}") from None
    for place, version, trouble in sorted(map(tuple, answers)):
        if trouble:
            raise RuntimeSetupError(
                f"the Python of the workers ({place}) cannot import what coarse_spark "
                f"{__version__} needs there: {trouble}; {RECIPE}"
            )
        if version != __version__:
            raise RuntimeSetupError(
                f"the Python of the workers ({place}) has coarse_spark {version}, but this is "
                f"{__version__}; {RECIPE}"
            )


def _question(
    needed: tuple[str, ...],
) -> Callable[[Iterator[pyarrow.RecordBatch]], Iterator[pyarrow.RecordBatch]]:
    """Return the function that workers run.

    It is made here because a function of a module would be sent by its name, which workers without
    the package do not know; one that is made in another is sent as it is.
    """

    def answer(batches: Iterator[pyarrow.RecordBatch]) -> Iterator[pyarrow.RecordBatch]:
        import importlib
        import sys

        import pyarrow

        for _ in batches:
            pass
        version, trouble = "", ""
        try:
            for name in needed:
                importlib.import_module(name)
            version = str(importlib.import_module("coarse_spark").__version__)
        except Exception as error:
            trouble = f"{type(error).__name__}: {error}"
        yield pyarrow.RecordBatch.from_pylist(
            [{"place": sys.executable, "version": version, "trouble": trouble}]
        )

    return answer
