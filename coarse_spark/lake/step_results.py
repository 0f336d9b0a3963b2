"""What every step of a run found: one frozen record a step, kept as JSON in column ``diagnostics``.

A step keeps exactly one record under its own name and changes nobody else's. Later steps, later
commands and the report read them. The records hold plain values and import no pyspark.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

import pandas as pd
from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import to_json

from coarse_spark.core.menu.menu import Pass
from coarse_spark.core.menu.problem.limits import BUDGET
from coarse_spark.core.overlap import Overlap
from coarse_spark.core.policy_tree.rule import AssignmentRule
from coarse_spark.core.support import Support
from coarse_spark.text import counted


class Record(BaseModel):
    """Values that never change; numbers may be NaN or infinite, other fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class StepResult(Record):
    """What one step found; ``step`` is its name."""

    step: ClassVar[str]


class ValidateResult(StepResult):
    """What the tables hold.

    Attributes
    ----------
    experiment_rows : rows of the experiment.
    usable_rows : those with an outcome, a treatment and a weight other than 0.
    population_rows : units to serve.
    partitions : partitions with usable rows.
    previous_run : the run that ``menu.previous_run`` names, None without one.
    clusters : clusters with usable rows; None where none are declared.
    """

    step: ClassVar[str] = "validate"

    experiment_rows: int
    usable_rows: int
    population_rows: int
    partitions: int
    previous_run: str | None = None
    clusters: int | None = None


class ModelCounts(Record):
    """How the partitions of the experiment are served.

    Attributes
    ----------
    own : partitions with a model of their own, of several outcomes of each.
    pooled : other partitions, which the pooled model serves, of several outcomes in any.
    unidentified : those of them that have enough rows, which do not support a model: treatments do
        not identify the basis, clusters are too few, or outcomes too rare for the scale.
    failed : partitions whose model failed; the pooled model serves them too.
    """

    own: int
    pooled: int
    unidentified: int = 0
    failed: int


class FitResult(StepResult):
    """How responses were learned.

    Attributes
    ----------
    observed_treatments : by dimension, the smallest and the largest value that the experiment gave;
        of a categorical one all observed codes.
    outcomes : the smallest and the largest usable one; None of several outcomes, and in runs of
        versions without.
    outcome_ranges : the same of several outcomes, in their order.
    support : of the experiment under that basis; None in runs of versions without one.
    basis : name of the basis of the run, with its knots.
    basis_losses : held-out mean squared error of every basis compared, by name; empty where one was
        given.
    bases_left_out : why a basis was not compared, by name.
    scale : additive, relative or logistic; of outcomes that differ in it, of each in turn.
    scale_losses : held-out loss of the scales that were compared.
    models : how partitions are served.
    """

    step: ClassVar[str] = "fit"

    observed_treatments: tuple[tuple[float, ...], ...]
    outcomes: tuple[float, float] | None = None
    outcome_ranges: tuple[tuple[float, float], ...] = ()
    support: Support | None = None
    basis: str
    basis_losses: dict[str, float] = {}
    bases_left_out: dict[str, str] = {}
    scale: str = "additive"
    scale_losses: dict[str, float] = {}
    models: ModelCounts

    @property
    def rates(self) -> tuple[int, ...]:
        """Which outcomes, by number, lie between 0 and 1 as chances and shares do."""
        ranges = self.outcome_ranges if self.outcomes is None else (self.outcomes,)
        return tuple(number for number, (low, high) in enumerate(ranges) if low >= 0 and high <= 1)

    def scale_of(self, outcome: int) -> str:
        """Return the scale of an outcome by its number."""
        scales = self.scale.split(", ")
        return scales[outcome] if len(scales) > 1 else scales[0]


