"""Every step runs on every kind of session: nothing asks for what only one in this process has.

A client of Spark Connect has no context, no Java, no RDDs and no broadcast variables. What differs
between sessions and versions is known to one module alone. Read from the syntax tree of the package
and of ``jobs/``.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator

import pytest
from modules import MODULES, ROOT, imported

KNOWS = "coarse_spark/compatibility.py"

# besides SparkContext and all that is private to pyspark's wrappers of Java's objects
_IN_PROCESS = {"sparkContext", "_sc", "_jvm", "_jsc", "_gateway", "rdd", "toJSON", "parallelize"}
_WRAPPERS = ("_jdf", "_jsparkSession", "_jseq", "_jmap", "_jwrite", "_jreader", "_jc")
# of one version or client; a condition or a class of these is told apart in the one module
_OF_ONE = ("delta", "py4j", "grpc", "pyspark.sql.connect", "pyspark.errors.exceptions")
_CONTEXT = (
    "pyspark.SparkContext",
    "pyspark.context",
    "pyspark.core",
    "pyspark.rdd",
    "pyspark.broadcast",
)
_VERSIONS = {"pyspark.__version__", "delta.__version__", "pyspark.version"}
# hints to Spark's planner and shapes of arrays
_HARMLESS_BROADCASTS = {"pyspark.sql.functions.broadcast", "numpy.broadcast"}


def in_process(source: str) -> list[str]:
    """Return what a module asks for that not every session has, as "line: what", by line."""
    return [f"{line}: {what}" for line, what in sorted(set(_found(ast.parse(source))))]


def _found(tree: ast.AST) -> Iterator[tuple[int, str]]:
    names = imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            of_one = [name for name in _modules(node) if _is_of_one(name)]
            yield from ((node.lineno, f"imports {name}") for name in of_one)
        elif isinstance(node, ast.Attribute):
            if _only_here(node.attr) or _is_of_one(_dotted(node, names)):
                yield node.lineno, f"uses {node.attr}"
        elif isinstance(node, ast.Call) and _dotted(node.func, names) in ("getattr", "hasattr"):
            asked = [a.value for a in node.args[1:2] if isinstance(a, ast.Constant)]
            yield from ((node.lineno, f"uses {name}") for name in asked if _only_here(str(name)))


def _is_of_one(name: str) -> bool:
    """Return whether a dotted name is one that not every version and session has."""
    broadcast = name.rpartition(".")[2] == "broadcast" and name not in _HARMLESS_BROADCASTS
    return broadcast or name in _VERSIONS or _below(name, _OF_ONE) or _below(name, _CONTEXT)


def _only_here(name: str) -> bool:
    return name in _IN_PROCESS or name.startswith(_WRAPPERS)


def _below(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    # from . import x has neither a module nor anything of others
    return [f"{node.module}.{alias.name}" for alias in node.names if not node.level]


def _dotted(node: ast.AST, names: dict[str, str]) -> str:
    """Return a name with its attributes, the first part as it was imported."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, names)}.{node.attr}"
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else ""


def test_every_session_has_what_the_project_asks_for() -> None:
    assert len(MODULES) > 100
    found = [
        f"{module}:{what}"
        for module in MODULES
        if module != KNOWS
        for what in in_process((ROOT / module).read_text(encoding="utf-8"))
    ]
    assert found == []


def test_the_module_that_may_ask_does() -> None:
    assert in_process((ROOT / KNOWS).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "source",
    [
        "spark.sparkContext.setLogLevel('ERROR')",
        "frame.sparkSession._jvm.java.lang.System.gc()",
        "spark._jsc.hadoopConfiguration()",
        "frame.rdd.getNumPartitions()",
        "rows = (\n    frame\n    .select('a')\n    .rdd\n)",
        "frame._jdf.queryExecution()",
        "getattr(spark, 'sparkContext')",
        "hasattr(frame, 'rdd')",
        "shared = context.broadcast(rows)",
        "from pyspark import SparkContext",
        "import pyspark.rdd",
        "from pyspark.core.rdd import RDD",
        "from pyspark.broadcast import Broadcast",
        "from pyspark import broadcast",
        "from delta.tables import DeltaTable",
        "def late():\n    import delta",
        "from py4j.protocol import Py4JJavaError",
        "import grpc",
        "from pyspark.sql.connect.session import SparkSession",
        "from pyspark.errors.exceptions.connect import SparkConnectGrpcException",
        "import pyspark\nold = pyspark.__version__ < '4'",
        "import pyspark as p\np.__version__",
        "from pyspark import __version__",
    ],
)
def test_what_not_every_session_has_is_found(source: str) -> None:
    assert in_process(source)


@pytest.mark.parametrize(
    "source",
    [
        '"""Without sparkContext, _jvm, _jsc, .rdd and broadcast."""',
        "# spark.sparkContext",
        "sparkContext = None",
        "from pyspark.sql import functions as F\nrows.join(F.broadcast(few), 'id')",
        "from pyspark.sql.functions import broadcast\nrows.join(broadcast(few), 'id')",
        "import numpy as np\nnp.broadcast_to(row, shape)\nnp.broadcast(a, b)",
        "from pyspark.sql import SparkSession",
        "from pyspark.errors import AnalysisException",
        "getattr(F, how)(name)",
        "writer.format('delta')",
    ],
)
def test_what_every_session_has_is_left_alone(source: str) -> None:
    assert in_process(source) == []


def test_the_package_imports_neither_spark_nor_delta_before_a_session_is_asked_for() -> None:
    code = (
        "import sys, coarse_spark.cli, coarse_spark.compatibility, coarse_spark.core.menu.choose; "
        "print(*{'pyspark', 'delta', 'py4j', 'grpc'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == ""
