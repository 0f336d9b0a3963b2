import numpy as np
import pandas as pd
import pytest
from pricing import FEATURES, pricing
from scipy import stats

from coarse_spark.core import learned_design
from coarse_spark.core.basis import Basis
from coarse_spark.core.design import corrected, moment_sums, representer
from coarse_spark.core.learned_design import FLOOR, CrossFittedDesign, DesignPreparation, DesignRows
from coarse_spark.core.learners.encoding.whitening import Whitening
from coarse_spark.core.learners.ridge.gram import GramStatistics
from coarse_spark.core.overlap import Overlap
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError

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


def design_rows(X, T, basis, fold, weight=None):
    weight = np.ones(len(T)) if weight is None else weight
    return DesignRows(X, basis(T), fold, fold, weight)


def crossfitted(X, T, basis, folds=3):
    rows = design_rows(X, T, basis, np.arange(len(T)) % folds)
    preparation = DesignPreparation.fit(X, T, basis=basis, weight=rows.weight)
    return CrossFittedDesign.fit(preparation, rows), rows


def learned(X, T, basis):
    """The design of units from elsewhere."""
    return crossfitted(X, T, basis)[0].designs[0]


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

    def learned_of(T, batches=1):
        rows = design_rows(X, T, basis, fold, weight)
        cut = np.array_split(np.arange(len(T)), batches)

        def added_up(sums_of):
            sums = {}
            for here in cut:
                few = DesignRows(X.iloc[here], rows.phi[here], fold[here], fold[here], weight[here])
                for number, part in sums_of(few).items():
                    sums[number] = sums[number] + part if number in sums else part
            return {k: GramStatistics.of_flat(part.flat()) for k, part in sums.items()}

        means = preparation.means(added_up(preparation.mean_sums), rows)
        sums = added_up(lambda few: preparation.covariance_sums(few, means))
        return preparation.solve(means, sums, rows)

    phi = basis(T)
    whole = learned_of(T).representer(X, phi, fold)
    np.testing.assert_allclose(
        learned_of(T, batches=7).representer(X, phi, fold), whole, rtol=1e-6, atol=1e-8
    )
    moved = T.copy()
    moved[fold == 1] = 4 - T[fold == 1]
    changed = learned_of(moved).representer(X, phi, fold)
    np.testing.assert_array_equal(changed[fold == 1], whole[fold == 1])
    assert np.abs(changed[fold == 0] - whole[fold == 0]).max() > 0.1


@pytest.mark.parametrize("name", ["linear", "quadratic"])
def test_moments_are_valid_and_few_weights_are_large(name):
    """Where a treatment hardly varies its variance is lifted, and nowhere is one negative."""
    rng = np.random.default_rng(3)
    X = pd.DataFrame({"x": rng.uniform(-1, 1, 4_000)})
    T = np.clip(2 + np.where(X["x"] > 0.5, 0.01, 1.5) * rng.normal(size=4_000), 0, 4)[:, None]
    basis = Basis(name, UNIT)
    design = learned(X, T, basis)
    moments = design.whitening.matrix @ moments_of(design, X) @ design.whitening.matrix.T
    np.testing.assert_allclose(moments[:, 0, 0], 1)
    mean = moments[:, 0, 1:]
    covariance = moments[:, 1:, 1:] - mean[:, :, None] * mean[:, None, :]
    assert np.linalg.eigvalsh(covariance).min() > FLOOR * (1 - 1e-6)
    assert np.linalg.eigvalsh(covariance)[X["x"] > 0.6].mean(axis=0)[0] < 2 * FLOOR


def test_a_step_of_a_feature_is_neither_smeared_nor_missed():
    """Of units beside the step, wrong responses are put right by what prices they really had."""
    units = pricing(6_000)
    space = TreatmentSpace.from_dict(
        {"price": {"kind": "continuous", "lower": 0, "upper": 2, "control": 1}}
    )
    X, T, basis = units[list(FEATURES)], units[["price"]].to_numpy(), Basis("linear", space)
    design, rows = crossfitted(X, T, basis)
    beside = (units["income"] > 0.85) & (units["income"] < 1.15)
    price = moments_of(design.designs[0], X[beside])[:, 0, 1]
    low = units.loc[beside, "income"] < 1
    assert price[low].mean() == pytest.approx(0.75, abs=0.02)
    assert price[~low].mean() == pytest.approx(0.9, abs=0.02)
    # a learner that knows the mean demand and one slope for all
    wrong = np.column_stack([units["base"] + 5, np.full(len(units), -15.0)])
    debiased = corrected(
        wrong, rows.phi, units["demand"].to_numpy(), design.representer(X, rows.phi, rows.fold)
    )
    at_control = debiased.sum(axis=1)
    error = at_control.std() / np.sqrt(len(at_control))
    assert abs(at_control.mean() - (units["base"] + units["slope"]).mean()) < 2 * error
    report = design.overlap(rows)
    assert report.imbalance < 0.1
    assert report.problems() == []


def least_squares(x, phi, y, fold):
    """Out-of-fold coefficients that are linear in x."""
    columns, theta = np.column_stack([phi, phi * x[:, None]]), np.empty_like(phi)
    for held in np.unique(fold):
        without, own = fold != held, fold == held
        found = np.linalg.lstsq(columns[without], y[without], rcond=None)[0]
        theta[own] = found[:2] + x[own, None] * found[2:]
    return theta


