"""Honest policy values from unit-level scores.

They are means with standard errors, paired contrasts and the choice of K. A unit's score under a
policy is ψ(π(x_i))·(θ̃_i, 1) with debiased coefficients θ̃ (see ``core.design``); a policy's value
is the weighted mean score, and two policies are compared on the same units, which cancels most of
their noise.

Units of one cluster (household, village, store) are not independent: what counts for standard
errors is the sum of scores over a cluster (Liang & Zeger 1986), with the factor G / (G − 1) for G
clusters (CR1), and intervals take Student's t. G − 1 degrees of freedom are right for few clusters
that are alike (Bester, Conley & Hansen 2011; Cameron & Miller 2015). Where clusters differ in size,
or all units of a cluster got one treatment, fewer clusters make up a value: as many as their sums'
fourth moments tell. Units without clusters are clusters of one.

Policies of different folds are chosen on one another's units. Where treatments tie, noise decides
which looks best, errors of the folds go together, and standard errors are too small: of the better
of two equal treatments a 95 % interval of five folds covers 87 % (values are not regular there:
Luedtke & van der Laan 2016). So are intervals of captured shares where a menu comes so near to full
personalization that noise tells them apart: about 81 % cover in such an experiment of 50 villages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import comb

import numpy as np
import pandas as pd
from scipy import stats

from coarse_spark.core.additive import added_up
from coarse_spark.core.arrays import FloatArray, IntArray

_BY_CHANCE = 0.05  # of experiments in which nothing is better, something seems to be
_DRAWS = 20_000  # of differences, to find what the largest reaches in those


@dataclass(frozen=True)
class ScoreMoments:
    """Weighted first and second moments of the scores of q policies over units.

    Attributes
    ----------
    units : number of rows.
    weight : Σ w_i.
    mean : (q,) Σ w_i s_i / Σ w_i.
    covariance : (q, q) of the means: Σ_g u_g u_gᵀ / (Σ w_i)², with G / (G − 1), where u_g is the
        sum of w_i (s_i − mean) over the units of a cluster.
    clusters : G, as many as rows where every unit is a cluster of its own.
    effective : (q,) how many clusters of like sums would know each variance as well (Satterthwaite
        1946): 3 (Σ u²)² / Σ u⁴ − 2, between 2 and G; u⁴ of a normal u is 3 times its variance
        squared.
    """

    units: int
    weight: float
    mean: FloatArray
    covariance: FloatArray
    clusters: int
    effective: FloatArray | float = np.inf

    @staticmethod
    def sums(
        scores: FloatArray, weight: FloatArray, center: FloatArray, cluster: IntArray | None = None
    ) -> FloatArray:
        """Return additive sums over rows of whole clusters, as one flat array.

        Parameters
        ----------
        scores : (n, q).
        weight : (n,).
        center : (q,) any value near the mean, the same for all batches: it keeps the sums of
            squares accurate.
        cluster : (n,) labels; None where every row is a cluster of its own.
        """
        totals = ScoreMoments.totals(scores, weight, center)
        return ScoreMoments.scatter(totals if cluster is None else added_up(totals, cluster)[0])

    @staticmethod
    def totals(scores: FloatArray, weight: FloatArray, center: FloatArray) -> FloatArray:
        """Return what adds up over the rows of a cluster: (n, q + 2) [1, w (s − center), w]."""
        moved = np.column_stack([scores - center, np.ones(len(scores))])
        return np.column_stack([np.ones(len(scores)), moved * weight[:, None]])

    @staticmethod
    def scatter(totals: FloatArray) -> FloatArray:
        """Return ``sums`` of clusters whose ``totals`` (g, q + 2) were added up."""
        weighted = np.ascontiguousarray(totals[:, 1:])
        scores, weight = weighted[:, :-1], weighted[:, -1:]
        fourth = [(scores**power * weight ** (4 - power)).sum(axis=0) for power in range(5)]
        return np.concatenate(
            [
                [float(len(totals)), totals[:, 0].sum()],
                weighted.sum(axis=0),
                (weighted.T @ weighted).ravel(),
                *fourth,
            ]
        )

    @staticmethod
    def of(sums: FloatArray, center: FloatArray) -> ScoreMoments:
        """Return the moments that summed ``sums`` amount to."""
        q = len(center)
        clusters, units = round(sums[0]), round(sums[1])
        weight, first = float(sums[q + 2]), sums[2 : q + 2]
        mean = first / weight
        # (s − m, 1) = A (s − c, 1) with A = [[I, c − m], [0, 1]]
        shift = np.eye(q + 1)
        shift[:-1, -1] = -mean
        second, fourth = np.split(sums[q + 3 :], [(q + 1) ** 2])
        scatter = (shift @ second.reshape(q + 1, q + 1) @ shift.T)[:-1, :-1]
        covariance = scatter / weight**2 * (clusters / max(clusters - 1, 1))
        # Σ (a + d W)⁴ with d = −m, by powers of a
        powers = np.array([comb(4, power) * (-mean) ** (4 - power) for power in range(5)])
        fourths = (powers * fourth.reshape(5, q)).sum(axis=0)
        alike = np.full(q, float(clusters))
        np.divide(3 * np.diag(scatter) ** 2, fourths, out=alike, where=fourths > 0)
        effective = np.clip(alike - 2, min(clusters, 2), clusters)
        return ScoreMoments(units, weight, center + mean, covariance, clusters, effective)

    def of_some(self, policies: slice) -> ScoreMoments:
        """Return the moments of some policies."""
        effective = np.broadcast_to(self.effective, self.mean.shape)[policies]
        covariance = self.covariance[policies, policies]
        return replace(self, mean=self.mean[policies], covariance=covariance, effective=effective)

    @property
    def clustered(self) -> bool:
        """Whether units share clusters."""
        return self.clusters < self.units

    def quantile(self, confidence: float, *policies: int) -> float:
        """Return how many standard errors an interval reaches to either side.

        Of Student's t with one degree of freedom less than effective clusters where units share
        clusters, as far as CR1 with so few clusters would reach; else of the normal distribution.

        Parameters
        ----------
        confidence : such as 0.95.
        policies : numbers of the policy, or of those that are compared: the fewest clusters count.
        """
        tail = 0.5 + confidence / 2
        if self.clustered:
            alike = np.broadcast_to(self.effective, self.mean.shape)[list(policies)]
            count, freedom = max(min(alike.min(), self.clusters), 2), max(self.clusters - 1, 1)
            # as G / (G − 1) of all clusters is in the covariance already
            wider = count / (count - 1) * freedom / (freedom + 1)
            return float(stats.t.ppf(tail, count - 1) * np.sqrt(wider))
        return float(stats.norm.ppf(tail))

    def reached_by_chance(self, one: int, others: Sequence[int]) -> float:
        """Return how many standard errors the largest difference of others to one policy reaches.

        It reaches more in five per cent of experiments in which none of the others is better: the
        more and the more different they are, the more. Drawn from the normal distribution, wider
        for few clusters as intervals are.
        """
        contrasts = np.zeros((len(others), len(self.mean)))
        contrasts[np.arange(len(others)), others] = 1.0
        contrasts[:, one] -= 1.0
        covariance = contrasts @ self.covariance @ contrasts.T
        errors = np.sqrt(np.clip(np.diag(covariance), 0.0, None))
        known = errors > 0
        if not known.any():
            return 0.0
        correlation = (covariance / np.outer(errors, errors).clip(1e-300))[np.ix_(known, known)]
        variances, axes = np.linalg.eigh(correlation)
        drawn = np.random.default_rng(0).standard_normal((_DRAWS, len(variances)))
        largest = (drawn @ (axes * np.sqrt(variances.clip(0.0))).T).max(axis=1)
        wider = self.quantile(1 - 2 * _BY_CHANCE, one, *others) / stats.norm.ppf(1 - _BY_CHANCE)
        return float(np.quantile(largest, 1 - _BY_CHANCE) * wider)

    def contrast(self, first: int, second: int) -> tuple[float, float]:
        """Return the paired difference of two policies' values and its standard error."""
        cov = self.covariance
        variance = cov[first, first] + cov[second, second] - 2 * cov[first, second]
        return float(self.mean[first] - self.mean[second]), float(np.sqrt(max(variance, 0.0)))

    def interval(
        self, confidence: float, policy: int, versus: int | None = None
    ) -> tuple[float, float, float, float]:
        """Return a policy's value, its standard error and both ends of its interval.

        With ``versus`` of the paired difference to that policy.
        """
        if versus is None:
            value, se = float(self.mean[policy]), float(self.errors[policy])
            reach = self.quantile(confidence, policy) * se
        else:
            value, se = self.contrast(policy, versus)
            reach = self.quantile(confidence, policy, versus) * se
        return value, se, value - reach, value + reach

    @property
    def errors(self) -> FloatArray:
        """(q,) standard errors of the values."""
        return np.sqrt(np.clip(np.diag(self.covariance), 0, None))

    def share_interval(
        self, value: FloatArray, policy: int, reference: int, full: int, confidence: float
    ) -> tuple[float, float]:
        """Return the interval of (V_policy − V_reference) / (V_full − V_reference).

        All shares ρ for which V_policy − V_reference − ρ (V_full − V_reference) may be 0 (Fieller
        1954). Both ends are NaN where the share is not identified, because the gain that it is a
        share of may be 0 itself: no interval of finite length would cover there.

        Parameters
        ----------
        value : (q,) of the policies, such as the means less what variety costs.
        policy, reference, full : numbers of the policies.
        confidence : such as 0.95.
        """
        z = self.quantile(confidence, policy, reference, full)
        a, b = value[policy] - value[reference], value[full] - value[reference]
        rows = np.zeros((2, len(value)))
        rows[0, policy], rows[1, full] = 1, 1
        rows[:, reference] -= 1
        (aa, ab), (_, bb) = z**2 * rows @ self.covariance @ rows.T
        if not gains(b, value[full]) or b**2 <= bb:
            return np.nan, np.nan
        # a² − aa − 2 ρ (a b − ab) + ρ² (b² − bb) ≤ 0; rounding may leave a root of less than 0
        root = np.sqrt(max((a * b - ab) ** 2 - (b**2 - bb) * (a**2 - aa), 0.0))
        low, high = ((a * b - ab + side * root) / (b**2 - bb) for side in (-1, 1))
        return float(low), float(high)


