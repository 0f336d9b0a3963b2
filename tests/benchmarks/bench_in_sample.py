"""How far responses stand out at own treatments, of models that saw the units and that did not.

python tests/benchmarks/bench_in_sample.py        needs the extra "bench"; one JSON line a model
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from econml.dml import CausalForestDML, LinearDML
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import KFold

sys.path.insert(0, str(Path(__file__).parents[1]))

from noisy_arms import ARMS, simulated

from coarse_spark.core.in_sample import own_treatment

ROWS, EXPERIMENTS = 2_000, 4
HONEST_ROWS, HONEST_EXPERIMENTS = 1_000, 60

Predict = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def with_arm(
    x: np.ndarray, arm: np.ndarray, y: np.ndarray, at: np.ndarray, **settings: int
) -> np.ndarray:
    """LightGBM with the arm as a feature."""
    model = LGBMRegressor(verbose=-1, n_jobs=1, **settings).fit(np.column_stack([x, arm]), y)
    return np.stack(
        [model.predict(np.column_stack([at, np.full(len(at), a)])) for a in range(ARMS)], axis=1
    )


def an_arm(
    x: np.ndarray, arm: np.ndarray, y: np.ndarray, at: np.ndarray, make: Callable[[], object]
) -> np.ndarray:
    """One model an arm."""
    return np.stack([make().fit(x[arm == a], y[arm == a]).predict(at) for a in range(ARMS)], axis=1)


def econml(
    x: np.ndarray, arm: np.ndarray, y: np.ndarray, at: np.ndarray, kind: Callable[..., object]
) -> np.ndarray:
    """Effects by EconML, beside the level by LightGBM."""
    small = partial(LGBMRegressor, n_estimators=60, num_leaves=7, verbose=-1, n_jobs=1)
    treatment = LGBMClassifier(n_estimators=10, num_leaves=4, verbose=-1, n_jobs=1)
    estimator = kind(
        model_y=small(), model_t=treatment, discrete_treatment=True, cv=3, random_state=0
    ).fit(y, arm, X=x)
    effects = np.column_stack([np.zeros(len(at)), estimator.const_marginal_effect(at)])
    mean = small().fit(x, y).predict(at)
    return (mean - effects @ (np.bincount(arm, minlength=ARMS) / len(arm)))[:, None] + effects


FOREST = partial(RandomForestRegressor, 100, min_samples_leaf=5, n_jobs=1, random_state=0)
BOOSTED = partial(LGBMRegressor, verbose=-1, n_jobs=1)
MODELS: dict[str, Predict] = {
    "random forest an arm": partial(an_arm, make=FOREST),
    "LightGBM an arm": partial(an_arm, make=BOOSTED),
    "LightGBM with the arm as a feature": with_arm,
    "the same, 30 trees of 7 leaves": partial(with_arm, n_estimators=30, num_leaves=7),
    "CausalForestDML": partial(econml, kind=partial(CausalForestDML, n_estimators=100, n_jobs=1)),
    "LinearDML": partial(econml, kind=LinearDML),
}


def out_of_fold(predict: Predict, x: np.ndarray, arm: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Predict every row by a model of the other four folds."""
    theta = np.empty((len(y), ARMS))
    for seen, held in KFold(5, shuffle=True, random_state=1).split(x):
        theta[held] = predict(x[seen], arm[seen], y[seen], x[held])
    return theta


def errors(theta: np.ndarray, arm: np.ndarray) -> float:
    """Return how far predictions stand out, in standard errors."""
    return own_treatment(theta, np.eye(ARMS)[arm], np.zeros(len(arm))).z


def main() -> None:
    """Print a line a model, and one for many experiments of honest responses."""
    warnings.filterwarnings("ignore")
    for name, predict in MODELS.items():
        trials = [simulated(ROWS, seed) for seed in range(EXPERIMENTS)]
        line = {
            "in_sample": [errors(predict(*trial, trial[0]), trial[1]) for trial in trials],
            "out_of_fold": [errors(out_of_fold(predict, *trial), trial[1]) for trial in trials],
        }
        rounded = {key: [round(z, 1) for z in found] for key, found in line.items()}
        print(json.dumps({"model": name, "rows": ROWS, **rounded}), flush=True)
    found = []
    for seed in range(HONEST_EXPERIMENTS):
        trial = simulated(HONEST_ROWS, 100 + seed)
        theta = out_of_fold(partial(with_arm, n_estimators=50), *trial)
        found.append(errors(theta, trial[1]))
    mean, deviation, largest = (round(float(f(found)), 2) for f in (np.mean, np.std, np.max))
    line = {"mean": mean, "deviation": deviation, "largest": largest}
    print(json.dumps({"honest experiments": len(found), "rows": HONEST_ROWS, **line}), flush=True)


if __name__ == "__main__":
    main()
