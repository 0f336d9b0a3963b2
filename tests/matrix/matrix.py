"""A core of Spark's tests and one whole run on every pair of Spark and Delta, and Connect alone.

python tests/matrix/matrix.py                     all of them (`make test-matrix`)
python tests/matrix/matrix.py --only spark-3.5    of them those whose name begins so
python tests/matrix/matrix.py --table             the outcomes that are there

Needs uv beside this Python; Pythons that PATH has not are left out, and said so. Environments are
in .venv-matrix, outcomes in output/matrix.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from environments import ROOT, build, interpreter, over, pinned

PAIRS = Path(__file__).parent / "pairs"
ENVIRONMENTS, OUTCOMES = ROOT / ".venv-matrix", ROOT / "output" / "matrix"
# tables, their view and writers at one time; who works on a run
CORE = [f"tests/spark/test_{name}.py" for name in ("lake", "runs")]
PYTHONS = ["3.11", "3.12", "3.13"]
# pyspark 3.5 imports distutils, which Python took away in 3.12
LAST_PYTHON = {"spark-3.5": "3.11"}
# who serves a client alone
SERVER_OF = {"connect-4.2": "spark-4.2"}
CAP = 1_800  # seconds for the tests or the run of one row


@dataclass(frozen=True)
class Row:
    """One row of the matrix: versions by the name of their constraints, and a Python."""

    versions: str
    python: str

    @property
    def name(self) -> str:
        """The name of its environment and of its outcome."""
        return f"{self.versions}-py{self.python}"

    @property
    def left_out(self) -> str | None:
        """Why it is not run; None where it is."""
        last = LAST_PYTHON.get(self.versions)
        if last is not None and _number(self.python) > _number(last):
            return f"{self.versions} runs on Python {last} at the latest"
        if interpreter(self.python) is None:
            return f"no python{self.python} on PATH"
        return None

    def pins(self) -> list[str]:
        """Return the pair's own constraints."""
        return over([], (PAIRS / f"{self.versions}.txt").read_text().splitlines())

    def environment(self) -> Path:
        """Return the Python of its environment, which is built on first use."""
        python = interpreter(self.python)
        assert python is not None
        requirements = ["--editable", str(ROOT), *self.pins()]
        return build(ENVIRONMENTS / self.name, python, requirements, pinned(self.versions))


ROWS = [
    *(Row(path.stem, python) for path in sorted(PAIRS.glob("spark-*.txt")) for python in PYTHONS),
    *(Row(path.stem, "3.11") for path in sorted(PAIRS.glob("connect-*.txt"))),
]


def run(row: Row) -> Iterator[dict[str, Any]]:
    """Yield what a row came to after its whole run, and again after its tests."""
    python = row.environment()
    folder = Path(tempfile.mkdtemp(prefix=f"{row.name}-"))
    with _server(row, folder) as address:
        own = {"SPARK_REMOTE": address, "JAVA_HOME": str(folder / "no-java")} if address else {}
        environment = {**os.environ, **own}
        environment.pop("PYTHONPATH", None)
        whole = [python, Path(__file__).with_name("whole_run.py"), folder / "tables"]
        ran = _said(whole, environment, folder / "run.log")
        told = (folder / "run.log").read_text().splitlines()[-1:]
        found = json.loads(told[0]) if ran == 0 else {}
        outcome = {
            "pins": row.pins(),
            "tests": {},
            "checksum": found.get("checksum"),
            "tables": found.get("tables"),
            "seconds": found.get("seconds"),
            "logs": str(folder),
            "good": False,
        }
        yield outcome
        tests = [python, "-m", "pytest", "-p", "no:cacheprovider", *CORE]
        tested = _said(tests, environment, folder / "tests.log")
        counts = counted((folder / "tests.log").read_text())
        yield {**outcome, "tests": counts, "good": ran == 0 and tested == 0}


