"""Everything that the summary and the page say of one run, as plain numpy and pandas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.basis import Basis
from coarse_spark.core.learned_design import Overlap
from coarse_spark.core.profit import Profit, profit_matrix
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError, nearest

_NEEDED = {
    "menu": ("k", "treatment_id", "share", "expected_profit", "extrapolates", "selected"),
    "policy_values": (
        (
            "policy",
            "k",
            "value",
            "se",
            "ci_low",
            "ci_high",
            "captured_of_control",
            "captured_of_uniform",
            "plug_in_value",
            "n",
        )
    ),
    "contrasts": ("policy", "versus", "k", "difference", "se", "ci_low", "ci_high"),
    "segments": ("treatment_id", "size", "distinguishing", "rule"),
    "history": (),
}


@dataclass(frozen=True)
class LackOfFit:
    """How well the basis follows the response: observed against fitted outcome means by bin of treatment.

    Attributes
    ----------
    bins : columns label, n, observed, fitted (means of the outcome) and se (of observed − fitted); with one numeric treatment
        dimension also its mean in the bin, under the dimension's name.
    chi2, df, p_value : test that observed and fitted agree in every bin.
    """

    bins: pd.DataFrame
    chi2: float
    df: int
    p_value: float


@dataclass(frozen=True)
class LimitsKept:
    """The limits of the published menu, whose prices are in the table ``menu``.

    Attributes
    ----------
    shares : whether shares are limited. budget : most that may be spent per unit weight, None without one.
    spending : per unit weight. budget_price : what one more unit of money in the budget would earn; 0 where it does not bind.
    """

    shares: bool
    budget: float | None = None
    spending: float = 0.0
    budget_price: float = 0.0


@dataclass(frozen=True)
class ModelCounts:
    """How the partitions of the population are served, and what the learner gained."""

    own: int
    pooled: int
    failed: int
    r_loss_gain: float | None = None
    """1 − R-loss / R-loss of one effect common to all units, out of fold; None where it was not computed."""


@dataclass(frozen=True)
class Changes:
    """How many units get another treatment than in an earlier run: ``changed`` of ``units`` that had one; ``new`` had none."""

    previous_run: str
    units: int
    changed: int
    new: int


@dataclass(frozen=True)
class Stability:
    """How often treatments are chosen when the experiment says something a little different.

    Attributes
    ----------
    table : one row a treatment, rounded to its step: its dimensions, published (whether on the published menu), folds (how many of
        the folds' menus hold it), and frequency (the share of the redrawn menus that do) where there are any.
    folds, resamples : how many menus these are.
    expected_loss : mean profit per unit that menus chosen on redrawn responses lose; None without any.
    """

    table: pd.DataFrame
    folds: int
    resamples: int
    expected_loss: float | None


@dataclass(frozen=True)
class ReportContent:
    """One run as its readers see it; the frames have the columns of the tables of the same names.

    Attributes
    ----------
    title, run_id, started_at, outcome : texts of the user's or the run's.
    basis, profit : of the run; treatments and their names come from ``basis.space``.
    experiment_units, left_out_units, population_units : numbers of units; left out are unusable ones of the experiment.
    selected_k, selection_rule : the size of the published menu, and why.
    menu, policy_values, contrasts, segments : frames; contrasts name their reference control, uniform, granular or "menu of K".
    segment_theta : (selected_k, p) mean response coefficients of the segments, in the order of treatment_id.
    fit : lack of fit of the basis; None where it was not tested.
    basis_losses : held-out mean squared error of every basis that was compared, by name; empty where one was given.
    overlap : of a learned design; None where treatments were randomized.
    models : how partitions are served; None where there is nothing to say. limits : of the published menu, None without any.
    own_best : sample of units: their own best treatment, one column a dimension, and the treatment_id they get; may be empty.
    changes : against an earlier run; None without one.
    stability : of the choice of the published menu; None where it was not looked at.
    sketch : k, exact, sketch: plug-in values of the menus on the full population and on its sketch; may be empty.
    switching_cost : per unit, what changes of treatment take off the plug-in value of the published menu.
    history : passes of Lloyd's algorithm over the population: k, number, value, gain, moved, what; may be empty.
    timings : seconds a step, in order.
    warnings : sentences.
    confidence : of all intervals.

    Raises
    ------
    InvalidInputError : a frame without a needed column or row, or coefficients of another shape.
    """

    title: str
    run_id: str
    started_at: str
    outcome: str
    basis: Basis
    profit: Profit
    experiment_units: int
    left_out_units: int
    population_units: int
    selected_k: int
    selection_rule: str
    menu: pd.DataFrame
    policy_values: pd.DataFrame
    contrasts: pd.DataFrame
    segments: pd.DataFrame
    segment_theta: FloatArray
    fit: LackOfFit | None = None
    basis_losses: Mapping[str, float] = field(default_factory=dict)
    overlap: Overlap | None = None
    models: ModelCounts | None = None
    limits: LimitsKept | None = None
    own_best: pd.DataFrame = field(default_factory=pd.DataFrame)
    changes: Changes | None = None
    stability: Stability | None = None
    sketch: pd.DataFrame = field(default_factory=pd.DataFrame)
    switching_cost: float = 0.0
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    timings: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    confidence: float = 0.95

    def __post_init__(self) -> None:
        for name, columns in _NEEDED.items():
            frame: pd.DataFrame = getattr(self, name)
            for column in (*columns, *(self.space.names if name == "menu" else ())):
                if column not in frame.columns:
                    raise InvalidInputError(
                        f"report: table '{name}' lacks the column '{column}'{nearest(column, frame.columns)}"
                    )
        for policy in ("control", "uniform", "granular"):
            if policy not in set(self.policy_values["policy"]):
                raise InvalidInputError(
                    f"report: policy_values has no row for the policy '{policy}'"
                )
        for name, frame in (("menu", self.menu), ("policy_values", self.menus)):
            if self.selected_k not in set(frame["k"]):
                raise InvalidInputError(
                    f"report: {name} has no menu of {self.selected_k}, the selected size"
                )
        expected = (len(self.selected), self.basis.size)
        if np.shape(self.segment_theta) != expected:
            raise InvalidInputError(
                f"report: segment_theta has shape {np.shape(self.segment_theta)}, expected {expected}"
            )

    @property
    def space(self) -> TreatmentSpace:
        """The treatments that could be offered."""
        return self.basis.space

    @cached_property
    def menus(self) -> pd.DataFrame:
        """Rows of policy_values of the menus, smallest first."""
        return (
            self.policy_values[self.policy_values["policy"] == "menu"]
            .sort_values("k")
            .reset_index(drop=True)
        )

    @cached_property
    def selected(self) -> pd.DataFrame:
        """Rows of the published menu, in the order of treatment_id."""
        return self.menu_of(self.selected_k)

    @cached_property
    def treatments(self) -> FloatArray:
        """(selected_k, d) encoded treatments of the published menu."""
        return self.space.encode(self.selected)

    @cached_property
    def segment_profits(self) -> FloatArray:
        """(selected_k, selected_k + 1) plug-in profit of each segment under each treatment of the menu, and last the control."""
        return self.profits(np.vstack([self.treatments, self.space.control]))

    def menu_of(self, k: int) -> pd.DataFrame:
        """Return the rows of the menu of size ``k``, in the order of treatment_id."""
        return self.menu[self.menu["k"] == k].sort_values("treatment_id").reset_index(drop=True)

    def outcomes(self, treatments: FloatArray) -> FloatArray:
        """Return mean expected outcomes (selected_k, n) of the segments at encoded treatments (n, d)."""
        return np.asarray(self.segment_theta @ self.basis(treatments).T, dtype=np.float64)

    def profits(self, treatments: FloatArray) -> FloatArray:
        """Return mean profits (selected_k, n) of the segments at encoded treatments (n, d)."""
        return profit_matrix(
            np.asarray(self.segment_theta, dtype=np.float64),
            self.profit.psi(treatments, self.basis),
        )

    def value_of(self, policy: str, k: int | None = None) -> pd.Series[Any]:
        """Return the row of policy_values of a policy; ``k`` chooses among menus."""
        rows = self.policy_values[self.policy_values["policy"] == policy]
        return (rows if k is None else rows[rows["k"] == k]).iloc[0]

    def contrast(self, policy: str, versus: str, k: int | None = None) -> pd.Series[Any] | None:
        """Return the row of contrasts of a policy against a reference, or None where the run did not compare them."""
        rows = self.contrasts[
            (self.contrasts["policy"] == policy) & (self.contrasts["versus"] == versus)
        ]
        rows = rows if k is None else rows[rows["k"] == k]
        return rows.iloc[0] if len(rows) else None