class ScoreResult(StepResult):
    """The population's responses.

    Attributes
    ----------
    units : units with responses.
    granular_value : mean profit per unit weight with every unit under its own best treatment.
    pooled_units : units that the pooled model serves.
    unseen_units : those of them whose partition the experiment does not have.
    outside_rates : units whose predicted chance or share leaves 0 … 1 at some treatment, of several
        any; None where outcomes are neither.
    weight : of all units; None in runs of versions without.
    """

    step: ClassVar[str] = "score"

    units: int
    granular_value: float
    pooled_units: int = 0
    unseen_units: int = 0
    outside_rates: int | None = None
    weight: float | None = None


class DecidingPrices(Record):
    """Prices that decide about all units but those at the boundary, who are settled one by one.

    Attributes
    ----------
    prices : (K,) of the treatments.
    limit_prices : (L,) of what counts against limits on totals.
    reach : the boundary's units prefer their treatment to the next best by less; 0 for none.
    """

    prices: tuple[float, ...]
    limit_prices: tuple[float, ...] = ()
    reach: float


class TotalKept(Record):
    """A limit on what a menu comes to, and what it comes to, per unit weight.

    Attributes
    ----------
    name : of the limit, ``budget`` for the budget.
    at_most : whether more is what the limit forbids, not less.
    allowed : the limit.
    used : what counts against it.
    price : what one more, or one less, that is allowed would earn; 0 where it does not bind.
    """

    name: str
    at_most: bool = True
    allowed: float
    used: float
    price: float


class LimitsKept(Record):
    """The limits of a menu of K treatments, and what keeping them asks.

    Attributes
    ----------
    min_share, max_share : (K,) of the population's weight.
    tie_break : what the hash of a unit's id adds at most to its profit.
    totals : the limits on what the menu comes to, the budget first.
    deciding : prices that tell who gets what.
    """

    min_share: tuple[float, ...]
    max_share: tuple[float, ...]
    tie_break: float = 0.0
    totals: tuple[TotalKept, ...] = ()
    deciding: DecidingPrices

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_versions(cls, values: Any) -> Any:
        """Read records of the time when a budget was the one limit on a total."""
        if not isinstance(values, Mapping) or "totals" in values:
            return values
        names = {"budget": "allowed", "spending": "used", "budget_price": "price"}
        budget = {name: values.get(key, 0.0) for key, name in names.items()}
        kept = {key: value for key, value in values.items() if key not in names}
        deciding = kept.get("deciding")
        limited = values.get("budget") is not None
        if isinstance(deciding, Mapping) and "budget_price" in deciding:
            others = {key: value for key, value in deciding.items() if key != "budget_price"}
            prices = [deciding["budget_price"]] if limited else []
            kept["deciding"] = {**others, "limit_prices": prices}
        return {**kept, "totals": [{"name": BUDGET, **budget}]} if limited else kept

    def total(self, name: str) -> TotalKept | None:
        """Return the limit of a name, None where there is none."""
        return next((total for total in self.totals if total.name == name), None)

    @property
    def of_shares(self) -> bool:
        """Whether shares are limited."""
        return max(self.min_share) > 0 or min(self.max_share) < 1


class ChosenMenu(Record):
    """The menu of one size, as it was chosen; its treatments are in table ``menu``.

    Attributes
    ----------
    value : mean profit per unit weight, plug-in, less what switching costs.
    upper_bound : what no menu of that size can exceed.
    sketch_value : its value on the sketch of the population.
    switching_cost : per unit weight, what changes of treatment take off the value.
    segment_theta : (K, p) mean response coefficients of its segments.
    limits : None where there are none.
    rule : a tree over features for its treatments; None under limits, which no rule keeps.
    """

    value: float
    upper_bound: float
    sketch_value: float
    switching_cost: float
    segment_theta: tuple[tuple[float, ...], ...]
    limits: LimitsKept | None = None
    rule: AssignmentRule | None = None


