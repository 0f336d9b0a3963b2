"""Experiments of known truth, judged by a run's own mathematics without Spark.

Three arms (none, a letter, a visit) whose effects differ with features, treated alike for
everybody, within two strata, as their features say, or by village. Outcomes of a village have a
common part: ``icc`` is its share of the noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from coarse_spark.core.basis import Basis
from coarse_spark.core.design import corrected, moment_sums, representer, row_moments
from coarse_spark.core.learned_design import CrossFittedDesign, DesignPreparation, DesignRows
from coarse_spark.core.learners.crossfit import fit_models
from coarse_spark.core.learners.encoding.rows import TrialRows
from coarse_spark.core.learners.folds import hash_uniform
from coarse_spark.core.learners.model import load_model
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.menu.menu import PricedMenu
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
POLICIES = ("control", "best single", "menu of 2", "granular")
QUANTITIES = (*POLICIES, "menu − single", "captured of control", "captured of single")
# that policies are valued on: evenly spread, as the error of its means counts as theirs
_POPULATION = stats.norm.ppf(stats.qmc.Sobol(3, seed=123).random_base2(13))


@dataclass(frozen=True)
class Design:
    """How a simulated experiment was run, and how much its units differ.

    ``kind`` is randomized, stratified, learned or clustered.
    """

    kind: str
    units: int = 1_500
    villages: int = 0
    icc: float = 0.0
    spread: float = 1.0
    noise: float = 1.0

    def __str__(self) -> str:
        if self.kind != "clustered":
            return f"{self.kind}, {self.units} units, spread {self.spread:g}, noise {self.noise:g}"
        return f"{self.villages} villages, ICC {self.icc:g}"


class Trial(NamedTuple):
    design: Design
    X: np.ndarray
    arm: np.ndarray
    y: np.ndarray
    village: np.ndarray | None
    strata: np.ndarray | None


class Judged(NamedTuple):
    """(7,) truths of ``QUANTITIES`` and the ends of their intervals, infinite where not known."""

    truth: np.ndarray
    low: np.ndarray
    high: np.ndarray


def coverage(found: Sequence[Judged]) -> np.ndarray:
    """How often intervals held the truth (7,)."""
    truth, low, high = (np.array(part) for part in zip(*found, strict=True))
    # where two policies are one, their difference misses by nothing
    missed = (truth < low - 1e-9) | (truth > high + 1e-9)
    return np.asarray(1 - missed.mean(axis=0))


def responses(X: np.ndarray, spread: float = 1.0) -> np.ndarray:
    """The true mean outcome (n, 3) under every arm: of all alike, the letter is best by far."""
    base = 1 + 0.5 * X[:, 0]
    both = base + 0.6 * (spread - 1) * X[:, 2]
    letter, visit = 0.9 + 0.3 * spread * X[:, 1], 0.1 - 0.4 * spread * X[:, 1]
    return np.column_stack([base, both + letter, both + visit])


def drawn(design: Design, rng: np.random.Generator) -> Trial:
    """An experiment of that design; 5 to 29 units live in a village, and all get its arm."""
    village, strata, units = None, None, design.units
    if design.kind == "clustered":
        village = np.repeat(np.arange(design.villages), rng.integers(5, 30, design.villages))
        units = len(village)
    X = rng.normal(size=(units, 3))
    noise = design.noise * np.sqrt(1 - design.icc) * rng.normal(size=units)
    if village is not None:
        arm = rng.permutation(np.arange(design.villages) % 3)[village]
        noise += np.sqrt(design.icc) * rng.normal(size=design.villages)[village]
    elif design.kind == "stratified":
        strata = (X[:, 0] + rng.normal(size=units) > 0).astype(int)
        mixes = np.array([[0.6, 0.9], [0.2, 0.5]])[strata]
        arm = (rng.random(units)[:, None] > mixes).sum(axis=1)
    elif design.kind == "learned":
        more = 0.5 + 0.15 * np.tanh(X[:, 0])
        arm = (rng.random(units)[:, None] > np.column_stack([0.6 * more, more + 0.15])).sum(axis=1)
    else:
        arm = rng.integers(0, 3, units)
    y = responses(X, design.spread)[np.arange(units), arm] + noise
    return Trial(design, X, arm, y, village, strata)


def judged(trial: Trial, *, learner: str = "sieve", seed: int = 0) -> Judged:
    """Judge ``POLICIES`` as a run does, beside the truth.

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
    weights = _representer(trial, frame, fold)
    scores, truth = np.empty((units, len(POLICIES))), np.zeros(len(POLICIES))
    population = pd.DataFrame(_POPULATION, columns=list("abc"))
    outcomes = responses(_POPULATION, trial.design.spread)
    gains = outcomes - outcomes[:, :1]  # the control's mean outcome is 1
    for number in range(FOLDS):
        model, here = load_model(models[number]), np.flatnonzero(fold == number)
        theta, others = model.predict(frame), np.flatnonzero(fold != number)
        known = WeightedUnits.of(theta[others], np.ones(len(others)))
        debiased = corrected(theta[here], BASIS(T[here]), trial.y[here], weights[here])
        theirs = model.predict(population)
        menus = (best_single(PROBLEM, known), search_menus(PROBLEM, known, [2])[2])
        for place, (judges, valued) in enumerate(
            zip(_policies(theta[here], menus), _policies(theirs, menus), strict=True)
        ):
            scores[here, place] = (debiased * judges[:, :-1]).sum(axis=1) + judges[:, -1]
            mean = 1 + (valued[:, :-1] * gains).sum(axis=1).mean()
            truth[place] += len(here) / units * mean
    center = np.zeros(len(POLICIES))
    sums = ScoreMoments.sums(scores, np.ones(units), center, trial.village)
    return _intervals(ScoreMoments.of(sums, center), truth)


