"""Response learning beside EconML: accuracy, CPU time and memory, one JSON object a line.

    python tests/benchmarks/bench_fit.py                    all of it, about a quarter of an hour
    python tests/benchmarks/bench_fit.py accuracy cpu       some of: accuracy cpu memory known
    python tests/benchmarks/bench_fit.py --seeds 1 --rows 10000 50000 accuracy

Accuracy is the share of (granular − best uniform) profit that the estimated granular policy earns
at the truth of the field simulation, on 20,000 new units, cost 0.3 a unit of treatment. Every fit
runs in a process of its own with one thread; memory is the peak above what the process held before
the fit. EconML gets scikit-learn's histogram boosting for the outcome and linear models for the
treatments, which are randomized: better and cheaper than its defaults here.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import NEW_UNITS, captured, line, own_process

TARGETS = {
    (10_000, 1): 0.87,
    (10_000, 2): 0.85,
    (50_000, 1): 0.95,
    (50_000, 2): 0.95,
    (100_000, 1): 0.97,
    (100_000, 2): 0.97,
}
COST = 0.3


def ours(learner: str) -> Callable[..., Any]:
    from coarse_spark import ResponseLearner

    def fit(
        X: pd.DataFrame, T: pd.DataFrame, y: np.ndarray
    ) -> Callable[[pd.DataFrame], np.ndarray]:
        return ResponseLearner(basis="quadratic", learner=learner).fit(X, T, y).predict

    return fit


def econml(name: str, degree: int = 1) -> Callable[..., Any]:
    from econml import dml
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.preprocessing import PolynomialFeatures

    outcome_model = HistGradientBoostingRegressor(random_state=0)
    options: dict[str, Any] = {
        "model_y": outcome_model,
        "model_t": "linear",
        "cv": 2,
        "random_state": 0,
    }
    options["treatment_featurizer"] = PolynomialFeatures(2, include_bias=False)
    if name == "CausalForestDML":
        options |= {"n_estimators": 100, "n_jobs": 1, "inference": False}
    elif degree > 1:
        options["featurizer"] = PolynomialFeatures(degree, include_bias=False)

    def fit(
        X: pd.DataFrame, T: pd.DataFrame, y: np.ndarray
    ) -> Callable[[pd.DataFrame], np.ndarray]:
        model = getattr(dml, name)(**options).fit(
            y,
            T.to_numpy(),
            X=X.to_numpy(),
            **({} if "inference" in options else {"inference": None}),
        )
        # the baseline does not matter for choosing treatments
        return lambda new: np.column_stack(
            [np.zeros(len(new)), model.const_marginal_effect(new.to_numpy())]
        )

    return fit


LEARNERS: dict[str, Callable[[], Callable[..., Any]]] = {
    "auto": lambda: ours("auto"),
    "sieve": lambda: ours("sieve"),
    "boosting": lambda: ours("boosting"),
    "CausalForestDML": lambda: econml("CausalForestDML"),
    "LinearDML": lambda: econml("LinearDML"),
    "LinearDML quadratic": lambda: econml("LinearDML", degree=2),
}


def candidates(dimensions: int) -> np.ndarray:
    """Profit rows ψ of a grid of candidates, under a quadratic basis."""
    axis = np.linspace(0, 2, 201 if dimensions == 1 else 41)
    grid = np.stack(np.meshgrid(*[axis] * dimensions, indexing="ij"), axis=-1).reshape(
        -1, dimensions
    )
    ones = np.ones(len(grid))
    if dimensions == 1:
        phi = np.column_stack([ones, grid, grid**2])
    else:
        a, b = grid.T
        phi = np.column_stack([ones, a, b, a * a, a * b, b * b])
    return np.column_stack([phi, -COST * grid.sum(axis=1)])


def memory(field: str) -> float:
    """VmRSS or VmHWM of this process in MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(field))) / 1024


def worker(learner: str, rows: int, dimensions: int, seed: int) -> None:
    from coarse_spark.simulate.field import field_simulation

    warnings.filterwarnings("ignore")
    fit = LEARNERS[learner]()
    fit(
        *vars_of(field_simulation(500, dimensions, seed=999))
    )  # imports and first calls cost nobody's time
    sample, new = (
        field_simulation(rows, dimensions, seed=seed),
        field_simulation(NEW_UNITS, dimensions, seed=1000 + seed),
    )
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak
    before, start = memory("VmRSS"), time.process_time()
    predict = fit(*vars_of(sample))
    cpu, peak = time.process_time() - start, memory("VmHWM") - before
    print(
        json.dumps(
            {
                "share": captured(predict(new.X), new.theta, candidates(dimensions)),
                "cpu": cpu,
                "memory": peak,
            }
        )
    )


def vars_of(sample: Any) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    return sample.X, sample.T, sample.y


