"""The contract of the output: every table with its columns, key, constraint and properties.

What of it depends on the configuration (the type of unit ids, one column a treatment dimension or
a response coefficient) comes in with an ``OutputLayout``. A change here that tables of earlier runs
do not follow by themselves raises ``VERSION``, and ``lake.migrate`` brings them there.

Tables are partitioned by run and not clustered: Delta tells the commits of two runs apart by the
values of partition columns only, so that in a clustered table replacing the rows of one run
conflicts with whatever another run writes at the time. Files within a run are as large as its
writer makes them, and readers skip them by the statistics of the first columns, the keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

VERSION = 4  # tables without VERSION_PROPERTY are of version 1
VERSION_PROPERTY = "coarse_spark.contract"


@dataclass(frozen=True)
class OutputLayout:
    """What of the tables depends on the configuration.

    Attributes
    ----------
    unit_id : SQL type of the unit ids.
    treatments : treatment dimension → SQL type of its values.
    coefficients : response coefficients, of the largest basis that is compared.
    eligibility : names of the rules of eligibility.
    ids : further columns that say who a unit is → their SQL types.
    factors : number of factors of units in profit.
    outcomes : number of outcomes.
    """

    unit_id: str
    treatments: Mapping[str, str]
    coefficients: int
    eligibility: tuple[str, ...] = ()
    ids: Mapping[str, str] = field(default_factory=dict)
    factors: int = 0
    outcomes: int = 1


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    name, sql_type, comment : as a consumer sees them.
    nullable : whether it may be null; keys may not.
    """

    name: str
    sql_type: str
    comment: str
    nullable: bool


@dataclass(frozen=True)
class Family:
    """Columns whose number and types depend on the configuration.

    Attributes
    ----------
    after : the column that they follow.
    comment : of each, with {column} and {suffix}.
    types : layout → suffix → SQL type.
    prefix : of their names.
    """

    after: str
    comment: str
    types: Callable[[OutputLayout], Mapping[str, str]]
    prefix: str = ""


@dataclass(frozen=True)
class Constraint:
    """What every row of a table keeps.

    Attributes
    ----------
    name : as violations tell it.
    rule : SQL condition; a row for which it is null is refused too.
    """

    name: str
    rule: str


@dataclass(frozen=True)
class TableSchema:
    """One table's contract.

    Attributes
    ----------
    name, comment : of the table.
    key : columns that together are unique and never null, after run_id.
    columns : name → (SQL type, comment) of those that every configuration has, in order.
    families : those that depend on the configuration.
    constraint : of its rows. It names the key where the table may be rewritten with wider types,
        which loses the NOT NULL of columns.
    properties : Delta's, beside the version of the contract.
    older : column → SQL, its value in rows from before the table had it: a literal or another
        column; default null.
    """

    name: str
    comment: str
    key: tuple[str, ...]
    columns: Mapping[str, tuple[str, str]]
    families: tuple[Family, ...] = ()
    constraint: Constraint | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    older: Mapping[str, str] = field(default_factory=dict)

    @property
    def table_properties(self) -> dict[str, str]:
        """All properties of the table but its constraint."""
        return {VERSION_PROPERTY: str(VERSION), **self.properties}


def columns_of(schema: TableSchema, layout: OutputLayout) -> list[Column]:
    """Return all columns of a table, in order.

    Parameters
    ----------
    schema : the table.
    layout : what depends on the configuration.
    """
    columns: list[Column] = []

    def add(name: str, sql_type: str, comment: str) -> None:
        nullable = name != "run_id" and name not in schema.key
        columns.append(Column(name, sql_type, comment, nullable))
        for family in schema.families:
            if family.after != name:
                continue
            for suffix, kind in family.types(layout).items():
                member = family.prefix + suffix
                add(member, kind, family.comment.format(column=member, suffix=suffix))

    add("run_id", "string", "The run that wrote the row")
    for name, (sql_type, comment) in schema.columns.items():
        add(name, sql_type, comment)
    return columns


_INTEGERS = ("tinyint", "smallint", "int", "bigint")
_DECIMAL = re.compile(r"decimal\((\d+),(\d+)\)")


