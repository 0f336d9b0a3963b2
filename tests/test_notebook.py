"""The walk-through runs as it is, and ends where it says."""

from __future__ import annotations

import runpy
from pathlib import Path


def test_the_walk_through_earns_more_than_nobody_treated() -> None:
    cells = runpy.run_path(str(Path(__file__).parents[1] / "notebooks" / "walk_through.py"))
    assert cells["menu"].k == 3
    assert cells["earned"] > cells["nobody"] + 0.1
