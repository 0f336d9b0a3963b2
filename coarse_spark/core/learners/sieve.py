"""The sieve: ridge regression of the outcome on features ⊗ treatment basis, solved from Gram statistics.

E[y | x, t] = z(t)·C f(x) with one penalty for how the baseline varies with x and one for how the effects do; the average
response is not penalised. An infinite effect penalty is the constant-effect model. Penalties are chosen by cross-validation in
closed form: the coefficients and the held-out loss both come from sums over rows, never from the rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.linalg

from coarse_spark.core.learners.features import FeatureEncoder
from coarse_spark.core.learners.gram import GramStatistics, total
from coarse_spark.core.learners.preparation import Preparation
from coarse_spark.core.learners.record import ModelRecord
from coarse_spark.core.learners.whitening import Whitening

FloatArray = npt.NDArray[np.float64]

# The outcome has unit variance and so has every feature: the grid runs from no shrinkage to the slightest heterogeneity.
_GRID = (*np.geomspace(0.1, 1e5, 13).tolist(), np.inf)
_JITTER = 1e-9  # of the mean diagonal: solves collinear columns (all levels of a feature) without moving the fit


@dataclass(frozen=True)
class Layout:
    """Positions of the design's columns: z_j f_i at j·m + i, then the nuisance columns."""

    m: int
    p: int
    s: int

    @property
    def size(self) -> int:
        """Number of columns q."""
        return self.m * self.p + self.s

    def penalty(self, baseline: float, effect: float) -> FloatArray:
        """(q,) penalty of every column: none for the average response and the nuisance columns."""
        blocks = np.full((self.p, self.m), effect)
        blocks[0] = baseline
        blocks[:, 0] = 0.0
        return np.concatenate([blocks.ravel(), np.zeros(self.s)])

    def baseline_columns(self) -> npt.NDArray[np.bool_]:
        """(q,) columns that do not involve the treatment."""
        columns = np.zeros(self.size, dtype=bool)
        columns[: self.m] = True
        columns[self.m * self.p :] = True
        return columns


@dataclass(frozen=True)
class SieveFit:
    """Chosen penalties, coefficients (q,) and constant effects (p − 1,) in the whitened basis, with their held-out losses."""

    coefficients: FloatArray
    constant_effect: FloatArray
    baseline_penalty: float
    effect_penalty: float
    r_loss: float
    r_loss_constant: float
    gain_error: float


def ridge(statistics: GramStatistics, penalty: FloatArray) -> FloatArray:
    """Return argmin over b of Σ w (y − a·b)² + Σ penalty b²; columns with an infinite penalty get 0."""
    active = np.flatnonzero(np.isfinite(penalty))
    gram = statistics.gram[np.ix_(active, active)]
    diagonal = np.einsum("ii->i", gram)
    diagonal += penalty[active] + _JITTER * max(diagonal.mean(), 1e-300)
    coefficients = np.zeros(len(penalty))
    coefficients[active] = scipy.linalg.solve(gram, statistics.moment[active], assume_a="pos", overwrite_a=True)
    return coefficients


