# Databricks notebook source
# MAGIC %md
# MAGIC # From an experiment to a menu, in memory
# MAGIC The whole idea on a few thousand simulated customers, without Spark. Every cell also runs
# MAGIC as plain Python.

# COMMAND ----------
import numpy as np

from coarse_spark import Profit, ResponseLearner, TreatmentSpace, choose_menu
from coarse_spark.simulate.field import field_simulation

# features X, random treatments T, outcomes y, and the truth
experiment = field_simulation(4_000, dimensions=1, seed=1)
customers = field_simulation(4_000, dimensions=1, seed=2)  # other customers, to be served

# COMMAND ----------
# MAGIC %md
# MAGIC ## 1. Learn every customer's response to the treatment

# COMMAND ----------
space = TreatmentSpace.from_dict(
    {"t1": {"kind": "continuous", "lower": 0, "upper": 2, "control": 0}}
)
learner = ResponseLearner(basis="quadratic", learner="sieve", space=space, random_state=0)
theta = learner.fit(experiment.X, experiment.T, experiment.y).predict(customers.X)

# COMMAND ----------
# MAGIC %md
# MAGIC ## 2. Choose three treatments and who gets which

# COMMAND ----------
profit = Profit(margin="1", cost="0.3 * t1")
menu = choose_menu(theta, space=space, basis="quadratic", profit=profit, k=3)
print(menu)

# COMMAND ----------
# MAGIC %md
# MAGIC ## 3. What it truly earns
# MAGIC In a simulation the truth is known. In a real run, the honest values of the report take its
# MAGIC place.

# COMMAND ----------
given = menu.treatments["t1"].to_numpy()[menu.assign(theta)]
true_profit = np.column_stack([np.ones_like(given), given, given**2])
earned = float(np.mean(np.einsum("ij,ij->i", true_profit, customers.theta) - 0.3 * given))
nobody = float(customers.theta[:, 0].mean())
print(
    f"expected by the estimates: {menu.value:.3f} a customer; truly earned: {earned:.3f}; "
    f"nobody treated: {nobody:.3f}"
)
