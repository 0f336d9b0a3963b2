"""Honest values in memory: menus judged by the outcomes of units that no learner has seen."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from coarse_spark.core.arrays import BoolArray, FloatArray, IntArray, numbers
from coarse_spark.core.basis import Basis
from coarse_spark.core.debiased import debiased_coefficients
from coarse_spark.core.design import moment_sums, representer_of_known
from coarse_spark.core.lack_of_fit import (
    GO_WITH_STRATA,
    LackOfFit,
    TreatmentBins,
    bin_columns,
    bin_scatter,
    bin_sums,
    lack_of_fit,
)
from coarse_spark.core.learners.encoding.whitening import Whitening
from coarse_spark.core.menu.menu import Menu
from coarse_spark.core.menu.population import validated_units
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.search import best_single
from coarse_spark.core.menu.units import WeightedUnits
from coarse_spark.core.profit import OUTCOME, Profit
from coarse_spark.core.strata import (
    MergedStrata,
    merge_strata,
    said_of_outcomes,
    treated_differently,
)
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.core.values import Policy, ScoreMoments, contrasts, policy_values
from coarse_spark.errors import InvalidInputError
from coarse_spark.text import counted

log = logging.getLogger(__name__)


class HonestValues(NamedTuple):
    """What policies earn per unit weight.

    Attributes
    ----------
    policy_values : one row a policy, control, best single treatment (``uniform``), menus by K and
        full personalization (``granular``): value, se, interval, captured shares with intervals.
    contrasts : paired differences between policies, with intervals.
    lack_of_fit : the test that responses follow the basis, without which values are not honest; of
        several outcomes the one that follows it least, its p-value times their number.
    """

    policy_values: pd.DataFrame
    contrasts: pd.DataFrame
    lack_of_fit: LackOfFit


def honest_values(
    theta: npt.ArrayLike | pd.DataFrame | Mapping[str, npt.ArrayLike],
    T: pd.DataFrame | npt.ArrayLike,
    y: npt.ArrayLike | Mapping[str, npt.ArrayLike],
    menus: Iterable[Menu],
    *,
    space: TreatmentSpace,
    basis: Basis | str,
    profit: Profit,
    units: pd.DataFrame | None = None,
    weights: npt.ArrayLike | None = None,
    strata: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    confidence: float = 0.95,
) -> HonestValues:
    """Judge menus by units of an experiment whose outcomes taught nobody anything yet.

    Treatments have to be randomized, for all alike or within strata. Menus may be chosen on these
    ``theta``: outcomes are not in them. Every unit counts by its debiased coefficients
    (``core.design.corrected``), which is honest as far as responses follow the basis:
    ``lack_of_fit`` tests that, and ``arms``, a column a candidate, assumes nothing.

    Parameters
    ----------
    theta : (n, p) responses of the units, predicted by a learner that was fitted on others.
    T : (n, d) or (n,) the treatments that they got, in the user's values.
    y : (n,) their outcomes; of several a mapping from each, or (n, outcomes) in the order of
        ``profit.outcomes``. Their scores are added up before errors are taken, so that what goes
        together counts together. One of several may be NaN for some units: the others count for as
        many more as their stratum has, which is honest where its lack tells nothing of outcomes
        beyond treatment and stratum.
    menus : of different K, without eligibility or switching costs. The best single treatment is the
        menu of one where there is one, and else what earns most with all by ``theta``.
    space, basis, profit : as the menus were chosen with.
    units : n rows with the ``unit_columns`` of the profit.
    weights : (n,), default 1.
    strata : (n,) labels of the randomization strata; default none. Those that do not identify the
        basis are merged with others, as a run does (``core.strata``), and a warning is logged.
    groups : (n,) labels of clusters, such as households, whose outcomes go together; default none.
    confidence : of the intervals.

    Raises
    ------
    InvalidInputError : rows that do not match, menus that cannot be judged here, or treatments that
        do not identify the basis.

    Examples
    --------
    >>> from coarse_spark import Profit, TreatmentSpace, choose_menu
    >>> space = TreatmentSpace.from_dict(
    ...     {"t": {"kind": "continuous", "lower": 0, "upper": 2, "control": 0}}
    ... )
    >>> problem = {"space": space, "basis": "quadratic", "profit": Profit()}
    >>> theta = np.tile([[0, 1.0, -0.5], [0, 2.0, -0.5]], (50, 1))  # best at 1 and 2
    >>> T = np.linspace(0, 2, 100)
    >>> y = theta[:, 1] * T - 0.5 * T**2  # without noise, what was predicted
    >>> menus = [choose_menu(theta, k=k, **problem) for k in (1, 2)]
    >>> found = honest_values(theta, T, y, menus, **problem)
    >>> found.policy_values.set_index(["policy", "k"])["value"].round(3).to_dict()
    {('control', 1): 0.0, ('uniform', 1): 1.125, ('menu', 1): 1.125, ('menu', 2): 1.25, \
('granular', 0): 1.25}
    """
    problem, menus = MenuProblem.build(space, basis, profit), list(menus)
    of_profit = problem.of_profit
    coefficients, weight, kept = validated_units(problem, theta, weights, columns=units)
    responses = coefficients[:, : of_profit.responses]
    treatments, outcomes = space.encode(T), _outcomes(y, of_profit.outcomes)
    labels = [None if one is None else np.ravel(one) for one in (strata, groups)]
    columns = {"T": treatments, "y": outcomes, "strata": labels[0], "groups": labels[1]}
    _check_lengths(columns, len(kept))
    # rows of weight 0 are no rows
    treatments, outcomes = treatments[kept], outcomes[kept]
    labels = [None if one is None else one[kept] for one in labels]
    cluster = None if labels[1] is None else np.unique(labels[1], return_inverse=True)[1]
    _check(outcomes, menus, cluster)
    phi = problem.basis(treatments)
    learned = np.split(responses, len(of_profit.outcomes), axis=1)
    known = np.isfinite(outcomes)
    factors = of_profit.factor_values(of_profit.columns(units, len(kept))[kept])
    whitening = Whitening.fit(problem.basis, treatments, weight)
    z = whitening(phi)
    judged = [_design(z, labels[0], weight, has) for has in known.T]
    told = [strata.problems(problem.basis.name) for strata in judged]
    for sentence in said_of_outcomes(told, of_profit.outcomes):
        log.warning("honest values: %s", sentence)
    turned = np.hstack(
        [
            whitening.raw(representer_of_known(z, strata.moments, labels[0], has))
            for strata, has in zip(judged, known.T, strict=True)
        ]
    )
    debiased = debiased_coefficients(of_profit, responses, phi, outcomes, turned, factors)

    sized = {menu.k: menu for menu in sorted(menus, key=lambda menu: menu.k)}
    single = (
        sized[1].psi
        if 1 in sized
        else best_single(problem, WeightedUnits.of(coefficients, weight)).psi
    )
    everyone = np.zeros(len(coefficients), dtype=np.intp)
    given = {
        Policy("control", 1): problem.control_psi[None, :][everyone],
        Policy("uniform", 1): single[everyone],
        **{Policy("menu", k): m.psi[m.assign_known(coefficients)] for k, m in sized.items()},
        Policy("granular", 0): problem.psi_at(problem.granular(coefficients)[0]),
    }
    scores = np.column_stack(
        [(debiased * psi[:, :-1]).sum(axis=1) + psi[:, -1] for psi in given.values()]
    )
    center = np.average(scores, axis=0, weights=weight)
    found = ScoreMoments.of(ScoreMoments.sums(scores, weight, center, cluster), center)
    policies = list(given)
    differ = treated_differently(moment_sums(z, labels[0], weight))
    fits = [
        _fit(
            space,
            treatments[has],
            bin_columns(treatments, phi, one, (phi * theta_hat).sum(axis=1))[has],
            None if cluster is None else np.unique(cluster[has], return_inverse=True)[1],
            GO_WITH_STRATA if differ else "",
        )
        for theta_hat, one, has in zip(learned, outcomes.T, known.T, strict=True)
    ]
    worst = min(fits, key=lambda fit: 1.0 if fit.untested else fit.p_value)
    return HonestValues(
        policy_values(policies, found, confidence),
        contrasts(policies, found, confidence),
        replace(worst, p_value=min(worst.p_value * len(fits), 1.0)),
    )


def _design(
    z: FloatArray, strata: npt.NDArray[Any] | None, weight: FloatArray, known: BoolArray
) -> MergedStrata:
    """Return the design of whitened columns z (n, p) for an outcome that some units have."""
    sums = moment_sums(z, strata, weight, known)
    return MergedStrata(sums) if strata is None else merge_strata(sums)


def _outcomes(y: npt.ArrayLike | Mapping[str, npt.ArrayLike], names: tuple[str, ...]) -> FloatArray:
    """Return outcomes (n, ·) in the order of their names."""
    what = "honest values: y"
    if isinstance(y, Mapping | pd.DataFrame):
        given = [str(name) for name in y]
        # a margin that names no outcome is of whichever there is
        unnamed = names == (OUTCOME,) and len(given) == 1
        if sorted(given) != sorted(names) and not unnamed:
            raise InvalidInputError(
                f"{what} is of {sorted(given)}, expected the outcomes of the profit's margin: "
                f"{sorted(names)}"
            )
        columns = {str(name): numbers(one, f"{what} of {name}") for name, one in y.items()}
        found = list(columns.values()) if len(names) == 1 else [columns[name] for name in names]
        lengths = [column.shape for column in found]
        if len({*lengths}) > 1 or len(lengths[0]) != 1:
            raise InvalidInputError(
                f"{what} has outcomes of the shapes {', '.join(map(str, lengths))}, expected one "
                "number a unit of each"
            )
        return np.column_stack(found)
    array = numbers(y, what)
    if len(names) == 1:
        return array.reshape(-1, 1)
    if array.ndim != 2 or array.shape[1] != len(names):
        raise InvalidInputError(
            f"{what} has shape {array.shape}, expected (n, {len(names)}), a column each "
            f"of {', '.join(names)}"
        )
    return array


def _fit(
    space: TreatmentSpace,
    treatments: FloatArray,
    columns: FloatArray,
    cluster: IntArray | None,
    untested: str,
) -> LackOfFit:
    bins = TreatmentBins.fit(treatments, space)
    number = bins.assign(treatments)
    sums = bin_sums(bins.size, number, columns)
    if cluster is None:
        return lack_of_fit(bins, sums, untested=untested)
    scatter = bin_scatter(bins.size, number, columns, cluster)
    return lack_of_fit(bins, sums, scatter, int(cluster.max()) + 1, untested)


def _check_lengths(columns: Mapping[str, Any], rows: int) -> None:
    for name, column in columns.items():
        if column is not None and len(column) != rows:
            raise InvalidInputError(
                f"honest values: {name} has {len(column)} rows and theta {rows}, expected one row "
                "a unit"
            )


def _check(y: FloatArray, menus: Sequence[Menu], cluster: IntArray | None) -> None:
    many, what = (len(y), "unit") if cluster is None else (int(cluster.max()) + 1, "cluster")
    if many < 2:
        where = " in groups" if what == "cluster" else ""
        raise InvalidInputError(
            f"honest values: {counted(many, what)}{where}, expected at least 2: standard errors "
            f"are how {what}s differ"
        )
    # of several outcomes, one may not be there yet
    lacking = np.isnan(y).all(axis=0).any() if y.shape[1] > 1 else np.isnan(y).any()
    if lacking or np.isinf(y).any():
        raise InvalidInputError(
            "honest values: y has missing or infinite outcomes; leave these out"
        )
    sizes = [menu.k for menu in menus]
    if len(set(sizes)) < len(sizes):
        raise InvalidInputError(
            f"honest values: menus of K = {sizes}, expected different sizes; judge one of a size"
        )
    if any(menu.rules.all for menu in menus):
        raise InvalidInputError(
            "honest values: a menu has eligibility or a switching cost, which only a run judges"
        )
