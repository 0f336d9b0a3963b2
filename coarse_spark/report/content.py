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
from coarse_spark.core.menu.problem.limits import Limit
from coarse_spark.core.policies import COMPARISONS
from coarse_spark.core.profit import Profit, ProfitCoefficients, profit_matrix
from coarse_spark.core.treatments import TreatmentSpace
from coarse_spark.errors import InvalidInputError, nearest
from coarse_spark.lake.step_results import (
    AssignResult,
    ChooseResult,
    EvaluateResult,
    FitResult,
    ScoreResult,
    ValidateResult,
)
from coarse_spark.report.money import Money

_NEEDED = {
    "menu": (
        "k",
        "treatment_id",
        "share",
        "expected_profit",
        "extrapolates",
        "untried",
        "selected",
    ),
    "policy_values": (
        (
            "policy",
            "k",
            "value",
            "se",
            "ci_low",
            "ci_high",
            "captured_of_control",
            "captured_of_control_low",
            "captured_of_control_high",
            "captured_of_uniform",
            "captured_of_uniform_low",
            "captured_of_uniform_high",
            "plug_in_value",
            "model_free_value",
            "model_free_se",
            "n",
        )
    ),
    "contrasts": ("policy", "versus", "k", "difference", "se", "ci_low", "ci_high"),
    "segments": ("treatment_id", "size", "distinguishing", "rule"),
}


