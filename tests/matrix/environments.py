"""Environments of their own beside .venv, which uv builds: of pinned or of the lowest versions."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ["pytest", "pytest-timeout", "hypothesis", "packaging", "duckdb", "selenium"]


def interpreter(version: str) -> str | None:
    """Return the path of a Python, such as 3.12; None where PATH has none that runs."""
    found = shutil.which(f"python{version}")
    if found is None:
        return None
    # a manager of versions may have the name and no such Python
    done = subprocess.run([found, "-c", ""], capture_output=True, check=False)
    return found if done.returncode == 0 else None


def over(base: Iterable[str], pair: Iterable[str]) -> list[str]:
    """Return constraints with those of a pair in place of the base's.

    Examples
    --------
    >>> over(["numpy==2.3.5", "pyspark==4.2.0"], ["# old", "PySpark==3.5.8"])
    ['PySpark==3.5.8', 'numpy==2.3.5']
    """
    first = [line.strip() for line in pair if line.strip() and not line.startswith("#")]
    taken = {_name(line) for line in first}
    rest = [line.strip() for line in base if line.strip() and not line.startswith("#")]
    return first + [line for line in rest if _name(line) not in taken]


def pinned(name: str, *, but: Sequence[str] = ()) -> list[str]:
    """Return constraints.txt under those of a file of ``pairs``.

    Parameters
    ----------
    name : of the file.
    but : names that the former shall leave open.
    """
    own = (ROOT / "tests" / "matrix" / "pairs" / f"{name}.txt").read_text().splitlines()
    open_names = {_name(one) for one in but}
    base = (ROOT / "constraints.txt").read_text().splitlines()
    return over([line for line in base if _name(line) not in open_names], own)


def build(
    folder: Path,
    python: str,
    requirements: Sequence[str],
    constraints: Sequence[str],
    *,
    lowest: bool = False,
) -> Path:
    """Build an environment with this package, unless it is there; return its Python.

    Parameters
    ----------
    folder : of the environment.
    python : to build it with.
    requirements : besides the package, whose name takes its folder; the tools of the tests come
        always.
    constraints : lines of pins.
    lowest : whether what pyproject.toml asks for comes in the lowest version that it allows.
    """
    stamp = folder / "built-from"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    made_of = [project, python, requirements, constraints, TESTS, lowest]
    wanted = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
    own = folder / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return own
    _uv("venv", "--clear", "--python", python, folder)
    pins = folder / "constraints.txt"
    pins.write_text("".join(f"{line}\n" for line in constraints))
    install = ("pip", "install", "--python", own, "--constraint", pins)
    if lowest:
        _uv(*install, "--resolution", "lowest-direct", *requirements)
        # the tools of the tests move nothing that was chosen
        chosen = _uv("pip", "freeze", "--python", own, "--exclude-editable").splitlines()
        pins.write_text("".join(f"{line}\n" for line in over(constraints, chosen)))
        _uv(*install, *TESTS)
    else:
        _uv(*install, *requirements, *TESTS)
    stamp.write_text(wanted)
    return own


def _name(line: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[=<>!~;\[ ]", line, maxsplit=1)[0]).lower()


def _uv(*arguments: object) -> str:
    command = [sys.executable, "-m", "uv", "--quiet", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
