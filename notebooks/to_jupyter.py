"""Write the notebooks beside this file as .ipynb, for Jupyter: python notebooks/to_jupyter.py

They are in Databricks' source format, which jupytext does not read. Its percent format has the same
cells with other marks, so these are exchanged first.
"""

from __future__ import annotations

import re
from pathlib import Path

import jupytext

_START = r"^# (?:Databricks notebook source|COMMAND -+)\n+"
_MARKS = (
    (f"{_START}# MAGIC %md\n", "# %% [markdown]\n"),
    (_START, "# %%\n"),
    (r"^# MAGIC ?", "# "),
)


def percent(source: str) -> str:
    """Return a notebook of Databricks in jupytext's percent format."""
    for mark, other in _MARKS:
        source = re.sub(mark, other, source, flags=re.MULTILINE)
    return source


if __name__ == "__main__":
    for path in sorted(Path(__file__).parent.glob("[0-9]*.py")):
        notebook = jupytext.reads(percent(path.read_text(encoding="utf-8")), fmt="py:percent")
        notebook.metadata["kernelspec"] = {
            "name": "python3",
            "language": "python",
            "display_name": "Python 3",
        }
        jupytext.write(notebook, path.with_suffix(".ipynb"))
        print(path.with_suffix(".ipynb"))
