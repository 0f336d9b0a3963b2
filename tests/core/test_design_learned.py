import numpy as np
import pandas as pd
import pytest

from coarse_spark.core.basis import Basis
from coarse_spark.core.design import corrected, moment_sums, representer
from coarse_spark.core.learned_design import CrossFittedDesign, DesignPreparation
from coarse_spark.core.learners.ridge.gram import GramStatistics
from coarse_spark.core.treatments import TreatmentSpace

UNIT = TreatmentSpace.from_dict({"t": {"kind": "continuous", "lower": 0, "upper": 4, "control": 0}})
ARMS = TreatmentSpace.from_dict(
    {"arm": {"kind": "categorical", "levels": ["a", "b", "c"], "control": "a"}}
)


def confounded(n=20_000, seed=0):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"x": rng.uniform(-1, 1, n), "noise": rng.normal(size=n)})
    T = (2 + X["x"].to_numpy() * 0.8 + rng.uniform(-1, 1, n))[:, None]
    y = 3 * X["x"].to_numpy() + 0.5 * T[:, 0] + rng.normal(size=n)
    return X, T, y


def learned(X, T, basis):
    preparation = DesignPreparation.fit(X, T, basis=basis, weight=np.ones(len(T)))
    return preparation.solve(preparation.sums(X, basis(T), np.ones(len(T))))


def moments_of(design, X):
    """Λ(x) (n, p, p): the inverse of what turns the unit vectors into Λ(x)⁻¹."""
    size = len(design.whitening.matrix)
    columns = [design.representer(X, np.tile(np.eye(size)[j], (len(X), 1))) for j in range(size)]
    return np.linalg.inv(np.stack(columns, axis=2))


def test_learned_moments_are_the_conditional_ones():
    X, T, _ = confounded()
    design = learned(X, T, Basis("linear", UNIT))
    at = pd.DataFrame({"x": [-0.9, 0.0, 0.9], "noise": [0.0, 1.0, -1.0]})
    moments = moments_of(design, at)
    mean = 2 + 0.8 * at["x"].to_numpy()
    np.testing.assert_allclose(moments[:, 0, 0], 1, atol=1e-9)
    np.testing.assert_allclose(moments[:, 0, 1], mean, atol=0.05)
    np.testing.assert_allclose(moments[:, 1, 1], mean**2 + 1 / 3, atol=0.15)


def test_debiasing_with_the_learned_design_removes_confounding():
    X, T, y = confounded()
    basis = Basis("linear", UNIT)
    wrong = np.zeros((len(y), 2))
    phi = basis(T)
    debiased, naive = (
        corrected(wrong, phi, y, weights).mean(axis=0)
        for weights in (
            learned(X, T, basis).representer(X, phi),
            representer(phi, moment_sums(phi)[""].matrix),
        )
    )
    assert debiased[1] == pytest.approx(0.5, abs=0.15)
    assert naive[1] > 1.5


def test_arms_with_propensities_that_depend_on_features():
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, 20_000)
    chance = np.column_stack([0.4 - 0.2 * x, 0.3 + 0 * x, 0.3 + 0.2 * x])
    arm = (rng.random(20_000)[:, None] > chance.cumsum(axis=1)).sum(axis=1)
    design = learned(pd.DataFrame({"x": x}), arm[:, None].astype(float), Basis("arms", ARMS))
    moments = moments_of(design, pd.DataFrame({"x": [-0.8, 0.8]}))
    np.testing.assert_allclose(
        np.einsum("nii->ni", moments), [[0.56, 0.3, 0.14], [0.24, 0.3, 0.46]], atol=0.03
    )
    assert np.abs(moments - np.einsum("nii->ni", moments)[:, :, None] * np.eye(3)).max() < 0.005


