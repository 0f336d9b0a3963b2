"""Do responses know which treatment their unit got? Those of models that never saw it cannot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coarse_spark.core.additive import added_up
from coarse_spark.core.arrays import FloatArray, IntArray

_LIMIT = 4.0  # standard errors: far more than chance, far less than models show that saw the unit


@dataclass(frozen=True)
class OwnTreatment:
    """How far predictions at the treatment that a unit got stand out from those at others.

    A model that saw a unit is drawn to its outcome where it was observed: at its own treatment, not
    at others. So predictions there vary more from unit to unit. Where treatments are randomized,
    predictions of models that never saw the unit are independent of its treatment, good ones and
    bad ones, shrunken ones and overfitted ones alike: the difference has mean zero whatever the
    model. (That residuals are small, or that outcomes rise by more than one a prediction, tells a
    good or a shrunken model as well.)

    Attributes
    ----------
    ratio : mean square of what predictions deviate from their mean, at own treatments over that at
        the treatments of the stratum; 1 where models never saw the unit.
    z : the difference in its standard errors.
    """

    ratio: float
    z: float

    @property
    def stands_out(self) -> bool:
        """Whether the models saw the units that they predict, beyond reasonable doubt."""
        return self.z > _LIMIT


def own_treatment(
    theta: FloatArray, phi: FloatArray, stratum: np.ndarray, cluster: IntArray | None = None
) -> OwnTreatment:
    """Return how far predictions stand out at the treatments that units got.

    Parameters
    ----------
    theta : (n, p) coefficients of the units.
    phi : (n, p) basis at the treatments that they got, randomized within strata.
    stratum : (n,) labels.
    cluster : (n,) labels of units that are not independent; None where all are.
    """
    own: FloatArray = np.empty(len(theta))
    others: FloatArray = np.empty(len(theta))
    for label in np.unique(stratum):
        rows = stratum == label
        deviation, here = theta[rows] - theta[rows].mean(axis=0), phi[rows]
        own[rows] = np.einsum("ij,ij->i", deviation, here) ** 2
        moments = here.T @ here / len(here)
        others[rows] = np.einsum("ij,jk,ik->i", deviation, moments, deviation)
    excess = own - others
    if cluster is not None:
        excess = added_up(excess[:, None], cluster)[0][:, 0]
    # the mean is zero under the null, so that one large value cannot be large in its own errors
    error = float(np.sqrt((excess**2).sum()))
    expected = float(others.sum())
    return OwnTreatment(
        float(own.sum()) / expected if expected > 0 else 1.0,
        float(excess.sum()) / error if error > 0 else 0.0,
    )