class ChooseResult(StepResult):
    """The menus of all sizes.

    Attributes
    ----------
    control_value : mean profit per unit weight with everyone under the control, plug-in.
    uniform_value : the same under the best single treatment.
    sketch_size : weighted units that the search worked on.
    menus : by size.
    passes : over the population, in their order.
    """

    step: ClassVar[str] = "choose"

    control_value: float
    uniform_value: float
    sketch_size: int
    menus: dict[int, ChosenMenu]
    passes: tuple[Pass, ...] = ()


class TreatmentBin(Record):
    """The outcomes of the units whose treatments are alike.

    Attributes
    ----------
    label : the range of the treatments, in words.
    rows : units.
    observed, fitted : mean outcomes.
    standard_error : of observed − fitted.
    treatment : (d,) mean of the encoded treatments.
    """

    label: str
    rows: int
    observed: float
    fitted: float
    standard_error: float
    treatment: tuple[float, ...]


class LackOfFit(Record):
    """How well the basis follows the response, by bins of treatment.

    Attributes
    ----------
    statistic, degrees, p_value : chi-square test that observed and fitted agree in every bin.
    bins : one a bin.
    untested : why there was no test, in words; empty where there was one or the basis is saturated.
    """

    statistic: float
    degrees: int
    p_value: float
    bins: tuple[TreatmentBin, ...]
    untested: str = ""

    @property
    def table(self) -> pd.DataFrame:
        """The bins, one row each."""
        return pd.DataFrame([row.model_dump() for row in self.bins])


class TreatmentCount(Record):
    """How often one treatment, rounded to its step, is chosen.

    Attributes
    ----------
    treatment : the user's value by dimension.
    published : whether it is on the published menu.
    folds : how many of the folds' menus hold it.
    frequency : share of the redrawn menus that hold it; None without any.
    """

    treatment: dict[str, bool | int | float | str]
    published: bool
    folds: int
    frequency: float | None = None


class Stability(Record):
    """How often treatments are chosen when the experiment says something a little different.

    Attributes
    ----------
    folds : menus that were each chosen without one fold.
    resamples : menus that were chosen on redrawn responses.
    expected_loss : mean profit per unit that the redrawn menus lose; None without any.
    treatments : those of the published menu first, then the most frequent.
    """

    folds: int
    resamples: int
    expected_loss: float | None = None
    treatments: tuple[TreatmentCount, ...]


class StrataMerged(Record):
    """Strata that do not identify the basis, judged together with others.

    Attributes
    ----------
    strata : of the experiment.
    unidentified, unidentified_rows : those that do not identify the basis alone, and their units.
    groups, merged, merged_rows : groups of strata that are judged as one, the strata in them, and
        all units of these.
    """

    strata: int
    unidentified: int
    unidentified_rows: int
    groups: int
    merged: int
    merged_rows: int


class OutcomeValue(Record):
    """The honest mean of one of several outcomes under a policy (``core.values.outcome_values``).

    Attributes
    ----------
    outcome, policy, k : what it is of.
    value, se, ci_low, ci_high : per unit weight.
    difference, difference_se, difference_low, difference_high : above that under the control, on
        the same units.
    """

    outcome: str
    policy: str
    k: int
    value: float
    se: float
    ci_low: float
    ci_high: float
    difference: float
    difference_se: float
    difference_low: float
    difference_high: float


class EvaluateResult(StepResult):
    """What the experiment says of the policies, beside tables ``policy_values`` and ``contrasts``.

    Attributes
    ----------
    k : the size to publish.
    selection_rule : why, in words.
    overlap : of a learned design; None where treatments were randomized.
    strata_merged : of a stratified design; None where every stratum identifies the basis.
    lack_of_fit : of the basis.
    stability : of the choice of the menu of k.
    outcomes : of every policy; none where there is only one outcome.
    """

    step: ClassVar[str] = "evaluate"

    k: int
    selection_rule: str
    overlap: Overlap | None = None
    strata_merged: StrataMerged | None = None
    lack_of_fit: LackOfFit
    stability: Stability
    outcomes: tuple[OutcomeValue, ...] = ()