# a value and a paired difference, each as ``ScoreMoments.interval`` has it
WITH_DIFFERENCE = (
    *("value", "se", "ci_low", "ci_high"),
    *("difference", "difference_se", "difference_low", "difference_high"),
)


def gains(gain: float, value: float) -> bool:
    """Whether a gain is one and not the rounding of the values that it is between."""
    return gain > 1e-12 * max(abs(value), 1e-300)


@dataclass(frozen=True)
class Policy:
    """One policy whose value is estimated.

    Attributes
    ----------
    name : such as ``control``, ``menu``, or ``rule`` for a menu whose treatments a rule over
        features assigns.
    k : its number of unique treatments; 0 for no limit.
    variety_cost : money per unit weight for offering that many.
    """

    name: str
    k: int
    variety_cost: float = 0.0


def policy_values(
    policies: Sequence[Policy], moments: ScoreMoments, confidence: float
) -> pd.DataFrame:
    """Return one row a policy: value, se, confidence interval and the two captured shares.

    Values are per unit weight, after the cost of variety. ``captured_of_control`` is (V −
    V_control) / (V_granular − V_control), ``captured_of_uniform`` the same above the best single
    treatment; NaN where full personalization gains nothing measurable. Their intervals, ``_low``
    and ``_high``, are NaN already where that gain may be chance (``ScoreMoments.share_interval``).

    Parameters
    ----------
    policies : q of them; control, uniform and granular among them.
    moments : of their scores, in the same order.
    confidence : of the intervals, such as 0.95.
    """
    z = np.array([moments.quantile(confidence, number) for number in range(len(policies))])
    value = moments.mean - np.array([policy.variety_cost for policy in policies])
    se = moments.errors
    position = {
        policy.name: index for index, policy in enumerate(policies)
    }  # the last menu row is not looked up
    granular = position["granular"]
    frame = pd.DataFrame(
        {
            "policy": [policy.name for policy in policies],
            "k": [policy.k for policy in policies],
            "value": value,
            "se": se,
            "ci_low": value - z * se,
            "ci_high": value + z * se,
        }
    )
    for reference in ("control", "uniform"):
        base = position[reference]
        gain = value[granular] - value[base]
        name = f"captured_of_{reference}"
        frame[name] = (value - value[base]) / gain if gains(gain, value[granular]) else np.nan
        intervals = [
            moments.share_interval(value, number, base, granular, confidence)
            for number in range(len(policies))
        ]
        frame[[f"{name}_low", f"{name}_high"]] = intervals
    frame["n"] = moments.units
    return frame


