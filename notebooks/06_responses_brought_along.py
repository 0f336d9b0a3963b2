# Databricks notebook source
# MAGIC %md
# MAGIC # 6. Your own models: responses brought along
# MAGIC **The question.** A team has models of its own: boosted trees in LightGBM, causal forests
# MAGIC in EconML, a deep net. It trusts them, and wants to know *which few offers to make, to
# MAGIC whom, and what that earns*. The models stay where they are; what they predict is all
# MAGIC that is needed.
# MAGIC
# MAGIC This needs `pip install lightgbm econml`, and Spark for the last part
# MAGIC (`pip install 'coarse-spark[spark]'` and Java 17).
# MAGIC
# MAGIC **The data** are simulated (this cell's `customers`), so that the truth is known at the
# MAGIC end.
# MAGIC
# MAGIC | | |
# MAGIC |---|---|
# MAGIC | `x0` … `x5` | known of a customer before the offer |
# MAGIC | `offer` | by lot: none, a call, a gift, ten percent off, or a longer contract |
# MAGIC | `spend` | what the customer then spent |

# COMMAND ----------

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from econml.dml import CausalForestDML
from lightgbm import LGBMClassifier, LGBMRegressor

from coarse_spark import Profit, TreatmentSpace, choose_menu, honest_values
from coarse_spark.config.load import load_configuration
from coarse_spark.core.in_sample import own_treatment
from coarse_spark.lake.session import open_session
from coarse_spark.pipeline import run_all

warnings.filterwarnings("ignore", category=UserWarning)
warnings.filterwarnings("ignore", category=FutureWarning)
plt.style.use("seaborn-v0_8-whitegrid")
plt.rcParams.update({"figure.constrained_layout.use": True, "figure.figsize": (8, 4)})

OFFERS = ["none", "call", "gift", "discount", "contract"]
COSTS = {"none": 0.0, "call": 0.35, "gift": 0.4, "discount": 0.5, "contract": 0.6}
FEATURES = [f"x{j}" for j in range(6)]


def expected(X: pd.DataFrame) -> np.ndarray:
    """Return the true expected spend (n, 5) under every offer."""
    x = X[FEATURES].to_numpy().T
    level = 3 + np.sin(np.pi * x[0] * x[1]) + x[2]
    effects = [0 * x[0], 0.4 + 0.8 * x[0], 0.4 + 0.9 * x[1], 0.5 + 0.9 * x[3], 0.6 - 0.9 * x[0]]
    return np.stack([level + effect for effect in effects], axis=1)


