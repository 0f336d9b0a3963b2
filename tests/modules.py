"""The modules of the project, for tests that read them, and what their names stand for."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    str(path.relative_to(ROOT))
    for folder in ("coarse_spark", "jobs")
    for path in (ROOT / folder).rglob("*.py")
)


def imported(tree: ast.AST) -> dict[str, str]:
    """Return what imports of a module give other names, and what these stand for."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.ImportFrom):
            names |= {a.asname or a.name: f"{node.module or ''}.{a.name}" for a in node.names}
    return names
