import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coarse_spark.core.basis import Basis
from coarse_spark.core.design import (
    RANDOMIZED,
    MomentSums,
    corrected,
    design_problems,
    moment_sums,
    representer,
    row_moments,
)
from coarse_spark.core.lack_of_fit import TreatmentBins, bin_columns, bin_sums, lack_of_fit
from coarse_spark.core.observed import ObservedTreatments
from coarse_spark.core.support import Support
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError
from coarse_spark.text import shown

PERCENT = TreatmentSpace.from_dict(
    {"price": {"kind": "continuous", "lower": 80, "upper": 100, "control": 100}}
)
QUADRATIC = Basis("quadratic", PERCENT)


@settings(deadline=None)
@given(st.integers(1, 9))
def test_batches_of_moments_add_up(batches):
    rng = np.random.default_rng(0)
    phi, strata, weight = rng.normal(size=(60, 3)), rng.choice(["a", "b"], 60), rng.random(60)
    whole = moment_sums(phi, strata, weight)
    added = {label: whole[label] - whole[label] for label in whole}
    for i in np.array_split(np.arange(60), batches):
        for label, sums in moment_sums(phi[i], strata[i], weight[i]).items():
            added[label] = added[label] + sums
    for label in whole:
        split = MomentSums.of_flat(added[label].flat())
        np.testing.assert_allclose(split.matrix, whole[label].matrix)
        assert split.effective_rows == pytest.approx(whole[label].effective_rows)


def test_debiasing_repairs_a_wrong_model_on_raw_percent_columns():
    rng = np.random.default_rng(0)
    n = 200_000
    T = rng.uniform(80, 100, (n, 1))
    phi = QUADRATIC(T)
    truth = np.array([30.0, -0.5, 0.003])
    y = phi @ truth + rng.normal(size=n)
    wrong = np.tile(truth * [1, 1.2, 0.8], (n, 1))
    lam = row_moments(moment_sums(phi), None, n)
    assert np.linalg.cond(lam) > 1e10
    debiased = corrected(wrong, phi, y, representer(phi, lam)).mean(axis=0)
    at = QUADRATIC(np.array([[80.0], [90.0], [100.0]]))
    np.testing.assert_allclose(at @ debiased, at @ truth, atol=0.02)
    assert np.abs(at @ wrong[0] - at @ truth).min() > 0.5


def test_debiased_arms_are_augmented_inverse_propensity_weighting():
    rng = np.random.default_rng(1)
    arm = rng.choice(3, 900, p=[0.5, 0.3, 0.2])
    phi, y, theta = np.eye(3)[arm], rng.normal(size=900), rng.normal(size=(900, 3))
    share = np.bincount(arm) / 900
    expected = theta + phi * ((y - theta[np.arange(900), arm]) / share[arm])[:, None]
    weights = representer(phi, moment_sums(phi)[RANDOMIZED].matrix)
    np.testing.assert_allclose(corrected(theta, phi, y, weights), expected)


def test_strata_use_their_own_moments():
    rng = np.random.default_rng(2)
    strata = np.where(np.arange(4000) % 2 == 0, "low", "high")
    T = np.where(strata == "low", rng.uniform(80, 85, 4000), rng.uniform(90, 100, 4000))[:, None]
    phi = QUADRATIC(T)
    moments = moment_sums(phi, strata)
    all_rows = representer(phi, row_moments(moments, strata, 4000))
    for label in ("low", "high"):
        rows = strata == label
        alone = representer(phi[rows], moments[label].matrix)
        np.testing.assert_allclose(all_rows[rows], alone)
    with pytest.raises(
        InvalidInputError, match="stratum 'lowe' has no moments \\(did you mean 'low'"
    ):
        row_moments(moments, ["lowe"], 1)


def test_treatments_without_variation_are_refused_and_few_rows_reported():
    phi = QUADRATIC(np.full((50, 1), 90.0))
    with pytest.raises(InvalidInputError, match="singular"):
        representer(phi, moment_sums(phi)[RANDOMIZED].matrix)
    few = moment_sums(QUADRATIC(np.linspace(80, 100, 12)[:, None]))
    assert design_problems(few) == ["the design has 12 effective rows, fewer than 30"]
    labels = np.repeat(["a", "b", "c"], [12, 40, 9])
    several = moment_sums(QUADRATIC(np.linspace(80, 100, 61)[:, None]), labels)
    assert design_problems(several) == [
        "2 of 3 strata have fewer than 30 effective rows, the least stratum 'c' with 9"
    ]


def test_rows_of_weight_0_are_no_rows():
    phi, weight = QUADRATIC(np.linspace(80, 100, 6)[:, None]), np.array([1.0, 0, 2, 1, 0, 0])
    strata = np.array(["a", "a", "b", "b", "b", "none"])
    kept = weight > 0
    whole = moment_sums(phi, strata, weight)
    alone = moment_sums(phi[kept], strata[kept], weight[kept])
    assert set(whole) == {"a", "b"}
    for label, sums in whole.items():
        np.testing.assert_array_equal(sums.flat().numbers, alone[label].flat().numbers)


