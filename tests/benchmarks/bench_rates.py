"""Scales of responses for outcomes of 0 and 1, beside scikit-learn, one JSON object a line.

    python tests/benchmarks/bench_rates.py                    about ten minutes
    python tests/benchmarks/bench_rates.py --rows 20000 --seeds 1

Buyers get a discount of 0 to 30 %, at random, which a part of the margin pays for. Its effect
differs by customer: in the logit of low rates (mostly 2 to 15 %) or middle ones (20 to 80 %), or in
the rate itself. Accuracy is the share of (granular − best uniform) profit that the estimated
granular policy earns at the truth, on 20,000 new units; outside is the share of units whose
predicted rate leaves 0 … 1 at some discount. The peers are S-learners: logistic regression with
products of features and discount, which knows the form of the first two truths, and boosting.
"""

from __future__ import annotations

import json
import time
import warnings

import numpy as np
import pandas as pd
from common import NEW_UNITS, learner_options, line, own_process

TRUTHS = {"low": 1.4, "middle": 0.9, "additive": 1.0}  # with the margin that a discount costs
OURS = ("auto", "additive", "relative", "logistic")
PEERS = ("LogisticRegression", "HistGradientBoostingClassifier")
LARGEST = 0.3
DISCOUNTS = np.linspace(0, LARGEST, 31)


def customers(rows: int, rng: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame(rng.normal(size=(rows, 8)), columns=list("abcdefgh"))


def rates(truth: str, X: pd.DataFrame, discount: np.ndarray | float) -> np.ndarray:
    from scipy.special import expit

    a, b, share = X["a"].to_numpy(), X["b"].to_numpy(), np.asarray(discount) / LARGEST
    reacts = 1.5 * np.tanh(1.5 * X["c"].to_numpy()) + 0.75 * (X["d"].to_numpy() > 0)
    if truth == "low":
        return expit(-3.05 + 0.45 * a + 0.25 * b + share * (0.45 + 0.5 * reacts))
    if truth == "middle":
        return expit(-0.3 + 0.6 * a + 0.4 * b + share * (0.5 + 0.7 * reacts))
    return 0.15 + 0.4 * expit(a + 0.6 * b) + share * (0.08 + 0.1 * reacts)


def predicted(
    learner: str, X: pd.DataFrame, discount: np.ndarray, y: np.ndarray, new: pd.DataFrame
) -> tuple[np.ndarray, str | None]:
    """Rates of new units at all discounts, and the scale that was chosen."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from coarse_spark import ResponseLearner, TreatmentSpace

    if learner in OURS:
        dimension = {"kind": "continuous", "lower": 0, "upper": LARGEST, "control": 0}
        space = TreatmentSpace.from_dict({"discount": dimension})
        model = ResponseLearner(basis="quadratic", scale=learner, space=space)
        model.fit(X, pd.DataFrame({"discount": discount}), y)
        phi = model.basis_(space.encode(pd.DataFrame({"discount": DISCOUNTS})))
        return model.predict(new) @ phi.T, model.scale_
    linear = learner == "LogisticRegression"
    peer = (
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        if linear
        else HistGradientBoostingClassifier(learning_rate=0.05, random_state=0)
    )

    def design(X: pd.DataFrame, discount: np.ndarray) -> np.ndarray:
        columns, t = X.to_numpy(), discount[:, None]
        products = [t**2, columns * t] if linear else []
        return np.hstack([columns, t, *products])

    peer.fit(design(X, discount), y)
    found = [peer.predict_proba(design(new, np.full(len(new), given)))[:, 1] for given in DISCOUNTS]
    return np.column_stack(found), None


def worker(truth: str, rows: int, seed: int) -> None:
    warnings.filterwarnings("ignore")
    rng = np.random.default_rng([seed, rows])
    X, discount = customers(rows, rng), rng.uniform(0, LARGEST, rows)
    y = (rng.random(rows) < rates(truth, X, discount)).astype(float)
    new = customers(NEW_UNITS, rng)
    margin = 1 - TRUTHS[truth] * DISCOUNTS
    profit = np.column_stack([rates(truth, new, given) for given in DISCOUNTS]) * margin
    uniform, granular = profit.mean(axis=0).max(), profit.max(axis=1).mean()
    found = {}
    for learner in (*OURS, *PEERS):
        start = time.process_time()
        rate, scale = predicted(learner, X, discount, y, new)
        cpu = time.process_time() - start
        earned = profit[np.arange(len(new)), (rate * margin).argmax(axis=1)].mean()
        found[learner] = {
            "share": (earned - uniform) / (granular - uniform),
            "outside": float(((rate < 0) | (rate > 1)).any(axis=1).mean()),
            "cpu": cpu,
            "scale": scale,
        }
    print(json.dumps(found))


def main() -> None:
    options = learner_options(__doc__, [5_000, 20_000], 6).parse_args()
    if options.worker:
        truth, rows, seed = options.worker
        worker(truth, int(rows), int(seed))
        return
    for truth in TRUTHS:
        for rows in options.rows:
            found = [own_process(__file__, truth, rows, seed) for seed in range(options.seeds)]
            means = {
                f"{key}_{learner}": round(float(np.mean([one[learner][key] for one in found])), 4)
                for key in ("share", "outside", "cpu")
                for learner in (*OURS, *PEERS)
            }
            chosen = [one["auto"]["scale"] for one in found]
            print(
                json.dumps(
                    line(
                        f"{truth} rates n={rows}",
                        means["share_auto"],
                        max(means[f"share_{peer}"] for peer in PEERS),
                        "share of granular - uniform",
                        seeds=options.seeds,
                        chosen={scale: chosen.count(scale) for scale in sorted(set(chosen))},
                        **means,
                    )
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
