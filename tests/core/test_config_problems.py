"""Every message about a bad configuration: its line, what was found, what was expected, and the nearest valid name."""

# ruff: noqa: E501  # a message a line

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from coarse_spark.config.checks.tables import ASSIGNMENT_COLUMNS, WRITTEN_COLUMNS
from coarse_spark.config.load import load_configuration
from coarse_spark.config.models import Configuration
from coarse_spark.core.learners.settings import LEARNERS
from coarse_spark.core.menu.problem.limits import Budget
from coarse_spark.core.profit import Profit
from coarse_spark.errors import ConfigurationError
from coarse_spark.lake.contract import ASSIGNMENTS, MENU

GOOD = """\
experiment:
  table: main.trial.units
  unit_id: customer
  partition_by: [market]
  features: [age, channel]
  outcome: spend
  weight: w
  strata: [wave]
treatments:
  depth: {kind: continuous, lower: 0, upper: 40, step: 10, control: 0}
  arm: {kind: categorical, levels: [mail, phone], control: mail}
design: {kind: stratified}
response: {basis: arms, folds: 3}
profit:
  margin: 0.4 - depth / 100
  cost: where(arm == 'phone', 2, 0.5)
menu:
  sizes: 2-4
  select: 3
  always_offer:
    - {depth: 0, arm: mail}
  exclude: depth == 40
output: {schema: coarse}
"""


def problems(text: str, folder: Path, **overrides: str) -> list[str]:
    """Return the lines of the report, with the file's name for its path."""
    path = folder / "run.yml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(
            path, {key.replace("__", "."): value for key, value in overrides.items()}
        )
    lines = str(caught.value).replace(str(path), "run.yml").splitlines()
    if len(lines) == 1:
        return lines
    assert lines[0] == (
        "run.yml has 1 problem:" if len(lines) == 2 else f"run.yml has {len(lines) - 1} problems:"
    )
    return [line.removeprefix("  ") for line in lines[1:]]


def test_the_good_one_is_good(tmp_path: Path) -> None:
    (tmp_path / "run.yml").write_text(GOOD)
    assert load_configuration(tmp_path / "run.yml").menu.sizes == (2, 3, 4)


OF_UNITS = "columns of the units may be experiment.features, name in menu.eligibility who may get a treatment, or be profit.unit_columns, which may stand in profit and spending"