def test_a_design_never_sees_the_fold_it_serves_and_batches_add_up():
    X, T, _ = confounded(3_000)
    basis, fold, weight = Basis("linear", UNIT), np.arange(3_000) % 3, np.linspace(0.5, 2, 3_000)
    preparation = DesignPreparation.fit(X, T, basis=basis, weight=weight)

    def crossfitted(T, batches=1):
        sums = {}
        for rows in np.array_split(np.arange(len(T)), batches):
            for number in range(3):
                inside = rows[fold[rows] == number]
                part = preparation.sums(X.iloc[inside], basis(T[inside]), weight[inside])
                sums[number] = sums[number] + part if number in sums else part
        return CrossFittedDesign.solve(
            preparation, {k: GramStatistics.of_flat(part.flat()) for k, part in sums.items()}
        )

    phi = basis(T)
    whole = crossfitted(T).representer(X, phi, fold)
    np.testing.assert_allclose(
        crossfitted(T, batches=7).representer(X, phi, fold), whole, rtol=1e-7, atol=1e-9
    )
    moved = T.copy()
    moved[fold == 1] = 4 - T[fold == 1]
    changed = crossfitted(moved).representer(X, phi, fold)
    np.testing.assert_array_equal(changed[fold == 1], whole[fold == 1])
    assert np.abs(changed[fold == 0] - whole[fold == 0]).max() > 0.1
    # a fold's design is the one learned from the other folds alone
    others = fold != 2
    alone = preparation.solve(preparation.sums(X[others], phi[others], weight[others]))
    np.testing.assert_allclose(
        whole[fold == 2], alone.representer(X[fold == 2], phi[fold == 2]), rtol=1e-7, atol=1e-9
    )
    expected = representer(phi[fold == 2], moments_of(alone, X[fold == 2]))
    np.testing.assert_allclose(whole[fold == 2], expected, rtol=1e-6, atol=1e-8)


def test_values_are_covered_under_confounding_but_not_by_a_randomized_design():
    basis, covered, naive, runs = Basis("linear", UNIT), 0, 0, 60
    for seed in range(runs):
        rng = np.random.default_rng(100 + seed)
        x = rng.uniform(-1, 1, 2_000)
        X, T = (
            pd.DataFrame({"x": x}),
            (2 + 0.8 * x + (1 + 0.5 * x) * rng.uniform(-1, 1, 2_000))[:, None],
        )
        true = np.column_stack([1 + 2 * x, 0.5 + x])
        phi = basis(T)
        y = np.einsum("ij,ij->i", phi, true) + rng.normal(size=2_000)
        wrong = np.column_stack(
            [1 + 2 * x, np.full(2_000, 0.5)]
        )  # a learner that missed who responds more
        fold = rng.integers(0, 5, 2_000)
        preparation = DesignPreparation.fit(X, T, basis=basis, weight=np.ones(2_000))
        sums = {
            k: preparation.sums(X[fold == k], phi[fold == k], np.ones((fold == k).sum()))
            for k in range(5)
        }
        psi = np.array([1.0, 3.0])  # everybody gets 3
        value = 2.5  # of the population
        own = CrossFittedDesign.solve(preparation, sums).representer(X, phi, fold)
        for weights in (own, representer(phi, moment_sums(phi)[""].matrix)):
            scores = corrected(wrong, phi, y, weights) @ psi
            inside = abs(scores.mean() - value) < 1.96 * scores.std() / np.sqrt(len(scores))
            if weights is own:
                covered += inside
            else:
                naive += inside
    assert covered >= 52, "95 % intervals of 60 experiments"
    assert naive <= 3


def test_overlap_tells_a_randomized_design_from_a_deterministic_one():
    rng = np.random.default_rng(2)
    X = pd.DataFrame({"x": rng.uniform(-1, 1, 5000)})
    basis = Basis("linear", UNIT)
    for name, T in (
        ("random", rng.uniform(0, 4, (5000, 1))),
        ("rule", (2 + np.where(X["x"] > 0, 0.01, 1.0) * rng.uniform(-1, 1, 5000))[:, None]),
    ):
        design = CrossFittedDesign({0: learned(X, T, basis)})
        report = design.overlap(X, basis(T), np.zeros(5000), np.ones(5000))
        if name == "random":
            assert report.smallest_eigenvalue > 0.8
            assert report.lifted_share == 0
            assert report.effective_rows > 3500
            assert report.problems() == []
        else:
            assert report.lifted_share > 0.3
            assert "hardly vary in treatment" in report.problems()[0]
