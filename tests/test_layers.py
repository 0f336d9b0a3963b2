"""The layers of the package hold, and the tool that watches them raises its hand."""

from __future__ import annotations

import ast
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]
LAYERS, NO_SPARK = "Arrows never point back", "The mathematics and the configuration know no Spark"
LEARNERS = "Learners are built from the inside out"


def _lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    # -c with PYTHONPATH instead of the console script: it checks the package that is in `folder`
    code = (
        "import sys; from importlinter.cli import lint_imports_command as c; "
        "sys.argv = ['lint-imports', '--no-cache']; c()"
    )
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(
        ROOT / "coarse_spark",
        tmp_path / "coarse_spark",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def _outcomes(text: str) -> dict[str, bool]:
    """Return whether each contract of the report was kept, by name."""
    ends = re.findall(r"^ *(.+) (KEPT|BROKEN)(?: \(\d+ ignored imports\))? *$", text, re.MULTILINE)
    return {name: end == "KEPT" for name, end in ends}


def test_the_project_keeps_its_contracts(copy: Path) -> None:
    done = _lint_imports(copy)
    kept = {contract["name"]: True for contract in CONTRACTS}
    assert _outcomes(done.stdout) == kept, done.stdout + done.stderr
    assert done.returncode == 0


def test_every_part_of_the_package_has_a_layer() -> None:
    (layers,) = (contract["layers"] for contract in CONTRACTS if contract["name"] == LAYERS)
    named = {name.strip() for layer in layers for name in re.split("[:|]", layer)}
    assert named == {
        f"coarse_spark.{module.name}"
        for module in pkgutil.iter_modules([str(ROOT / "coarse_spark")])
    }


@pytest.mark.parametrize(
    ("module", "line", "broken", "named"),
    [
        ("core/profit.py", "import pyspark", {NO_SPARK}, "coarse_spark.core.profit -> pyspark"),
        (
            "core/menu/choose.py",
            "from pyspark.sql import DataFrame",
            {NO_SPARK},
            "coarse_spark.core.menu.choose -> pyspark",
        ),
        (
            "simulate/field.py",
            "import pyspark",
            {NO_SPARK},
            "coarse_spark.simulate.field -> pyspark",
        ),
        (
            "config/load.py",
            "def late() -> None:\n    import matplotlib",
            {NO_SPARK},
            "coarse_spark.config.load -> matplotlib",
        ),
        (
            "core/values.py",
            "import coarse_spark.lake.contract",
            {LAYERS},
            "coarse_spark.core.values -> coarse_spark.lake.contract",
        ),
        # tables import pyspark, so this one breaks both
        (
            "core/basis.py",
            "from coarse_spark.lake.tables import Lake",
            {LAYERS, NO_SPARK},
            "coarse_spark.core.basis -> coarse_spark.lake.tables",
        ),
        (
            "core/learners/record.py",
            "from coarse_spark.core.learners.model import AdditiveModel",
            {LEARNERS},
            "coarse_spark.core.learners.record -> coarse_spark.core.learners.model",
        ),
        (
            "distributed/frames.py",
            "from coarse_spark.config.models import Configuration",
            {LAYERS},
            "coarse_spark.distributed.frames -> coarse_spark.config.models",
        ),
        (
            "lake/runs.py",
            "import coarse_spark.pipeline.steps",
            {LAYERS},
            "coarse_spark.lake.runs -> coarse_spark.pipeline.steps",
        ),
    ],
)
def test_a_broken_layer_is_named(
    copy: Path, module: str, line: str, broken: set[str], named: str
) -> None:
    changed = copy / "coarse_spark" / module
    changed.write_text(f"{changed.read_text()}\n\n{line}\n")
    done = _lint_imports(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert {name for name, kept in _outcomes(done.stdout).items() if not kept} == broken
    assert named in done.stdout


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tests" / "benchmarks").glob("*.py")), ids=lambda path: path.stem
)
def test_what_benchmarks_import_from_the_package_is_there(path: Path) -> None:
    # they run by hand: without this, a name that went would be missed only there
    imports = [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("coarse_spark")
        for alias in node.names
    ]
    missing = [f"{module}.{name}" for module, name in imports if not _there(module, name)]
    assert missing == []


def _there(module: str, name: str) -> bool:
    return hasattr(import_module(module), name) or name in {
        found.name for found in pkgutil.iter_modules(getattr(import_module(module), "__path__", []))
    }
