"""What benchmarks share: fits in processes of their own, the share a policy captures, a line."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import log
from typing import Any

import numpy as np

THREADS = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
NEW_UNITS = 20_000  # that policies are judged on, at the truth


def learner_options(
    description: str | None, rows: list[int], seeds: int
) -> argparse.ArgumentParser:
    """Options of a benchmark of learners; a worker gets learner, rows and seed."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", type=int, default=rows)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    return parser


def own_process(
    script: str, *arguments: object, options: Sequence[str] = (), shown: bool = False
) -> dict[str, Any]:
    """What ``script options --worker`` prints last, as JSON, of a process with one thread.

    Where they are shown, its other lines are printed as they come.
    """
    command = [sys.executable, script, *options, "--worker", *map(str, arguments)]
    lines: list[str] = []
    with subprocess.Popen(
        command,
        env={**os.environ, **THREADS},
        stdout=subprocess.PIPE,
        stderr=None if shown else subprocess.PIPE,
        text=True,
    ) as process:
        if shown and process.stdout is not None:
            for line in process.stdout:
                lines.append(line)
                if line.startswith('{"kind"'):
                    print(line, end="", flush=True)
        rest, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))} failed:\n{errors or ''}")
    found: dict[str, Any] = json.loads((lines or rest.splitlines())[-1])
    return found


def grown(
    found: Mapping[int, Mapping[str, Mapping[str, float | None]]],
) -> Iterator[dict[str, Any]]:
    """Yield how steps grow from one size to the next, as exponents of the size.

    Parameters
    ----------
    found : what every step took, by size, step and figure.
    """
    for small, large in pairwise(sorted(found)):
        for step in [name for name in found[small] if name in found[large]]:
            after, exponents = found[large][step], {}
            for name, one in found[small][step].items():
                other = after.get(name)
                if one and other:
                    exponents[name] = round(log(other / one) / log(large / small), 2)
            yield {"kind": "growth", "from": small, "to": large, "step": step, **exponents}


def captured(theta: np.ndarray, truth: np.ndarray, psi: np.ndarray) -> float:
    """Share of granular − uniform that the best treatments under ``theta`` earn at the truth.

    ``theta`` and ``truth`` are (n, p), ``psi`` the profit rows of the candidates.
    """
    from coarse_spark.core.profit import profit_matrix

    earned, granular, uniform = 0.0, 0.0, np.zeros(len(psi))
    for rows in np.array_split(np.arange(len(theta)), 20):
        profit = profit_matrix(truth[rows], psi)
        chosen = profit_matrix(theta[rows], psi).argmax(axis=1)
        earned += profit[np.arange(len(rows)), chosen].sum()
        granular += profit.max(axis=1).sum()
        uniform += profit.sum(axis=0)
    return float((earned - uniform.max()) / (granular - uniform.max()))


def line(name: str, our: float, peer: float, unit: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "ours": round(our, 4),
        "peer": round(peer, 4),
        "ratio": round(our / peer, 3),
        "unit": unit,
        **more,
    }
