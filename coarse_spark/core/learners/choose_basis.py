"""Choice among declared treatment bases by held-out loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.basis import Basis, default_bases, place_knots, separated
from coarse_spark.core.identification import Standardized, standardized, why_unidentified
from coarse_spark.core.learners.crossfit import fit_models
from coarse_spark.core.learners.encoding.rows import TrialRows
from coarse_spark.core.learners.encoding.whitening import Whitening
from coarse_spark.core.learners.folds import ALL_FOLDS
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError

_UNUSUAL = ("any", "spline", "arms")  # terms that are tried where they are asked for, or by auto


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
        that those do not identify are left out, for one whose levels they tell apart where there
        is one (``separated``).
    rows : of the experiment; their folds do not matter.
    space : the treatments.
    settings, seed : as in ``fit_models``.

    Raises
    ------
    InvalidInputError : an unknown basis, or none that the treatments identify.
    """
    candidates = candidates_with_knots(names, space, rows.T)
    if len(candidates) == 1:
        return BasisChoice(candidates[0])
    whitenings, left_out = identified(candidates, rows.T, rows.weight)
    if not whitenings:
        reasons = "".join(f"\n  {reason}" for reason in left_out.values())
        tried = ", ".join(basis.name for basis in candidates)
        raise InvalidInputError(
            f"none of the bases {tried} is identified by the observed treatments:{reasons}\n"
            f"  use {_instead(rows, space)}"
        )
    sieve = replace(settings, learner="sieve", scale="additive", shape=None)
    whole = rows.in_one_fold
    losses: dict[str, float] = {}
    for basis in whitenings:
        record = fit_models(whole, basis=basis, settings=sieve, seed=seed)[ALL_FOLDS]
        kind = "r_loss_constant" if record.learner == "constant" else "r_loss"
        losses[basis.name] = record.diagnostics[kind]
    best = min(whitenings, key=lambda basis: losses[basis.name])
    return BasisChoice(best, losses, left_out)


def usual_bases(rows: TrialRows, space: TreatmentSpace) -> tuple[str, ...]:
    """Return the basis that is taken where none is asked for: never a problem of the user's.

    It is the largest that the treatments identify of the usual ones without jumps, splines and
    arms, such as quadratic; linear where two values were given. All of them where none is.

    Parameters
    ----------
    rows : of the experiment.
    space : the treatments.
    """
    suited = default_bases(space)
    plain = tuple(name for name in suited if not any(term in name for term in _UNUSUAL)) or suited
    whitenings, _ = identified(candidates_with_knots(plain, space, rows.T), rows.T, rows.weight)
    return (max(whitenings, key=lambda basis: basis.size).name,) if whitenings else plain


def candidates_with_knots(
    names: Sequence[str], space: TreatmentSpace, treatments: FloatArray
) -> tuple[Basis, ...]:
    """Return the bases of some names, their knots placed by observed treatments (n, d)."""
    placed = dict.fromkeys(place_knots(name, space, treatments) for name in names)
    return tuple(Basis(name, space) for name in placed)


def identified(
    candidates: Sequence[Basis], treatments: FloatArray, weight: FloatArray
) -> tuple[dict[Basis, Whitening], dict[str, str]]:
    """Return the whitenings of the bases that treatments identify, and why not, of the others.

    A basis of levels that a control has none of gives way to the one that tells treated units apart
    first (``separated``).

    Parameters
    ----------
    candidates : the bases.
    treatments : (n, d) encoded.
    weight : (n,).
    """
    whitenings, left_out = dict[Basis, Whitening](), dict[str, str]()
    compared = list(candidates)
    for basis in compared:
        found = standardized(basis, treatments, weight)
        if isinstance(found, Standardized):
            whitenings[basis] = Whitening.of(found)
            continue
        left_out[basis.name] = found
        other = basis.name
        if not basis.is_arms:
            other = separated(basis.name, basis.space, treatments)
        if other not in [known.name for known in compared]:
            compared.append(Basis(other, basis.space))
    return whitenings, left_out


def _instead(rows: TrialRows, space: TreatmentSpace) -> str:
    """Return what the observed treatments identify where they identify no suited basis."""
    given = len(np.unique(rows.T, axis=0))
    listed = f"basis 'arms' on a finite list of the {given} treatments that were given"
    jump = why_unidentified(Basis("any", space), rows.T, rows.weight)
    return (
        listed if jump else f"basis 'any', one effect of whatever is not the control, or {listed}"
    )
