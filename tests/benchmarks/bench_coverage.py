"""Coverage of 95 % intervals by design, one JSON object a line.

    python tests/benchmarks/bench_coverage.py                     500 repetitions, an hour
    python tests/benchmarks/bench_coverage.py --repetitions 100 --designs 1 3

Designs are those of ``tests/judged.py``: randomized, stratified and learned ones of units that
differ much, a randomized one of units that differ little, and by 20, 50 and 200 villages whose
units share outcomes and treatments. Every repetition learns, chooses and judges as a run does.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from judged import QUANTITIES, Design, coverage, drawn, judged

DESIGNS = (
    Design("randomized", units=800, spread=3),
    Design("stratified", units=800, spread=3),
    Design("learned", units=800, spread=3),
    Design("randomized"),
    Design("stratified"),
    Design("clustered", villages=20, icc=0.5),
    Design("clustered", villages=50, icc=0.4),
    Design("clustered", villages=200, icc=0.3),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=500)
    parser.add_argument("--designs", nargs="+", type=int, default=list(range(len(DESIGNS))))
    parser.add_argument("--learner", default="sieve")
    arguments = parser.parse_args()
    for design in (DESIGNS[number] for number in arguments.designs):
        start, found = time.process_time(), []
        for seed in range(arguments.repetitions):
            trial = drawn(design, np.random.default_rng([77, seed]))
            found.append(judged(trial, learner=arguments.learner, seed=seed))
        width = np.median([one.high - one.low for one in found], axis=0)
        for quantity, covered, wide in zip(QUANTITIES, coverage(found), width, strict=True):
            line = {
                "design": str(design),
                "quantity": quantity,
                "repetitions": len(found),
                "covered": round(float(covered), 3),
                "median_width": round(float(wide), 3),
            }
            print(json.dumps(line, ensure_ascii=False), flush=True)
        cpu = (time.process_time() - start) / len(found)
        print(json.dumps({"design": str(design), "cpu_seconds_each": round(cpu, 2)}), flush=True)


if __name__ == "__main__":
    main()