# (what is replaced in the good configuration, by what, the whole message)
ONE = [
    ("unit_id: customer", "# none", "run.yml:1: experiment.unit_id: the key is missing; expected column that identifies a unit, or a list of columns that do so together; unique and never null"),
    ("unit_id: customer", "unit_id: 7", "run.yml:3: experiment.unit_id: found 7, expected a text; put it in quotes where YAML reads it as something else"),
    ("unit_id: customer", "unit_id: ''", "run.yml:3: experiment.unit_id: found '', expected a text that is not empty"),
    ("unit_id: customer", "unit_id: []", "run.yml:3: experiment.unit_id: found [], expected at least one column name"),
    ("unit_id: customer", "unit_id: [shop, 7]", "run.yml:3: experiment.unit_id: found ['shop', 7], expected a list of column names"),
    ("unit_id: customer", "unit_id: [shop, depth]", "run.yml:3: experiment.unit_id[1]: found 'depth', which is a treatment already, expected another column"),
    ("unit_id: customer", "unit_id: [shop, Depth]", "run.yml:3: experiment.unit_id[1]: found 'Depth' beside 'depth', which Spark takes for the same column, expected one spelling or another column"),
    ("unit_id: customer", "unit_id: [shop, Unit_ID]", "run.yml:3: experiment.unit_id[1]: found 'Unit_ID', which is a column of its own in the table assignments, expected another name for this part of the id; rename the column in the tables, for instance to id_unit_id"),
    ("unit_id: customer", "unit_id: [run_id, shop]", "run.yml:3: experiment.unit_id[0]: found 'run_id', which is a column of its own in the table assignments, expected another name for this part of the id; rename the column in the tables, for instance to id_run_id"),
    ("unit_id: customer", "unit_id: [shop, SHOP]", "run.yml:3: experiment.unit_id[1]: found 'SHOP' beside 'shop', which Spark takes for the same column, expected one spelling or another column"),
    ("unit_id: customer", "unit_id: [shop, 'no (old)']", "run.yml:3: experiment.unit_id[1]: found the column 'no (old)', expected one without spaces and , ; { } ( ) =, which Delta tables refuse"),
    ("unit_id: customer", "unit_id: [shop, spend]", "run.yml:6: experiment.outcome: found 'spend', which is experiment.unit_id already, expected another column"),
    ("features: [age, channel]", "features: [age, Age]", "run.yml:5: experiment.features[1]: found 'Age' beside 'age', which Spark takes for the same column, expected one spelling or another column"),
    ("outcome: spend", "outcome: DEPTH", "run.yml:6: experiment.outcome: found 'DEPTH' beside 'depth', which Spark takes for the same column, expected one spelling or another column"),
    ("select: 3", "eligibility: {WAVE: depth > 20}", "run.yml:19: menu.eligibility.WAVE: found 'WAVE' beside 'wave', which Spark takes for the same column, expected one spelling or another column"),
    ("features: [age, channel]", "features: [age, ' ']", "run.yml:5: experiment.features: found ['age', ' '], expected a list of column names"),
    ("margin: 0.4 - depth / 100", "margin: 0.4 - price net / 100", "run.yml:15: profit.margin: '0.4 - price net / 100' is not an arithmetic expression: invalid syntax (where it is a name, write `price net` with its backticks)"),
    ("margin: 0.4 - depth / 100", "margin: 0.4 - `price net` / 100", "run.yml:15: profit.margin: '0.4 - `price net` / 100' uses the unknown name 'price net'; known names: arm, depth; " + OF_UNITS),
    ("output: {schema: coarse}", "output: {schema: coarse}\npopulation: {table: units, max_unseen_share: 5}", "run.yml:24: population.max_unseen_share: found 5, expected less than or equal to 1"),
    ("output: {schema: coarse}", "output: {schema: coarse}\nprivacy: maybe", "run.yml:24: privacy: found 'maybe', expected true or false"),
    ("table: main.trial.units", "table: main.trial;drop", "run.yml:2: experiment.table: found 'main.trial;drop', expected a name such as catalog.schema.table, of letters, digits, _ and -"),
    ("table: main.trial.units", "table: a.b.c.d", "run.yml:2: experiment.table: found 'a.b.c.d', expected a name such as catalog.schema.table, of letters, digits, _ and -"),
    ("table: main.trial.units", "bundled: thorton", "run.yml:2: experiment.bundled: found 'thorton', expected thornton (did you mean 'thornton'?)"),
    ("table: main.trial.units", "path: x\n  format: prquet", "run.yml:3: experiment.format: found 'prquet', expected delta or parquet or csv (did you mean 'parquet'?)"),
    ("table: main.trial.units", "# none", "run.yml:1: experiment: found no source, expected exactly one of table, path, bundled"),
    ("table: main.trial.units", "table: t\n  bundled: thornton", "run.yml:1: experiment: found table and bundled, expected exactly one of table, path, bundled"),
    ("features: [age, channel]", "features: []", "run.yml:5: experiment.features: found [], expected at least one column name"),
    ("features: [age, channel]", "features: {age: 1}", "run.yml:5: experiment.features: found {'age': 1}, expected a list of column names"),
    ("features: [age, channel]", "features: [age, age]", "run.yml:5: experiment.features: found ['age', 'age'], expected distinct column names; repeated: age"),
    ("features: [age, channel]", "features:\n    - age\n    - depth", "run.yml:7: experiment.features[1]: found 'depth', which is a treatment already, expected another column"),
    ("features: [age, channel]", "features: [age, spend]", "run.yml:5: experiment.features[1]: found 'spend', which is experiment.outcome already, expected another column"),
    ("outcome: spend", "outcome: customer", "run.yml:6: experiment.outcome: found 'customer', which is experiment.unit_id already, expected another column"),
    ("partition_by: [market]", "partition_by: [arm]", "run.yml:4: experiment.partition_by[0]: found 'arm', which is a treatment already, expected another column"),
    ("partition_by: [market]", "partition_by: [market]\n  cluster: spend", "run.yml:5: experiment.cluster: found 'spend', which is experiment.outcome already, expected another column"),
    ("partition_by: [market]", "partition_by: [market]\n  cluster: customer", "run.yml:5: experiment.cluster: found 'customer', which is experiment.unit_id already, expected another column"),
    ("strata: [wave]", "# none", "run.yml:12: design.kind: found stratified without strata, expected experiment.strata to name the columns that treatments were randomized within"),
    ("kind: stratified", "kind: stratifed", "run.yml:12: design.kind: found 'stratifed', expected randomized or stratified or learned (did you mean 'stratified'?)"),
    ("output: {schema: coarse}", "", "run.yml:1: output: the block is missing; expected where the tables go"),
    ("design: {kind: stratified}", "design: randomized", "run.yml:12: design: found 'randomized', expected a mapping with the keys kind"),
    ("kind: continuous", "kind: continous", "run.yml:10: treatments.depth.kind: found 'continous', expected continuous or categorical (did you mean 'continuous'?)"),
    ("kind: continuous, ", "", "run.yml:10: treatments.depth.kind: found no kind, expected continuous or categorical"),
    ("upper: 40", "upper: forty", "run.yml:10: treatments.depth.upper: found 'forty', expected a valid number, unable to parse string as a number"),
    ("upper: 40", "upper: .inf", "run.yml:10: treatments.depth.upper: found inf, expected a finite number"),
    ("upper: 40", "upper: yes", "run.yml:10: treatments.depth.upper: found true, expected a number (YAML reads yes as true; in quotes, \"yes\", it is a text)"),
    ("upper: 40", "upper: -1", "run.yml:10: treatments.depth.lower: lower 0 is not below upper -1"),
    ("step: 10", "step: 41", "run.yml:10: treatments.depth.step: step is 41, expected above 0 and at most upper - lower = 40"),
    ("levels: [mail, phone]", "levels: [mail, mail, phone]", "run.yml:11: treatments.arm.levels: levels are ['mail', 'mail', 'phone'], expected distinct values"),
    ("control: mail", "control: mial", "run.yml:11: treatments.arm.control: control 'mial' is not one of the levels (did you mean 'mail'?)"),
    ("levels: [mail, phone]", "levels: [mail, phone], step: 2", "run.yml:11: treatments.arm.step: found an unknown key, expected one of kind, levels, control"),
    ("basis: arms", "basis: any+quadratc", "run.yml:13: response.basis: basis 'any+quadratc': unknown term 'quadratc' (did you mean 'quadratic'?)"),
    ("basis: arms", "basis: quadratic", "run.yml:13: response.basis: basis 'quadratic': treatment 'arm' is categorical; use basis 'arms' or 'levels * quadratic'"),
    ("basis: arms", "basis: [arms, quadratic]", "run.yml:13: response.basis[1]: basis 'quadratic': treatment 'arm' is categorical; use basis 'arms' or 'levels * quadratic'"),
    ("basis: arms", "basis: [arms, auto]", "run.yml:13: response.basis: found ['arms', 'auto'], expected auto alone, or a list of bases to compare without it"),
    ("basis: arms", "basis: []", "run.yml:13: response.basis: found [], expected auto, a basis such as any+quadratic, or a list of bases to compare"),
    ("basis: arms", "basis: 3", "run.yml:13: response.basis: found 3, expected auto, a basis such as any+quadratic, or a list of bases to compare"),
    ("basis: arms", "basis: [arms, levels * linear], shape: {depth: concave}", "run.yml:13: response.shape.depth: found 'concave': shape of treatment 'depth': expected a continuous treatment and a basis other than arms"),
    ("folds: 3", "folds: 1", "run.yml:13: response.folds: found 1, expected greater than or equal to 2"),
    ("folds: 3", "shrink_to_pooled: 1", "run.yml:13: response.shrink_to_pooled: found 1, expected true or false"),
    ("folds: 3", "folds: 2.5", "run.yml:13: response.folds: found 2.5, expected a valid integer, got a number with a fractional part"),
    ("folds: 3", "min_rows: 9, max_rows: 8", "run.yml:13: response.min_rows: found 9, expected at most response.max_rows = 8"),
    ("margin: 0.4 - depth / 100", "margin: 0.4 - dept / 100", f"run.yml:15: profit.margin: '0.4 - dept / 100' uses the unknown name 'dept' (did you mean 'depth'?); known names: arm, depth; {OF_UNITS}"),
    ("margin: 0.4 - depth / 100", "margin: 0.4 - age / 100", f"run.yml:15: profit.margin: '0.4 - age / 100' uses 'age', which is a column of the units (experiment.features), expected treatments or profit.unit_columns: depth, arm; {OF_UNITS}"),
    ("cost: where(arm == 'phone', 2, 0.5)", "cost: 2 * market + depth", f"run.yml:16: profit.cost: '2 * market + depth' uses 'market', which is a column of the units (experiment.partition_by), expected treatments or profit.unit_columns: depth, arm; {OF_UNITS}"),
    ("margin: 0.4 - depth / 100", "unit_columns: [fee]\n  margin: max(depth, fee)", "run.yml:16: profit.margin: 'max(depth, fee)': 'max(depth, fee)' is no sum of products of treatments and columns of the units; prepare a column of the units for each value of depth that holds it, such as fee_at_5 for the value 5, name it in unit_columns, and write where(depth == 5, fee_at_5, ...)"),
    ("margin: 0.4 - depth / 100", "unit_columns: [spend]\n  margin: 0.4 - spend", "run.yml:15: profit.unit_columns[0]: found 'spend', which is experiment.outcome already, expected another column"),
    ("margin: 0.4 - depth / 100", "unit_columns: [age, depth]", "run.yml:15: profit.unit_columns[1]: found 'depth', which is a treatment already, expected another column"),
    ("margin: 0.4 - depth / 100", "unit_columns: [fee]\n  margin: fee / depth", "run.yml:16: profit.margin: the margin 'fee / depth' is inf at depth = 0, arm = mail, expected a finite number"),
    ("margin: 0.4 - depth / 100", "margin: {spent: 0.4}", "run.yml:15: profit.margin.spent: found the outcome 'spent' (did you mean 'spend'?), expected one of spend (experiment.outcome)"),
    ("margin: 0.4 - depth / 100", "margin: {spend: 0.4 - dept}", f"run.yml:15: profit.margin.spend: '0.4 - dept' uses the unknown name 'dept' (did you mean 'depth'?); known names: arm, depth; {OF_UNITS}"),
    ("folds: 3", "scale: {spent: additive}", "run.yml:13: response.scale.spent: found the outcome 'spent' (did you mean 'spend'?), expected one of spend (experiment.outcome)"),
    ("outcome: spend", "outcome: [spend, redeemed]", "run.yml:15: profit.margin: found '0.4 - depth / 100' beside several outcomes, expected a mapping with an expression for each of spend, redeemed"),
    ("exclude: depth == 40", "exclude: spend > 40", f"run.yml:22: menu.exclude: 'spend > 40' uses 'spend', which is a column of the units (experiment.outcome), expected treatments alone: depth, arm; {OF_UNITS}"),
    ("select: 3", "eligibility: {member: channel == 'web' and depth > 1}", f"run.yml:19: menu.eligibility.member: 'channel == 'web' and depth > 1' uses 'channel', which is a column of the units (experiment.features), expected treatments alone: depth, arm; {OF_UNITS}"),
    ("select: 3", "eligibility: {member: member}", f"run.yml:19: menu.eligibility.member: 'member' uses 'member', which is a column of the units (menu.eligibility), expected treatments alone: depth, arm; {OF_UNITS}"),
    ("margin: 0.4 - depth / 100", "margin: 1 / depth", "run.yml:15: profit.margin: the margin '1 / depth' is inf at depth = 0, arm = mail, expected a finite number"),
    ("margin: 0.4 - depth / 100", "margin: __import__('os').system('true')", "run.yml:15: profit.margin: '__import__('os').system('true')' contains '__import__('os').system('true')', which is not allowed; allowed: numbers, names, + - * / **, comparisons, and, or, not, min, max, abs, exp, log, where"),
    ("margin: 0.4 - depth / 100", "margin: [1]", "run.yml:15: profit.margin: found [1], expected a text; put it in quotes where YAML reads it as something else"),
    ("margin: 0.4 - depth / 100", "margin: arm", "run.yml:15: profit.margin: 'arm' takes 'arm' for a number or a condition, whose levels are texts; compare it, such as arm == 'mail'"),
    ("cost: where(arm == 'phone', 2, 0.5)", "cost: log(depth - 50)", "run.yml:16: profit.cost: the cost 'log(depth - 50)' is nan at depth = 0, arm = mail, expected a finite number"),
    ("cost: where(arm == 'phone', 2, 0.5)", "cost: where(arm == 'fone', 2, 0.5)", "run.yml:16: profit.cost: 'where(arm == 'fone', 2, 0.5)' compares 'arm' with 'fone', which is none of its levels (did you mean 'phone'?); its levels: 'mail', 'phone'"),
    ("cost: where(arm == 'phone', 2, 0.5)", "cost: 3 +", "run.yml:16: profit.cost: '3 +' is not an arithmetic expression: invalid syntax"),
    ("sizes: 2-4", "sizes: 2-9", "run.yml:18: menu.sizes: found 9, expected at most 8, the number of treatments that may be offered; menu.exclude leaves out the others ('depth == 40')"),
    ("sizes: 2-4", "sizes: many", "run.yml:18: menu.sizes: found 'many', expected numbers of treatments, each at least 1, such as [1, 2, 5] or \"1-6\""),
    ("sizes: 2-4", "sizes: 4-2", "run.yml:18: menu.sizes: found '4-2', expected numbers of treatments, each at least 1, such as [1, 2, 5] or \"1-6\""),
    ("sizes: 2-4", "sizes: 1-9999", "run.yml:18: menu.sizes: found '1-9999', expected at most 200 sizes"),
    ("select: 3", "select: 7", "run.yml:19: menu.select: found 7, expected auto or one of menu.sizes: 2, 3, 4"),
    ("select: 3", "select: best", "run.yml:19: menu.select: found 'best', expected auto, or one of menu.sizes"),
    ("select: 3", "support: observd", "run.yml:19: menu.support: found 'observd', expected auto or observed or marked (did you mean 'observed'?)"),
    ("select: 3", "tolerance: 1", "run.yml:19: menu.tolerance: found 1, expected less than 1"),
    ("select: 3", "tolerance: -0.1", "run.yml:19: menu.tolerance: found -0.1, expected greater than or equal to 0"),
    ("select: 3", "cost_per_treatment: -1", "run.yml:19: menu.cost_per_treatment: found -1, expected greater than or equal to 0"),
    ("select: 3", "min_share: 1.5", "run.yml:19: menu.min_share: found 1.5, expected a share from 0 to 1, or a list with one share for every place on the menu"),
    ("select: 3", "eligibility: member", "run.yml:19: menu.eligibility: found 'member', expected a mapping of boolean columns to expressions in the treatment names, such as {member: price < 1}"),
    ("select: 3", "eligibility: {member: dpth > 20}", f"run.yml:19: menu.eligibility.member: 'dpth > 20' uses the unknown name 'dpth' (did you mean 'depth'?); known names: arm, depth; {OF_UNITS}"),
    ("select: 3", "eligibility: {member: 'depth >'}", "run.yml:19: menu.eligibility.member: 'depth >' is not an arithmetic expression: invalid syntax"),
    ("select: 3", "eligibility: {member: arm == 'fax'}", "run.yml:19: menu.eligibility.member: 'arm == 'fax'' compares 'arm' with 'fax', which is none of its levels; its levels: 'mail', 'phone'"),
    ("select: 3", "eligibility: {member: depth < 20}", "run.yml:19: menu.eligibility.member: 'depth < 20' is not 0 at the control (depth = 0, arm = mail), expected 0: any unit may be left alone"),
    ("select: 3", "eligibility: {member: log(depth - 5)}", "run.yml:19: menu.eligibility.member: the expression 'log(depth - 5)' is not a number at depth = 0, arm = mail"),
    ("select: 3", "eligibility: {spend: depth > 20}", "run.yml:19: menu.eligibility.spend: found 'spend', which is experiment.outcome already, expected another column"),
    ("select: 3", "eligibility: {a member: depth > 20}", "run.yml:19: menu.eligibility.a member: found the column 'a member', expected one without spaces and , ; { } ( ) =, which Delta tables refuse"),
    ("select: 3", "switching_cost: 0.5", "run.yml:19: menu.switching_cost: found 0.5 without menu.previous_run, expected current or the id of the run whose assignments would change"),
    ("select: 3", "switching_cost: -1", "run.yml:19: menu.switching_cost: found -1, expected greater than or equal to 0"),
    ("select: 3", "previous_run: 7", "run.yml:19: menu.previous_run: found 7, expected a text; put it in quotes where YAML reads it as something else"),
    ("output: {schema: coarse}", "output: {schema: coarse}\nevaluation: {comparisons: [best_of_grids]}", "run.yml:24: evaluation.comparisons: found ['best_of_grids'], expected segments_features_kmeans or segments_features_tree or segments_responses_kmeans or segments_treatments_kmeans or best_of_grid or random_menu (did you mean 'best_of_grid'?)"),
    ("output: {schema: coarse}", "output: {schema: coarse}\nevaluation: {resamples: 1}", "run.yml:24: evaluation.resamples: found 1, which shows no spread, expected 0 or at least 2"),
    ("select: 3", "method: greedy", "run.yml:19: menu.method: found 'greedy', expected auto: other searches are gone"),
    ("select: 3", "update: debiased", "run.yml:19: menu.update: found 'debiased', expected plain: other updates are gone"),
    ("select: 3", "update:", "run.yml:19: menu.update: found null, expected plain: other updates are gone"),
    ("select: 3", "method: auto\n  update: plain\n  seed: x", "run.yml:21: menu.seed: found 'x', expected a valid integer, unable to parse string as an integer"),
    ("select: 3", "max_share: 0.4", "run.yml:19: menu.max_share: a menu of 2 cannot keep it: max_share 0.4 leaves 0.2 of the population without a treatment; the nearest feasible maximum for k = 2 is 0.5; or leave small sizes out of menu.sizes"),
    ("select: 3", "min_share: 0.3", "run.yml:19: menu.min_share: a menu of 4 cannot keep it: min_share 0.3 asks for 1.2 of the population in all, more than 1; the nearest feasible minimum is 0.25; or leave large sizes out of menu.sizes"),
    ("select: 3", "min_share: 0.2\n  max_share: 0.1", "run.yml:19: menu.min_share: a menu of 2 cannot keep it: position 0: min_share 0.2 is above max_share 0.1; lower it to 0.1 at most; or leave large sizes out of menu.sizes"),
    ("select: 3", "min_share: [0.2, 0.8]", "run.yml:19: menu.min_share: found a list of 2 shares, expected menu.sizes to be [2] alone"),
    ("sizes: 2-4\n  select: 3", "sizes: [2]\n  max_share: [0.2, 0.7]", "run.yml:19: menu.max_share: a menu of 2 cannot keep it: max_share (0.2, 0.7) leaves 0.1 of the population without a treatment; the nearest feasible maximum for k = 2 is each times 1.11112"),
    ("select: 3", "budget: .inf", "run.yml:19: menu.budget: found inf, expected a finite number"),
    ("select: 3", "spending_per_outcome: depth / 100", "run.yml:19: menu.spending_per_outcome: found spending without a budget, expected menu.budget beside it"),
    ("select: 3", "budget: 1\n  spending_per_unit: dept", f"run.yml:20: menu.spending_per_unit: 'dept' uses the unknown name 'dept' (did you mean 'depth'?); known names: arm, depth; {OF_UNITS}"),
    ("select: 3", "budget: 1\n  spending_per_unit: 1 / depth", "run.yml:20: menu.spending_per_unit: '1 / depth' is inf at depth = 0, arm = mail, expected a finite number"),
    ("select: 3", "assignment: ruel", "run.yml:19: menu.assignment: found 'ruel', expected exact or rule (did you mean 'rule'?)"),
    ("select: 3", "assignment: rule\n  budget: 1\n  max_share: 0.9", "run.yml:19: menu.assignment: found rule beside menu.max_share and menu.budget, which no rule over features can keep; expected exact, or no limits"),
    ("select: 3", "budget: 0.3", "run.yml:19: menu.budget: found 0.3, expected at least 0.5, what the cheapest treatment spends"),
    ("output: {schema: coarse}", "output: {schema: coarse}\nfrontier: {budgets: [0.3, 2]}", "run.yml:24: frontier.budgets: found 0.3, expected at least 0.5, what the cheapest treatment spends"),
    ("select: 3", "budget: 1\n  spending_per_unit: 0 * depth", "run.yml:19: menu.budget: nothing counts as spending, as menu.spending_per_unit is 0 for every treatment; expected menu.spending_per_unit or menu.spending_per_outcome beside it"),
    ("select: 3", "limits: [{name: calls, per_unit: depth}]", "run.yml:19: menu.limits[0]: found neither of at_most and at_least, expected one of them"),
    ("select: 3", "limits: [{name: calls, per_unit: depth, at_most: 2, at_least: 1}]", "run.yml:19: menu.limits[0]: found both of at_most and at_least, expected one of them"),
    ("select: 3", "limits: [{name: calls, at_most: 2}]", "run.yml:19: menu.limits[0]: nothing counts, expected per_unit or per_outcome"),
    ("select: 3", "limits: [{name: budget, per_unit: depth, at_most: 2}]", "run.yml:19: menu.limits[0].name: found 'budget', which menu.budget has, expected another"),
    ("select: 3", "limits: [{name: a, per_unit: dept, at_most: 2}]", f"run.yml:19: menu.limits[0].per_unit: 'dept' uses the unknown name 'dept' (did you mean 'depth'?); known names: arm, depth; {OF_UNITS}"),
    ("select: 3", "limits: [{name: a, per_outcome: {spent: 1}, at_most: 2}]", "run.yml:19: menu.limits[0].per_outcome.spent: found the outcome 'spent' (did you mean 'spend'?), expected one of spend (experiment.outcome)"),
    ("- {depth: 0, arm: mail}", "- {dept: 0, arm: mail}", "run.yml:21: menu.always_offer[0]: found dept, arm, expected a value for each of depth, arm (did you mean 'depth'?)"),
    ("- {depth: 0, arm: mail}", "- {depth: 0, arm: fax}", "run.yml:21: menu.always_offer[0].arm: found 'fax', expected one of the levels mail, phone"),
    ("- {depth: 0, arm: mail}", "- {depth: 50, arm: mail}", "run.yml:21: menu.always_offer[0].depth: found 50, expected the control 0 or a number from 0 to 40"),
    ("- {depth: 0, arm: mail}", "- {depth: 12, arm: mail}", "run.yml:21: menu.always_offer[0].depth: found 12, expected 0 plus whole steps of 10, such as 10 or 20"),
    ("- {depth: 0, arm: mail}", "- {depth: 40, arm: mail}", "run.yml:21: menu.always_offer[0]: found a treatment that menu.exclude leaves out ('depth == 40')"),
    ("- {depth: 0, arm: mail}", "- {depth: 0, arm: mail}\n    - {depth: 10, arm: mail}\n    - {depth: 20, arm: mail}", "run.yml:20: menu.always_offer: found 3 treatments, expected no more than the smallest of menu.sizes, 2"),
    ("exclude: depth == 40", "exclude: dpth > 3", f"run.yml:22: menu.exclude: 'dpth > 3' uses the unknown name 'dpth' (did you mean 'depth'?); known names: arm, depth; {OF_UNITS}"),
    ("exclude: depth == 40", "exclude: depth >= 0", "run.yml:22: menu.exclude: 'depth >= 0' leaves nothing but the control (depth = 0, arm = mail), expected 0 for other treatments too"),
    ("exclude: depth == 40", "exclude: log(depth - 5) > 2", "run.yml:22: menu.exclude: the exclusion 'log(depth - 5) > 2' is not a number at depth = 0, arm = mail"),
    ("exclude: depth == 40", "exclude: log(depth - 5)", "run.yml:22: menu.exclude: the exclusion 'log(depth - 5)' is not a number at depth = 0, arm = mail"),
    ("output: {schema: coarse}", "output: {catalog: main}", "run.yml:23: output.catalog: found the catalog main without a schema, expected output.schema beside it"),
    ("output: {schema: coarse}", "output: {schema: coarse, path: x}", "run.yml:23: output: found a path and a catalog schema, expected one of them"),
    ("output: {schema: coarse}", "output: {path: /Volumes/main/shop/out}", "run.yml:23: output.path: found /Volumes/main/shop/out; a table may not be defined on a folder of a Volume, expected catalog.schema in its place: output.catalog and output.schema (output.page may be on a Volume)"),
    ("output: {schema: coarse}", "output: {path: 'dbfs:/Volumes/main/shop/out'}", "run.yml:23: output.path: found dbfs:/Volumes/main/shop/out; a table may not be defined on a folder of a Volume, expected catalog.schema in its place: output.catalog and output.schema (output.page may be on a Volume)"),
    ("output: {schema: coarse}", "output: {schema: coarse, page: 's3://bucket/pages'}", "run.yml:23: output.page: found s3://bucket/pages, which programs of this machine cannot write, expected a local folder, /Volumes/catalog/schema/volume/… or dbfs:/…"),
    ("output: {schema: coarse}", "output:", "run.yml:23: output: found no place for the tables, expected exactly one of path, schema (with or without catalog)"),
    ("output: {schema: coarse}", "output: {schema: a.b}", "run.yml:23: output.schema: found 'a.b', expected one name of letters, digits, _ and -"),
    ("output: {schema: coarse}", "output: {schema: coarse}\npopulation: {table: t, path: x}", "run.yml:24: population: found table and path, expected one of them, or neither for the experiment's units"),
    ("output: {schema: coarse}", "output: {schema: coarse}\nspark: {driver_memory: much}", "run.yml:24: spark.driver_memory: found 'much', expected a size such as 2g or 512m"),
    ("output: {schema: coarse}", "output: {schema: coarse}\nspark: {conf: {a: [1]}}", "run.yml:24: spark.conf: found {'a': [1]}, expected a mapping of Spark settings to texts, numbers or true and false"),
    ("output: {schema: coarse}", "output: {schema: coarse}\noutputs: 3", "run.yml:24: outputs: found an unknown key, expected one of experiment, treatments, design, response, responses, profit, menu, population, evaluation, frontier, output, spark, privacy (did you mean 'output'?)"),
    ("output: {schema: coarse}", "output: {schema: coarse}\nmenu: {}", "run.yml:24: menu: the key occurs twice, first in line 17; expected it once"),
    ("output: {schema: coarse}", "output: {schema: coarse}\n3: x", "run.yml:24: 3: found an unknown key, expected one of experiment, treatments, design, response, responses, profit, menu, population, evaluation, frontier, output, spark, privacy"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), ONE, ids=[case[1][:40] for case in ONE])
