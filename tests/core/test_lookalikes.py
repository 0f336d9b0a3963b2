"""Simulations that look like what failed on real data, with the truth that those hide.

Each stands where the part is tested that failed:

1. spend of few buyers with heavy tails, which a discount moves in proportion: here;
2. a rare yes or no whose predicted chances leave 0 … 1: here, and told in
   ``tests/spark/test_rates.py``;
3. −999 and 9999 for missing, and heavy tails, in features: ``test_learners_units``;
4. strata and partitions of controls only, or without an arm: ``tests/spark/test_small_strata.py``
   (the whole run), ``test_strata`` (values after merging);
5. villages that were treated together: ``test_coverage`` (cross-fitted intervals cover),
   ``test_clusters`` (those that ignore villages do not), ``tests/spark/test_experiment_clusters``;
6. letters that nobody got, a control that has none of the dimensions, gaps between levels:
   ``test_factorial`` on ``tests/fundraising.py``, and ``test_support``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from coarse_spark import Profit, TreatmentSpace
from coarse_spark.core.basis import Basis
from coarse_spark.core.design import corrected, moment_sums, representer, row_moments
from coarse_spark.core.learners.choose_scale import choose_scale
from coarse_spark.core.learners.crossfit import fit_models
from coarse_spark.core.learners.encoding.rows import TrialRows
from coarse_spark.core.learners.folds import ALL_FOLDS
from coarse_spark.core.learners.model import load_model
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.search import search_menus
from coarse_spark.core.menu.units import WeightedUnits, assign
from coarse_spark.core.profit import profit_matrix
from coarse_spark.core.values import Policy, ScoreMoments, select_menu_size

pytestmark = pytest.mark.slow

DISCOUNT = TreatmentSpace.from_dict(
    {"discount": {"kind": "continuous", "lower": 0, "upper": 0.3, "step": 0.1, "control": 0}}
)
CALL = TreatmentSpace.from_dict(
    {"arm": {"kind": "categorical", "levels": ["none", "call"], "control": "none"}}
)
FOLDS = 3


def numbers(rng: np.random.Generator, rows: int, columns: int) -> pd.DataFrame:
    return pd.DataFrame(rng.normal(size=(rows, columns))).add_prefix("x")


def published(
    rows: TrialRows, problem: MenuProblem, sizes: tuple[int, ...]
) -> tuple[str, np.ndarray, PricedMenu, PricedMenu]:
    """What a run publishes: the scale, responses (n, p), the menu of K, and that of one."""
    basis = problem.basis
    scale = choose_scale(rows, basis=basis, settings=LearnerSettings(scale="auto")).scale
    models = fit_models(rows, basis=basis, settings=LearnerSettings(scale=scale))
    phi = basis(rows.T)
    weights = representer(phi, row_moments(moment_sums(phi), None, len(rows)))
    everybody = np.arange(len(rows))

    def menus(theta: np.ndarray) -> dict[int, PricedMenu]:
        return search_menus(problem, WeightedUnits.of(theta, np.ones(len(theta))), sizes)

    theta = {number: load_model(models[number]).predict(rows.X) for number in range(FOLDS)}
    debiased = corrected(np.stack(list(theta.values()))[rows.fold, everybody], phi, rows.y, weights)
    scores = np.empty((FOLDS, len(rows), len(sizes)))
    for number, learned in theta.items():
        for place, menu in enumerate(menus(learned[rows.fold != number]).values()):
            psi = menu.psi[assign(learned, menu.priced_psi)]
            scores[number, :, place] = (debiased * psi[:, :-1]).sum(axis=1) + psi[:, -1]
    own, center = scores[rows.fold, everybody], np.zeros(len(sizes))
    moments = ScoreMoments.of(ScoreMoments.sums(own, np.ones(len(rows)), center), center)
    policies = [Policy("menu", k) for k in sizes]
    # the menu of one is the best single treatment
    k, _ = select_menu_size([Policy("uniform", 1), *policies], _first_twice(moments), "auto", 0.01)
    served = load_model(models[ALL_FOLDS]).predict(rows.X)
    found = menus(served)
    return scale, served, found[k], found[1]


def _first_twice(moments: ScoreMoments) -> ScoreMoments:
    order = np.array([0, *range(len(moments.mean))])
    covariance = moments.covariance[np.ix_(order, order)]
    return replace(moments, mean=moments.mean[order], covariance=covariance)


def earned(truth: np.ndarray, theta: np.ndarray, menu: PricedMenu) -> float:
    """Mean profit at the true responses (n, p) where units choose from a menu by ``theta``."""
    psi = menu.psi[assign(theta, menu.priced_psi)]
    return float((truth * psi[:, :-1]).sum(axis=1).mean() + psi[:, -1].mean())


@pytest.mark.parametrize("seed", range(3))
def test_spend_that_moves_in_proportion_personalizes_nobody(seed: int) -> None:
    """Nine in ten buy nothing, a few spend a hundredfold; one discount is best for all of them."""
    rng, units = np.random.default_rng(seed), 20_000
    X = numbers(rng, units, 10)
    base = np.exp(2 + 0.8 * X["x0"] + 0.5 * X["x1"]).to_numpy()
    discount = rng.choice([0.0, 0.1, 0.2, 0.3], units)
    amount = np.exp(1.2 * rng.normal(size=units) - 0.72) / 0.1
    spend = np.where(rng.random(units) < 0.1, amount * base * (1 + 4 * discount), 0.0)
    problem = MenuProblem.build(DISCOUNT, "linear", Profit("0.5 - discount"))
    rows = TrialRows(X, discount[:, None], spend, fold=np.arange(units) % FOLDS)
    scale, theta, menu, single = published(rows, problem, (1, 2, 3))
    truth = np.column_stack([base, 4 * base])
    assert scale == "relative"
    assert earned(truth, theta, menu) >= 0.99 * earned(truth, theta, single)
    assert earned(truth, theta, menu) > 0.9 * profit_matrix(truth, problem.psi).mean(axis=0).max()


@pytest.mark.parametrize("seed", range(3))
def test_a_rare_success_is_no_reason_to_call_whom_it_hardly_moves(seed: int) -> None:
    """Four in a hundred succeed; a call gains one in a hundred, with everybody, and costs two."""
    rng, units = np.random.default_rng(seed), 6_000
    X = numbers(rng, units, 10)
    chance = 0.03 * np.exp(0.8 * X["x0"].clip(-2, 2)).to_numpy()
    called = rng.integers(0, 2, units)
    success = (rng.random(units) < chance + 0.01 * called).astype(float)
    problem = MenuProblem.build(CALL, Basis("arms", CALL), Profit("1", "0.02 * (arm == 'call')"))
    rows = TrialRows(X, called[:, None].astype(float), success, fold=np.arange(units) % FOLDS)
    _, theta, menu, single = published(rows, problem, (1, 2))
    truth = np.column_stack([chance, chance + 0.01])
    assert earned(truth, theta, menu) >= earned(truth, theta, single) - 0.001
    assert ((theta < 0) | (theta > 1)).any(axis=1).mean() < 0.02
