"""Responses on a relative scale beside additive ones and EconML, one JSON object a line.

    python tests/benchmarks/bench_relative.py                    about a quarter of an hour
    python tests/benchmarks/bench_relative.py --rows 20000 --seeds 1

The data are ``simulate promotions``, pooled over markets and on all features: spend and its noise
grow with the customer, and the margin falls with the discount. Accuracy is the share of
(granular − best uniform) profit that the estimated granular policy earns at the truth, on 20,000
new units; ``menu_of_8`` is that of a menu of eight, and ``known_of_8`` what the best eight that are
found earn with responses that are known: no menu of so many earns more than ``bound_of_8``. Every
fit runs in a process of its own with one thread. EconML has no baseline: it gets the mean outcome
of scikit-learn's histogram boosting less what it thinks the treatments did.
"""

from __future__ import annotations

import json
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
from bench_fit import econml
from common import NEW_UNITS, captured, learner_options, line, own_process

TARGETS = {20_000: 0.74, 60_000: 0.82}
OURS = ("auto", "additive")
PEERS = ("LinearDML", "CausalForestDML")
TREATMENTS = ["depth", "days"]
SIZES, SEARCHED = (8, 16), 10_000  # of menus, and new units that they are searched on


def customers(rows: int, seed: int, *, experiment: bool) -> pd.DataFrame:
    from coarse_spark.simulate.promotions import BLOCK_ROWS, simulate_promotions_block

    sizes = [min(BLOCK_ROWS, rows - first) for first in range(0, rows, BLOCK_ROWS)]
    return pd.concat(
        [
            simulate_promotions_block(number, seed, size, experiment=experiment)
            for number, size in enumerate(sizes)
        ],
        ignore_index=True,
    )


def predicted(learner: str, sample: pd.DataFrame, new: pd.DataFrame) -> tuple[np.ndarray, Any]:
    """Response coefficients of new units, and their basis."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    from coarse_spark import ResponseLearner, TreatmentSpace
    from coarse_spark.core.basis import Basis
    from coarse_spark.simulate.promotions import FEATURES, MAX_DAYS, MAX_DEPTH

    space = TreatmentSpace.from_dict(
        {
            name: {"kind": "continuous", "lower": 0, "upper": upper, "control": 0}
            for name, upper in zip(TREATMENTS, (MAX_DEPTH, MAX_DAYS), strict=True)
        }
    )
    basis, features = Basis("quadratic", space), ["market", *FEATURES]
    if learner in OURS:
        model = ResponseLearner(basis="quadratic", scale=learner, space=space)
        model.fit(sample[features], sample[TREATMENTS], sample["spend"])
        return model.predict(new[features]), basis
    both = pd.get_dummies(pd.concat([sample[features], new[features]]), dtype=float)
    both = both.fillna(both.mean())
    X, wanted, y = both.iloc[: len(sample)], both.iloc[len(sample) :], sample["spend"].to_numpy()
    theta = econml(learner)(X, sample[TREATMENTS], y)(wanted)
    mean = HistGradientBoostingRegressor(random_state=0).fit(X, y).predict(wanted)
    given = basis(space.encode(sample[TREATMENTS])).mean(axis=0)
    theta[:, 0] = mean - theta @ given
    return theta, basis


def menus(
    theta: np.ndarray, truth: np.ndarray, basis: Any, profit: Any, psi: np.ndarray
) -> dict[str, float]:
    """Shares, as of ``captured``, of menus of learned responses and of those that are known."""
    from coarse_spark import choose_menu
    from coarse_spark.core.profit import profit_matrix

    everything = profit_matrix(truth, psi)
    uniform, granular = everything.mean(axis=0).max(), everything.max(axis=1).mean()
    found = {}
    for k in SIZES:
        for name, responses in (("menu", theta), ("known", truth)):
            menu = choose_menu(
                responses[:SEARCHED], space=basis.space, basis=basis, profit=profit, k=k
            )
            earned = profit_matrix(truth, menu.psi)[np.arange(len(truth)), menu.assign(responses)]
            found[f"{name}_of_{k}"] = float((earned.mean() - uniform) / (granular - uniform))
        gain = menu.granular_value - menu.uniform_value
        found[f"bound_of_{k}"] = (menu.upper_bound - menu.uniform_value) / gain
    return found


def worker(learner: str, rows: int, seed: int) -> None:
    from coarse_spark import Profit

    warnings.filterwarnings("ignore")
    sample = customers(rows, seed, experiment=True)
    new = customers(NEW_UNITS, 1000 + seed, experiment=False)
    start = time.process_time()
    theta, basis = predicted(learner, sample, new)
    cpu = time.process_time() - start
    grid = np.stack(np.meshgrid(np.arange(41.0), np.arange(29.0)), axis=-1).reshape(-1, 2)
    profit = Profit(
        margin="0.45 - depth / 100", cost="where(depth + days > 0, 0.15, 0) + 0.01 * days"
    )
    truth = new[[f"theta_{j}" for j in range(6)]].to_numpy()
    psi = profit.psi(grid, basis)
    found = {"share": captured(theta, truth, psi), "cpu": cpu}
    if learner == "auto":
        found |= menus(theta, truth, basis, profit, psi)
    print(json.dumps(found))


def main() -> None:
    options = learner_options(__doc__, [20_000, 60_000], 3).parse_args()
    if options.worker:
        learner, rows, seed = options.worker
        worker(learner, int(rows), int(seed))
        return
    for rows in options.rows:
        means = {}
        for learner in (*OURS, *PEERS):
            found = [own_process(__file__, learner, rows, seed) for seed in range(options.seeds)]
            means[learner] = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
        shares = {learner: round(mean["share"], 4) for learner, mean in means.items()}
        sized = {name: round(value, 4) for name, value in means["auto"].items() if "_of_" in name}
        cpu = {f"cpu_{learner}": round(mean["cpu"], 1) for learner, mean in means.items()}
        print(
            json.dumps(
                line(
                    f"promotions n={rows}",
                    means["auto"]["share"],
                    max(means[peer]["share"] for peer in PEERS),
                    "share of granular - uniform",
                    target=TARGETS.get(rows),
                    seeds=options.seeds,
                    **shares,
                    **sized,
                    **cpu,
                )
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