class Changes(Record):
    """How many units get another treatment than in an earlier run.

    Attributes
    ----------
    previous_run : that run.
    units : units that had a treatment there.
    changed : those of them that get another one.
    new : units that had none.
    """

    previous_run: str
    units: int
    changed: int
    new: int


class AssignResult(StepResult):
    """The assignments of the selected menu.

    Attributes
    ----------
    k : its size.
    changes : against the earlier run, None without one.
    by_rule : whether units are assigned by the rule; otherwise by their own responses.
    rule : the rule of the menu as a SQL expression of the treatment_id, in Spark's dialect.
    segment_theta : (K, p) mean response coefficients of the units of each treatment by the rule.
    """

    step: ClassVar[str] = "assign"

    k: int
    changes: Changes | None = None
    by_rule: bool = False
    rule: str | None = None
    segment_theta: tuple[tuple[float, ...], ...] = ()

    @property
    def policy(self) -> str:
        """The policy of table ``policy_values`` that is published: a menu, or the rule of one."""
        return "rule" if self.by_rule and self.k > 1 else "menu"


class Sweep(Record):
    """One frontier of table ``frontier``.

    Attributes
    ----------
    name : of its rows.
    moved : what moves along it.
    k : size of its menus.
    """

    name: str
    moved: str
    k: int


class FrontierResult(StepResult):
    """The frontiers that the run was asked for.

    Attributes
    ----------
    sweeps : in the order of asking, the last one of the same name where it was asked for again.
    """

    step: ClassVar[str] = "frontier"

    sweeps: tuple[Sweep, ...] = ()


class Extension(Record):
    """What one look at the population after publication found, and added.

    Attributes
    ----------
    when : the look ended.
    snapshot : of the population, as in ``inputs`` of the run.
    added : units that got a treatment since the look before.
    changed : units of the run that changed since then, in what the run reads of them; None where
        that could not be told.
    deleted : units of the run that left the population since then; without the snapshot before,
        since the run.
    untold : why changes could not be told; None where they could.
    """

    when: datetime
    snapshot: str
    added: int
    changed: int | None
    deleted: int
    untold: str | None = None

    def __str__(self) -> str:
        """Return it in one sentence."""
        changes = (
            f"changed units cannot be counted, because {self.untold}"
            if self.changed is None
            else f"{counted(self.changed, 'unit')} changed"
        )
        return (
            f"{counted(self.added, 'unit')} added; {changes}; "
            f"{counted(self.deleted, 'unit')} left the population; "
            "published rows stay as they are"
        )


class NewUnits(StepResult):
    """The units that a published run got afterwards.

    Attributes
    ----------
    extensions : in their order.
    """

    step: ClassVar[str] = "new_units"

    extensions: tuple[Extension, ...] = ()

    @property
    def added(self) -> int:
        """Units that got a treatment after publication."""
        return sum(extension.added for extension in self.extensions)


_KINDS: dict[str, type[StepResult]] = {
    kind.step: kind
    for kind in (
        ValidateResult,
        FitResult,
        ScoreResult,
        ChooseResult,
        EvaluateResult,
        AssignResult,
        FrontierResult,
        NewUnits,
    )
}


STEPS_WITH_RESULTS = tuple(_KINDS)  # in the order in which a run does them


def results_to_json(results: Mapping[str, StepResult]) -> str:
    """Return the results by step as one JSON object."""
    # models inside pydantic before 2.11 write NaN as null
    return to_json({step: result.model_dump() for step, result in results.items()}).decode()


def results_from_json(text: str) -> dict[str, StepResult]:
    """Return the results that ``results_to_json`` wrote.

    Raises
    ------
    ValueError : the text holds something else, such as the results of another version.
    """
    content = json.loads(text)
    if not isinstance(content, dict) or not content.keys() <= _KINDS.keys():
        raise ValueError(f"expected an object with keys of {', '.join(_KINDS)}")
    return {step: _KINDS[step].model_validate(fields) for step, fields in content.items()}