def test_labels_and_values_are_hashed_where_messages_are_private():
    few = moment_sums(QUADRATIC(np.linspace(80, 100, 12)[:, None]), np.repeat("wave=7\x1b", 12))
    (plain,) = design_problems(few)
    (private,) = design_problems(few, private=True)
    assert plain.startswith(r"stratum 'wave=7\x1b' has 12 effective rows")
    assert private == plain.replace(shown("wave=7\x1b"), shown("wave=7\x1b", private=True))
    (told,) = ObservedTreatments(PERCENT, ((85.0, 99.0),)).problems(private=True)
    low, high = shown("85", private=True), shown("99", private=True)
    assert f"offered from 80 to 100 but was observed from {low} to {high}:" in told


def test_extrapolation_is_told_for_every_dimension():
    price = {"kind": "continuous", "lower": 80, "upper": 100, "control": 100}
    channel = {
        "kind": "categorical",
        "levels": ["none", "mail", "phone", "visit"],
        "control": "none",
    }
    space = TreatmentSpace.from_dict({"price": price, "channel": channel})
    observed = ObservedTreatments(space, ((85.0, 99.9), (0.0, 1.0, 3.0)))
    assert observed.problems() == [
        "treatment 'price' is offered from 80 to 100 but was observed from 85 to 99.9: responses "
        "beyond that are extrapolated",
        "treatment 'channel' is offered as phone, which nobody in the experiment got: responses to "
        "that are extrapolated",
    ]
    menu = np.array([[84.0, 0], [85.0, 1], [100.0, 3], [90.0, 2]])
    np.testing.assert_array_equal(observed.outside(menu), [True, False, False, True])
    given = np.array([[85.0, 0], [99.9, 1], [90, 3]])
    assert Support.of(given, Basis("any + linear + levels", space)).observed(space) == observed
    seen = ObservedTreatments(space, ((80.0, 100.0), (0.0, 1.0, 2.0, 3.0)))
    assert seen.problems() == []
    assert not seen.outside(space.candidates).any()


def _lack_of_fit(basis_name, response, seed):
    rng = np.random.default_rng(seed)
    n = 4000
    basis = Basis(basis_name, PERCENT)
    T = rng.uniform(80, 100, (n, 1))
    y = response(T[:, 0] - 90) + rng.normal(size=n)
    phi = basis(T)
    fitted = phi @ np.linalg.lstsq(phi, y, rcond=None)[0]
    bins = TreatmentBins.fit(T, PERCENT, 12)
    number, columns = bins.assign(T), bin_columns(T, phi, y, fitted)
    halves = [
        bin_sums(bins.size, number[h], columns[h]) for h in (slice(0, 1500), slice(1500, None))
    ]
    return lack_of_fit(bins, halves[0] + halves[1])


def test_lack_of_fit_finds_a_missing_curve_and_holds_its_level():
    assert _lack_of_fit("linear", lambda t: 0.01 * t**2, 0).p_value < 1e-6
    p_values = [
        _lack_of_fit("quadratic", lambda t: 0.01 * t**2, seed).p_value for seed in range(40)
    ]
    assert sum(p < 0.05 for p in p_values) <= 6
    assert 0.3 < np.mean(p_values) < 0.7


def test_lack_of_fit_table_shows_the_bins():
    report = _lack_of_fit("quadratic", lambda t: 0.01 * t**2, 0)
    assert len(report.table) == 12
    assert report.table["rows"].sum() == 4000
    assert report.degrees == 9
    assert (
        np.abs(report.table["observed"] - report.table["fitted"]).max()
        < 5 * report.table["standard_error"].max()
    )


def test_distinct_treatments_get_a_bin_each_and_dimensions_a_product_grid():
    space = TreatmentSpace.from_dict(
        {
            "a": {"kind": "continuous", "lower": 0, "upper": 2, "control": 0},
            "b": {"kind": "continuous", "lower": 0, "upper": 1, "control": 0},
        }
    )
    T = np.array([[a, b] for a in (0, 1, 2) for b in (0, 1)], dtype=float)
    bins = TreatmentBins.fit(T, space, 30)
    assert bins.size == 6
    assert sorted(bins.assign(T)) == list(range(6))
    assert bins.describe(int(bins.assign(np.array([[1.0, 1.0]]))[0])) == "0.5 <= a < 1.5, 0.5 <= b"


@pytest.mark.parametrize("rows", [4, 40, 100])
def test_lack_of_fit_of_few_rows_has_as_many_bins_as_they_fill(rows):
    T = np.linspace(80, 100, rows)[:, None]
    bins, phi = TreatmentBins.fit(T, PERCENT), np.column_stack([np.ones(rows), T])
    assert bins.size <= max(rows // 10, 2)
    y = T[:, 0] + np.random.default_rng(0).normal(size=rows)
    found = lack_of_fit(bins, bin_sums(bins.size, bins.assign(T), bin_columns(T, phi, y, T[:, 0])))
    assert found.table["rows"].sum() == rows
    if rows == 4:
        assert (found.degrees, found.untested) == (0, "no bin of treatments has 5 rows")
        assert np.isnan(found.p_value)
        assert "not tested, no bin of treatments has 5 rows" in str(found)
    else:
        assert found.degrees == bins.size - 2
        assert found.p_value > 0.01
        assert not found.untested


def test_bins_of_many_factors_are_no_more_than_can_be_added_up():
    space = TreatmentSpace.from_dict(
        {f"t{i}": {"kind": "categorical", "levels": ["a", "b"], "control": "a"} for i in range(12)}
    )
    T = np.random.default_rng(0).integers(0, 2, (600, 12)).astype(float)
    bins = TreatmentBins.fit(T, space)
    assert 30 <= bins.size <= 100
    assert len(np.unique(bins.assign(T))) == bins.size