def customers(n: int, seed: int) -> pd.DataFrame:
    """Return customers with an offer by lot and what they spent."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(rng.uniform(-1, 1, (n, 6)), columns=FEATURES)
    drawn = rng.integers(0, 5, n)
    spend = expected(X)[range(n), drawn] + rng.normal(0, 1.5, n)
    return X.assign(id=range(n), offer=np.array(OFFERS)[drawn], spend=spend)


experiment = customers(8_000, seed=1)
population = customers(4_000, seed=2)[["id", *FEATURES]]
experiment.head()

# COMMAND ----------

# MAGIC %md
# MAGIC ## Two models
# MAGIC What a model has to give is the expected outcome of every customer under every offer (the
# MAGIC basis `arms`; for prices and other numbers it may be the coefficients of a curve).
# MAGIC LightGBM predicts it directly, with the offer as one more feature. A causal forest of
# MAGIC EconML gives effects; a model of the outcome adds the level: the mean outcome of a
# MAGIC customer, less what the offers add to it on average.

# COMMAND ----------

Model = Callable[[pd.DataFrame], np.ndarray]


def boosted() -> LGBMRegressor:
    """Return boosted trees as they come."""
    return LGBMRegressor(n_estimators=100, num_leaves=31, n_jobs=1, verbose=-1)


def lightgbm(rows: pd.DataFrame) -> Model:
    """Fit boosted trees with the offer as a feature."""

    def known(X: pd.DataFrame, offer: pd.Series | str) -> pd.DataFrame:
        given = X[FEATURES].assign(offer=offer)
        return given.assign(offer=pd.Categorical(given["offer"], OFFERS))

    model = boosted().fit(known(rows, rows["offer"]), rows["spend"])

    def predict(X: pd.DataFrame) -> np.ndarray:
        return np.stack([model.predict(known(X, name)) for name in OFFERS], axis=1)

    return predict


def econml(rows: pd.DataFrame) -> Model:
    """Fit a causal forest for effects, and boosted trees for the level."""
    code, X = rows["offer"].map(OFFERS.index), rows[FEATURES]
    forest = CausalForestDML(
        model_y=boosted(),
        model_t=LGBMClassifier(n_estimators=5, num_leaves=4, n_jobs=1, verbose=-1),
        discrete_treatment=True,
        n_estimators=96,
        cv=2,
        n_jobs=1,
        random_state=0,
    ).fit(rows["spend"], code, X=X)
    mean = boosted().fit(X, rows["spend"])

    def predict(X: pd.DataFrame) -> np.ndarray:
        effects = forest.const_marginal_effect(X[FEATURES])
        effects = np.column_stack([np.zeros(len(X)), effects])
        return (mean.predict(X[FEATURES]) - effects.mean(axis=1))[:, None] + effects

    return predict


# COMMAND ----------

# MAGIC %md
# MAGIC ## Out of fold, or not at all
# MAGIC Honest values compare what was predicted for a customer with what the customer did. That
# MAGIC says nothing when the model knew the outcome: **every customer of the experiment has to
# MAGIC be predicted by a model that was fitted without that customer's fold**. For the
# MAGIC population, the model of all rows is right.

# COMMAND ----------


def out_of_fold(fit: Callable[[pd.DataFrame], Model], rows: pd.DataFrame) -> np.ndarray:
    """Predict every row by a model of the other folds."""
    found = np.empty((len(rows), 5))
    for number in range(3):
        held = folds == number
        found[held] = fit(rows[~held])(rows[held])
    return found


folds = np.random.default_rng(0).permutation(len(experiment)) % 3


learners = {"LightGBM": lightgbm, "EconML": econml}
honest = {name: out_of_fold(fit, experiment) for name, fit in learners.items()}
whole = {name: fit(experiment) for name, fit in learners.items()}
in_sample = {name: model(experiment) for name, model in whole.items()}

# COMMAND ----------

# MAGIC %md
# MAGIC Whether they are shows in the predictions themselves. A model that saw a customer is drawn
# MAGIC to the outcome at the offer that the customer got, and not at the others: predictions at
# MAGIC the own offer vary more. Offers were given by lot, so a model that did not see the
# MAGIC customer cannot know which it was, however good or bad it is. A run warns where it shows.
# MAGIC (What hardly overfits may not show, so this is no proof of the opposite.)

# COMMAND ----------

phi = np.eye(5)[experiment["offer"].map(OFFERS.index)]
strata = np.zeros(len(experiment))
check = pd.DataFrame(
    {
        (name, kind): own_treatment(theta[name], phi, strata).__dict__
        for name in learners
        for kind, theta in (("in sample", in_sample), ("out of fold", honest))
    }
).T
figure, axes = plt.subplots(figsize=(8, 2.8))
labels = [f"{name}, {kind}" for name, kind in check.index]
colours = ["tab:red" if kind == "in sample" else "tab:blue" for _, kind in check.index]
axes.barh(labels, check["z"], color=colours)
axes.axvline(4, color="0.4", lw=1, ls="--")
axes.set_title("How far predictions stand out at the own offer; beyond 4 a run warns")
axes.set_xlabel("standard errors")
axes.set_ylabel("responses")
plt.show()
check.round(3)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Menus, and what they honestly earn
# MAGIC The rest is as with learned responses. On the left by out-of-fold predictions; on the
# MAGIC right by those in sample, whose honest values are not: the truth (crosses) lies outside.

# COMMAND ----------

space = TreatmentSpace.from_dict(
    {"offer": {"kind": "categorical", "levels": OFFERS, "control": "none"}}
)
cost = " + ".join(f"{money} * (offer == '{name}')" for name, money in COSTS.items() if money)
problem = {"space": space, "basis": "arms", "profit": Profit(cost=cost)}
earns = expected(experiment) - np.array(list(COSTS.values()))


def judged(theta: np.ndarray) -> pd.DataFrame:
    """Return honest values of menus of 1 to 4 offers, beside what they truly earn."""
    menus = [choose_menu(theta, k=k, **problem) for k in (1, 2, 3, 4)]
    found = honest_values(theta, experiment[["offer"]], experiment["spend"], menus, **problem)
    values = found.policy_values.set_index(["policy", "k"]).loc["menu"]
    true = []
    for menu in menus:
        offers = menu.treatments["offer"].map(OFFERS.index).to_numpy()
        true.append(earns[range(len(experiment)), offers[menu.assign(theta)]].mean())
    return values.assign(truth=true)


tables = {
    (name, kind): judged(theta[name])
    for kind, theta in (("out of fold", honest), ("in sample", in_sample))
    for name in learners
}
figure, columns = plt.subplots(1, 2, sharey=True)
for axes, kind in zip(columns, ("out of fold", "in sample"), strict=True):
    for shift, name in ((-0.1, "LightGBM"), (0.1, "EconML")):
        rows = tables[name, kind]
        error = [rows["value"] - rows["ci_low"], rows["ci_high"] - rows["value"]]
        bars = axes.errorbar(rows.index + shift, rows["value"], error, fmt="o", capsize=3)
        bars.set_label(f"{name}, 95 % interval" if kind == "in sample" else None)
        axes.plot(rows.index + shift, rows["truth"], "kx")
    axes.set_xticks(rows.index)
    axes.set_title(f"By predictions {kind}")
    axes.set_xlabel("K, number of offers")
columns[0].set_ylabel("profit a customer")
figure.legend(loc="outside lower center", ncols=2)
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## The same on Spark
# MAGIC Two tables with the id and a column an offer, one block in the configuration, and a run
# MAGIC chooses, judges, assigns and publishes as always. With the column `fold` it knows which
# MAGIC model predicted whom: the menu that a fold is judged by is chosen on predictions that
# MAGIC know none of its outcomes. Nothing is learned; features could be left out, and serve here
# MAGIC for comparisons and to describe who gets what.

# COMMAND ----------

folder = Path(tempfile.mkdtemp())  # on a cluster: a folder that all machines see
columns_of = [f"under_{name}" for name in OFFERS]
experiment.to_parquet(folder / "experiment.parquet", index=False)
population.to_parquet(folder / "population.parquet", index=False)
for name, units, theta in (
    ("of_experiment", experiment, honest["LightGBM"]),
    ("of_population", population, whole["LightGBM"](population)),
):
    rows = pd.DataFrame(theta, columns=columns_of).assign(id=units["id"].to_numpy())
    if name == "of_experiment":
        rows["fold"] = folds
    rows.to_parquet(folder / f"{name}.parquet", index=False)
config = folder / "offers.yml"
config.write_text(f"""
experiment:
  path: {folder}/experiment.parquet
  unit_id: id
  features: [{", ".join(FEATURES)}]
  outcome: spend