def measure(
    learner: str, rows: int, dimensions: int, seed: int, memo: dict[Any, dict[str, float]]
) -> dict[str, float]:
    key = (learner, rows, dimensions, seed)
    if key not in memo:
        memo[key] = own_process(__file__, learner, rows, dimensions, seed)
    return memo[key]


def accuracy(
    sizes: list[int], seeds: int, memo: dict[Any, dict[str, float]]
) -> Iterator[dict[str, Any]]:
    for dimensions in (1, 2):
        for rows in sizes:
            shares = {
                learner: float(
                    np.mean(
                        [
                            measure(learner, rows, dimensions, seed, memo)["share"]
                            for seed in range(seeds)
                        ]
                    )
                )
                for learner in ("auto", "sieve", "boosting", "LinearDML", "LinearDML quadratic")
            }
            peer = max(shares["LinearDML"], shares["LinearDML quadratic"])
            details = {
                "target": TARGETS.get((rows, dimensions)),
                "sieve": round(shares["sieve"], 4),
                "boosting": round(shares["boosting"], 4),
            }
            yield line(
                f"accuracy d={dimensions} n={rows}",
                shares["auto"],
                peer,
                "share of granular - uniform",
                seeds=seeds,
                **details,
            )


def cpu(
    sizes: list[int], _seeds: int, memo: dict[Any, dict[str, float]]
) -> Iterator[dict[str, Any]]:
    rows = min(50_000, max(sizes))
    for dimensions in (1, 2):
        for learner, peer in (("auto", "CausalForestDML"), ("sieve", "LinearDML")):
            a, b = (measure(name, rows, dimensions, 0, memo) for name in (learner, peer))
            yield line(
                f"cpu {learner} / {peer} d={dimensions} n={rows}",
                a["cpu"],
                b["cpu"],
                "CPU seconds",
                our_share=round(a["share"], 4),
                peer_share=round(b["share"], 4),
            )


def peak_memory(
    sizes: list[int], _seeds: int, memo: dict[Any, dict[str, float]]
) -> Iterator[dict[str, Any]]:
    rows = min(50_000, max(sizes))
    for dimensions in (1, 2):
        for learner in ("auto", "sieve"):
            a, b = (
                measure(name, rows, dimensions, 0, memo)["memory"]
                for name in (learner, "LinearDML quadratic")
            )
            yield line(
                f"memory {learner} / LinearDML quadratic d={dimensions} n={rows}", a, b, "MB"
            )


def known_numbers(
    _sizes: list[int], _seeds: int, _memo: dict[Any, dict[str, float]]
) -> Iterator[dict[str, Any]]:
    """EconML's treatment-featurization notebook: the coefficient 0.5 of T².

    Its estimate is 0.507 with standard error 0.024.
    """
    from coarse_spark.core.basis import Basis
    from coarse_spark.core.learners.crossfit import fit_models
    from coarse_spark.core.learners.encoding.rows import TrialRows
    from coarse_spark.core.learners.folds import ALL_FOLDS
    from coarse_spark.core.learners.model import load_model
    from coarse_spark.core.learners.response import observed_space
    from coarse_spark.core.learners.settings import LearnerSettings

    rng = np.random.default_rng(0)
    n, folds = 2000, 20
    W = 5 * rng.normal(size=(n, 5))  # of scale 5 in the notebook
    T = (rng.uniform(0, 10, n) + 0.5 * W[:, 0])[:, None]
    y = 0.5 * T[:, 0] ** 2 + W[:, 1] + 20 * rng.normal(size=n)
    X, basis = pd.DataFrame(W, columns=list("abcde")), Basis("quadratic", observed_space(T))
    settings = LearnerSettings(learner="constant")
    trial = TrialRows(X, T, y, fold=np.arange(n) % folds)
    models = fit_models(trial, basis=basis, settings=settings)
    squared = {
        fold: float(load_model(record).predict(X)[:, 2].mean()) for fold, record in models.items()
    }
    without = np.array([squared[fold] for fold in range(folds)])
    error = float(
        np.sqrt((folds - 1) / folds * ((without - without.mean()) ** 2).sum())
    )  # delete-a-group jackknife
    yield line(
        "known numbers: coefficient of T^2",
        squared[ALL_FOLDS],
        0.507,
        "y / T^2",
        truth=0.5,
        our_error=round(error, 4),
        peer_error=0.024,
    )


SECTIONS = {"accuracy": accuracy, "cpu": cpu, "memory": peak_memory, "known": known_numbers}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", help=f"some of {', '.join(SECTIONS)}; default all")
    parser.add_argument("--rows", nargs="+", type=int, default=[10_000, 50_000, 100_000])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        learner, *numbers = options.worker
        worker(learner, *(int(number) for number in numbers))
        return
    memo: dict[Any, dict[str, float]] = {}
    for name in options.sections or SECTIONS:
        if name not in SECTIONS:
            parser.error(f"unknown section {name!r}, expected some of {', '.join(SECTIONS)}")
        for result in SECTIONS[name](options.rows, options.seeds, memo):
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
