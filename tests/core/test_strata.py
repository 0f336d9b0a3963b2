"""Strata that do not identify the basis are merged: with which, and what that does to values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coarse_spark.core.basis import Basis
from coarse_spark.core.design import corrected, moment_sums, representer, row_moments
from coarse_spark.core.identification import weak_columns
from coarse_spark.core.learned_design import FLOOR
from coarse_spark.core.learners.encoding.whitening import Whitening
from coarse_spark.core.strata import merge_strata
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.text import shown

ARMS = TreatmentSpace.from_dict(
    {"arm": {"kind": "categorical", "levels": ["none", "mail", "visit"], "control": "none"}}
)
LEVELS = Basis("levels", ARMS)


def design(strata, treatments, basis=LEVELS):
    """The whitening of all rows, and the strata after merging."""
    whitening = Whitening.fit(basis, treatments, np.ones(len(treatments)))
    return whitening, merge_strata(moment_sums(whitening(basis(treatments)), strata))


def arms(**groups):
    """Strata and encoded arms: counts of none, mail, visit by stratum."""
    strata = np.repeat(list(groups), [sum(map(int, counts)) for counts in groups.values()])
    codes = [np.repeat([0.0, 1, 2], np.array(counts, int)) for counts in groups.values()]
    return strata, np.concatenate(codes)[:, None]


def test_a_stratum_joins_the_one_of_nearest_mix_and_everybody_concerned_is_counted():
    strata, treatments = arms(
        most_treated=(40, 200, 200), least_treated=(300, 40, 40), controls=(100, 0, 0)
    )
    whitening, merged = design(strata, treatments)
    assert merged.groups == (("controls", "least_treated"),)
    assert merged.unidentified == {"controls": 100}
    assert merged.rows == 480
    together = np.isin(strata, ["controls", "least_treated"])
    (sums,) = moment_sums(whitening(LEVELS(treatments[together]))).values()
    np.testing.assert_allclose(merged.moments["controls"].matrix, sums.matrix)
    assert merged.moments["controls"] is merged.moments["least_treated"]
    (told,) = merged.problems("levels")
    assert told == (
        "1 of 3 strata does not identify 'levels' (controls (100 units)): merged with 1 of the "
        "nearest treatment mix, so that honest values take treatments as given alike to the 480 "
        "units of 1 group of strata, and are biased as far as they were not"
    )
    (private,) = merged.problems("levels", private=True)
    assert "controls (" not in private
    assert shown("controls", private=True) in private


def test_strata_that_identify_the_basis_stay_as_they_are():
    strata, treatments = arms(a=(3, 1, 2), b=(50, 60, 70))
    _, merged = design(strata, treatments)
    assert (merged.unidentified, merged.groups, merged.rows) == ({}, (), 0)
    assert merged.problems("levels") == []


def test_a_missing_arm_and_its_complement_do_not_serve_each_other():
    """A stratum without visits and one without mail each join one that has both."""
    strata, treatments = arms(
        no_visit=(90, 60, 0), no_mail=(60, 0, 90), mails=(60, 80, 20), visits=(60, 20, 80)
    )
    _, merged = design(strata, treatments)
    assert merged.groups == (("mails", "no_visit"), ("no_mail", "visits"))


def test_where_no_stratum_identifies_the_basis_all_are_one():
    strata, treatments = arms(a=(50, 0, 0), b=(0, 50, 0), c=(0, 0, 50))
    _, merged = design(strata, treatments)
    assert merged.groups == (("a", "b", "c"),)
    assert merged.rows == 150


def test_no_residual_counts_more_than_twenty_times_after_merging():
    """Thousands of controls do not rest on the one treated unit of the nearest stratum."""
    strata, treatments = arms(
        controls=(6000, 0, 0), thin=(60, 1, 1), middle=(60, 30, 30), more=(200, 300, 300)
    )
    _, merged = design(strata, treatments)
    (group,) = merged.groups
    assert {"controls", "thin", "middle"} <= set(group)
    assert np.linalg.eigvalsh(merged.moments["controls"].matrix)[0] >= FLOOR


@settings(deadline=None, max_examples=30)
@given(st.randoms(use_true_random=False), st.integers(1, 6))
def test_merging_does_not_depend_on_order_or_partitioning(random, batches):
    rng = np.random.default_rng(random.randrange(2**32))
    strata = np.array([f"s{number}" for number in rng.integers(0, 25, 150)])
    strata = np.concatenate([strata, np.repeat(["big", "equal"], 60)])
    treatments = rng.integers(0, 3, len(strata)).astype(float)[:, None]
    treatments[-60:] = treatments[-120:-60]  # two of one mix: the tie must not hang on rounding
    whitening, merged = design(strata, treatments)
    order = rng.permutation(len(strata))
    total = {}
    for part in np.array_split(order, batches):
        z = whitening(LEVELS(treatments[part]))
        for label, sums in moment_sums(z, strata[part]).items():
            total[label] = total[label] + sums if label in total else sums
    again = merge_strata({label: total[label] for label in rng.permutation(sorted(total))})
    assert again.groups == merged.groups
    assert again.unidentified == merged.unidentified
    for label, sums in merged.moments.items():
        np.testing.assert_allclose(again.moments[label].matrix, sums.matrix, atol=1e-12)
        assert not weak_columns(sums.matrix)


@pytest.mark.parametrize("size", [1, 5])
def test_small_strata_are_not_merged_by_the_treatments_that_they_happened_to_get(size):
    """Debiasing repairs a model that knows nothing, although big strata of other mixes are near.

    Merged by realized mix, lone controls would join one big stratum and lone treated units the
    other: the mean of 1,000 singles would weigh 577 units, not 1,000.
    """
    rng = np.random.default_rng(size)
    labels = np.concatenate(
        [np.repeat(["low", "high"], 1000), np.repeat([f"s{i}" for i in range(1000 // size)], size)]
    )
    share = np.repeat([0.2, 0.8, 0.5 if size == 1 else 0.1], 1000)
    base, effect = np.repeat([0.0, 3.0, 1.5], 1000), np.repeat([1.0, 2.0, 5.0], 1000)
    space = TreatmentSpace.from_dict(
        {"arm": {"kind": "categorical", "levels": ["none", "mail"], "control": "none"}}
    )
    basis, found = Basis("levels", space), []
    for _ in range(40):
        treatments = (rng.random(3000) < share).astype(float)[:, None]
        y = base + effect * treatments[:, 0] + 0.3 * rng.normal(size=3000)
        whitening, merged = design(labels, treatments, basis)
        assert not {"low", "high"} & {label for group in merged.groups for label in group}
        z = whitening(basis(treatments))
        weights = whitening.raw(representer(z, row_moments(merged.moments, labels, 3000)))
        found.append(corrected(np.zeros((3000, 2)), basis(treatments), y, weights).mean(axis=0))
    error = np.std(found, axis=0) / np.sqrt(40)
    truth = np.array([base.mean(), effect.mean()])
    assert (np.abs(np.mean(found, axis=0) - truth) < 4 * error).all()
    assert (error < 0.03).all()


def barely(rows, reach):
    """20 strata at any price and one of prices near 50: labels, whitened columns, merged strata."""
    space = TreatmentSpace.from_dict(
        {"price": {"kind": "continuous", "lower": 0, "upper": 100, "control": 0}}
    )
    rng = np.random.default_rng(0)
    treatments = rng.uniform(0, 100, (4000 + rows, 1))
    treatments[4000:] = 50 + np.linspace(-reach, reach, rows)[:, None]
    labels = np.concatenate([np.arange(4000) // 200, np.full(rows, 99)]).astype(str)
    basis = Basis("linear", space)
    whitening, merged = design(labels, treatments, basis)
    return labels, whitening(basis(treatments)), merged


@pytest.mark.parametrize(("rows", "reach"), [(200, 0.01), (2, 0.0005), (200, 1.5)])
def test_a_stratum_that_barely_identifies_the_basis_does_not_stand_alone(rows, reach):
    labels, z, merged = barely(rows, reach)
    assert merged.unidentified == {"99": rows}
    weights = representer(z, row_moments(merged.moments, labels, len(labels)))
    assert np.abs(weights).max() < 10
    assert "does not identify 'linear' (99 " in merged.problems("linear")[0]


def test_a_stratum_that_says_as_much_of_every_direction_as_an_ordinary_row_stays_its_own():
    _, _, merged = barely(200, 6.0)
    assert merged.unidentified == {}


@pytest.mark.parametrize("share", [0.5, 0.01, 0.99])
def test_one_treated_unit_of_many_identifies_the_basis_whatever_its_share(share):
    many = 4000
    strata, treatments = arms(
        rest=(many * (1 - share), many * share / 2, many * share / 2),
        controls=(10_000, 1, 1),
        lone=(1, 1, 1),
    )
    _, merged = design(strata, treatments)
    assert merged.unidentified == {}
