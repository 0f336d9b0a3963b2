"""The check without a model: means of those who happened to get what a policy says."""

from __future__ import annotations

import numpy as np
import pytest

from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.model_free import GivenShares, model_free_values
from coarse_spark.core.profit import Profit
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.core.values import ScoreMoments

SPACE = TreatmentSpace.from_dict(
    {"days": {"kind": "continuous", "values": [0, 7, 30], "control": 0}}
)
PROBLEM = MenuProblem.build(SPACE, "linear", Profit("2", "0.01 * days"))
DAYS = np.array([0.0, 7.0, 30.0])


def found(
    treatments: np.ndarray,
    strata: np.ndarray,
    y: np.ndarray,
    policies: list[np.ndarray],
    cluster: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Values and standard errors of policies that give units (n,) days."""
    given = treatments[:, None]
    shares = GivenShares.of(PROBLEM, given, strata, np.ones(len(y)))
    rows = shares.rows(PROBLEM, given, strata, y)
    scores = np.hstack([rows.scores(PROBLEM.psi_at(days[:, None])) for days in policies])
    center = np.zeros(scores.shape[1])
    sums = ScoreMoments.sums(scores, np.ones(len(y)), center, cluster)
    return model_free_values(ScoreMoments.of(sums, center))


def test_without_strata_it_is_the_mean_profit_of_those_who_got_it() -> None:
    rng = np.random.default_rng(0)
    treatments, y = DAYS[rng.integers(0, 3, 600)], rng.normal(1, 1, 600)
    policy = np.where(rng.random(600) < 0.5, 7.0, 30.0)
    one = np.full(600, 7.0)
    (mixed, single), (_, error) = found(treatments, np.full(600, "all"), y, [policy, one])
    earned, got = 2 * y - 0.01 * treatments, treatments == 7
    assert single == pytest.approx(earned[got].mean())
    assert error == pytest.approx(earned[got].std() / np.sqrt(got.sum()), rel=1e-3)
    share = np.array([(treatments == days).mean() for days in treatments])
    weight = (treatments == policy) / share
    assert mixed == pytest.approx(weight @ earned / weight.sum())


def test_intervals_cover_within_strata_that_were_treated_differently() -> None:
    covered, naive_covered, repetitions = 0, 0, 400
    for seed in range(repetitions):
        rng = np.random.default_rng(seed)
        rich = rng.integers(0, 2, 500)
        ends = np.array([[0.2, 0.5], [0.6, 0.9]])[rich]
        treatments = DAYS[(rng.random(500)[:, None] > ends).sum(axis=1)]
        y = 2 * rich + 0.01 * treatments + rng.normal(size=500)
        policy = np.where(rich == 1, 30.0, 0.0)
        (value,), (error,) = found(treatments, rich.astype(str), y, [policy])
        (naive,), (its,) = found(treatments, np.full(500, "all"), y, [policy])
        truth = 0.5 * 0 + 0.5 * (2 * (2 + 0.3) - 0.3)
        covered += abs(value - truth) <= 1.96 * error
        naive_covered += abs(naive - truth) <= 1.96 * its
    assert covered / repetitions >= 0.93
    assert naive_covered / repetitions < 0.5, "shares of all are not those of the strata"


def test_what_nobody_got_has_no_value() -> None:
    rng = np.random.default_rng(1)
    treatments, y = DAYS[rng.integers(0, 2, 300)], rng.normal(size=300)
    policies = [np.full(300, 7.0), np.full(300, 30.0), np.where(np.arange(300) < 150, 7.0, 30.0)]
    value, error = found(treatments, np.full(300, "all"), y, policies)
    assert np.isfinite([value[0], error[0]]).all()
    assert np.isnan(value[1:]).all()
    assert np.isnan(error[1:]).all()


def test_units_of_a_cluster_count_together() -> None:
    rng = np.random.default_rng(2)
    village = np.repeat(np.arange(60), 10)
    treatments = DAYS[rng.integers(0, 3, 60)][village]
    y = rng.normal(size=60)[village]
    strata, policy = np.full(600, "all"), [np.full(600, 7.0)]
    _, alone = found(treatments, strata, y, policy)
    _, together = found(treatments, strata, y, policy, village)
    assert together[0] > 2.5 * alone[0]


def test_steps_and_levels_are_discrete_and_ranges_are_not() -> None:
    def discrete(**dimension: object) -> bool:
        return not TreatmentSpace.from_dict({"t": dimension}).continuous.any()

    ends = {"kind": "continuous", "lower": 0, "upper": 1, "control": 0}
    assert discrete(**ends, step=0.5)
    assert not discrete(**ends)
    assert discrete(kind="categorical", levels=["a", "b"], control="a")


@pytest.mark.parametrize("lacking", [0, 3, 100])
def test_a_stratum_that_lacks_the_treatment_takes_the_value_away(lacking: int) -> None:
    """Even of a few per cent of the units, which the mean of the weights does not tell."""
    rng = np.random.default_rng(3)
    rich = np.arange(4_000) < lacking
    treatments = np.where(rich, 0.0, DAYS[rng.integers(0, 2, 4_000)])
    y = 50 * rich + rng.normal(size=4_000)
    policies = [np.full(4_000, 7.0), np.zeros(4_000), np.where(rich, 0.0, 7.0)]
    value, error = found(treatments, rich.astype(str), y, policies)
    assert np.isfinite(value).tolist() == [lacking < 4, True, True]
    np.testing.assert_array_equal(np.isfinite(error), np.isfinite(value))


def test_counts_of_unknown_profits_add_up_over_batches() -> None:
    rng = np.random.default_rng(4)
    strata = rng.integers(0, 3, 900).astype(str)
    treatments = np.where(strata == "2", 0.0, DAYS[rng.integers(0, 2, 900)])[:, None]
    y, policy = rng.normal(size=900), DAYS[rng.integers(0, 3, 900)]
    shares = GivenShares.of(PROBLEM, treatments, strata, np.ones(900))

    def scores(some: slice) -> np.ndarray:
        rows = shares.rows(PROBLEM, treatments[some], strata[some], y[some])
        return rows.scores(PROBLEM.psi_at(policy[some, None]))

    halves = [scores(slice(0, 500)), scores(slice(500, None))]
    np.testing.assert_array_equal(np.concatenate(halves), scores(slice(None)))
    unknown = (policy == 30) | ((policy == 7) & (strata == "2"))
    np.testing.assert_array_equal(np.concatenate(halves)[:, 2], unknown)