def holds(wide: str, narrow: str) -> bool:
    """Whether every value of one SQL type is one of another, and written alike.

    Parameters
    ----------
    wide, narrow : the types.
    """
    if wide == narrow or (narrow, wide) == ("float", "double"):
        return True
    if wide in _INTEGERS and narrow in _INTEGERS:
        return _INTEGERS.index(narrow) < _INTEGERS.index(wide)
    wide_decimal, narrow_decimal = _DECIMAL.fullmatch(wide), _DECIMAL.fullmatch(narrow)
    if wide_decimal is None or narrow_decimal is None:
        return False
    digits, scale = int(wide_decimal[1]), int(wide_decimal[2])
    # another scale would write 1.5 as 1.50
    return scale == int(narrow_decimal[2]) and digits > int(narrow_decimal[1])


def _finite(*columns: str, least: str = "-1e308") -> str:
    """Return the condition that columns are numbers: BETWEEN refuses null, NaN and infinity."""
    return " AND ".join(f"{column} BETWEEN {least} AND 1e308" for column in columns)


def _may_be_null(column: str) -> str:
    return f"({column} IS NULL OR {_finite(column)})"


_UNIT_ID = Family(
    "run_id",
    "The unit, as the input table names it; a JSON array of texts where several columns do so "
    "together",
    lambda layout: {"unit_id": layout.unit_id},
)
_OFFERED = Family(
    "treatment_id",
    "Treatment dimension {column} of the offered treatment",
    lambda layout: layout.treatments,
)
STATUSES = ("running", "open", "failed", "abandoned", "published", "withdrawn", "pruned")

