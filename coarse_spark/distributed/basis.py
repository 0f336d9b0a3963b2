"""One treatment basis for a whole run, chosen on a sample of the experiment."""

from __future__ import annotations

from pyspark.sql import DataFrame
from threadpoolctl import threadpool_limits

from coarse_spark.config.models import Configuration
from coarse_spark.core.learners.choose_basis import BasisChoice, choose_basis
from coarse_spark.distributed.fit import settings_of
from coarse_spark.distributed.sample import representative_sample
from coarse_spark.distributed.units import trial_rows

_SAMPLE_ROWS = 20_000  # enough to tell curves apart, small enough for the driver


def settle_basis(units: DataFrame, configuration: Configuration) -> BasisChoice:
    """Return the basis of a run: the configured one with its knots placed, or the best of several by held-out loss.

    Parameters
    ----------
    units : usable experiment rows in the shape of ``distributed.units.experiment_units``.

    The sample holds units of all folds, so this one choice has seen the units that judge the policies. It picks one of a handful
    of declared bases by the loss of predictions for rows that the fit did not see; everything after it, the coefficients, the
    menus and the design, is learned outside a unit's fold. A value is then that of a policy under the chosen basis, as if the
    basis had been declared beforehand. Where the candidates differ clearly the choice would be the same without any one fold;
    where they do not, they give nearly the same responses, and debiasing corrects each of them alike.
    """
    bases = configuration.bases
    if len(bases) == 1 and "spline" not in bases[0]:
        return BasisChoice(configuration.basis)
    sample = representative_sample(units, configuration, _SAMPLE_ROWS)
    rows = trial_rows(
        sample, configuration.experiment.features, len(configuration.space.dimensions)
    )
    with threadpool_limits(
        limits=1
    ):  # the last bit of a sum must not depend on the driver's number of cores
        return choose_basis(
            bases,
            rows,
            space=configuration.space,
            settings=settings_of(configuration),
            seed=configuration.menu.seed,
        )