def outcome_values(
    outcomes: Sequence[str], policies: Sequence[Policy], moments: ScoreMoments, confidence: float
) -> pd.DataFrame:
    """Return one row an outcome and policy: its mean, and what it is above the control's.

    With standard errors and intervals, ``difference_`` for those of the difference.

    Parameters
    ----------
    outcomes : their names.
    policies : q of them, control among them.
    moments : of the outcomes under every policy, those of a policy side by side.
    confidence : of the intervals, such as 0.95.
    """
    control = next(i for i, policy in enumerate(policies) if policy.name == "control")
    rows = []
    for number, outcome in enumerate(outcomes):
        base = control * len(outcomes) + number
        for position, policy in enumerate(policies):
            own = position * len(outcomes) + number
            both = moments.interval(confidence, own), moments.interval(confidence, own, base)
            rows.append((outcome, policy.name, policy.k, *both[0], *both[1]))
    return pd.DataFrame(rows, columns=["outcome", "policy", "k", *WITH_DIFFERENCE])


def contrasts(policies: Sequence[Policy], moments: ScoreMoments, confidence: float) -> pd.DataFrame:
    """Return paired differences, one row a pair.

    Of control, uniform, granular, every menu and its rule to the first three, of every menu to the
    next smaller one, of the rule of a menu to that menu, and of the menu to every other policy of
    as many treatments.

    Parameters
    ----------
    policies, moments, confidence : as in ``policy_values``.
    """
    index = {(policy.name, policy.k): position for position, policy in enumerate(policies)}
    references = [
        next(p for p in policies if p.name == name) for name in ("control", "uniform", "granular")
    ]
    pairs: list[tuple[Policy, Policy]] = []
    menus = sorted((p for p in policies if p.name == "menu"), key=lambda p: p.k)
    for policy in (p for p in policies if p in references or p.name in ("menu", "rule")):
        pairs += [(policy, reference) for reference in references if reference.name != policy.name]
    pairs += list(zip(menus[1:], menus[:-1], strict=True))
    others = [p for p in policies if p not in references and p.name not in ("menu", "rule")]
    rules = [p for p in policies if p.name == "rule"]
    pairs += [(rule, menu) for rule in rules for menu in menus if menu.k == rule.k]
    pairs += [(menu, other) for menu in menus for other in others if menu.k == other.k]
    rows = []
    for policy, versus in pairs:
        both = index[policy.name, policy.k], index[versus.name, versus.k]
        difference, se = moments.contrast(*both)
        z = moments.quantile(confidence, *both)
        difference -= policy.variety_cost - versus.variety_cost
        label = f"menu of {versus.k}" if versus.name == "menu" else versus.name
        rows.append(
            (policy.name, label, policy.k, difference, se, difference - z * se, difference + z * se)
        )
    return pd.DataFrame(
        rows, columns=["policy", "versus", "k", "difference", "se", "ci_low", "ci_high"]
    )