@dataclass(frozen=True)
class ReportContent:
    """One run as its readers see it; the frames have the columns of the tables of the same names.

    Attributes
    ----------
    title, run_id, started_at, outcome : texts of the user's or the run's.
    basis : of the run; treatments and their names come from ``basis.space``.
    profit : of the run.
    validated, fitted, scored, chosen, evaluated, assigned : what the steps found.
    menu, policy_values, segments : frames.
    contrasts : frame; names its reference control, uniform, granular or "menu of K".
    own_best : sample of units: their own best treatment, one column a dimension, and the
        treatment_id they get; may be empty.
    timings : seconds a step, in order.
    warnings : sentences.
    confidence : of all intervals.
    design : how the experiment gave treatments: randomized, stratified or learned.
    totals : limits on what the menu comes to, such as a budget.
    money : the words of amounts.
    population_given : whether the population is another table than the experiment's.
    brought : where the responses were brought along from; empty where they were learned.
    frontier : frame, of every frontier that the run was asked for; may be empty.

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
    validated: ValidateResult
    fitted: FitResult
    scored: ScoreResult
    chosen: ChooseResult
    evaluated: EvaluateResult
    assigned: AssignResult
    menu: pd.DataFrame
    policy_values: pd.DataFrame
    contrasts: pd.DataFrame
    segments: pd.DataFrame
    own_best: pd.DataFrame = field(default_factory=pd.DataFrame)
    timings: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    confidence: float = 0.95
    design: str = "randomized"
    totals: tuple[Limit, ...] = ()
    money: Money = field(default_factory=Money)
    population_given: bool = False
    brought: str = ""
    frontier: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __post_init__(self) -> None:
        for name, columns in _NEEDED.items():
            frame: pd.DataFrame = getattr(self, name)
            for column in (*columns, *(self.space.names if name == "menu" else ())):
                if column not in frame.columns:
                    raise InvalidInputError(
                        f"report: table '{name}' lacks the column '{column}'"
                        f"{nearest(column, frame.columns)}"
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
        found = np.shape(self.chosen.menus[self.selected_k].segment_theta)
        expected = (self.selected_k, self.of_profit.size)
        if found != expected:
            raise InvalidInputError(f"report: segment_theta has shape {found}, expected {expected}")

    @property
    def space(self) -> TreatmentSpace:
        """The treatments that could be offered."""
        return self.basis.space

    @property
    def outcome_names(self) -> tuple[str, ...]:
        """The outcomes, in the order of the responses."""
        return self.profit.outcomes if len(self.profit.outcomes) > 1 else (self.outcome,)

    @property
    def judged_outcome(self) -> str:
        """What the fit is tested on: of several outcomes their sum in money."""
        return self.outcome if len(self.profit.outcomes) == 1 else f"{self.outcome} in money"

    @property
    def margin(self) -> str:
        """The margin as the user wrote it, of several outcomes each."""
        margin = self.profit.margin
        if isinstance(margin, str):
            return margin
        return ", ".join(f"{text} for {name}" for name, text in margin.items())

    @cached_property
    def of_profit(self) -> ProfitCoefficients:
        """What ``segment_theta`` is of."""
        profits = [self.profit, *(limit.row_profit for limit in self.totals)]
        return ProfitCoefficients.of(self.basis.size, profits)

    @property
    def selected_k(self) -> int:
        """The size of the published menu."""
        return self.evaluated.k

    @property
    def published(self) -> pd.Series[Any]:
        """The row of policy_values of what is published: the menu, or the rule that assigns it."""
        return self.value_of(self.assigned.policy, self.selected_k)

    @cached_property
    def segment_theta(self) -> FloatArray:
        """(m, p) mean coefficients of the segments of ``selected``, responses first."""
        by_rule = self.assigned.segment_theta
        theta = by_rule or self.chosen.menus[self.selected_k].segment_theta
        some = (self.menu_of(self.selected_k)["share"] > 0).to_numpy()
        return np.asarray(theta, dtype=np.float64)[some]

    @cached_property
    def menus(self) -> pd.DataFrame:
        """Rows of policy_values of the menus, smallest first."""
        return (
            self.policy_values[self.policy_values["policy"] == "menu"]
            .sort_values("k")
            .reset_index(drop=True)
        )

    @cached_property
    def compared(self) -> pd.DataFrame:
        """Rows of contrasts of the published menu against what it is compared with."""
        rows = self.contrasts
        chosen = (rows["policy"] == "menu") & (rows["k"] == self.selected_k)
        return rows[chosen & rows["versus"].isin(COMPARISONS)].reset_index(drop=True)

    @cached_property
    def selected(self) -> pd.DataFrame:
        """The m rows of the published menu that somebody gets, in the order of treatment_id."""
        menu = self.menu_of(self.selected_k)
        return menu[menu["share"] > 0].reset_index(drop=True)

    @cached_property
    def treatments(self) -> FloatArray:
        """(m, d) encoded treatments of ``selected``."""
        return self.space.encode(self.selected)

    @cached_property
    def segment_profits(self) -> FloatArray:
        """(m, m + 1) plug-in profit of each segment under each treatment of ``selected``.

        The last column is the control's.
        """
        return self.profits(np.vstack([self.treatments, self.space.control]))

    def menu_of(self, k: int) -> pd.DataFrame:
        """Return the rows of the menu of size ``k``, in the order of treatment_id."""
        return self.menu[self.menu["k"] == k].sort_values("treatment_id").reset_index(drop=True)

    def spare(self, k: int) -> int:
        """Return how many treatments of the menu of size ``k`` are best for nobody."""
        return int((self.menu_of(k)["share"] <= 0).sum())

    @property
    def raw_means(self) -> str:
        """What mean outcomes by treatment mix up with effects; empty where nothing."""
        return {
            "randomized": "",
            "stratified": "which strata got which treatment",
            "learned": "which units got which treatment",
        }[self.design]

    def outcomes(self, treatments: FloatArray, number: int = 0) -> FloatArray:
        """Return the segments' means (m, n) of an outcome at encoded treatments (n, d)."""
        size = self.basis.size
        responses = self.segment_theta[:, number * size : (number + 1) * size]
        return np.asarray(responses @ self.basis(treatments).T, dtype=np.float64)

    def profits(self, treatments: FloatArray) -> FloatArray:
        """Return mean profits (m, n) of the segments at encoded treatments (n, d)."""
        amounts = self.of_profit.amounts(self.profit, treatments, self.space)
        return profit_matrix(
            self.segment_theta, self.of_profit.psi(amounts, self.basis(treatments))
        )

    def value_of(self, policy: str, k: int | None = None) -> pd.Series[Any]:
        """Return the row of policy_values of a policy; ``k`` chooses among menus."""
        rows = self.policy_values[self.policy_values["policy"] == policy]
        return (rows if k is None else rows[rows["k"] == k]).iloc[0]

    def contrast(self, policy: str, versus: str, k: int | None = None) -> pd.Series[Any] | None:
        """Return the row of contrasts of a policy against a reference.

        None where the run did not compare them.
        """
        rows = self.contrasts[
            (self.contrasts["policy"] == policy) & (self.contrasts["versus"] == versus)
        ]
        rows = rows if k is None else rows[rows["k"] == k]
        return rows.iloc[0] if len(rows) else None
