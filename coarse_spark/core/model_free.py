"""Values without a model of responses, where treatments are few and shares known or counted.

The self-normalised inverse propensity estimate (Hájek 1971) of a policy's value is the mean of what
units earned that happened to get the policy's treatment, each counting one over the share of its
treatment in its stratum. It knows nothing of responses beyond who gets what, is far less precise
than debiased scores, and checks them. Its standard errors take shares as known: counted ones make
it more precise than they say, where strata differ (Hirano, Imbens & Ridder 2003).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.values import ScoreMoments

MOST_TREATMENTS = 64  # with more, too few units got any one of them
_ALIKE = 1e-5  # of the range of an entry of ψ: treatments are stored in single precision at times
WIDTH = 3  # scores of a policy
_OVERLAP = 4.0  # standard errors that the mean of the weights may be from 1
# of the weight, that may get what nobody in its stratum got: their profits are unknown, and the
# value is wrong by as large a share of how far these are from those of the others
_UNKNOWN = 1e-3


@dataclass(frozen=True, eq=False)
class GivenShares:
    """How often an experiment gave its treatments within strata.

    Attributes
    ----------
    treatments : (m, d) encoded, all different.
    psi : (m, p + 1) rows of these; treatments with the same one are one treatment.
    shares : (m,) by stratum: of the weight of those that got a treatment with the same row, and
        have all outcomes.
    """

    treatments: FloatArray
    psi: FloatArray
    shares: Mapping[str, FloatArray]

    @staticmethod
    def of(
        problem: MenuProblem,
        treatments: FloatArray,
        strata: npt.ArrayLike,
        weight: FloatArray,
        having: FloatArray | None = None,
    ) -> GivenShares:
        """Count rows (n, d) of strata (n,) with weights (n,): units, or sums of like ones.

        Of these weights ``having`` (n,) is of units that have all outcomes, by default all.
        """
        having = weight if having is None else having
        distinct, place = np.unique(treatments, axis=0, return_inverse=True)
        psi = problem.psi_at(distinct)
        alike = _same(psi[:, None], psi[None], _scale(problem))
        labels = np.asarray(strata).astype(str)
        shares = {}
        for label in np.unique(labels):
            inside = labels == label
            counts = np.bincount(place.ravel()[inside], having[inside], minlength=len(distinct))
            shares[str(label)] = alike @ counts / weight[inside].sum()
        return GivenShares(distinct, psi, shares)

    def rows(
        self,
        problem: MenuProblem,
        treatments: FloatArray,
        strata: npt.ArrayLike,
        y: FloatArray,
        factors: FloatArray | None = None,
    ) -> ModelFreeRows:
        """Return what policies of units are valued by.

        Parameters
        ----------
        problem : whose profit counts.
        treatments, strata : (n, d) that the units got, (n,) where.
        y : (n,) outcomes, or of several (n, ·): units that lack one, NaN, count for nothing, and
            others for more.
        factors : (n, f) of the units (``core.profit.ProfitCoefficients``), where profit has any.
        """
        place = self._places(treatments)
        amounts = problem.of_profit.amounts(problem.profit, treatments, problem.space)
        given = np.empty((len(y), 0)) if factors is None else factors
        y = y.reshape(len(y), -1)
        has = ~np.isnan(y).any(axis=1)
        earned = problem.of_profit.earned(amounts, np.nan_to_num(y), given)
        labels, codes = np.unique(np.asarray(strata).astype(str), return_inverse=True)
        shares = np.stack([self.shares[str(label)] for label in labels])[codes.ravel()]
        own = shares[np.arange(len(y)), place]
        inverse = np.divide(1.0, own, out=np.zeros(len(y)), where=has)
        return ModelFreeRows(self.psi, place, _scale(problem), inverse, earned, shares > 0)

    def _places(self, treatments: FloatArray) -> IntArray:
        position = {row.tobytes(): number for number, row in enumerate(self.treatments + 0.0)}
        return np.array([position[row.tobytes()] for row in treatments + 0.0], dtype=np.intp)


@dataclass(frozen=True, eq=False)
class ModelFreeRows:
    """Units as their own treatments and outcomes tell of policies.

    Attributes
    ----------
    psi : (m, p + 1) rows of the treatments that anybody got.
    place : (n,) which of these the units got.
    scale : (p + 1,) of the entries of ψ.
    inverse : (n,) one over the share of that treatment in the stratum; 0 without all outcomes.
    earned : (n,) profit.
    known : (n, m) whether anybody in their stratum got the treatments, and has all outcomes.
    """

    psi: FloatArray
    place: IntArray
    scale: FloatArray
    inverse: FloatArray
    earned: FloatArray
    known: BoolArray

    def scores(self, psi: FloatArray) -> FloatArray:
        """Return (n, 3) h · profit, h, and 1 where nobody in the stratum got what ``psi``
        (n, p + 1) says: h is the inverse of those that got it, and 0 of all others."""
        # the units of a menu share few rows
        groups = pd.DataFrame(psi).groupby([*range(psi.shape[1])], sort=False, dropna=False)
        _, first, code = np.unique(groups.ngroup(), return_index=True, return_inverse=True)
        alike = np.stack([_same(psi[first], one, self.scale) for one in self.psi], axis=1)[code]
        h = np.where(alike[np.arange(len(psi)), self.place], self.inverse, 0.0)
        unknown = ~(alike & self.known).any(axis=1)
        return np.column_stack([h * self.earned, h, unknown])


def _scale(problem: MenuProblem) -> FloatArray:
    """Ranges (p + 1,) of the entries of ψ; of constant ones, what rounding may make of them."""
    return np.asarray(np.ptp(problem.psi, axis=0) + 1e-7 * np.abs(problem.psi).max(axis=0))


def _same(first: FloatArray, second: FloatArray, scale: FloatArray) -> BoolArray:
    return np.asarray((np.abs(first - second) <= _ALIKE * scale).all(axis=-1))


def model_free_values(moments: ScoreMoments) -> tuple[FloatArray, FloatArray]:
    """Return values (q,) and their standard errors (q,), by the delta method.

    NaN where more than a thousandth of the weight gets under the policy what nobody in its stratum
    got, or where the mean of the weights h is not 1, up to chance.

    Parameters
    ----------
    moments : of ``ModelFreeRows.scores`` of q policies, side by side.
    """
    earned, h, unknown = moments.mean.reshape(-1, WIDTH).T
    spread = np.abs(h - 1) <= _OVERLAP * moments.errors[1::WIDTH] + 1e-9
    spread &= unknown <= _UNKNOWN
    value = np.full(len(h), np.nan)
    np.divide(earned, h, out=value, where=spread & (h > 0))
    pairs = moments.covariance.reshape(len(h), WIDTH, len(h), WIDTH)
    own = np.einsum("iaib->iab", pairs)[:, :2, :2]
    slope = np.column_stack([np.ones(len(h)), -value])
    variance = np.einsum("ia,iab,ib->i", slope, own, slope) / np.where(h > 0, h, 1.0) ** 2
    return value, np.sqrt(np.clip(variance, 0, None))