def _representer(trial: Trial, frame: pd.DataFrame, fold: np.ndarray) -> np.ndarray:
    """Λ(x)⁻¹φ(t) (n, 3) of the units, with Λ as the kind of the design says."""
    T = trial.arm[:, None].astype(float)
    phi = BASIS(T)
    if trial.design.kind == "learned":
        rows = DesignRows(frame, phi, fold, fold, np.ones(len(T)))
        preparation = DesignPreparation.fit(frame, T, basis=BASIS, weight=rows.weight)
        return CrossFittedDesign.fit(preparation, rows).representer(frame, phi, fold)
    return representer(phi, row_moments(moment_sums(phi, trial.strata), trial.strata, len(T)))


def _policies(theta: np.ndarray, menus: Sequence[PricedMenu]) -> Iterator[np.ndarray]:
    """The profit rows (n, 4) of what units get under each of ``POLICIES``."""
    yield np.broadcast_to(PROBLEM.control_psi, (len(theta), theta.shape[1] + 1))
    for menu in menus:
        yield menu.psi[assign(theta, menu.priced_psi)]
    yield PROBLEM.psi_at(PROBLEM.granular(theta)[0])


def _intervals(moments: ScoreMoments, truth: np.ndarray) -> Judged:
    count = len(POLICIES)
    z = np.array([*(moments.quantile(0.95, j) for j in range(count)), moments.quantile(0.95, 2, 1)])
    gain, error = moments.contrast(2, 1)
    estimate, reach = np.append(moments.mean, gain), z * np.append(moments.errors, error)
    shares = [moments.share_interval(moments.mean, 2, base, 3, 0.95) for base in (0, 1)]
    # a share that is not identified may be any
    low, high = (
        np.nan_to_num(ends, nan=any_)
        for ends, any_ in zip(np.array(shares).T, (-np.inf, np.inf), strict=True)
    )
    # of nothing there is no share
    gains = [truth[3] - truth[base] or np.nan for base in (0, 1)]
    true = [(truth[2] - truth[base]) / gain for base, gain in enumerate(gains)]
    return Judged(
        np.array([*truth, truth[2] - truth[1], *true]),
        np.append(estimate - reach, low),
        np.append(estimate + reach, high),
    )
