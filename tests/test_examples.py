"""The examples in docstrings run, and every public name has one."""

from __future__ import annotations

import doctest
import pkgutil
from importlib import import_module

import pytest

import coarse_spark
import coarse_spark.core
import coarse_spark.simulate.field

MODULES = [
    "coarse_spark.address",
    "coarse_spark.causes",
    "coarse_spark.errors",
    "coarse_spark.text",
    "coarse_spark.simulate.field",
    *(m.name for m in pkgutil.walk_packages(coarse_spark.core.__path__, "coarse_spark.core.")),
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    failed, _ = doctest.testmod(import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_every_public_name_has_an_example() -> None:
    public = set(coarse_spark.__all__) - {"__version__"}
    without = {
        name
        for name in public
        if not doctest.DocTestFinder(recurse=False).find(getattr(coarse_spark, name))[0].examples
    }
    assert not without
