import json

import numpy as np
import pandas as pd
import pytest

from coarse_spark.core.basis import Basis
from coarse_spark.core.design import debiased_coefficients, moment_sums
from coarse_spark.core.learned_design import LearnedDesign
from coarse_spark.core.treatments import TreatmentSpace

UNIT = TreatmentSpace.from_dict({"t": {"kind": "continuous", "lower": 0, "upper": 4, "control": 0}})
ARMS = TreatmentSpace.from_dict({"arm": {"kind": "categorical", "levels": ["a", "b", "c"], "control": "a"}})


def confounded(n=20_000, seed=0):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"x": rng.uniform(-1, 1, n), "noise": rng.normal(size=n)})
    T = (2 + X["x"].to_numpy() * 0.8 + rng.uniform(-1, 1, n))[:, None]
    y = 3 * X["x"].to_numpy() + 0.5 * T[:, 0] + rng.normal(size=n)
    return X, T, y


def test_learned_moments_are_the_conditional_ones():
    X, T, _ = confounded()
    basis = Basis("linear", UNIT)
    design = LearnedDesign.from_dict(json.loads(json.dumps(LearnedDesign.fit(X, T, basis=basis).to_dict())))
    at = pd.DataFrame({"x": [-0.9, 0.0, 0.9], "noise": [0.0, 1.0, -1.0]})
    moments = design.moments(at)
    mean = 2 + 0.8 * at["x"].to_numpy()
    np.testing.assert_allclose(moments[:, 0, 0], 1, atol=1e-9)
    np.testing.assert_allclose(moments[:, 0, 1], mean, atol=0.05)
    np.testing.assert_allclose(moments[:, 1, 1], mean**2 + 1 / 3, atol=0.15)


def test_debiasing_with_the_learned_design_removes_confounding():
    X, T, y = confounded()
    basis = Basis("linear", UNIT)
    wrong = np.zeros((len(y), 2))
    learned = debiased_coefficients(wrong, basis(T), y, LearnedDesign.fit(X, T, basis=basis).moments(X)).mean(axis=0)
    naive = debiased_coefficients(wrong, basis(T), y, moment_sums(basis(T))[""].matrix).mean(axis=0)
    assert learned[1] == pytest.approx(0.5, abs=0.15)
    assert naive[1] > 1.5


def test_arms_with_propensities_that_depend_on_features():
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, 20_000)
    chance = np.column_stack([0.4 - 0.2 * x, 0.3 + 0 * x, 0.3 + 0.2 * x])
    arm = (rng.random(20_000)[:, None] > chance.cumsum(axis=1)).sum(axis=1)
    design = LearnedDesign.fit(pd.DataFrame({"x": x}), arm[:, None].astype(float), basis=Basis("arms", ARMS))
    moments = design.moments(pd.DataFrame({"x": [-0.8, 0.8]}))
    np.testing.assert_allclose(np.einsum("nii->ni", moments), [[0.56, 0.3, 0.14], [0.24, 0.3, 0.46]], atol=0.03)
    assert np.abs(moments - np.einsum("nii->ni", moments)[:, :, None] * np.eye(3)).max() < 0.005


def test_overlap_tells_a_randomized_design_from_a_deterministic_one():
    rng = np.random.default_rng(2)
    X = pd.DataFrame({"x": rng.uniform(-1, 1, 5000)})
    basis = Basis("linear", UNIT)
    for name, T in (
        ("random", rng.uniform(0, 4, (5000, 1))),
        ("rule", (2 + np.where(X["x"] > 0, 0.01, 1.0) * rng.uniform(-1, 1, 5000))[:, None]),
    ):
        report = LearnedDesign.fit(X, T, basis=basis).overlap(X, basis(T))
        if name == "random":
            assert report.smallest_eigenvalue > 0.8
            assert report.lifted_share == 0
            assert report.effective_rows > 3500
            assert report.problems(5000) == []
        else:
            assert report.lifted_share > 0.3
            assert "hardly vary in treatment" in report.problems(5000)[0]