def test_one_problem(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert GOOD.count(old) >= 1
    assert problems(GOOD.replace(old, new, 1), tmp_path) == [message]


BROUGHT = """\
experiment: {path: trial.parquet, unit_id: id, outcome: y}
treatments: {price: {kind: continuous, lower: 0, upper: 2, control: 0}}
design: {kind: randomized}
response: {basis: quadratic}
responses: {experiment: main.models.responses, columns: [a, b, c], out_of_fold: true}
output: {schema: coarse}
"""
OF_BROUGHT = [
    ("responses: {experiment: main.models.responses, ", "responses: {", "run.yml:5: responses: found columns without experiment, expected responses.experiment: the table with out-of-fold responses of the experiment's units"),
    ("columns: [a, b, c], ", "", "run.yml:5: responses.columns: found none, expected the columns with the response coefficients, in the order of the columns of response.basis"),
    ("[a, b, c]", "[a, b]", "run.yml:5: responses.columns: found 2, expected 3, one for every column of the basis quadratic in this order: 1, price, price^2"),
    ("[a, b, c]", "[a, id, c]", "run.yml:5: responses.columns[1]: found 'id', which is the unit_id, expected a column of coefficients"),
    (", out_of_fold: true", "", "run.yml:5: responses.out_of_fold: found false, expected true, which declares that every unit of responses.experiment was predicted by models that saw none of its fold (responses.fold), or none of the experiment: honest values rest on that"),
    ("response: {basis: quadratic}\n", "", "run.yml: response.basis: found auto, expected the one basis that responses.columns are coefficients of; arms where they are the expected outcomes under the treatments"),
    ("basis: quadratic", "basis: spline", "run.yml:4: response.basis: found spline, expected the one basis that responses.columns are coefficients of, with its knots; arms where they are the expected outcomes under the treatments"),
    ("basis: quadratic", "basis: quadratic, learner: sieve", "run.yml:4: response.learner: found 'sieve', which says how responses are learned, and they are brought along: leave it out"),
    ("kind: randomized", "kind: learned", "run.yml: experiment.features: found none, expected what treatments were given by: design.kind is learned"),
    ("output: {schema: coarse}", "output: {schema: coarse}\nmenu: {assignment: rule}", "run.yml: experiment.features: found none, expected what the rule may look at: menu.assignment is rule"),
    ("output: {schema: coarse}", "output: {schema: coarse}\nevaluation: {resamples: 5}", "run.yml:7: evaluation.resamples: found 5, expected 0: responses that are brought along do not tell the noise of the models that gave them"),
    ("output: {schema: coarse}", "output: {schema: coarse}\nevaluation: {comparisons: [segments_features_tree]}", "run.yml: experiment.features: found none, expected what units are compared by: evaluation.comparisons has segments_features_tree"),
    ("output: {schema: coarse}", "output: {schema: coarse}\npopulation: {table: people}", "run.yml:5: responses.population: found none, expected the table with the responses of the population's units"),
    ("main.models.responses", "my table", "run.yml:5: responses.experiment: found 'my table', expected a name such as catalog.schema.table, of letters, digits, _ and -"),
    ("main.models.responses", "/data/out/mine", "run.yml:6: output.path: found /data/out, which is, holds or lies in responses.experiment, expected a folder apart from the inputs"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), OF_BROUGHT, ids=[c[2][:60] for c in OF_BROUGHT])
def test_one_problem_of_responses_brought_along(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    assert BROUGHT.count(old) == 1
    text = BROUGHT.replace(old, new)
    if "/data" in new:
        text = text.replace("output: {schema: coarse}", "output: {path: /data/out}")
    found = problems(text, tmp_path)
    assert [line.replace("run.yml:1:", "run.yml:") for line in found] == [message]


OF_TWO = (
    BROUGHT.replace("outcome: y", "outcome: [spend, redeemed]").replace(
        "[a, b, c]", "{redeemed: [d, e, f], spend: [a, b, c]}"
    )
    + "profit: {margin: {spend: 1, redeemed: -price}}\n"
)
OF_BROUGHT_TWO = [
    ("{redeemed: [d, e, f], spend: [a, b, c]}", "[a, b, c]", "run.yml:5: responses.columns: found a list beside several outcomes, expected a mapping with the columns for each of spend, redeemed"),
    ("redeemed: [d, e, f], ", "", "run.yml:5: responses.columns: found none for 'redeemed', expected columns for every outcome"),
    ("redeemed: [d, e, f], ", "redeemed: [d, e, f], spent: [g, h, i], ", "run.yml:5: responses.columns.spent: found the outcome 'spent' (did you mean 'spend'?), expected one of spend, redeemed (experiment.outcome)"),
    ("[d, e, f]", "[d, e]", "run.yml:5: responses.columns.redeemed: found 2, expected 3, one for every column of the basis quadratic in this order: 1, price, price^2"),
    ("[d, e, f]", "[d, id, f]", "run.yml:5: responses.columns.redeemed[1]: found 'id', which is the unit_id, expected a column of coefficients"),
    ("[a, b, c]", "[a, d, c]", "run.yml:5: responses.columns.spend[1]: found 'd', which is of redeemed already, expected a column of coefficients"),
    ("{redeemed: [d, e, f], spend: [a, b, c]}", "{}", "run.yml:5: responses.columns: found {}, expected a mapping that names an outcome"),
    ("[d, e, f]", "3", "run.yml:5: responses.columns: found {'redeemed': 3, 'spend': ['a', 'b', 'c']}, expected a list of column names"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), OF_BROUGHT_TWO)
def test_one_problem_of_responses_of_two_outcomes(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    assert OF_TWO.count(old) == 1
    assert problems(OF_TWO.replace(old, new), tmp_path) == [message]


def test_responses_of_two_outcomes_stand_in_the_order_of_the_outcomes(tmp_path: Path) -> None:
    (tmp_path / "run.yml").write_text(OF_TWO)
    found = load_configuration(tmp_path / "run.yml")
    assert found.response_columns == ("a", "b", "c", "d", "e", "f")
    again = Configuration.model_validate_json(found.to_json())
    assert again.fingerprint() == found.fingerprint()


def test_responses_brought_along_settle_what_follows_from_them(tmp_path: Path) -> None:
    (tmp_path / "run.yml").write_text(BROUGHT)
    found = load_configuration(tmp_path / "run.yml")
    assert found.evaluation.resamples == 0
    assert not [name for name in found.evaluation.comparisons if "features" in name]
    assert found.responses.of_population == "responses.experiment"
    assert found.responses.sources["responses.experiment"].table == "main.models.responses"
    again = Configuration.model_validate_json(found.to_json())
    assert again.fingerprint() == found.fingerprint()
    (tmp_path / "run.yml").write_text(BROUGHT.replace("main.models.responses", "mine.csv"))
    (source,) = load_configuration(tmp_path / "run.yml").responses.sources.values()
    assert source.path is not None
    assert (source.format, source.path.rpartition("/")[2]) == ("csv", "mine.csv")


def test_rules_that_are_good(tmp_path: Path) -> None:
    (tmp_path / "run.yml").write_text(
        GOOD.replace(
            "select: 3",
            "eligibility: {member: depth > 20, channel: arm == 'phone'}\n  previous_run: current\n  switching_cost: 1",
        )
    )
    menu = load_configuration(tmp_path / "run.yml").menu
    assert menu.eligibility == {"member": "depth > 20", "channel": "arm == 'phone'"}
    assert (menu.previous_run, menu.switching_cost) == ("current", 1.0)


def test_a_misspelt_key_and_what_its_absence_means(tmp_path: Path) -> None:
    keys = (
        "table, path, format, bundled, unit_id, partition_by, features, outcome, weight, strata, "
        "cluster"
    )
    text = (
        GOOD.replace("table: main", "tabel: main")
        .replace("unit_id: customer", "seed: 3")
        .replace("upper: 40", "uper: 40")
    )
    assert problems(text, tmp_path) == [
        "run.yml:1: experiment.unit_id: the key is missing; expected column that identifies a unit, or a list of columns that do so together; unique and never null",
        "run.yml:1: experiment: found no source, expected exactly one of table, path, bundled",
        f"run.yml:2: experiment.tabel: found an unknown key, expected one of {keys} (did you mean 'table'?)",
        f"run.yml:3: experiment.seed: found an unknown key, expected one of {keys} (it belongs in the block menu)",
        "run.yml:10: treatments.depth.upper: the key is missing; expected largest value that may be offered",
        "run.yml:10: treatments.depth.uper: found an unknown key, expected one of kind, lower, upper, control, step (did you mean 'upper'?)",
    ]


def test_everything_at_once_and_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = (
        GOOD.replace("outcome: spend", "outcome: {spend: 1}")
        .replace("folds: 3", "folds: x")
        .replace("- depth / 100", "- dpth / 100")
    )
    text = (
        text.replace("select: 3", "select: 9")
        .replace("depth: 0, arm: mail", "depth: 5, arm: mail")
        .replace("coarse}", "c, path: x}")
    )
    found = problems(text, tmp_path, menu__starts="-1", spark__mastr="local")
    assert [line.split(": ")[:2] for line in found] == [
        ["run.yml:6", "experiment.outcome"],
        ["run.yml:13", "response.folds"],
        ["run.yml:15", "profit.margin"],
        ["run.yml:19", "menu.select"],
        ["run.yml:21", "menu.always_offer[0].depth"],
        ["run.yml:23", "output"],
        ["--set menu.starts", "menu.starts"],
        ["--set spark.mastr", "spark.mastr"],
    ]


@pytest.mark.parametrize(
    "menu",
    [
        "max_share: 0.9",
        "min_share: 0.25\n  method: auto",
        "budget: -1\n  spending_per_outcome: depth / 100",
    ],
)
def test_limits_that_every_size_can_keep(menu: str, tmp_path: Path) -> None:
    (tmp_path / "run.yml").write_text(GOOD.replace("select: 3", menu))
    assert not load_configuration(tmp_path / "run.yml").limits.free


def test_spending_by_factors_that_profit_lacks_needs_a_budget(tmp_path: Path) -> None:
    of_units = GOOD.replace("0.4 - depth / 100", "0.4 - depth / 100\n  unit_columns: [size]")
    text = of_units.replace("select: 3", "spending_per_unit: size * depth")
    asked = {"frontier__budgets": "[1, 2]"}
    assert problems(text, tmp_path, **asked) == [
        "run.yml:18: menu.budget: found none, and what counts as spending multiplies 'size', which "
        "profit does not: expected a budget, one that nobody reaches where there is no limit"
    ]
    path = tmp_path / "run.yml"
    assert load_configuration(path, {"frontier.budgets": "[1, 2]", "menu.budget": "1000"})
    path.write_text(text.replace("where(arm == 'phone', 2, 0.5)", "size * depth"))
    assert load_configuration(path, {"frontier.budgets": "[1, 2]"})


def test_budget_counts_the_cost_of_treatment_unless_spending_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.yml"
    path.write_text(GOOD)
    by_default = load_configuration(path, {"menu.budget": "2"}).limits.budget
    assert by_default == Budget(2.0, Profit("0", "where(arm == 'phone', 2, 0.5)"))
    named = load_configuration(
        path,
        {"menu.budget": "2", "menu.spending_per_outcome": "depth", "menu.spending_per_unit": "0"},
    )
    assert named.limits.budget == Budget(2.0, Profit("depth", "0"))
    masses = load_configuration(
        path, {"menu.sizes": "[2]", "menu.select": "2", "menu.min_share": "[0.4, 0.6]"}
    ).limits
    assert masses.min_share == (0.4, 0.6)


def test_unknown_learners(tmp_path: Path) -> None:
    expected = f"expected {' or '.join(LEARNERS)} (did you mean 'sieve'?)"
    assert problems(GOOD.replace("folds: 3", "learner: siev"), tmp_path) == [
        f"run.yml:13: response.learner: found 'siev', {expected}"
    ]


def test_shapes_that_cannot_be_imposed(tmp_path: Path) -> None:
    found = problems(GOOD.replace("folds: 3", "shape: {depth: concav}"), tmp_path)
    assert len(found) == 1
    assert found[0].startswith("run.yml:13: response.shape.depth: found 'concav'")


def test_treatment_names_that_the_tables_cannot_hold(tmp_path: Path) -> None:
    head = "is a column of its own in the tables that a run writes, expected another name"
    assert problems(GOOD.replace("depth", "Share"), tmp_path) == [
        f"run.yml:10: treatments.Share: 'Share' {head}; rename the column of the experiment, for instance to offered_Share"
    ]
    text = (
        GOOD.replace("0.4 - depth / 100", "0.4")
        .replace("depth == 40", "0")
        .replace("depth", "depth (%)")
    )
    refused = "expected one without spaces and , ; { } ( ) =, which Delta tables refuse"
    assert problems(text, tmp_path) == [
        f"run.yml:10: treatments.depth (%): found the name 'depth (%)', {refused}"
    ]


def test_names_are_read_as_they_are_written(tmp_path: Path) -> None:
    """Blanks in quotes, look-alikes, words of Python, dots and backticks: one name everywhere."""
    micro, greek = "\u00b5", "\u03bc"
    for name, written in {
        "preis.netto": "`preis.netto`",
        "lambda": "`lambda`",
        "a`b": "`a``b`",
        micro: micro,
        "caf\u00e9": "caf\u00e9",
        "cafe\u0301": "`cafe\u0301`",
    }.items():
        text = GOOD.replace(
            "features: [age, channel]", f'features: [" age", "{greek}", "stra\u00dfe", strasse]'
        )
        text = text.replace("  depth:", f'  "{name}":').replace("{depth:", f'{{"{name}":')
        text = text.replace("margin: 0.4 - depth", f"margin: 0.4 - {written}")
        text = text.replace("exclude: depth", f"exclude: '{written}").replace("== 40", "== 40'")
        (tmp_path / "run.yml").write_text(text, encoding="utf-8")
        found = load_configuration(tmp_path / "run.yml")
        assert found.experiment.features == (" age", greek, "stra\u00dfe", "strasse")
        assert found.space.names == (name, "arm")
        assert found.profit_function.check(found.space) is None
        assert len(found.space.candidates) == 8  # 40 is excluded


def test_the_names_of_written_columns_are_those_of_the_tables() -> None:
    assert {"run_id"}.union(
        *(table.key + tuple(table.columns) for table in (MENU, ASSIGNMENTS))
    ) == WRITTEN_COLUMNS
    assert {"run_id", *ASSIGNMENTS.key, *ASSIGNMENTS.columns} == ASSIGNMENT_COLUMNS


def test_a_grid_too_large_to_search(tmp_path: Path) -> None:
    (line,) = problems(GOOD.replace("step: 10", "step: 0.001"), tmp_path)
    assert line.startswith(
        "run.yml:9: treatments: the treatment grid has 40001 x 2 = 80002 points, at most 20000 are searched"
    )


def test_problems_of_overrides_name_the_override(tmp_path: Path) -> None:
    assert problems(GOOD, tmp_path, menu__seed="many") == [
        "--set menu.seed: menu.seed: found 'many', expected a valid integer, unable to parse string as an integer"
    ]
    assert problems(GOOD, tmp_path, menu__select__deep="1") == [
        "--set menu.select.deep: menu.select.deep: menu.select is no mapping of keys, so nothing can be set in it"
    ]
    assert problems(GOOD, tmp_path, menu__="1") == [
        "--set menu.: menu.: found an empty part, expected a dotted key such as menu.seed"
    ]
    (line,) = problems(GOOD, tmp_path, menu__seed="[1")
    assert line.startswith("--set menu.seed:1: not valid YAML: while parsing a flow sequence")


FILES = [
    (
        b"",
        "run.yml is empty; expected a mapping with blocks such as experiment, treatments and output",
    ),
    (b"# nothing but a comment\n", "run.yml is empty; expected a mapping"),
    (b"\n- a\n- b\n", "run.yml:2: found a list, expected a mapping of blocks such as experiment:"),
    (b"just a text", "run.yml:1: found a str, expected a mapping of blocks"),
    (b"a: 1\nb: [1, 2\nc: 3\n", "run.yml:3: not valid YAML: while parsing a flow sequence"),
    (b"a: 1\n\tb: 2\n", "run.yml:2: not valid YAML: "),
    (b"a: 1\n--- \nb: 2\n", "run.yml:2: not valid YAML: expected a single document in the stream"),
    (
        b"a: !!python/object/apply:os.system ['touch owned']\n",
        "run.yml:1: not valid YAML: could not determine a constructor for the tag",
    ),
    (b"a: *nowhere\n", "run.yml:1: not valid YAML: found undefined alias"),
    (b"a: \xff\xfe\n", "run.yml is not a text in UTF-8: invalid start byte at byte 3"),
    (b"a: \x00\n", "run.yml: not valid YAML: "),
    (
        b"? [a, b]\n: 1\n",
        "run.yml:1: not valid YAML: while constructing a mapping, found unhashable key",
    ),
    (b"a: " + b"[" * 3000, "run.yml: not valid YAML: "),
    (
        b"# " + b"x" * 1_000_001,
        "run.yml has 1000003 bytes, expected a configuration of at most 1000000",
    ),
]


@pytest.mark.parametrize(
    ("content", "message"), FILES, ids=[str(content[:24]) for content, _ in FILES]
)
def test_files_that_are_no_configuration(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(path)
    assert str(caught.value).replace(str(path), "run.yml").startswith(message)
    assert not Path("owned").exists()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "thornton.yml").touch()
    with pytest.raises(
        ConfigurationError,
        match=r"torton\.yml does not exist; expected a YAML file, such as .*thornton\.yml",
    ):
        load_configuration(tmp_path / "torton.yml")
    with pytest.raises(
        ConfigurationError, match="cannot be read: Is a directory; expected a YAML file"
    ):
        load_configuration(tmp_path)


def test_aliases_that_explode_or_contain_themselves_are_reported_briefly(tmp_path: Path) -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12)
    )
    assert len("\n".join(problems(bomb + "output: {schema: *a11}\n", tmp_path))) < 5_000
    assert "menu" in "\n".join(problems("menu: &m {always_offer: [*m]}\n", tmp_path))


fragments = st.sampled_from([line for line in GOOD.splitlines(keepends=True) if line.strip()])
noise = st.text(alphabet="abz019 :-{}[],'\"#&*!|>%@`\n\t.", max_size=12)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(fragments, noise), max_size=15))
def test_no_file_gets_more_than_a_report(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yml"
    path.write_text("".join(parts))
    # fragments of a good file are never a whole one
    with pytest.raises(ConfigurationError, match=re.escape(str(path))):
        load_configuration(path)


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = [
    f"{block}.{key}"
    for block, content in yaml.safe_load(GOOD).items()
    for key in [
        *content,
        "extra",
        "path",
        "min_share",
        "budget",
        "cost_per_treatment",
        "method",
        "update",
        "seed",
    ]
] + [
    "treatments.depth.lower",
    "treatments.depth.step",
    "treatments.arm.levels",
    "treatments.arm.control",
    "menu",
    "treatments",
    "spark.conf",
]


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), values, min_size=1, max_size=3))
def test_no_value_gets_more_than_a_report(
    tmp_path_factory: pytest.TempPathFactory, overrides: dict[str, object]
) -> None:
    path = tmp_path_factory.getbasetemp() / "good.yml"
    path.write_text(GOOD)
    with contextlib.suppress(ConfigurationError):
        load_configuration(path, {key: yaml.safe_dump(value) for key, value in overrides.items()})
