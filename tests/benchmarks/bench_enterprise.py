"""Do no harm: policies learned from rare purchases among many features of which few matter.

    python tests/benchmarks/bench_enterprise.py                     hours; all ten seeds
    python tests/benchmarks/bench_enterprise.py --rows 5000 20000 --seeds 3 --learners auto menu

Sixty features: fifty numbers (some log-normal, some counts), ten categories, four of them of forty
levels; a dozen matter. Without a discount a customer buys with a chance between 2 and 15 %, by its
features, for a log-normal amount whose mean differs by customer; a discount of 0, 5, 10, 20 or 30 %
multiplies the chance, for some customers by up to five and for most hardly, and leaves amounts as
they are; the margin falls with it.

``auto`` is what our learner alone would give everybody, ``single`` the one discount that it takes
for the best, and ``menu`` what is published: K by the honest values of cross-fitted menus, K = 1
where no larger one is better by more than noise. The peers give everybody what they estimate to be
best: LightGBM with the discount as a feature (S-learner), EconML with histogram boosting for the
outcome.

Figures are what a policy earns at the truth, as a share of what full personalization would earn
above the best single discount: above the discount that is best at the truth (``share``), above the
one that the same learner takes for the best (``of_own``), and above no discount (``of_control``).
Below 0 it does harm; below -0.01 by more than is worth telling apart (``menu.tolerance``). Policies
are judged on 20,000 customers, single discounts on a million: a policy earns what the discount that
it gives most earns there, and what it earns more than that one on the 20,000. On these alone 10 or
15 % off is ahead of the other by up to 0.01 by chance; 15 % off is the best, 10 % off earns 0.004
less, 5 and 20 % off 0.28 and 0.29, none and 25 % off 0.86.

Nothing learned from few purchases avoids the first kind of harm. Of 200 experiments of 5,000 rows
(100 of 20,000; 30 of 100,000) even augmented inverse propensity with the TRUE responses, for a
response linear in the discount, took a discount that is 0.28 or more below the best in 29 % (8 %;
none): its standard error of the effect of 30 % off is 0.51 (0.27; 0.10) of the spend without one,
the effect 1.2. Means by arm miss the best in 68 % (59 %; 40 %).

Every fit runs in a process of its own with one thread.
"""

from __future__ import annotations

import json
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
from bench_fit import econml
from common import NEW_UNITS, learner_options, own_process

DISCOUNTS = np.array([0.0, 5.0, 10.0, 20.0, 30.0])
NUMBERS, CATEGORIES, MANY_LEVELS, LEVELS = 50, 10, 4, 40
MARGIN = 0.5
FOLDS, SIZES = 3, (1, 2, 3, 4, 5)
ROUNDING = 1e-9  # of sums over customers
BLOCK, BLOCKS = 100_000, 10  # of customers that single discounts are judged on
OURS = ("auto", "menu", "single")
PEERS = ("LightGBM", "LinearDML", "CausalForestDML")


