"""Score moments add up, intervals cover known truths, contrasts are paired.

And the rule for K picks what it says.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coarse_spark.core.basis import Basis
from coarse_spark.core.design import corrected, representer
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.profit import Profit
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.core.values import (
    Policy,
    ScoreMoments,
    contrasts,
    policy_values,
    select_menu_size,
)

POLICIES = [
    Policy("control", 1),
    Policy("uniform", 1),
    Policy("menu", 1),
    Policy("menu", 2),
    Policy("menu", 3),
    Policy("granular", 0),
]


def _moments(
    scores: np.ndarray, weight: np.ndarray | None = None, center: float = 0.0
) -> ScoreMoments:
    weight = np.ones(len(scores)) if weight is None else weight
    middle = np.full(scores.shape[1], center)
    return ScoreMoments.of(ScoreMoments.sums(scores, weight, middle), middle)


@given(st.integers(0, 10_000), st.integers(1, 60), st.floats(-50, 50))
def test_moments_of_parts_add_up_whatever_the_center(seed: int, cut: int, center: float) -> None:
    rng = np.random.default_rng(seed)
    scores, weight = rng.normal(5, 3, (61, 4)), rng.uniform(0.1, 3, 61)
    middle = np.full(4, center)
    summed = sum(
        ScoreMoments.sums(scores[rows], weight[rows], middle)
        for rows in (slice(0, cut), slice(cut, None))
    )
    parts, share = ScoreMoments.of(summed, middle), weight / weight.sum()
    mean = share @ scores
    np.testing.assert_allclose(parts.mean, mean, rtol=1e-9)
    deviation = (scores - mean) * share[:, None]
    np.testing.assert_allclose(
        parts.covariance, deviation.T @ deviation * 61 / 60, rtol=1e-6, atol=1e-9
    )
    assert parts.units == 61


def test_equal_weights_give_the_textbook_standard_error() -> None:
    scores = np.random.default_rng(1).normal(0, 2, (500, 1))
    assert np.sqrt(_moments(scores).covariance[0, 0]) == pytest.approx(
        scores.std(ddof=1) / np.sqrt(500)
    )


def test_contrasts_are_paired() -> None:
    rng = np.random.default_rng(2)
    common = rng.normal(0, 10, 1_000)
    scores = np.column_stack([common, common + 1 + 0.01 * rng.normal(size=1_000)])
    difference, se = _moments(scores).contrast(1, 0)
    assert difference == pytest.approx(1, abs=0.01)
    assert se < 0.001, "unpaired it would be near 0.4"


def test_captured_shares_by_hand() -> None:
    scores = np.tile([1.0, 2.0, 2.0, 2.5, 2.75, 3.0], (10, 1))
    values = policy_values(POLICIES, _moments(scores), 0.95).set_index(["policy", "k"])
    assert values.loc[("menu", 2), "captured_of_control"] == pytest.approx(0.75)
    assert values.loc[("menu", 2), "captured_of_uniform"] == pytest.approx(0.5)
    assert values.loc[("granular", 0), "captured_of_uniform"] == 1


def test_captured_shares_are_not_a_number_when_there_is_nothing_to_capture() -> None:
    values = policy_values(POLICIES, _moments(np.ones((10, 6))), 0.95)
    assert values.filter(like="captured").isna().all(axis=None)


def test_intervals_of_shares_hold_what_paired_differences_do_not_refuse() -> None:
    """By definition: ρ is inside where V_menu − V_base − ρ (V_full − V_base) may be 0."""
    rng = np.random.default_rng(8)
    scores = np.array([0.0, 1.0, 1.0, 1.4, 1.5, 1.6]) + rng.normal(0, 0.5, (400, 6))
    values = policy_values(POLICIES, _moments(scores), 0.9).set_index(["policy", "k"])
    for place, reference in ((0, "control"), (1, "uniform")):
        row = values.loc[("menu", 2)]
        low, high = (row[f"captured_of_{reference}_{end}"] for end in ("low", "high"))
        assert low < row[f"captured_of_{reference}"] < high
        for share, inside in ((low, 1), (high, 1), (low - 0.01, 0), (high + 0.01, 0)):
            shortfall = scores[:, 3] - scores[:, place] - share * (scores[:, 5] - scores[:, place])
            refused = abs(shortfall.mean()) > 1.6449 * shortfall.std(ddof=1) / 20 * (1 + 1e-4)
            assert refused != inside, (reference, share)
    # the reference captures nothing and full personalization everything, whatever the noise
    ends = ["captured_of_uniform_low", "captured_of_uniform_high"]
    np.testing.assert_allclose(values.loc[("uniform", 1), ends].to_numpy(float), 0, atol=1e-12)
    np.testing.assert_allclose(values.loc[("granular", 0), ends].to_numpy(float), 1, atol=1e-6)


def test_shares_of_a_gain_that_may_be_chance_are_not_identified() -> None:
    noise = np.random.default_rng(9).normal(0, 1, (400, 6))
    scores = np.array([0.0, 1.0, 1.0, 1.01, 1.02, 1.03]) + noise
    values = policy_values(POLICIES, _moments(scores), 0.95).set_index(["policy", "k"])
    assert values.filter(regex="of_uniform_(low|high)").isna().all(axis=None)
    assert values.filter(regex="of_control_(low|high)").notna().all(axis=None)


def test_variety_cost_lowers_values_and_moves_the_choice() -> None:
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 1, (4_000, 1))
    scores = np.array([0.0, 1.0, 1.0, 1.4, 1.5, 1.6]) + noise + rng.normal(0, 0.05, (4_000, 6))
    k, rule = select_menu_size(POLICIES, _moments(scores))
    assert k == 3
    assert "K = 3 is the best itself" in rule
    costly = [Policy(p.name, p.k, 0.3 * p.k if p.name == "menu" else 0.0) for p in POLICIES]
    k, rule = select_menu_size(costly, _moments(scores))
    assert k == 2
    values = policy_values(costly, _moments(scores), 0.95).set_index(["policy", "k"])["value"]
    assert values["menu", 3] == pytest.approx(1.5 - 0.9, abs=0.1)


def test_smallest_size_within_one_paired_standard_error() -> None:
    rng = np.random.default_rng(4)
    scores = np.array([0.0, 0.8, 0.8, 1.005, 1.006, 1.1]) + rng.normal(0, 1, (1_000, 6))
    moments = _moments(scores)
    k, _ = select_menu_size(POLICIES, moments)
    best = max((2, 3, 4), key=lambda i: moments.mean[i])
    within = [
        i for i in (2, 3, 4) if moments.mean[best] - moments.mean[i] <= moments.contrast(best, i)[1]
    ]
    assert k == POLICIES[within[0]].k


@pytest.mark.parametrize(("larger", "shared", "clusters"), [(4, 0.0, 0), (4, 0.9, 0), (1, 0.0, 8)])
def test_where_no_menu_earns_anything_one_treatment_mostly_stays(
    larger: int, shared: float, clusters: int
) -> None:
    sized = [Policy("uniform", 1), *(Policy("menu", k) for k in range(1, larger + 2))]
    rng, taken, count = np.random.default_rng(larger), 0, 400
    units = 200
    for _ in range(count):
        scores = np.zeros((units, larger + 2))
        own, common = rng.normal(size=(units, larger)), rng.normal(size=(units, 1))
        scores[:, 2:] = np.sqrt(1 - shared) * own + np.sqrt(shared) * common
        cluster = None
        if clusters:
            cluster = np.arange(units) % clusters
            scores[:, 2:] = rng.normal(size=(clusters, larger))[cluster]
        zeros = np.zeros(larger + 2)
        sums = ScoreMoments.sums(scores, np.ones(units), zeros, cluster)
        taken += select_menu_size(sized, ScoreMoments.of(sums, zeros))[0] > 1
    # five per cent, four standard errors of so many repetitions above it at most
    assert taken / count <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / count)


def _without_noise(*values: float) -> ScoreMoments:
    return ScoreMoments(9, 9.0, np.array(values), np.zeros((len(values), len(values))), 9)


def test_without_noise_a_small_loss_is_worth_fewer_treatments() -> None:
    sized = [Policy("uniform", 1), *(Policy("menu", k) for k in (1, 2, 3, 4))]

    def auto(moments: ScoreMoments, tolerance: float) -> tuple[int, str]:
        return select_menu_size(sized, moments, "auto", tolerance)

    moments = _without_noise(1.0, 1.0, 1.996, 1.999, 2.0)
    assert auto(moments, 0)[0] == 4
    k, rule = auto(moments, 0.01)
    assert k == 2
    assert rule == (
        "smallest K whose honest value is within one paired standard error of the best or 1% of "
        "its gain over the best single treatment: K = 2 is 0.004 below K = 4, more than the paired "
        "s.e. of 0, but only 0.4% of that gain"
    )
    # the loss is measured by what menus gain, however much is earned without them
    assert auto(_without_noise(101, 101, 101.98, 102, 102), 0.01)[0] == 3
    # where menus gain nothing, there is nothing to give up
    assert auto(_without_noise(2, 1, 1.1, 1.2, 1.3), 0.5)[0] == 4


def test_a_size_that_was_decided_on_is_kept_whatever_the_tolerance() -> None:
    moments = _without_noise(0, 1.0, 1.0, 1.996, 2.0, 3.0)
    assert select_menu_size(POLICIES, moments, 3, 0.5) == (3, "K = 3 as configured")


def test_one_treatment_stays_unless_a_larger_menu_beats_it_by_more_than_chance() -> None:
    sized = [Policy("uniform", 1), *(Policy("menu", k) for k in (1, 2))]
    values = np.array([1.0, 1.0, 1.0])

    def chosen(errors: float) -> tuple[int, str]:
        gained = values + np.array([0, 0, errors * np.sqrt(2)])
        return select_menu_size(sized, ScoreMoments(9, 9.0, gained, np.eye(3), 9))

    assert [chosen(errors)[0] for errors in (0.9, 1.2, 1.6, 1.7)] == [1, 1, 1, 2]
    assert "within the standard error" in chosen(0.9)[1]
    assert chosen(1.2)[1].endswith("which may be chance: one treatment for all stays")


def test_within_the_noise_the_standard_error_is_the_reason() -> None:
    scores = np.array([0.0, 0.8, 0.8, 1.005, 1.006, 1.1]) + np.random.default_rng(4).normal(
        0, 1, (1_000, 6)
    )
    k, rule = select_menu_size(POLICIES, _moments(scores), tolerance=0.01)
    assert k == select_menu_size(POLICIES, _moments(scores))[0]
    assert "within the standard error" in rule


@given(
    st.lists(st.floats(-10, 10), min_size=6, max_size=6),
    st.floats(0, 3),
    st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
    st.floats(0, 1),
)
@example([0.0, 0.0, 5.0, 9.0, 0.0, 0.0], 1.5, (0.0, 0.0), 0.0)
def test_a_larger_tolerance_never_gives_more_treatments(
    values: list[float], noise: float, tolerances: tuple[float, float], cost: float
) -> None:
    policies = [Policy(p.name, p.k, cost * p.k) for p in POLICIES]
    moments = ScoreMoments(9, 9.0, np.array(values), noise**2 * np.eye(6), 9)
    small, large = sorted(tolerances)
    least, k, most = (
        select_menu_size(policies, moments, tolerance=t)[0] for t in (large, small, 0.0)
    )
    assert least <= k <= most
    # at most the larger of one standard error and of the share of the gain is lost
    net = dict(zip(((p.name, p.k) for p in policies), moments.mean, strict=True))
    net = {(name, k): value - cost * k for (name, k), value in net.items()}
    best = max(net["menu", k] for k in (1, 2, 3))
    gain = max(best - net["uniform", 1], 0)
    lost = best - net["menu", least]
    # two menus are compared with one treatment: what the larger difference reaches by chance in
    # five per cent is below 1.96 errors (Bonferroni)
    errors = 1.96 if least == 1 else 1.0
    assert lost <= max(errors * np.sqrt(2) * noise, large * gain) + 1e-9


def test_every_contrast_row_is_the_difference_of_two_values() -> None:
    moments = _moments(np.random.default_rng(5).normal(3, 1, (200, 6)))
    values = policy_values(POLICIES, moments, 0.9).set_index(["policy", "k"])["value"]
    rows = contrasts(POLICIES, moments, 0.9)
    assert not rows.duplicated(["policy", "versus", "k"]).any()
    for _, row in rows.iterrows():
        versus = (
            ("menu", int(row["versus"].split()[-1]))
            if row["versus"].startswith("menu of")
            else None
        )
        reference = values[versus] if versus else values.xs(row["versus"], level="policy").iloc[0]
        assert row["difference"] == pytest.approx(values[row["policy"], row["k"]] - reference)
        assert row["ci_low"] <= row["difference"] <= row["ci_high"]


def test_intervals_cover_the_true_value_although_the_learner_is_wrong() -> None:
    """The debiased score is unbiased for a fixed policy whatever θ̂.

    Its interval covers in about 95 % of experiments.
    """
    space = TreatmentSpace.from_dict(
        {"t": {"kind": "continuous", "lower": 0, "upper": 2, "control": 0}}
    )
    basis = Basis("quadratic", space)
    problem = MenuProblem.build(space, basis, Profit("1", "0.3 * t"))
    rng = np.random.default_rng(6)
    treatment = rng.uniform(0, 2, 200_000)
    moments = basis(treatment[:, None]).T @ basis(treatment[:, None]) / len(treatment)
    covered, replications = 0, 400
    for _ in range(replications):
        x = rng.uniform(-1, 1, 600)
        theta = np.column_stack([x, 1 + x, -0.4 - 0.2 * (x > 0)])
        t = rng.uniform(0, 2, 600)
        phi = basis(t[:, None])
        y = np.einsum("ij,ij->i", phi, theta) + rng.normal(0, 1, 600)
        wrong = np.column_stack([np.zeros(600), np.full(600, 0.5), np.full(600, -0.1)])
        debiased = corrected(wrong, phi, y, representer(phi, moments))
        psi = problem.psi_at(np.where(x > 0, 1.5, 0.5)[:, None])
        score = np.einsum("ij,ij->i", debiased, psi[:, :-1]) + psi[:, -1]
        value = _moments(score[:, None])
        # E over x uniform on (-1, 1): halves of [x + (1 + x) t + c t² - 0.3 t] at t = 0.5 and 1.5
        truth = 0.5 * (-0.5 + 0.5 * 0.5 - 0.4 * 0.25 - 0.15) + 0.5 * (
            0.5 + 1.5 * 1.5 - 0.6 * 2.25 - 0.45
        )
        covered += abs(value.mean[0] - truth) <= 1.96 * np.sqrt(value.covariance[0, 0])
    assert 0.92 <= covered / replications <= 0.975


def test_a_rule_is_compared_with_its_own_menu() -> None:
    policies = [
        *(Policy(name, 1) for name in ("control", "uniform")),
        *(Policy("menu", k, 0.5 * k) for k in (2, 3)),
        *(Policy("rule", k, 0.5 * k) for k in (2, 3)),
        Policy("granular", 0),
    ]
    scores = np.random.default_rng(0).normal(size=(50, 7))
    moments = ScoreMoments.of(ScoreMoments.sums(scores, np.ones(50), np.zeros(7)), np.zeros(7))
    pairs = contrasts(policies, moments, 0.9).query("policy == 'rule'")
    assert pairs[pairs["k"] == 3]["versus"].tolist() == [
        "control",
        "uniform",
        "granular",
        "menu of 3",
    ]
    row = pairs.query("k == 3 and versus == 'menu of 3'").iloc[0]
    difference = scores[:, 5] - scores[:, 3]
    assert row["difference"] == pytest.approx(difference.mean())
    assert row["se"] == pytest.approx(difference.std(ddof=1) / 50**0.5)
