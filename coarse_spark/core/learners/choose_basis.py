"""Choice among declared treatment bases by held-out loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from coarse_spark.core.basis import Basis, place_knots
from coarse_spark.core.learners.crossfit import fit_models
from coarse_spark.core.learners.encoding.rows import TrialRows
from coarse_spark.core.learners.encoding.whitening import Whitening
from coarse_spark.core.learners.folds import ALL_FOLDS
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError


@dataclass(frozen=True)
class BasisChoice:
    """A basis and what it was compared with.

    Attributes
    ----------
    basis : the chosen one; the knots of its splines are part of its name.
    losses : held-out mean squared error of every basis compared, by name; empty where there was
        only one.
    left_out : why a candidate was not compared, by name.
    """

    basis: Basis
    losses: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def choose_basis(
    names: Sequence[str],
    rows: TrialRows,
    *,
    space: TreatmentSpace,
    settings: LearnerSettings,
    seed: int = 0,
) -> BasisChoice:
    """Return the basis whose sieve predicts held-out outcomes best.

    A single candidate is taken as it is.

    Parameters
    ----------
    names : the candidates. Splines without knots get theirs from the treatments of the rows; bases
        that those do not identify are left out.
    rows : of the experiment; their folds do not matter.
    space : the treatments.
    settings, seed : as in ``fit_models``.

    Raises
    ------
    InvalidInputError : an unknown basis, or none that the treatments identify.
    """
    candidates = tuple(dict.fromkeys(place_knots(name, space, rows.T) for name in names))
    if len(candidates) == 1:
        return BasisChoice(Basis(candidates[0], space))
    losses: dict[str, float] = {}
    left_out: dict[str, str] = {}
    sieve = replace(settings, learner="sieve", scale="additive", shape=None)
    whole = rows.in_one_fold
    for name in candidates:
        basis = Basis(name, space)
        try:
            Whitening.fit(basis, rows.T, np.ones(len(rows)))
        except InvalidInputError as error:
            left_out[name] = str(error)
            continue
        record = fit_models(whole, basis=basis, settings=sieve, seed=seed)[ALL_FOLDS]
        kind = "r_loss_constant" if record.learner == "constant" else "r_loss"
        losses[name] = record.diagnostics[kind]
    if not losses:
        raise InvalidInputError(
            f"none of the bases {', '.join(candidates)} is identified by the observed treatments"
        )
    return BasisChoice(Basis(min(losses, key=lambda name: losses[name]), space), losses, left_out)
