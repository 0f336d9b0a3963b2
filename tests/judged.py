"""Experiments of known truth, judged by a run's own mathematics without Spark.

Three arms (none, a letter, a visit) whose effects differ with one feature, treated alike for
everybody, within two strata, or by village. Outcomes of a village have a common part: ``icc`` is
its share of the noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from coarse_spark.core.basis import Basis
from coarse_spark.core.design import corrected, moment_sums, representer, row_moments
from coarse_spark.core.learners.crossfit import fit_models
from coarse_spark.core.learners.encoding.rows import TrialRows
from coarse_spark.core.learners.folds import hash_uniform
from coarse_spark.core.learners.model import load_model
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.search import best_single, search_menus
from coarse_spark.core.menu.units import WeightedUnits, assign
from coarse_spark.core.profit import Profit
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.core.values import ScoreMoments

SPACE = TreatmentSpace.from_dict(
    {"arm": {"kind": "categorical", "levels": ["none", "letter", "visit"], "control": "none"}}
)
BASIS, PROBLEM = Basis("arms", SPACE), MenuProblem.build(SPACE, "arms", Profit())
FOLDS = 5
QUANTITIES = ("control", "best single", "menu of 2", "menu − single")
_POPULATION = np.random.default_rng(123).normal(size=(4_000, 3))  # that policies are valued on


@dataclass(frozen=True)
class Design:
    """How a simulated experiment was run: ``kind`` is randomized, stratified or clustered."""

    kind: str
    units: int = 1_500
    villages: int = 0
    icc: float = 0.0

    def __str__(self) -> str:
        if self.kind != "clustered":
            return f"{self.kind}, {self.units} units"
        return f"{self.villages} villages, ICC {self.icc:g}"


class Trial(NamedTuple):
    X: np.ndarray
    arm: np.ndarray
    y: np.ndarray
    village: np.ndarray | None
    strata: np.ndarray | None


class Judged(NamedTuple):
    """(4,) estimates of ``QUANTITIES``, their truths, and half the widths of their intervals."""

    estimate: np.ndarray
    truth: np.ndarray
    reach: np.ndarray


def responses(X: np.ndarray) -> np.ndarray:
    """The true mean outcome (n, 3) under every arm: of all alike, the letter is best by far."""
    base = 1 + 0.5 * X[:, 0]
    return np.column_stack([base, base + 0.9 + 0.3 * X[:, 1], base + 0.1 - 0.4 * X[:, 1]])


def drawn(design: Design, rng: np.random.Generator) -> Trial:
    """An experiment of that design; 5 to 29 units live in a village, and all get its arm."""
    village, strata, units = None, None, design.units
    if design.kind == "clustered":
        village = np.repeat(np.arange(design.villages), rng.integers(5, 30, design.villages))
        units = len(village)
    X = rng.normal(size=(units, 3))
    noise = np.sqrt(1 - design.icc) * rng.normal(size=units)
    if village is not None:
        arm = rng.permutation(np.arange(design.villages) % 3)[village]
        noise += np.sqrt(design.icc) * rng.normal(size=design.villages)[village]
    elif design.kind == "stratified":
        strata = (X[:, 0] + rng.normal(size=units) > 0).astype(int)
        mixes = np.array([[0.6, 0.9], [0.2, 0.5]])[strata]
        arm = (rng.random(units)[:, None] > mixes).sum(axis=1)
    else:
        arm = rng.integers(0, 3, units)
    return Trial(X, arm, responses(X)[np.arange(units), arm] + noise, village, strata)


def judged(trial: Trial, *, learner: str = "sieve", seed: int = 0) -> Judged:
    """Judge control, the best single arm and the menu of two as a run does, beside the truth.

    The truth is that of what was judged: the policies of the folds, each on its share of the units.
    """
    units, frame = len(trial.y), pd.DataFrame(trial.X, columns=list("abc"))
    cluster = np.arange(units) if trial.village is None else trial.village
    fold = (hash_uniform(cluster, seed + 7) % np.uint64(FOLDS)).astype(np.int64)
    T = trial.arm[:, None].astype(float)
    rows = TrialRows(
        frame, T, trial.y, fold=fold, folds=FOLDS, strata=trial.strata, cluster=cluster
    )
    settings = LearnerSettings(learner=learner, scale="additive")
    models = fit_models(rows, basis=BASIS, settings=settings, seed=seed)
    phi = BASIS(T)
    weights = representer(phi, row_moments(moment_sums(phi, trial.strata), trial.strata, units))
    scores = np.empty((units, 3))
    truth, population = np.zeros(3), pd.DataFrame(_POPULATION, columns=list("abc"))
    gains = responses(_POPULATION) - responses(_POPULATION)[:, :1]
    for number in range(FOLDS):
        model, here = load_model(models[number]), np.flatnonzero(fold == number)
        theta, others = model.predict(frame), np.flatnonzero(fold != number)
        known = WeightedUnits.of(theta[others], np.ones(len(others)))
        debiased = corrected(theta[here], phi[here], trial.y[here], weights[here])
        scores[here, 0] = debiased @ PROBLEM.control_psi[:-1] + PROBLEM.control_psi[-1]
        truth += len(here) / units  # the control's mean outcome is 1
        theirs = model.predict(population)
        menus = (best_single(PROBLEM, known), search_menus(PROBLEM, known, [2])[2])
        for place, menu in enumerate(menus, 1):
            psi = menu.psi[assign(theta[here], menu.priced_psi)]
            scores[here, place] = (debiased * psi[:, :-1]).sum(axis=1) + psi[:, -1]
            given = menu.psi[assign(theirs, menu.priced_psi)][:, :-1]
            truth[place] += len(here) / units * (given * gains).sum(axis=1).mean()
    one, center = np.ones(units), np.zeros(3)
    moments = ScoreMoments.of(ScoreMoments.sums(scores, one, center, trial.village), center)
    z = np.array([*(moments.quantile(0.95, j) for j in range(3)), moments.quantile(0.95, 2, 1)])
    gain, error = moments.contrast(2, 1)
    return Judged(
        np.append(moments.mean, gain),
        np.append(truth, truth[2] - truth[1]),
        z * np.append(moments.errors, error),
    )