treatments:
  offer: {{kind: categorical, levels: {OFFERS}, control: none}}
design: {{kind: randomized}}
response: {{basis: arms, folds: 3}}
responses:
  experiment: {folder}/of_experiment.parquet
  population: {folder}/of_population.parquet
  columns: [{", ".join(columns_of)}]
  fold: fold
  out_of_fold: true
profit: {{cost: "{cost}", currency: EUR, per: customer}}
menu: {{sizes: 1-4, select: 3}}
population: {{path: {folder}/population.parquet}}
output: {{path: {folder}/tables}}
""")
spark = open_session(master="local[2]", shuffle_partitions=2)
run = run_all(spark, load_configuration(config))
spark.read.format("delta").load(str(folder / "tables" / "menu")).where("selected").toPandas()

# COMMAND ----------

# MAGIC %md
# MAGIC ## What it truly earns
# MAGIC The population was never in an experiment; a simulation knows what it earns all the same.

# COMMAND ----------

given = spark.read.format("delta").load(str(folder / "tables" / "assignments")).toPandas()
given = given.set_index("unit_id").loc[population["id"]]
earned = expected(population) - np.array(list(COSTS.values()))
menu_earned = earned[range(len(population)), given["offer"].map(OFFERS.index)].mean()
policies = {
    "no offer": earned[:, 0].mean(),
    "best single offer": earned.mean(axis=0).max(),
    "menu of 3": menu_earned,
    "everybody's own best": earned.max(axis=1).mean(),
}
figure, axes = plt.subplots(figsize=(8, 2.8))
axes.barh(list(policies), list(policies.values()), color="tab:blue")
axes.set_xlim(min(policies.values()) - 0.1, None)
axes.set_title("True profit of the population")
axes.set_xlabel("EUR a customer")
axes.set_ylabel("policy")
plt.show()
pd.Series(policies).round(3)
