"""Honest policy values from unit-level scores: means, standard errors, paired contrasts and the choice of K.

A unit's score under a policy is ψ(π(x_i))·(θ̃_i, 1) with debiased coefficients θ̃ (see ``core.design``); a policy's value is the
weighted mean score, and two policies are compared on the same units, which cancels most of their noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ScoreMoments:
    """Weighted first and second moments of the scores of q policies over units; adds up over blocks of rows.

    Attributes
    ----------
    units : number of rows.
    weight : Σ w_i.
    mean : (q,) Σ w_i s_i / Σ w_i.
    scatter : (q + 1, q + 1) Σ w_i² (d_i)(d_i)ᵀ with d_i = (s_i − mean, 1): the extra row keeps what is needed to move the mean.
    """

    units: int
    weight: float
    mean: FloatArray
    scatter: FloatArray

    @staticmethod
    def of(scores: FloatArray, weight: FloatArray) -> ScoreMoments:
        """Return the moments of scores (n, q) with weights (n,)."""
        total = float(weight.sum())
        mean = weight @ scores / total if total > 0 else np.zeros(scores.shape[1])
        deviation = np.column_stack([scores - mean, np.ones(len(scores))]) * weight[:, None]
        return ScoreMoments(len(scores), total, mean, deviation.T @ deviation)

    def __add__(self, other: ScoreMoments) -> ScoreMoments:
        total = self.weight + other.weight
        mean = (self.weight * self.mean + other.weight * other.mean) / total if total > 0 else self.mean
        return ScoreMoments(self.units + other.units, total, mean, self._about(mean) + other._about(mean))

    def _about(self, mean: FloatArray) -> FloatArray:
        # (s − m', 1) = A (s − m, 1) with A = [[I, m − m'], [0, 1]]
        shift = np.eye(len(mean) + 1)
        shift[:-1, -1] = self.mean - mean
        return shift @ self.scatter @ shift.T

    @property
    def covariance(self) -> FloatArray:
        """(q, q) covariance of the mean scores: Σ w_i² (s_i − mean)(s_i − mean)ᵀ / (Σ w_i)², with n / (n − 1)."""
        correction = self.units / max(self.units - 1, 1)
        return np.asarray(self.scatter[:-1, :-1] / self.weight**2 * correction)

    def contrast(self, first: int, second: int) -> tuple[float, float]:
        """Return the paired difference of two policies' values and its standard error."""
        cov = self.covariance
        variance = cov[first, first] + cov[second, second] - 2 * cov[first, second]
        return float(self.mean[first] - self.mean[second]), float(np.sqrt(max(variance, 0.0)))

    def to_list(self) -> list[float]:
        """Return all numbers as one list, the form in which they leave a Spark executor."""
        return [float(self.units), self.weight, *self.mean.tolist(), *self.scatter.ravel().tolist()]

    @staticmethod
    def from_list(values: Sequence[float]) -> ScoreMoments:
        """Return the moments that ``to_list`` wrote."""
        array = np.asarray(values, dtype=np.float64)
        # 2 + q + (q + 1)² numbers
        q = round((-3 + np.sqrt(9 + 4 * (len(array) - 3))) / 2)
        return ScoreMoments(int(array[0]), float(array[1]), array[2 : 2 + q], array[2 + q :].reshape(q + 1, q + 1))


@dataclass(frozen=True)
class Policy:
    """One policy whose value is estimated: its name, its number of unique treatments (0 = no limit) and its costs of variety."""

    name: str
    k: int
    variety_cost: float = 0.0


def policy_values(policies: Sequence[Policy], moments: ScoreMoments, confidence: float) -> pd.DataFrame:
    """Return one row a policy: value, se, confidence interval and the two captured shares.

    Values are per unit weight, after the cost of variety. ``captured_of_control`` is (V − V_control) / (V_granular − V_control),
    ``captured_of_uniform`` the same above the best single treatment; NaN where full personalization gains nothing measurable.
    """
    z = stats.norm.ppf(0.5 + confidence / 2)
    value = moments.mean - np.array([policy.variety_cost for policy in policies])
    se = np.sqrt(np.clip(np.diag(moments.covariance), 0, None))
    position = {policy.name: index for index, policy in enumerate(policies)}  # the last menu row is not looked up
    granular = value[position["granular"]]
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
        base = value[position[reference]]
        gain = granular - base
        frame[f"captured_of_{reference}"] = (value - base) / gain if gain > 1e-12 * max(abs(granular), 1e-300) else np.nan
    frame["n"] = moments.units
    return frame


def contrasts(policies: Sequence[Policy], moments: ScoreMoments, confidence: float) -> pd.DataFrame:
    """Return paired differences: of every policy to control, uniform and granular, and of every menu to the next smaller one."""
    z = stats.norm.ppf(0.5 + confidence / 2)
    index = {(policy.name, policy.k): position for position, policy in enumerate(policies)}
    references = [next(p for p in policies if p.name == name) for name in ("control", "uniform", "granular")]
    pairs: list[tuple[Policy, Policy]] = []
    menus = sorted((p for p in policies if p.name == "menu"), key=lambda p: p.k)
    for policy in policies:
        pairs += [(policy, reference) for reference in references if reference.name != policy.name]
    pairs += list(zip(menus[1:], menus[:-1], strict=True))
    rows = []
    for policy, versus in pairs:
        difference, se = moments.contrast(index[policy.name, policy.k], index[versus.name, versus.k])
        difference -= policy.variety_cost - versus.variety_cost
        label = f"menu of {versus.k}" if versus.name == "menu" else versus.name
        rows.append((policy.name, label, policy.k, difference, se, difference - z * se, difference + z * se))
    return pd.DataFrame(rows, columns=["policy", "versus", "k", "difference", "se", "ci_low", "ci_high"])


def select_menu_size(policies: Sequence[Policy], moments: ScoreMoments) -> tuple[int, str]:
    """Return the smallest K whose value is within one (paired) standard error of the best menu's, and the rule in words."""
    menus = sorted((position for position, policy in enumerate(policies) if policy.name == "menu"), key=lambda i: policies[i].k)
    net = {i: moments.mean[i] - policies[i].variety_cost for i in menus}
    best = max(menus, key=lambda i: (net[i], -policies[i].k))
    for i in menus:
        _, se = moments.contrast(best, i)
        shortfall = net[best] - net[i]
        if shortfall <= se:
            break
    best_k, k = policies[best].k, policies[i].k
    rule = "smallest K whose honest value is within one paired standard error of the best"
    if i == best:
        return k, f"{rule}: K = {k} is the best itself"
    return k, f"{rule}: K = {k} is {shortfall:.4g} below K = {best_k} (paired s.e. {se:.4g})"
