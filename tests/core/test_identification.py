"""What groups of units identify of a basis, by their treatments and by sums."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coarse_spark.core.basis import Basis
from coarse_spark.core.design import moment_sums
from coarse_spark.core.identification import unidentified_in, unidentified_terms, weak_columns
from coarse_spark.core.learners.encoding.whitening import Whitening
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError

ARMS = TreatmentSpace.from_dict(
    {"arm": {"kind": "categorical", "levels": ["none", "mail", "visit"], "control": "none"}}
)
LEVELS = Basis("levels", ARMS)


def prices(unit=1.0, lower=0.0):
    dimension = {
        "kind": "continuous",
        "lower": lower,
        "upper": lower + 40 * unit,
        "control": lower,
    }
    return TreatmentSpace.from_dict({"price": dimension})


def by_sums(basis, treatments, everyone):
    """What a group's sums identify, in the whitened columns of everyone."""
    whitening = Whitening.fit(basis, everyone, np.ones(len(everyone)))
    (sums,) = moment_sums(whitening(basis(treatments))).values()
    return unidentified_in(basis, sums.matrix)


@pytest.mark.parametrize("unit", [1.0, 1e-6 / 40, 1e6])
@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ([0], ("price", "price^2")),
        ([10], ("price", "price^2")),
        ([0, 30], ("price^2",)),
        ([0, 20, 30], ()),
    ],
)
def test_one_rule_by_treatments_and_by_sums_in_any_unit(unit, group, expected):
    basis = Basis("quadratic", prices(unit))
    everyone = unit * np.tile([0.0, 10, 20, 30, 40], 40)[:, None]
    treatments = unit * np.repeat(np.array(group, dtype=float), 17)[:, None]
    assert unidentified_terms(basis, treatments) == expected
    assert by_sums(basis, treatments, everyone) == expected


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ([0], ("arm = mail", "arm = visit")),
        ([0, 1], ("arm = visit",)),
        ([0, 2], ("arm = mail",)),
        ([0, 1, 2], ()),
    ],
)
def test_arms_that_a_group_did_not_get_are_named(group, expected):
    everyone = np.tile([0.0, 1, 2], 50)[:, None]
    treatments = np.repeat(np.array(group, dtype=float), 20)[:, None]
    assert unidentified_terms(LEVELS, treatments) == expected
    assert by_sums(LEVELS, treatments, everyone) == expected
    weight = np.ones(len(treatments) + 5)
    weight[-5:] = 0
    more = np.vstack([treatments, np.repeat(2.0, 5)[:, None]])
    assert unidentified_terms(LEVELS, more, weight) == expected


def test_a_narrow_range_far_from_zero_is_identified_by_both():
    """Raw sums of a cubic from 99 to 100 are singular to their rounding; whitened ones are not."""
    basis = Basis("cubic", prices(1 / 40, 99.0))
    everyone = 99 + np.random.default_rng(0).uniform(0, 1, (5000, 1))
    group = everyone[:200]
    assert weak_columns(basis(group).T @ basis(group) / 200)
    assert unidentified_terms(basis, group) == ()
    assert by_sums(basis, group, everyone) == ()
    assert by_sums(basis, np.round(group * 2) / 2, everyone) == ("price^3",)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=12),
    st.sampled_from(["linear", "quadratic", "cubic", "any + linear", "spline", "log1p"]),
    st.sampled_from([1.0, 1e-6, 1e5]),
)
def test_both_ways_agree_with_the_rank_of_the_distinct_treatments(group, name, unit):
    basis = Basis(name, prices(unit))
    steps = unit * np.array([0.0, 10, 20, 30, 40])[:, None]
    treatments = steps[group]
    distinct = np.unique(treatments, axis=0)
    phi = basis(distinct) / np.abs(basis(steps)).max(axis=0)
    lost = basis.size - np.linalg.matrix_rank(phi, tol=1e-7)
    assert len(unidentified_terms(basis, treatments)) == lost
    assert len(by_sums(basis, treatments, np.repeat(steps, 30, axis=0))) == lost


def test_whitening_takes_treatments_of_a_millionth_and_refuses_constants_far_from_zero():
    tiny = np.linspace(0, 1e-6, 50)[:, None]
    z = Whitening.fit(Basis("quadratic", prices(1e-6 / 40)), tiny, np.ones(50))
    phi = z(Basis("quadratic", prices(1e-6 / 40))(tiny))
    np.testing.assert_allclose(phi.T @ phi / 50, np.eye(3), atol=1e-9)
    with pytest.raises(InvalidInputError, match="do not identify its column 'price'"):
        Whitening.fit(Basis("linear", prices(1e6)), np.full((50, 1), 1e7 / 3), np.ones(50))
