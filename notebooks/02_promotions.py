# Databricks notebook source
# MAGIC %md
# MAGIC # 2. A promotions campaign, from the experiment to SQL
# MAGIC **The question.** A retailer of twelve markets sends promotions: a discount on what a
# MAGIC customer buys, valid for some days. Every promotion that runs at once has to be printed,
# MAGIC explained and checked at the till. *Which few, and which customer gets which?*
# MAGIC
# MAGIC This runs on Spark and Delta, as it would for millions of customers: on Databricks in
# MAGIC the session that is there, elsewhere in a local one (`pip install 'coarse-spark[spark]'`
# MAGIC and Java 17).
# MAGIC
# MAGIC **The data** are simulated by the package, so that the truth is known at the end.
# MAGIC
# MAGIC | | |
# MAGIC |---|---|
# MAGIC | `unit_id`, `market` | the customer; one of twelve markets, of very different sizes |
# MAGIC | `tenure_months`, `age`, `distance_km` | known before; some are missing |
# MAGIC | `visits`, `past_spend`, `basket_size` | known before: of the last season, in money |
# MAGIC | `channel`, `tier`, `device` | known before, as texts |
# MAGIC | `depth`, `days` | the promotion by lot: discount 0 to 40 percent, valid 0 to 28 days |
# MAGIC | `spend` | what the customer then spent, in money; often nothing |

# COMMAND ----------

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from coarse_spark.config.load import load_configuration
from coarse_spark.lake.session import open_session
from coarse_spark.pipeline import run_all
from coarse_spark.pipeline.menu_rule import selected_rule
from coarse_spark.simulate.tables import write_promotions

plt.style.use("seaborn-v0_8-whitegrid")
plt.rcParams.update({"figure.constrained_layout.use": True, "figure.figsize": (8, 4)})

folder = Path(tempfile.mkdtemp())  # on a cluster: a folder that all machines see
spark = open_session(master="local[2]", shuffle_partitions=2)
paths = write_promotions(spark, 5_000, str(folder / "data"), experiment_units=20_000, seed=1)
experiment = spark.read.format("delta").load(paths["experiment"])
experiment.limit(5).toPandas()

# COMMAND ----------

# MAGIC %md
# MAGIC ## The experiment
# MAGIC One customer in eight got nothing; all others a depth and a validity by lot. On average
# MAGIC deeper discounts sell more, and longer ones neither much more nor less. But averages
# MAGIC hide that customers differ.

# COMMAND ----------

rows = experiment.select("depth", "days", "spend").toPandas()
figure, columns = plt.subplots(1, 2, sharey=True)
for axes, name, edges, unit in (
    (columns[0], "depth", range(0, 41, 5), "discount, %"),
    (columns[1], "days", range(0, 29, 4), "validity, days"),
):
    treated = rows[rows["depth"] > 0]
    shown = treated.groupby(pd.cut(treated[name], edges), observed=True)["spend"].agg(
        ["mean", "sem"]
    )
    middles = [interval.mid for interval in shown.index]
    axes.errorbar(middles, shown["mean"], 1.96 * shown["sem"], fmt="o", capsize=3)
    axes.axhline(rows.loc[rows["depth"] == 0, "spend"].mean(), color="0.4", lw=1, ls="--")
    axes.set_title(f"Spend by {name}; dashed: no promotion")
    axes.set_xlabel(unit)
columns[0].set_ylabel("mean spend and 95 % interval, money")
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## The campaign in one file
# MAGIC Of spend, 45 % is margin, and the discount comes off it. Sending a promotion costs 0.15,
# MAGIC every day of validity 0.01. Each market gets response models of its own; small ones lean
# MAGIC on those of all.

# COMMAND ----------

config = folder / "campaign.yml"
config.write_text(f"""
experiment:
  path: {paths["experiment"]}
  unit_id: unit_id
  partition_by: [market]
  features: [market, tenure_months, age, visits, past_spend, distance_km, basket_size, channel,
             tier, device]
  outcome: spend
treatments:
  depth: {{kind: continuous, lower: 0, upper: 40, control: 0}}
  days: {{kind: continuous, lower: 0, upper: 28, control: 0}}
design: {{kind: randomized}}
response: {{basis: quadratic, learner: auto, folds: 3}}
profit:
  margin: 0.45 - depth / 100
  cost: where(depth + days > 0, 0.15, 0) + 0.01 * days
menu: {{sizes: 1-5, select: auto}}
evaluation: {{resamples: 0}}
population: {{path: {paths["population"]}}}
output: {{path: {folder / "tables"}}}
""")
run = run_all(spark, load_configuration(config))