@pytest.mark.parametrize("runs", [10, pytest.param(500, marks=pytest.mark.slow)])
def test_values_are_covered_under_confounding_but_not_by_a_randomized_design(runs):
    basis = Basis("linear", UNIT)
    covered = dict.fromkeys(
        ("fitted", "wrong", "wrong, design known", "wrong, as if randomized"), 0
    )
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
        fold = rng.integers(0, 3, 2_000)
        preparation = DesignPreparation.fit(X, T, basis=basis, weight=np.ones(2_000))
        rows = design_rows(X, T, basis, fold)
        psi = np.array([1.0, 3.0])  # everybody gets 3
        value = 2.5  # of the population
        own = CrossFittedDesign.fit(preparation, rows).representer(X, phi, fold)
        randomized = representer(phi, moment_sums(phi)[""].matrix)
        mean, variance = 2 + 0.8 * x, (1 + 0.5 * x) ** 2 / 3
        slope = (T[:, 0] - mean) / variance
        known = np.column_stack([1 - mean * slope, slope])
        for name, theta, weights in (
            ("fitted", least_squares(x, phi, y, fold), own),
            ("wrong", wrong, own),
            ("wrong, design known", wrong, known),
            ("wrong, as if randomized", wrong, randomized),
        ):
            scores = corrected(theta, phi, y, weights) @ psi
            error = 1.96 * scores.std() / np.sqrt(len(scores))
            covered[name] += abs(scores.mean() - value) < error
    assert covered["wrong, as if randomized"] < 0.1 * runs
    honest = ("fitted", "wrong", "wrong, design known")
    assert all(stats.binom.cdf(covered[name], runs, 0.95) > 0.005 for name in honest)
    if runs > 100:
        assert 0.93 <= covered["fitted"] / runs <= 0.97
        assert 0.93 <= covered["wrong, design known"] / runs <= 0.97
        # where responses are wrong, a learned design corrects them better than the known one would,
        # which standard errors do not know (Hirano, Imbens & Ridder 2003): here by a sixth
        assert covered["wrong"] / runs >= 0.93


def test_overlap_tells_a_randomized_design_from_a_deterministic_one():
    rng = np.random.default_rng(2)
    X = pd.DataFrame({"x": rng.uniform(-1, 1, 5000)})
    basis = Basis("linear", UNIT)
    for name, T in (
        ("random", rng.uniform(0, 4, (5000, 1))),
        ("rule", (2 + np.where(X["x"] > 0, 0.01, 1.0) * rng.uniform(-1, 1, 5000))[:, None]),
    ):
        design, rows = crossfitted(X, T, basis)
        report = design.overlap(rows)
        if name == "random":
            assert report.smallest_eigenvalue > 0.8
            assert report.lifted_share == 0
            assert report.effective_rows > 3500
            assert report.problems() == []
        else:
            assert report.lifted_share > 0.3
            assert "hardly vary in treatment" in report.problems()[0]


def test_balance_is_judged_by_bins_of_every_feature():
    """A design that takes treatments as given alike is balanced on average alone."""
    rng = np.random.default_rng(4)
    n = 6_000
    X = pd.DataFrame(
        {
            "x": rng.uniform(-1, 1, n),
            "city": rng.choice(["Berne", "Basle"], n),
            "unknown": np.where(rng.random(n) < 0.5, np.nan, rng.normal(size=n)),
        }
    )
    weight = np.ones(n)
    for name, shift in (
        ("x is from", 0.5 * np.sign(X["x"])),
        ("city is B", 0.5 * np.where(X["city"] == "Basle", 1, -1)),
        ("unknown is ", np.where(X["unknown"].isna(), 0.5, 0.0)),
        ("", np.zeros(n)),
    ):
        T = (2 + np.asarray(shift) + rng.uniform(-1, 1, n))[:, None]
        basis = Basis("linear", UNIT)
        z = Whitening.fit(basis, T, weight)(basis(T))
        report = Overlap.of(X, weight, z, z, weight, FLOOR)
        assert report.imbalanced.startswith(name)
        assert (report.imbalance > 0.1) == bool(name)
        told = [text for text in report.problems() if f"after weighting where {name}" in text]
        assert len(told) == bool(name)
    private = Overlap.of(
        X,
        weight,
        np.column_stack([weight, shift := 1 - 2 * (X["city"] == "Basle")]),
        np.column_stack([weight, shift]),
        weight,
        FLOOR,
        private=True,
    )
    assert "Basle" not in private.imbalanced
    assert "city is #" in private.imbalanced


def test_a_feature_without_any_value_has_no_bins():
    X, T, _ = confounded(600)
    design, rows = crossfitted(X.assign(empty=np.nan), T, Basis("linear", UNIT))
    plain, others = crossfitted(X, T, Basis("linear", UNIT))
    found, expected = design.overlap(rows), plain.overlap(others)
    assert found.imbalance == pytest.approx(expected.imbalance, abs=1e-6)
    assert found.rows == 600


@pytest.mark.parametrize("lone", [0, 1])
def test_rows_of_one_part_outside_a_fold_are_refused_before_anything_is_fitted(lone, monkeypatch):
    X, T, _ = confounded(60)
    fold = np.arange(60) % 2
    part = np.where(fold == lone, 3 * fold, 3 * fold + np.arange(60) // 2 % 3)
    basis, weight = Basis("linear", UNIT), np.ones(60)
    preparation = DesignPreparation.fit(X, T, basis=basis, weight=weight, parts_per_fold=3)
    monkeypatch.setattr(learned_design, "cross_fitted", lambda *_, **__: pytest.fail("fitted"))
    with pytest.raises(InvalidInputError, match="no two parts outside every fold"):
        CrossFittedDesign.fit(preparation, DesignRows(X, basis(T), fold, part, weight))