@contextmanager
def _server(row: Row, folder: Path) -> Iterator[str | None]:
    """Run the server that a client alone needs; yield its address, None for the others."""
    if row.versions not in SERVER_OF:
        yield None
        return
    python = Row(SERVER_OF[row.versions], row.python).environment()
    program = subprocess.Popen(
        [python, Path(__file__).with_name("server.py"), folder / "address", folder / "server.log"]
    )
    try:
        address = folder / "address"
        while not address.exists():
            if program.poll() is not None:
                raise RuntimeError(f"the server did not start; see {folder / 'server.log'}")
            try:
                program.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                continue
        yield address.read_text()
    finally:
        program.terminate()
        program.wait(timeout=60)


def counted(log: str) -> dict[str, int]:
    """Return how many tests had which outcome, from the last line of pytest.

    Examples
    --------
    >>> counted("...\n1 failed, 30 passed, 2 skipped in 4.20s")
    {'failed': 1, 'passed': 30, 'skipped': 2}
    """
    last = log.strip().rpartition("\n")[2]
    return {what: int(count) for count, what in re.findall(r"(\d+) ([a-z]+)", last)}


def _said(command: list[Any], environment: dict[str, str], log: Path) -> int:
    with log.open("w") as out:
        return subprocess.run(
            [str(part) for part in command],
            env=environment,
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            timeout=CAP,
            check=False,
        ).returncode


def table(rows: list[Row]) -> str:
    """Return the outcomes that are there as a table."""
    lines = ["| versions | Python | tests passed | whole run | checksum |", "|---|---|---|---|---|"]
    for row in rows:
        place = OUTCOMES / f"{row.name}.json"
        if not place.exists():
            lines.append(f"| {row.versions} | {row.python} | {row.left_out or 'not run'} | | |")
            continue
        found = json.loads(place.read_text())
        tests = found["tests"]
        asked = sum(tests.get(outcome, 0) for outcome in ("passed", "failed", "error", "errors"))
        versions = ", ".join(pin.replace("==", " ") for pin in found["pins"] if "spark" in pin)
        lines.append(
            f"| {versions} | {row.python} | {tests.get('passed', 0)} of {asked} "
            f"| {found['seconds']} s | {found['checksum']} |"
        )
    return "\n".join(lines)


def differing(found: list[dict[str, Any]]) -> list[str]:
    """Return the tables whose rows are not the same in all outcomes that have any."""
    ran = [one["tables"] for one in found if one["tables"]]
    return sorted({name for one in ran for name in one if one[name] != ran[0].get(name)})


def agree(rows: list[Row]) -> bool:
    """Whether there are outcomes, all good and with one checksum; says what differs."""
    places = [OUTCOMES / f"{row.name}.json" for row in rows]
    found = [json.loads(place.read_text()) for place in places if place.exists()]
    tables = differing(found)
    if tables:
        print(f"not the same everywhere: {', '.join(tables)}")
    if not found:
        print("no row was run")
    return bool(found) and all(one["good"] for one in found) and not tables


def judged(row: Row) -> str:
    """Run a row, keep what it came to, and return that in a word or two.

    An outcome of an earlier time is gone first: it tells nothing of what is there now.
    """
    place = OUTCOMES / f"{row.name}.json"
    place.unlink(missing_ok=True)
    if row.left_out is not None:
        return f"left out, {row.left_out}"
    found = {"pins": row.pins(), "tests": {}, "checksum": None, "tables": None, "seconds": None}
    found |= {"logs": None, "good": False}
    told = ""
    try:
        for found in run(row):
            place.write_text(json.dumps(found, indent=1) + "\n")
    except (subprocess.SubprocessError, RuntimeError) as error:  # it took too long, or has no start
        found["good"] = False
        place.write_text(json.dumps(found, indent=1) + "\n")
        told = f" ({error})"
    return "good" if found["good"] else f"FAILED, see {found['logs']}{told}"


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def main() -> int:
    """Run what is asked for, print the table, and return the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which ends a server that runs
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="rows whose name begins so, such as spark-3.5")
    parser.add_argument("--table", action="store_true", help="run nothing")
    asked = parser.parse_args()
    OUTCOMES.mkdir(parents=True, exist_ok=True)
    for row in [row for row in ROWS if row.name.startswith(asked.only)] if not asked.table else []:
        print(f"{row.name}: {judged(row)}", flush=True)
    print(table(ROWS))
    return 0 if agree(ROWS) else 1


if __name__ == "__main__":
    sys.exit(main())