def select_menu_size(
    policies: Sequence[Policy],
    moments: ScoreMoments,
    select: int | str = "auto",
    tolerance: float = 0.0,
) -> tuple[int, str]:
    """Return the K to publish and why, in words: with ``auto`` the smallest as good as the best.

    Its value falls short of the best menu's by at most one (paired) standard error, which is what
    the experiment can tell apart, or by at most the tolerance, which is what is worth telling
    apart: without the second, the more precise an experiment, the more treatments are published.
    One treatment for all stays unless a larger menu beats it by more than chance: by more than what
    the largest of all differences reaches in five per cent of experiments in which no menu earns
    anything (see ``ScoreMoments.reached_by_chance``).

    Parameters
    ----------
    policies : q of them; menus and uniform among them.
    moments : of their scores, in the same order.
    select : ``auto``, or the size that was decided on.
    tolerance : share, 0 ≤ tolerance < 1, of what the best menu earns above the best single
        treatment.

    Examples
    --------
    >>> import numpy as np
    >>> sized = [Policy("uniform", 1), *(Policy("menu", k) for k in (1, 2, 4))]
    >>> without_noise = ScoreMoments(9, 9.0, np.array([1, 1, 1.996, 2]), np.zeros((4, 4)), 9)
    >>> select_menu_size(sized, without_noise)[0]
    4
    >>> select_menu_size(sized, without_noise, tolerance=0.01)[0]
    2
    """
    if select != "auto":
        return int(select), f"K = {select} as configured"
    net = moments.mean - np.array([policy.variety_cost for policy in policies])
    uniform = next(i for i, policy in enumerate(policies) if policy.name == "uniform")
    menus = sorted(
        (position for position, policy in enumerate(policies) if policy.name == "menu"),
        key=lambda i: policies[i].k,
    )
    best = max(menus, key=lambda i: (net[i], -policies[i].k))
    gain = max(float(net[best] - net[uniform]), 0.0)
    for i in menus:
        _, se = moments.contrast(best, i)
        shortfall, alone = float(net[best] - net[i]), policies[i].k == 1
        stays = alone and not _beaten(net, moments, i, [j for j in menus if j != i])
        if stays or shortfall <= max(0.0 if alone else se, tolerance * gain):
            break
    best_k, k = policies[best].k, policies[i].k
    near = (
        f" or {100 * tolerance:.3g}% of its gain over the best single treatment"
        if tolerance
        else ""
    )
    rule = f"smallest K whose honest value is within one paired standard error of the best{near}"
    if i == best:
        return k, f"{rule}: K = {k} is the best itself"
    below = f"{rule}: K = {k} is {shortfall:.4g} below K = {best_k}"
    if shortfall <= se:
        return k, f"{below}, within the standard error (paired s.e. {se:.4g})"
    if stays:
        return (
            k,
            f"{below} (paired s.e. {se:.4g}), which may be chance: one treatment for all stays",
        )
    share = f"{100 * shortfall / gain:.2g}% of that gain"
    return k, f"{below}, more than the paired s.e. of {se:.4g}, but only {share}"


def _beaten(net: FloatArray, moments: ScoreMoments, one: int, others: Sequence[int]) -> bool:
    """Whether any of the other policies is better than one by more than chance."""
    if not others:
        return False
    by_chance = moments.reached_by_chance(one, others)
    return any(net[j] - net[one] > by_chance * moments.contrast(j, one)[1] for j in others)