def fit_sieve(parts: Sequence[GramStatistics], layout: Layout, *, constant: bool = False) -> SieveFit:
    """Choose both penalties by cross-validation over the parts and fit on all of them.

    The baseline penalty minimises the held-out squared error with constant effects. The effect penalty then minimises the R-loss:
    the squared error of the effects given ONE held-out baseline, so that fitting the baseline well earns effects nothing.

    Parameters
    ----------
    parts : statistics of disjoint parts of the rows, at least two.
    layout : of the design.
    constant : keep the constant effect whatever the R-loss.
    """
    numbered = dict(enumerate(parts))
    everything = total(numbered)
    rest = [total(numbered, without={k}) for k in numbered]

    def held_out(fits: list[FloatArray]) -> float:
        return sum(part.loss(fit) for part, fit in zip(parts, fits, strict=True)) / everything.weight

    baseline_fits = {b: [ridge(r, layout.penalty(b, np.inf)) for r in rest] for b in _GRID}
    losses = {b: held_out(fits) for b, fits in baseline_fits.items()}
    baseline_penalty = min(losses, key=lambda b: losses[b])
    base = layout.baseline_columns()
    effect_losses = {np.inf: losses[baseline_penalty]}
    for effect in _GRID[:-1] if not constant else ():
        fits = [ridge(r, layout.penalty(baseline_penalty, effect)) for r in rest]
        effect_losses[effect] = held_out([np.where(base, c, f) for c, f in zip(baseline_fits[baseline_penalty], fits, strict=True)])
    effect_penalty = min(effect_losses, key=lambda e: effect_losses[e])
    gain_error = 0.0
    if np.isfinite(effect_penalty):
        fits = [ridge(r, layout.penalty(baseline_penalty, effect_penalty)) for r in rest]
        shifts = [np.where(base, 0.0, f - c) for c, f in zip(baseline_fits[baseline_penalty], fits, strict=True)]
        moved = sum(float(shift @ part.gram @ shift) for part, shift in zip(parts, shifts, strict=True))
        # Σ w (e² − (e − δ)²) has the standard error 2 σ sqrt(Σ w² δ²), δ being what heterogeneity moves held-out predictions by
        gain_error = 2 * float(np.sqrt(effect_losses[effect_penalty] * moved / everything.weight / everything.rows))
        if effect_losses[np.inf] - effect_losses[effect_penalty] < gain_error:
            effect_penalty = np.inf  # no heterogeneity that the data can tell from noise
    average = ridge(everything, layout.penalty(baseline_penalty, np.inf))
    return SieveFit(
        coefficients=ridge(everything, layout.penalty(baseline_penalty, effect_penalty)),
        constant_effect=average[layout.m : layout.m * layout.p : layout.m],
        baseline_penalty=baseline_penalty,
        effect_penalty=effect_penalty,
        r_loss=effect_losses[effect_penalty],
        r_loss_constant=effect_losses[np.inf],
        gain_error=gain_error,
    )


def sieve_record(preparation: Preparation, fit: SieveFit, everything: GramStatistics) -> ModelRecord:
    """Return the model row of a fit."""
    m, p, _ = preparation.shape
    specification = {"kind": "sieve", "preparation": preparation.to_dict()}
    unit = preparation.scale**2
    return ModelRecord(
        learner="sieve" if np.isfinite(fit.effect_penalty) else "constant",
        specification=json.dumps(specification),
        arrays={"coefficients": fit.coefficients[: m * p].reshape(p, m), "constant_effect": fit.constant_effect},
        diagnostics={
            "rows": everything.rows,
            "weight": everything.weight,
            "baseline_penalty": fit.baseline_penalty,
            "effect_penalty": fit.effect_penalty,
            "r_loss": fit.r_loss * unit,
            "r_loss_constant": fit.r_loss_constant * unit,
            "r_loss_gain": (fit.r_loss_constant - fit.r_loss) * unit,
            "r_loss_gain_error": fit.gain_error * unit,
        },
        warnings=tuple(f"feature '{name}' is constant and was left out" for name in preparation.encoder.dropped),
    )


@dataclass(frozen=True)
class SieveModel:
    """Scores with the coefficients of a sieve."""

    encoder: FeatureEncoder
    whitening: Whitening
    coefficients: FloatArray
    constant_effect: FloatArray
    center: float
    scale: float

    @staticmethod
    def restore(record: ModelRecord) -> SieveModel:
        """Return the model of a record."""
        preparation = Preparation.from_dict(record.content["preparation"])
        return SieveModel(
            preparation.encoder,
            preparation.whitening,
            record.arrays["coefficients"],
            record.arrays["constant_effect"],
            preparation.center,
            preparation.scale,
        )

    def predict(self, X: pd.DataFrame) -> FloatArray:
        """Return θ(x) (n, p)."""
        return self._raw(self.encoder.transform(X) @ self.coefficients.T)

    def predict_constant(self, X: pd.DataFrame) -> FloatArray:
        """Return θ(x) (n, p) of the same baseline with the constant effect."""
        theta = self.encoder.transform(X) @ self.coefficients.T
        theta[:, 1:] = self.constant_effect
        return self._raw(theta)

    def _raw(self, theta: FloatArray) -> FloatArray:
        theta = theta * self.scale
        theta[:, 0] += self.center
        return self.whitening.raw(theta)
