"""Whole runs beside each other, read without Spark: no setting of a session has a part in it.

A sum of numbers has another last digit in another order, and what follows from it too. So numbers
are compared up to ``SAME`` of the largest of their column, a few ``ROUGHLY``, and all else to the
letter: who gets which treatment, which menus there are, what every row is called, how many rows
stand behind it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from deltalake import DeltaTable

from coarse_spark.lake.contract import TABLES

SAME = 1e-7
# what steps of a search end with: they magnify last digits, and each is valid as it is
ROUGHLY = {"upper_bound": 1e-5, "expected_loss": 1e-6}
# clocks, who wrote the row, and where the tables of the test are
ASIDE = {
    "runs": (
        *("started_at", "ended_at", "published_at", "heartbeat_at", "step_seconds"),
        *("revision", "change_id", "owner", "config", "config_hash", "inputs"),
    ),
    "models": ("seconds",),
}


def tables_of(folder: Path, run_id: str) -> dict[str, pd.DataFrame]:
    """Return the tables of a run in the order of their keys, without what no two runs share."""
    found = {}
    for name, schema in TABLES.items():
        rows = DeltaTable(str(folder / name)).to_pandas(filters=[("run_id", "=", run_id)])
        rows = rows.drop(columns=["run_id", *ASIDE.get(name, ())])
        found[name] = rows.sort_values(list(schema.key), ignore_index=True) if schema.key else rows
    return found


def checksums(tables: dict[str, pd.DataFrame]) -> dict[str, str]:
    """Return a checksum of every table but its fractional numbers."""
    sums = {}
    for name, rows in tables.items():
        texts = [
            f"{place} {value!r}"
            for column in rows
            for row, cell in enumerate(rows[column])
            for place, value in _leaves(cell, f"{column} {row}")
            if not isinstance(value, float)
        ]
        sums[name] = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
    return sums


def furthest(one: dict[str, pd.DataFrame], other: dict[str, pd.DataFrame]) -> dict[str, float]:
    """Return by how much the fractional numbers of a column differ, of its largest; unequal ones.

    Raises
    ------
    AssertionError : a number is there once and not the other time.
    """
    found = {}
    for name, rows in one.items():
        for column in rows:
            here, there = (_numbers(tables[name][column]) for tables in (one, other))
            assert here.keys() == there.keys(), f"{name}.{column}"
            for place, numbers in here.items():
                a, b = np.array(numbers), np.array(there[place])
                assert a.shape == b.shape, f"{name}.{place}"
                assert np.array_equal(np.isnan(a), np.isnan(b)), f"{name}.{place}"
                finite = np.isfinite(a)
                assert np.array_equal(a[~finite & ~np.isnan(a)], b[~finite & ~np.isnan(b)])
                largest = np.abs(a[finite]).max(initial=0) or 1.0
                apart = np.abs(a[finite] - b[finite]).max(initial=0) / largest
                if apart:
                    found[f"{name}.{place}"] = float(apart)
    return found


def assert_equal(one: dict[str, pd.DataFrame], other: dict[str, pd.DataFrame]) -> None:
    """Check that two runs have equal tables."""
    for name, rows in one.items():
        assert len(rows) == len(other[name]), name
    here, there = checksums(one), checksums(other)
    different = [
        f"{name}.{column}: {a!r}, {b!r}"
        for name in here
        if here[name] != there[name]
        for column in one[name]
        for a, b in zip(one[name][column], other[name][column], strict=True)
        if _texts(a) != _texts(b)
    ]
    assert here == there, "\n".join(different)[:3000]
    apart = furthest(one, other)
    worst = max(apart.values(), default=0.0)
    print(f"\n{len(here)} equal checksums; {len(apart)} columns of numbers differ, by {worst:.1g}")
    far = {
        place: by for place, by in apart.items() if by > ROUGHLY.get(place.rpartition(".")[2], SAME)
    }
    assert far == {}


def _texts(cell: Any) -> list[tuple[str, Any]]:
    return [(place, value) for place, value in _leaves(cell, "") if not isinstance(value, float)]


def _numbers(column: pd.Series) -> dict[str, list[float]]:
    """Return the fractional numbers of a column by their place within a cell."""
    numbers: dict[str, list[float]] = {}
    for cell in column:
        for place, value in _leaves(cell, str(column.name)):
            if isinstance(value, float):
                numbers.setdefault(place, []).append(value)
    return numbers


def _leaves(cell: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield the values within a cell, those of JSON too, and how many a list has."""
    if isinstance(cell, str) and cell[:1] in ("{", "["):
        try:
            cell = json.loads(cell)
        except ValueError:
            yield place, cell
            return
    if isinstance(cell, dict):
        cell = sorted(cell.items())
        yield from (leaf for key, value in cell for leaf in _leaves(value, f"{place}.{key}"))
    elif isinstance(cell, list | tuple | np.ndarray):
        pairs = len(cell) > 0 and all(isinstance(one, tuple) and len(one) == 2 for one in cell)
        if pairs:  # a map, as Arrow has it
            yield from _leaves(dict(cell), place)
            return
        yield f"{place} length", len(cell)
        for value in cell:
            yield from _leaves(value, f"{place}[]")
    elif isinstance(cell, np.generic):
        yield place, cell.item()
    else:
        yield place, cell