def table(name: str) -> pd.DataFrame:
    """Return the rows of this run in a table of results."""
    found = spark.read.format("delta").load(str(folder / "tables" / name))
    return found.where(found["run_id"] == run.run_id).drop("run_id").toPandas()


menu = table("menu").sort_values(["k", "treatment_id"])
chosen = menu[menu["selected"]].set_index("treatment_id")
chosen[["depth", "days", "share", "expected_profit"]].round(2)

# COMMAND ----------

# MAGIC %md
# MAGIC That was `coarse-spark run --config campaign.yml`: it learned the responses, chose menus
# MAGIC of one to five promotions, judged them on customers whose outcomes nobody had seen, took
# MAGIC the smallest K that is as good as the best, assigned the whole population, and published
# MAGIC tables.
# MAGIC
# MAGIC ## How many promotions?

# COMMAND ----------

values = table("policy_values")
contrasts = table("contrasts")
menus = values[values["policy"] == "menu"].sort_values("k")
control, single, granular = (
    values.set_index("policy").loc[name] for name in ("control", "uniform", "granular")
)
figure, (left, right) = plt.subplots(1, 2)
error = [menus["value"] - menus["ci_low"], menus["ci_high"] - menus["value"]]
left.errorbar(menus["k"], menus["value"], error, fmt="o", capsize=3, label="menu, 95 % interval")
left.axhline(granular["value"], color="tab:green", ls="-.", label="full personalization")
left.axhline(single["value"], color="tab:orange", ls="--", label="best single promotion")
left.axhline(control["value"], color="0.4", ls=":", label="no promotion")
left.set_xticks(menus["k"])
left.set_title("Honest profit")
left.set_xlabel("K, number of promotions")
left.set_ylabel("money a customer")
gain = contrasts[(contrasts["policy"] == "menu") & (contrasts["versus"] == "uniform")]
gain = gain.set_index("k").sort_index()
error = [gain["difference"] - gain["ci_low"], gain["ci_high"] - gain["difference"]]
right.errorbar(gain.index, gain["difference"], error, fmt="o", capsize=3)
right.axhline(0, color="0.4", lw=1)
right.set_xticks(gain.index)
right.set_title("Honest gain above the best single one")
right.set_xlabel("K, number of promotions")
right.set_ylabel("money a customer")
figure.legend(loc="outside lower center", ncols=4)
plt.show()

k = int(chosen["k"].iloc[0])
menus.set_index("k")[
    ["plug_in_value", "upper_bound", "value", "captured_of_control", "captured_of_uniform"]
].round(3)

# COMMAND ----------

# MAGIC %md
# MAGIC The plug-in value is what responses promise of themselves, and the upper bound what *no*
# MAGIC menu of K could exceed by them: the search has lost next to nothing. `captured` are the
# MAGIC shares of what full personalization honestly gains, above nothing and above the best
# MAGIC single promotion.
# MAGIC
# MAGIC ## Compared with what else could be done
# MAGIC With as many promotions: segments made first and promotions for them afterwards, the
# MAGIC best of a grid, a random menu. All were tuned on the same folds and are judged by the
# MAGIC same customers, so that differences are paired.

# COMMAND ----------

WORDS = {
    "segments_features_kmeans": "segments on features (k-means)",
    "segments_features_tree": "segments on features (tree)",
    "segments_responses_kmeans": "segments on responses",
    "segments_treatments_kmeans": "segments on own best promotions",
    "best_of_grid": "best of a grid of promotions",
    "random_menu": "random promotions",
    "uniform": "best single promotion",
    "rule": "a rule of three conditions",
}
ours = contrasts[(contrasts["policy"] == "menu") & (contrasts["k"] == k)].set_index("versus")
rule_row = contrasts[(contrasts["policy"] == "rule") & (contrasts["versus"] == f"menu of {k}")]
rule_row = rule_row.iloc[0]
others = ours.loc[[name for name in WORDS if name in ours.index]].iloc[::-1]
figure, axes = plt.subplots()
error = [others["difference"] - others["ci_low"], others["ci_high"] - others["difference"]]
axes.errorbar(
    others["difference"], [WORDS[name] for name in others.index], xerr=error, fmt="o", capsize=3
)
axes.axvline(0, color="0.4", lw=1)
axes.set_title(f"What the menu of {k} honestly earns more than")
axes.set_xlabel("money a customer (95 % interval of the paired difference)")
axes.set_ylabel("another policy")
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## Who gets what
# MAGIC A promotion without a discount is a reminder that costs its postage. Every dot is a
# MAGIC customer at the promotion that would be best for that customer alone; the colour says
# MAGIC which of the menu (the large marks) the customer gets.

# COMMAND ----------

