"""The tables of a run: names, keys, columns and comments.

Every table also has ``run_id``, part of every key. Columns that depend on the configuration (one a
treatment dimension, one a response coefficient) are added when a table is written;
``TableSchema.dynamic`` says what their comments are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class TableSchema:
    """One table's contract.

    Attributes
    ----------
    name, comment : of the table.
    key : columns that together are unique and never null, after run_id.
    columns : name → (SQL type, comment), in order.
    dynamic : name prefix → comment of further columns; "" covers any further column.
    """

    name: str
    comment: str
    key: tuple[str, ...]
    columns: Mapping[str, tuple[str, str]]
    dynamic: Mapping[str, str] = field(default_factory=dict)

    def comment_of(self, column: str) -> str:
        """Return the comment of a column, fixed or dynamic."""
        if column == "run_id":
            return "The run that wrote the row"
        if column in self.columns:
            return self.columns[column][1]
        prefix = max((p for p in self.dynamic if column.startswith(p)), key=len)
        return self.dynamic[prefix].format(column=column, suffix=column[len(prefix) :])

    def with_id_parts(self, types: Mapping[str, str]) -> TableSchema:
        """Return the contract with the parts of a composite unit_id, by name their SQL types."""
        parts = {name: (kind, "Part of unit_id") for name, kind in types.items()}
        return replace(self, columns={**parts, **self.columns})


_UNIT = {
    "unit_id": "The unit, as the input table names it; a JSON array of texts where several columns "
    "do so together"
}
_TREATMENT = {"": "Treatment dimension {column} of the offered treatment"}

RUNS = TableSchema(
    "runs",
    "One row a run of the pipeline",
    (),
    {
        "status": ("string", "running, published or failed"),
        "revision": ("bigint", "How often the row was changed"),
        "change_id": ("string", "Which change wrote the row"),
        "owner": ("string", "Process at work on the run"),
        "heartbeat_at": ("timestamp", "When the owner last said that it is alive, UTC"),
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
            "Input tables and the Delta version that was read (or - where there is none)",
        ),
        "stop_reason": ("string", "Why the run ended"),
        "error": ("string", "The failed step and its cause"),
        "warnings": ("array<string>", "What a reader of the results should know"),
        "diagnostics": (
            "string",
            "What every step found: a JSON object with one entry a step (lake/step_results.py)",
        ),
    },
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
        "status": ("string", "ok, pooled (too few rows: served by the pooled model) or failed"),
        "error": ("string", "Why a model failed"),
        "warnings": ("array<string>", "What the learner noticed"),
        "diagnostics": (
            "map<string,double>",
            "rows, weight, effective_rows: what the model was fitted on. r_loss and "
            "r_loss_constant: mean held-out squared error of the outcome with these effects and "
            "with constant ones; r_loss_gain: their difference, r_loss_gain_error: its standard "
            "error. effect_weight_* and baseline_weight_*: weights of sieve, boosting and pooled "
            "in the stack. effect_penalty_multiplier: extra shrinkage of the sieve. trees: of "
            "all boosters together",
        ),
    },
)
RESPONSES = TableSchema(
    "responses",
    "Estimated response coefficients of every unit of the population, with its own best treatment",
    ("unit_id",),
    {
        "partition": ("string", "Values of the partition keys"),
        "weight": ("double", "Weight of the unit"),
        "served_by": ("string", "Partition of the model that was used: the unit's own or <pooled>"),
        "granular_profit": (
            "double",
            "Expected profit under the unit's own best treatment, plug-in",
        ),
    },
    {
        **_UNIT,
        "theta_": "Response coefficient {suffix}: column {suffix} of the treatment basis, 0 "
        "being the constant",
        "eligible_": "Whether the unit may get the treatments that menu.eligibility names for "
        "{suffix}",
        "best_": "Treatment dimension {suffix} of the unit's own best treatment",
    },
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
        "selected": ("boolean", "Whether this menu size was selected for the assignments"),
    },
    _TREATMENT,
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
    {**_UNIT, **_TREATMENT},
)
POLICY_VALUES = TableSchema(
    "policy_values",
    "Cross-fitted, debiased values of policies per unit weight, after the cost of variety",
    ("policy", "k"),
    {
        "policy": (
            "string",
            "control, uniform (best single treatment), menu (K treatments) or granular (no limit)",
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
        "captured_of_uniform": ("double", "(value - uniform) / (granular - uniform), honest"),
        "plug_in_value": (
            "double",
            "Value on the population by the estimated responses themselves: optimistic",
        ),
        "upper_bound": (
            "double",
            "Certified bound of the plug-in value of any menu of this size; null where none was "
            "computed",
        ),
        "n": ("bigint", "Units of the experiment in the estimate"),
    },
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
            "Mean of every numeric feature and share of every level (feature=level)",
        ),
        "distinguishing": (
            "array<string>",
            "Features that differ most from the whole population, in words",
        ),
        "rule": (
            "string",
            "A short decision tree's rule for the segment, an approximation for readers",
        ),
    },
)
TABLES = {
    schema.name: schema
    for schema in (RUNS, MODELS, RESPONSES, MENU, ASSIGNMENTS, POLICY_VALUES, CONTRASTS, SEGMENTS)
}
CURRENT_ASSIGNMENTS = "current_assignments"