def customers(rows: int, seed: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Features, the true response (expected spend is θ₀ + θ₁·discount), and the mean amount."""
    rng = np.random.default_rng([seed, rows])
    numbers = rng.normal(size=(rows, NUMBERS))
    X = pd.DataFrame(numbers, columns=[f"number_{j}" for j in range(NUMBERS)])
    for j in range(10, 20):
        X[f"number_{j}"] = np.exp(1.5 * numbers[:, j])
    for j in range(20, 30):
        X[f"number_{j}"] = rng.poisson(np.exp(0.5 * numbers[:, j]))
    codes = np.column_stack(
        [
            # levels of very different shares
            rng.integers(0, LEVELS, rows) ** 2 // LEVELS
            if j < MANY_LEVELS
            else rng.integers(0, 4, rows)
            for j in range(CATEGORIES)
        ]
    )
    for j in range(CATEGORIES):
        X[f"category_{j}"] = [f"level {code:02d}" for code in codes[:, j]]
    of_level = np.random.default_rng(0).normal(size=(CATEGORIES, LEVELS)) / 3
    often = np.clip(
        np.exp(
            -3.1
            + 0.35 * numbers[:, 0]
            + 0.25 * np.maximum(numbers[:, 10], 0)
            + of_level[0, codes[:, 0]]
            + 0.2 * (numbers[:, 1] > 0)
        ),
        0.02,
        0.15,
    )
    amount = np.exp(3.5 + 0.4 * numbers[:, 2] + of_level[1, codes[:, 1]] + 0.3 * numbers[:, 11])
    wanting = 0.8 * numbers[:, 3] + 0.8 * (numbers[:, 4] > 0.5) + of_level[2, codes[:, 2]]
    lift = 4 / (1 + np.exp(-3 * (wanting - 0.8)))  # of spend, at a discount of 30
    base = often * amount
    return X, np.column_stack([base, base * lift / 30]), amount


def experiment(rows: int, seed: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Features, discounts and spend: log-normal amounts of the few who buy."""
    X, theta, amount = customers(rows, seed)
    rng = np.random.default_rng([seed, rows, 1])
    discount = rng.choice(DISCOUNTS, rows)
    # from 2 % for those who buy least at full price to 75 % of the keenest buyers at 30 % off
    chance = (theta[:, 0] + theta[:, 1] * discount) / amount
    spread = 0.8
    amounts = amount * np.exp(spread * rng.normal(size=rows) - spread**2 / 2)
    return X, discount, np.where(rng.random(rows) < chance, amounts, 0.0)


def space() -> Any:
    from coarse_spark import TreatmentSpace

    return TreatmentSpace.from_dict(
        {"discount": {"kind": "continuous", "lower": 0, "upper": 30, "step": 5, "control": 0}}
    )


def profit() -> Any:
    from coarse_spark import Profit

    return Profit(margin=f"{MARGIN} - discount / 100", cost="0")


def lightgbm(X: pd.DataFrame, discount: np.ndarray, y: np.ndarray, new: pd.DataFrame) -> np.ndarray:
    """Expected spend (n, candidates) of an S-learner."""
    from lightgbm import LGBMRegressor

    both = pd.concat([X, new], ignore_index=True)
    for name in both.columns:
        if name.startswith("category"):
            both[name] = both[name].astype("category")
    model = LGBMRegressor(n_jobs=1, random_state=0, verbose=-1)
    model.fit(both.iloc[: len(X)].assign(discount=discount), y)
    wanted = both.iloc[len(X) :]
    return np.column_stack(
        [model.predict(wanted.assign(discount=d)) for d in space().candidates[:, 0]]
    )


def dml(
    name: str, X: pd.DataFrame, discount: np.ndarray, y: np.ndarray, new: pd.DataFrame
) -> np.ndarray:
    """Coefficients (n, 3) of a quadratic, the baseline from histogram boosting."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    both = pd.get_dummies(pd.concat([X, new], ignore_index=True), dtype=float)
    known, wanted = both.iloc[: len(X)], both.iloc[len(X) :]
    theta = econml(name)(known, pd.DataFrame({"discount": discount}), y)(wanted)
    mean = HistGradientBoostingRegressor(random_state=0).fit(known, y).predict(wanted)
    theta[:, 0] = mean - theta @ np.array([0.0, discount.mean(), (discount**2).mean()])
    return theta


def published(
    X: pd.DataFrame, discount: np.ndarray, y: np.ndarray, new: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray, int]:
    """Responses of everybody, treatments (n, 1) by the menu that honest values choose, its size."""
    from coarse_spark import choose_menu
    from coarse_spark.core.basis import Basis
    from coarse_spark.core.design import corrected, representer
    from coarse_spark.core.learners.choose_scale import choose_scale
    from coarse_spark.core.learners.crossfit import fit_models
    from coarse_spark.core.learners.encoding.rows import TrialRows
    from coarse_spark.core.learners.folds import ALL_FOLDS
    from coarse_spark.core.learners.model import load_model
    from coarse_spark.core.learners.settings import LearnerSettings
    from coarse_spark.core.values import Policy, ScoreMoments, select_menu_size

    basis = Basis("linear", space())
    rows = TrialRows(X, discount[:, None], y, fold=np.arange(len(y)) % FOLDS)
    settings = LearnerSettings(scale="auto")
    settings = LearnerSettings(scale=choose_scale(rows, basis=basis, settings=settings).scale)
    models = fit_models(rows, basis=basis, settings=settings)
    options = {"space": space(), "basis": "linear", "profit": profit()}
    policies = [Policy("uniform", 1), *(Policy("menu", k) for k in SIZES)]
    scores = np.empty((len(y), len(policies)))
    phi = basis(rows.T)
    for fold in range(FOLDS):
        held = rows.fold == fold
        model = load_model(models[fold])
        seen, judged = model.predict(X[~held]), model.predict(X[held])
        moments = phi[~held].T @ phi[~held] / (~held).sum()
        debiased = corrected(judged, phi[held], y[held], representer(phi[held], moments))
        for column, policy in enumerate(policies):
            menu = choose_menu(seen, k=policy.k, **options)
            treatments = menu.treatments.to_numpy()[menu.assign(judged)]
            rows_of_profit = profit().psi(treatments, basis)
            scores[held, column] = (
                np.einsum("ij,ij->i", debiased, rows_of_profit[:, :-1]) + rows_of_profit[:, -1]
            )
    center = scores.mean(axis=0)
    moments = ScoreMoments.of(ScoreMoments.sums(scores, np.ones(len(y)), center), center)
    k, _ = select_menu_size(policies, moments)
    theta = load_model(models[ALL_FOLDS]).predict(new)
    menu = choose_menu(theta, k=k, **options)
    return theta, menu.treatments.to_numpy()[menu.assign(theta)], k


def everybody() -> tuple[np.ndarray, float]:
    """What every single discount (J,) and full personalization earn of a million customers."""
    from coarse_spark.core.basis import Basis

    psi = profit().psi(space().candidates, Basis("linear", space()))
    means = []
    for block in range(BLOCKS):
        true = customers(BLOCK, 10_000 + block)[1] @ psi[:, :-1].T + psi[:, -1]
        means.append([*true.mean(axis=0), true.max(axis=1).mean()])
    *single, granular = np.mean(means, axis=0)
    return np.array(single), float(granular)


def worker(learner: str, rows: int, seed: int) -> None:
    from coarse_spark import ResponseLearner
    from coarse_spark.core.basis import Basis

    warnings.filterwarnings("ignore")
    X, discount, y = experiment(rows, seed)
    new, truth, _ = customers(NEW_UNITS, 1000 + seed)
    candidates = space().candidates

    def earned(theta: np.ndarray, basis: str) -> np.ndarray:
        psi = profit().psi(candidates, Basis(basis, space()))
        return theta @ psi[:, :-1].T + psi[:, -1]

    found: dict[str, float] = {}
    start = time.process_time()
    chosen = None
    if learner == "menu":
        theta, treatments, found["k"] = published(X, discount, y, new)
        chosen = np.abs(treatments - candidates[:, 0]).argmin(axis=1)
        expected = earned(theta, "linear")
    elif learner in OURS:
        model = ResponseLearner(basis="linear", learner="auto", space=space())
        theta = model.fit(X, pd.DataFrame({"discount": discount}), y).predict(new)
        if learner == "single":
            theta = np.broadcast_to(theta.mean(axis=0), theta.shape)
        expected = earned(theta, "linear")
    elif learner == "LightGBM":
        margin = MARGIN - candidates[:, 0] / 100
        expected = lightgbm(X, discount, y, new) * margin
    else:
        expected = earned(dml(learner, X, discount, y, new), "quadratic")
    found["cpu"] = time.process_time() - start
    if chosen is None:
        chosen = expected.argmax(axis=1)
    true, (single, granular) = earned(truth, "linear"), everybody()
    most = np.bincount(chosen).argmax()
    value = single[most] + (true[np.arange(len(true)), chosen] - true[:, most]).mean()
    gain = granular - single.max()
    references = {
        "share": single.max(),
        "of_own": single[expected.mean(axis=0).argmax()],
        "of_control": single[0],
    }
    found |= {name: float((value - base) / gain) for name, base in references.items()}
    print(json.dumps(found))


def _of_all(found: list[dict[str, float]], name: str) -> dict[str, float]:
    """Mean and least over the seeds, and how many did harm: any, and more than 0.01."""
    shares = np.array([one[name] for one in found])
    return {
        "mean": round(float(shares.mean()), 4),
        "least": round(float(shares.min()), 4),
        "harmed": int((shares < -ROUNDING).sum()),
        "harmed_by_0.01": int((shares < -0.01).sum()),
    }


def main() -> None:
    parser = learner_options(__doc__, [5_000, 20_000, 100_000], 10)
    parser.add_argument("--learners", nargs="+", default=[*OURS, *PEERS])
    options = parser.parse_args()
    if options.worker:
        learner, rows, seed = options.worker
        worker(learner, int(rows), int(seed))
        return
    for rows in options.rows:
        for learner in options.learners:
            found = [own_process(__file__, learner, rows, seed) for seed in range(options.seeds)]
            result = {
                "name": f"enterprise n={rows} {learner}",
                **_of_all(found, "share"),
                "of_own": _of_all(found, "of_own"),
                "of_control": _of_all(found, "of_control"),
                "shares": [round(one["share"], 3) for one in found],
                "cpu": round(float(np.mean([one["cpu"] for one in found])), 1),
                "unit": "share of granular - uniform",
            }
            if learner == "menu":
                result["k"] = [one["k"] for one in found]
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