RUNS = TableSchema(
    "runs",
    "One row a run of the pipeline",
    (),
    {
        "status": (
            "string",
            "running, open (its last command ended; later steps go on from there), failed, "
            "abandoned, published, withdrawn or pruned",
        ),
        "started_at": ("timestamp", "Start of the run, UTC"),
        "ended_at": ("timestamp", "End of the last step that ran, UTC"),
        "published_at": (
            "timestamp",
            "When the assignments of this run were last published, UTC; the latest is current",
        ),
        "step_seconds": ("map<string,double>", "Wall-clock seconds a step"),
        "config": ("string", "The whole configuration as JSON"),
        "config_hash": ("string", "SHA-256 of the configuration"),
        "package_version": ("string", "Version of coarse_spark"),
        "inputs": (
            "map<string,string>",
            "Input tables and what was read of them: Delta version and time of its commit, a "
            "fingerprint of files or rows, or - where nothing tells",
        ),
        "stop_reason": ("string", "Why the run ended"),
        "error": ("string", "The failed step and its cause"),
        "warnings": ("array<string>", "What a reader of the results should know"),
        "diagnostics": (
            "string",
            "What every step found: a JSON object with one entry a step (lake/step_results.py)",
        ),
        "revision": (
            "bigint",
            "How often the row was changed; every change names the one before it",
        ),
        "change_id": (
            "string",
            "Which change wrote the row, so that its writer can tell it from another's",
        ),
        "owner": ("string", "Process at work on the run: host/process; null where none is"),
        "heartbeat_at": ("timestamp", "When the owner last said that it is alive, UTC"),
    },
    constraint=Constraint(
        "known_status", f"status IN ({', '.join(repr(status) for status in STATUSES)})"
    ),
    # of two who change a row, the later one has to see the earlier's change
    properties={"delta.isolationLevel": "Serializable"},
    older={"revision": "0"},
)
MODELS = TableSchema(
    "models",
    "Response models as plain arrays: enough to score new units, without any code in the table",
    ("partition", "fold", "member"),
    {
        "partition": ("string", "Values of the partition keys; <pooled> is the model of all rows"),
        "fold": ("int", "The fold that was left out; -1: fitted on all folds"),
        "member": ("int", "Hash shard of a large partition, whose models are averaged by rows"),
        "learner": (
            "string",
            "Members with a weight in the effects, joined by +: sieve, boosting, pooled; or "
            "constant",
        ),
        "format_version": ("int", "Version of the layout of specification and arrays"),
        "specification": ("string", "JSON: feature encoding, treatment basis and settings"),
        "arrays": (
            "map<string,array<double>>",
            "Coefficients and other numbers, flattened row by row",
        ),
        "shapes": ("map<string,array<int>>", "Shape of every array"),
        "rows": (
            "bigint",
            "Rows the model was fitted on; of the partition where the status is pooled or failed",
        ),
        "seconds": ("double", "Seconds of fitting the shard, all folds together"),
        "status": (
            "string",
            "ok, pooled (served by the pooled model), failed, or brought: responses were brought "
            "along, and nothing was fitted",
        ),
        "error": ("string", "Why a model failed, or why the pooled model serves the partition"),
        "warnings": ("array<string>", "What the learner noticed"),
        "diagnostics": (
            "map<string,double>",
            "rows, weight, effective_rows: what the model was fitted on. r_loss and "
            "r_loss_constant: mean held-out squared error of the outcome (on the relative scale, "
            "of the outcome by the baseline b; on the logistic one, of the outcome less b by "
            "b (1 - b)) with these effects and with constant ones; "
            "r_loss_gain: their difference, r_loss_gain_error: its standard "
            "error. effect_weight_* and baseline_weight_*: weights of sieve, boosting and pooled "
            "in the stack. effect_penalty_multiplier: extra shrinkage of the sieve; "
            "effect_penalties_of_axes: 1 where it shrinks principal axes. trees: of all boosters "
            "together",
        ),
    },
    (
        Family(
            "member",
            "Which of experiment.outcome the model is of, 0 being the first",
            lambda layout: {"outcome": "int"} if layout.outcomes > 1 else {},
        ),
    ),
)
RESPONSES = TableSchema(
    "responses",
    "Estimated response coefficients of every unit of the population, with its own best treatment",
    ("unit_id",),
    {
        "partition": ("string", "Values of the partition keys"),
        "weight": ("double", "Weight of the unit"),
        "served_by": (
            "string",
            "Partition of the model that was used: the unit's own or <pooled>, also where that "
            "serves one of several outcomes only",
        ),
        "granular_profit": (
            "double",
            "Expected profit under the unit's own best treatment, plug-in",
        ),
    },
    (
        _UNIT_ID,
        Family(
            "partition",
            "Response coefficient {suffix}: column {suffix} of the treatment basis, 0 being the "
            "constant; null where the run's basis has fewer; of several outcomes one after another",
            lambda layout: {str(number): "double" for number in range(layout.coefficients)},
            "theta_",
        ),
        Family(
            "granular_profit",
            "Treatment dimension {suffix} of the unit's own best treatment",
            lambda layout: layout.treatments,
            "best_",
        ),
        Family(
            "granular_profit",
            "Whether the unit may get the treatments that menu.eligibility names for {suffix}",
            lambda layout: dict.fromkeys(layout.eligibility, "boolean"),
            "eligible_",
        ),
        Family(
            "granular_profit",
            "Number {suffix} of the unit that profit is linear in beside its responses: a factor "
            "in profit.unit_columns, of profit.margin first, then of profit.cost",
            lambda layout: {str(number): "double" for number in range(layout.factors)},
            "factor_",
        ),
    ),
    Constraint(
        "finite_weight_and_profit",
        f"unit_id IS NOT NULL AND {_finite('weight', least='0')} AND {_finite('granular_profit')}",
    ),
)
MENU = TableSchema(
    "menu",
    "The chosen treatments for every menu size K",
    ("k", "treatment_id"),
    {
        "k": ("int", "Number of unique treatments on the menu"),
        "treatment_id": ("int", "Position on the menu, from 0"),
        "share": ("double", "Share of the population's weight that is served with this treatment"),
        "shadow_price": (
            "double",
            "Worth of one more unit that may take it (below 0: of one less that has to); 0: no "
            "share limit binds",
        ),
        "expected_profit": ("double", "Mean expected profit of the units served with it, plug-in"),
        "extrapolates": (
            "boolean",
            "Whether the treatment lies outside those that the experiment gave, in any dimension",
        ),
        "untried": (
            "boolean",
            "Whether nobody in the experiment got anything near the treatment, in all dimensions "
            "together",
        ),
        "selected": ("boolean", "Whether this menu size was selected for the assignments"),
    },
    (_OFFERED,),
    Constraint(
        "valid_shares_and_finite_prices",
        "treatment_id >= 0 AND treatment_id < k AND share BETWEEN 0 AND 1 AND "
        # no mean where a treatment serves nobody
        f"{_finite('shadow_price')} AND {_may_be_null('expected_profit')}",
    ),
    older={"untried": "extrapolates"},
)
ASSIGNMENTS = TableSchema(
    "assignments",
    "Who gets which treatment of the selected menu",
    ("unit_id",),
    {
        "treatment_id": ("int", "Position on the selected menu"),
        "expected_profit": ("double", "Expected profit under the assigned treatment, plug-in"),
        "expected_incremental_profit": ("double", "Expected profit above the control, plug-in"),
        "regret": ("double", "Expected profit lost against the unit's own best treatment, plug-in"),
        "runner_up_treatment_id": (
            "int",
            "The unit's second best treatment on the menu; null where there is none",
        ),
        "changed": (
            "boolean",
            "Whether the treatment differs from the unit's in menu.previous_run; null where it "
            "had none",
        ),
    },
    (
        _UNIT_ID,
        Family(
            "unit_id", "Column {column} of the unit, as the input has it", lambda layout: layout.ids
        ),
        _OFFERED,
    ),
    Constraint(
        "finite_profits_and_no_negative_regret",
        # the step refuses units without a treatment itself: it knows the reason
        "unit_id IS NOT NULL AND (treatment_id IS NULL OR treatment_id >= 0 AND "
        f"{_finite('expected_profit', 'expected_incremental_profit')} AND "
        f"{_finite('regret', least='0')})",
    ),
)
_CAPTURED = (
    "{} end of the confidence interval of captured_of_{} (Fieller); null where the share is not "
    "identified, as what there is to capture may be nothing"
)
_SHARES = tuple(
    f"captured_of_{reference}{end}"
    for reference in ("control", "uniform")
    for end in ("", "_low", "_high")
)
_FREE = ("model_free_value", "model_free_se")
POLICY_VALUES = TableSchema(
    "policy_values",
    "Cross-fitted, debiased values of policies per unit weight, after the cost of variety",
    ("policy", "k"),
    {
        "policy": (
            "string",
            "control, uniform (best single treatment), menu (K treatments), rule (those of the "
            "selected menu, assigned by a rule over features), granular (no limit), or what the "
            "menu is compared with, with as many treatments: segments_features_kmeans, "
            "segments_features_tree, segments_responses_kmeans, segments_treatments_kmeans, "
            "best_of_grid, random_menu",
        ),
        "k": ("int", "Number of unique treatments; 0: no limit"),
        "value": (
            "double",
            "Honest value: mean debiased profit on folds that neither learner nor menu saw",
        ),
        "se": ("double", "Standard error of value"),
        "ci_low": ("double", "Lower end of the confidence interval"),
        "ci_high": ("double", "Upper end of the confidence interval"),
        "captured_of_control": ("double", "(value - control) / (granular - control), honest"),
        "captured_of_control_low": ("double", _CAPTURED.format("Lower", "control")),
        "captured_of_control_high": ("double", _CAPTURED.format("Upper", "control")),
        "captured_of_uniform": ("double", "(value - uniform) / (granular - uniform), honest"),
        "captured_of_uniform_low": ("double", _CAPTURED.format("Lower", "uniform")),
        "captured_of_uniform_high": ("double", _CAPTURED.format("Upper", "uniform")),
        "plug_in_value": (
            "double",
            "Value on the population by the estimated responses themselves: optimistic; null for "
            "what the menu is compared with",
        ),
        "upper_bound": (
            "double",
            "Certified bound of the plug-in value of any menu of this size; null where none was "
            "computed",
        ),
        "model_free_value": (
            "double",
            "Value without a model of responses, as a check: self-normalised inverse propensity "
            "(Hajek); null where treatments are continuous or many, or the design is learned, or "
            "units would get what nobody in their stratum got",
        ),
        "model_free_se": ("double", "Standard error of model_free_value"),
        "n": ("bigint", "Units of the experiment in the estimate"),
    },
    constraint=Constraint(
        "finite_values",
        f"{_finite('value', 'ci_low', 'ci_high')} AND {_finite('se', least='0')} AND "
        # no share where nothing is to be captured; nothing that was not computed
        + " AND ".join(map(_may_be_null, (*_SHARES, *_FREE, "plug_in_value", "upper_bound"))),
    ),
)
CONTRASTS = TableSchema(
    "contrasts",
    "Paired differences between policies on the same units",
    ("policy", "versus", "k"),
    {
        "policy": ("string", "The policy"),
        "versus": ("string", "What it is compared with"),
        "k": ("int", "Number of unique treatments of the policy; 0: no limit"),
        "difference": ("double", "Honest value of policy minus versus"),
        "se": ("double", "Paired standard error"),
        "ci_low": ("double", "Lower end of the confidence interval"),
        "ci_high": ("double", "Upper end of the confidence interval"),
    },
    constraint=Constraint(
        "finite_differences",
        f"{_finite('difference', 'ci_low', 'ci_high')} AND {_finite('se', least='0')}",
    ),
)
SEGMENTS = TableSchema(
    "segments",
    "Who the units of every treatment of the selected menu are",
    ("treatment_id",),
    {
        "treatment_id": ("int", "Position on the selected menu"),
        "size": ("bigint", "Units served with it"),
        "feature_means": (
            "map<string,double>",
            "Mean of every numeric feature and share of every level (feature=level); of more than "
            "a million units, about a million tell",
        ),
        "distinguishing": (
            "array<string>",
            "Features that differ most from the whole population, in words",
        ),
        "rule": (
            "string",
            "Who the segment is by features: the rule that assigns it, or the rule of a short tree "
            "that nearly finds it",
        ),
    },
)
_DIFFERENCE = ("difference", "difference_se", "difference_low", "difference_high")
FRONTIER = TableSchema(
    "frontier",
    "What menus earn, spend and bring about as the budget, or the worth of an outcome, moves",
    ("sweep", "point", "measure"),
    {
        "sweep": ("string", "Name of what was asked for; the same points have the same name"),
        "moved": (
            "string",
            "What moves: budget, or the weight of an outcome (what one more unit of it counts for "
            "beside profit)",
        ),
        "point": ("int", "Place on the frontier, from 0, by what moves"),
        "measure": (
            "string",
            "profit, spending, or the mean of an outcome: outcome and its name",
        ),
        "policy": (
            "string",
            "menu (of k treatments), or control, where frontiers of budgets begin",
        ),
        "k": ("int", "Number of unique treatments"),
        "at": (
            "double",
            "The budget or the weight; null where there is no budget, and of the control",
        ),
        "current": ("boolean", "Whether it is what the run's own menu was chosen by"),
        "value": (
            "double",
            "Honest value per unit weight, before the cost of variety: mean debiased score on "
            "folds that neither learner nor menu saw",
        ),
        "se": ("double", "Standard error of value"),
        "ci_low": ("double", "Lower end of the confidence interval"),
        "ci_high": ("double", "Upper end of the confidence interval"),
        "difference": (
            "double",
            "value minus that of the point before, on the same units; null at the first",
        ),
        "difference_se": ("double", "Paired standard error of difference"),
        "difference_low": ("double", "Lower end of its confidence interval"),
        "difference_high": ("double", "Upper end of its confidence interval"),
        "plug_in_value": (
            "double",
            "The same on the population by the estimated responses themselves: optimistic",
        ),
        "shadow_price": (
            "double",
            "Plug-in profit that one more unit of money in the budget would earn, 0 where it does "
            "not bind; null where spending is not limited",
        ),
        "treatments": ("array<string>", "Treatments of the menu chosen on the population"),
        "shares": ("array<double>", "Their shares of the population's weight"),
        "n": ("bigint", "Units of the experiment in the estimate"),
    },
    constraint=Constraint(
        "finite_frontier",
        f"point >= 0 AND {_finite('value', 'ci_low', 'ci_high', 'plug_in_value')} AND "
        f"{_finite('se', least='0')} AND "
        + " AND ".join(map(_may_be_null, ("at", "shadow_price", *_DIFFERENCE))),
    ),
)
# what every run has, created before anything is fitted
TABLES = {
    schema.name: schema
    for schema in (RUNS, MODELS, RESPONSES, MENU, ASSIGNMENTS, POLICY_VALUES, CONTRASTS, SEGMENTS)
}
# what a run may be asked besides, created by the step that answers
FURTHER_TABLES = {schema.name: schema for schema in (FRONTIER,)}
ALL_TABLES = {**TABLES, **FURTHER_TABLES}
CURRENT_ASSIGNMENTS = "current_assignments"