responses = spark.read.format("delta").load(str(folder / "tables" / "responses"))
assignments = spark.read.format("delta").load(str(folder / "tables" / "assignments"))
own = responses.join(assignments, ["run_id", "unit_id"]).select(
    "best_depth", "best_days", "treatment_id"
)
own = own.limit(2_500).toPandas()
figure, axes = plt.subplots()
for number, row in chosen.iterrows():
    mine = own[own["treatment_id"] == number]
    (dots,) = axes.plot(mine["best_depth"], mine["best_days"], ".", ms=4, alpha=0.5, clip_on=False)
    axes.plot(
        row["depth"],
        row["days"],
        "o",
        ms=13,
        mec="white",
        color=dots.get_color(),
        clip_on=False,
        label=f"{row['depth']:.0f} %, {row['days']:.0f} days: {row['share']:.0%} of the customers",
    )
axes.set_title("Own best promotions, and the menu")
axes.set_xlabel("discount, %")
axes.set_ylabel("validity, days")
figure.legend(loc="outside lower center", ncols=2, markerscale=0.6)
plt.show()

table("segments").sort_values("treatment_id")[["treatment_id", "rule"]].to_dict("records")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Into SQL
# MAGIC The view `current_assignments` always shows the assignments of the latest published run.
# MAGIC Any SQL engine that reads Delta joins it; `notebooks/queries.md` has the usual queries.

# COMMAND ----------

spark.sql("""
    SELECT treatment_id, round(depth) AS depth, round(days) AS days, count(*) AS customers,
           round(avg(expected_incremental_profit), 2) AS gain_a_customer
    FROM current_assignments GROUP BY ALL ORDER BY treatment_id
""").toPandas()

# COMMAND ----------

# MAGIC %md
# MAGIC Where a campaign tool cannot join tables, a **rule** does: a CASE expression over
# MAGIC features, the tree that earns most with this menu (`coarse-spark export-rule` prints
# MAGIC it). It needs no model, no Python, and earns less than the exact assignment; how much
# MAGIC less is measured on unseen outcomes as well.

# COMMAND ----------

case = selected_rule(run, "spark")
print(case)
spark.read.format("delta").load(paths["population"]).createOrReplaceTempView("customers")
by_rule = spark.table("customers").selectExpr("unit_id", f"{case} AS treatment_id").toPandas()
print(
    by_rule["treatment_id"]
    .value_counts(normalize=True)
    .sort_index()
    .map("{:.0%}".format)
    .to_string()
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## What it truly earns
# MAGIC A simulation knows. The same customers, what they were assigned, and their true
# MAGIC responses:

# COMMAND ----------

truth = (
    spark.read.format("delta")
    .load(paths["truth"])
    .join(assignments.select("unit_id", "depth", "days"), "unit_id")
)
known = truth.toPandas()
theta = known[[f"theta_{j}" for j in range(6)]].to_numpy()


def earned(depth: np.ndarray, days: np.ndarray) -> float:
    """Return the true profit of promotions (n,), money a customer."""
    basis = np.column_stack([depth**0, depth, days, depth**2, depth * days, days**2])
    cost = np.where(depth + days > 0, 0.15, 0) + 0.01 * days
    return float(np.mean((0.45 - depth / 100) * (basis * theta).sum(axis=1) - cost))


def to_all(depth: float, days: float) -> float:
    """Return the true profit where everybody gets one promotion."""
    return earned(np.full(len(theta), float(depth)), np.full(len(theta), float(days)))


one = menu[menu["k"] == 1].iloc[0]
none, alike = to_all(0, 0), to_all(one["depth"], one["days"])
menu_earned = earned(known["depth"].to_numpy(), known["days"].to_numpy())
pd.Series({"no promotion": none, "best single": alike, f"menu of {k}": menu_earned}).round(3)

# COMMAND ----------

# MAGIC %md
# MAGIC ## What to do

# COMMAND ----------


def with_interval(row: pd.Series) -> str:
    """Return a difference with its 95 % interval in words."""
    return f"{row['difference']:.3f} ({row['ci_low']:.3f} to {row['ci_high']:.3f})"


picked = menus.set_index("k").loc[k]
low, high = picked["captured_of_control_low"], picked["captured_of_control_high"]
print(f"""Run these {k} promotions. A customer honestly earns
{with_interval(ours.loc["control"])} more than without any, in truth {menu_earned - none:.3f};
{with_interval(ours.loc["uniform"])} more than with the best single one, in truth
{menu_earned - alike:.3f}. Of what full personalization honestly gains above none, that is
{picked["captured_of_control"]:.0%} ({low:.0%} to {high:.0%}; what is beyond 100% is noise).
The rule in SQL earns {with_interval(rule_row)} against the exact assignment.""")
