"""Nothing loads pickled code, and SQL is only built where identifiers are quoted.

What ruff and bandit leave open, read from the syntax tree of the package and of ``jobs/``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from modules import MODULES, ROOT, imported

# the modules whose SQL may hold identifiers that they quote and literals that they make
QUOTING = {
    f"coarse_spark/lake/{name}.py"
    for name in ("contact", "grants", "inputs", "migrate", "output", "snapshots", "tables")
}

# besides all whose name has "pickle" in it, such as cloudpickle, read_pickle and allow_pickle
_LOADS_CODE = {"dill", "joblib", "marshal", "shelve"}
_LOADING_CALLS = {"torch.load"}

# methods whose text Spark parses as SQL, as methods or functions of its DataFrame API
_SQL_METHODS = {"expr", "filter", "selectExpr", "sql", "where"}
_STATEMENT = re.compile(
    r"^\W*(SELECT\b.+\bFROM|WITH\b.+\bAS\s*\(\s*SELECT|INSERT\s+(INTO|OVERWRITE)|DELETE\s+FROM|UPDATE\b.+\bSET"
    r"|MERGE\s+INTO|(CREATE|DROP|ALTER)\s+(OR\s+REPLACE\s+)?(TEMP\w*\s+)?(TABLE|VIEW|SCHEMA|DATABASE)"
    r"|(GRANT|REVOKE)\b.+\bON|(DESCRIBE|SHOW)\s+(HISTORY|TABLE|DETAIL)|TRUNCATE\s+TABLE"
    r"|OPTIMIZE\s|VACUUM\s|RESTORE\s+TABLE|USE\s+(CATALOG|SCHEMA))",
    re.IGNORECASE | re.DOTALL,
)


def unsafe(source: str, module: str) -> list[str]:
    """Return what a module does that it should not, as "line: what", in the order of lines."""
    tree = ast.parse(source)
    found = [*_pickles(tree), *([] if module in QUOTING else _built_sql(tree))]
    return [f"{line}: {what}" for line, what in sorted(set(found))]


def _pickles(tree: ast.AST) -> Iterator[tuple[int, str]]:
    names = imported(tree)
    for node in ast.walk(tree):
        used: list[str] = []
        if isinstance(node, ast.Import):
            used = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            used = [f"{node.module or ''}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            used = [_dotted(node, names)]
        elif isinstance(node, ast.Call):
            # import_module("pickle"), __import__("dill")
            if _dotted(node.func, names).rpartition(".")[2] in {"import_module", "__import__"}:
                used = [str(a.value) for a in node.args if isinstance(a, ast.Constant)]
            used += [
                keyword.arg
                for keyword in node.keywords
                if keyword.arg == "allow_pickle" and not _is(keyword.value, False)
            ]
        yield from ((node.lineno, f"loads pickled code: {name}") for name in used if _loads(name))


def _loads(name: str) -> bool:
    parts = name.split(".")
    return (
        "pickle" in name.lower()
        or bool(_LOADS_CODE.intersection(parts))
        or any(name == call or name.endswith(f".{call}") for call in _LOADING_CALLS)
    )


def _built_sql(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if _is_built(node) and _STATEMENT.search(_words(node)):
            yield node.lineno, "builds SQL"
        if not isinstance(node, ast.Call):
            continue
        method = _dotted(node.func, {}).rpartition(".")[2]
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        if method == "sql" and not all(_is_text(argument) for argument in arguments):
            yield node.lineno, "runs SQL that is not one text"
        elif method in _SQL_METHODS and any(_is_built(argument) for argument in arguments):
            yield node.lineno, f"builds the SQL of {method}"
        elif (
            method == "option"
            and _is(node.args[0] if node.args else None, "replaceWhere")
            and not _is_text(node.args[-1])
        ):
            yield node.lineno, "builds the condition of replaceWhere"


def _is_built(node: ast.AST) -> bool:
    """Return whether a text is put together: f-string, + or % with a text, format or join."""
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(part, ast.FormattedValue) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
        return any(_is_text(side) or _is_built(side) for side in (node.left, node.right))
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"format", "join"}
        and (_is_text(node.func.value) or _is_built(node.func.value))
    )


def _words(node: ast.AST) -> str:
    """Return the texts of an expression in their order, with a name for what is put in."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else " x "
    if isinstance(node, ast.JoinedStr):
        return "".join(_words(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _words(node.left) + _words(node.right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return _words(node.func.value)
    return " x "


def _is_text(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is(node: ast.AST | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value == value


def _dotted(node: ast.AST, names: dict[str, str]) -> str:
    """Return a name with its attributes, the first part as it was imported."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, names)}.{node.attr}"
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else ""


def test_the_project_is_safe() -> None:
    assert len(MODULES) > 100
    found = [
        f"{module}:{what}"
        for module in MODULES
        for what in unsafe((ROOT / module).read_text(encoding="utf-8"), module)
    ]
    assert found == []


def test_every_module_that_may_build_sql_is_there_and_does() -> None:
    for module in QUOTING:
        assert unsafe((ROOT / module).read_text(encoding="utf-8"), "elsewhere"), module


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import cloudpickle as c",
        "from pickle import loads",
        "from pyspark import cloudpickle",
        "from pyspark.serializers import CPickleSerializer",
        "import dill",
        "import joblib\nmodel = joblib.load(path)",
        "from joblib import load",
        "import marshal",
        "import shelve",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy as np\nnp.load(path, allow_pickle=flag)",
        "import pandas as pd\npd.read_pickle(path)",
        "frame.to_pickle(path)",
        "import torch\ntorch.load(path)",
        "import torch as t\nt.load(path)",
        "from torch import load\nload(path)",
        "__import__('pickle').loads(text)",
        "import importlib\nimportlib.import_module('dill')",
        "from importlib import import_module as late\nlate('joblib')",
    ],
)
@pytest.mark.parametrize("module", ["coarse_spark/core/x.py", "coarse_spark/lake/tables.py"])
def test_pickles_are_found_everywhere(source: str, module: str) -> None:
    assert any("loads pickled code" in what for what in unsafe(source, module))


@pytest.mark.parametrize(
    "source",
    [
        'spark.sql(f"SELECT * FROM {table}")',
        'spark.sql("SELECT * FROM " + table)',
        'spark.sql("SELECT * FROM %s" % table)',
        'spark.sql("SELECT * FROM {}".format(table))',
        'spark.sql(" ".join(parts))',
        "spark.sql(query)",
        "spark.sql(f(query))",
        "spark.sql(sqlQuery=query)",
        'query = f"select * from {table}"',
        'query = "DELETE FROM " + table + " WHERE x = 1"',
        'query = "DROP TABLE %s" % table',
        'query = "ALTER TABLE {} RENAME".format(table)',
        'query = f"CREATE OR REPLACE VIEW {view} AS " + query',
        'query = f"MERGE INTO {table} USING s"',
        'query = f"GRANT SELECT ON TABLE {table} TO {reader}"',
        'query = f"DESCRIBE HISTORY {table}"',
        'query = f"WITH x AS (SELECT 1) SELECT * FROM {table}"',
        'query = """\n  SELECT *\n  FROM %s""" % table',
        "frame.where(f\"run_id = '{run}'\")",
        'frame.filter("run_id = " + run)',
        'frame.filter(condition="run_id = " + run)',
        'frame.selectExpr(f"{column} AS x")',
        'F.expr("a = %s" % value)',
        'writer.option("replaceWhere", f"run_id = \'{run}\'")',
        'writer.option("replaceWhere", condition)',
    ],
)
def test_sql_is_built_in_the_modules_that_quote_only(source: str) -> None:
    assert unsafe(source, "coarse_spark/pipeline/x.py")
    assert unsafe(source, "coarse_spark/lake/tables.py") == []


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "import numpy as np\nnp.load(path)",
        "import json\njson.load(file)",
        'text = "plain arrays, never pickled code"',
        'spark.sql("SELECT 1")',
        'frame.where("x > 1")',
        'frame.where(F.col("x") == F.lit(value))',
        'raise ValueError(f"update the key {key}, or select one from {names}")',
        'raise ValueError(f"with {n} rows as (given)")',
        'note = f"drop {name}: the table is empty"',
        'writer.option("mergeSchema", flag)',
        'names = ", ".join(columns)',
    ],
)
def test_what_is_safe_is_left_alone(source: str) -> None:
    assert unsafe(source, "coarse_spark/pipeline/x.py") == []
