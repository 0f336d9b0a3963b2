"""One treatment basis and one scale for a whole run, chosen on a sample of the experiment."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from pyspark.sql import DataFrame

from coarse_spark.core.basis import Basis
from coarse_spark.core.learners.choose_basis import (
    BasisChoice,
    candidates_with_knots,
    choose_basis,
)
from coarse_spark.core.learners.choose_scale import ScaleChoice, choose_scale
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.distributed.frames import ExperimentSetup, matrix, trial_rows
from coarse_spark.distributed.sample import representative_sample

_SAMPLE_ROWS = 20_000  # enough to tell curves apart, small enough for the driver


def settle_form(
    units: DataFrame,
    setup: ExperimentSetup,
    bases: Sequence[str],
    learner: LearnerSettings,
    outcomes: tuple[float, float],
) -> tuple[BasisChoice, ScaleChoice]:
    """Return the form of a run's responses: basis and scale, as given or the best of several.

    The sample holds units of all folds, so this one choice has seen the units that judge the
    policies. It picks one of a handful of declared forms by the loss of predictions for rows that
    the fit did not see; everything after it, the coefficients, the menus and the design, is learned
    outside a unit's fold. A value is then that of a policy under the chosen form, as if it had
    been declared beforehand. Where the candidates differ clearly the choice would be the same
    without any one fold; where they do not, they give nearly the same responses, and debiasing
    corrects each of them alike.

    Parameters
    ----------
    units : usable experiment rows in the shape of ``distributed.frames.experiment_units``.
    setup : of the experiment.
    bases : names of the bases to compare by held-out loss.
    learner : settings of the fits that are compared.
    outcomes : the smallest and the largest one of all units.
    """
    if len(bases) == 1 and "spline" not in bases[0] and learner.scale != "auto":
        return BasisChoice(Basis(bases[0], setup.space)), ScaleChoice(learner.scale)
    sample = form_sample(units, setup, bases)
    rows = trial_rows(sample, setup)
    basis = choose_basis(bases, rows, space=setup.space, settings=learner, seed=setup.seed)
    scale = choose_scale(
        rows, basis=basis.basis, settings=learner, seed=setup.seed, outcomes=outcomes
    )
    return basis, scale


def with_knots(units: DataFrame, setup: ExperimentSetup, bases: Sequence[str]) -> tuple[str, ...]:
    """Return the names of bases with the knots of their splines spelled out.

    Outcomes that share a basis share its knots, whichever units have them.

    Parameters
    ----------
    units : as in ``form_sample``, which the knots are placed by.
    setup : of the experiment.
    bases : names, with knots or without.
    """
    if not any("spline" in name for name in bases):
        return tuple(bases)
    treatments = matrix(form_sample(units, setup, bases), setup.treatments)
    return tuple(basis.name for basis in candidates_with_knots(bases, setup.space, treatments))


def form_sample(units: DataFrame, setup: ExperimentSetup, bases: Sequence[str]) -> pd.DataFrame:
    """Return the sample that places knots, whitens treatments and tells forms apart.

    Parameters
    ----------
    units : usable experiment rows, of which key, weight, stratum and treatment_0 … are needed.
    setup : of the experiment.
    bases : names of those that it is for.
    """
    arms = any("arms" in name for name in bases)
    return representative_sample(units, setup, _SAMPLE_ROWS, arms=arms)
