# Databricks notebook source
# MAGIC %md
# MAGIC # 1. Quick start: from an experiment to a menu, in memory
# MAGIC **The question.** A shop sends vouchers. Some customers need a large one, others buy
# MAGIC anyway. A voucher value of its own for everybody is more than the printer, the legal
# MAGIC department and the call centre can carry. *Which few values should it offer, and who
# MAGIC gets which?*
# MAGIC
# MAGIC **The data** are simulated, so that the truth is known at the end. No Spark is needed:
# MAGIC `pip install coarse-spark` is enough.
# MAGIC
# MAGIC | | |
# MAGIC |---|---|
# MAGIC | `X`, columns x0 … x9 | what is known of a customer before: ten numbers between −1 and 1 |
# MAGIC | `voucher` | the value that the customer got, drawn at random between 0 and 2 dollars |
# MAGIC | `sales` | dollars that the customer then brought in, above those of an average customer |

# COMMAND ----------

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from coarse_spark import Profit, ResponseLearner, TreatmentSpace, choose_menu, honest_values
from coarse_spark.simulate.field import field_simulation

plt.style.use("seaborn-v0_8-whitegrid")
plt.rcParams.update({"figure.constrained_layout.use": True, "figure.figsize": (8, 4)})

experiment = field_simulation(8_000, dimensions=1, seed=1)
X, sales = experiment.X, experiment.y
voucher = experiment.T.rename(columns={"t1": "voucher"})
pd.concat([X.round(2), voucher.round(2)], axis=1).assign(sales=sales.round(2)).head()

# COMMAND ----------

# MAGIC %md
# MAGIC ## The experiment
# MAGIC Vouchers were drawn at random, so the mean of those who got about the same value is what
# MAGIC that value does *on average*. It rises, and flattens.

# COMMAND ----------

tenth = (voucher["voucher"] * 5).astype(int)  # ten bins of 20 cents
means = pd.Series(sales).groupby(tenth).agg(["mean", "sem"])
figure, axes = plt.subplots()
axes.errorbar(means.index / 5 + 0.1, means["mean"], 1.96 * means["sem"], fmt="o", capsize=3)
axes.set_title("Larger vouchers sell more, up to a point")
axes.set_xlabel("voucher, dollars (bins of 20 cents)")
axes.set_ylabel("mean sales and 95 % interval, dollars")
plt.show()
# COMMAND ----------

# MAGIC %md
# MAGIC ## Learn every customer's response
# MAGIC E[sales] = θ₀ + θ₁ · voucher + θ₂ · voucher², with coefficients θ that depend on the
# MAGIC customer. The learner sees one half of the experiment. The other half, which it never
# MAGIC saw, will judge.

# COMMAND ----------

learn, judge = np.arange(len(sales)) % 2 == 0, np.arange(len(sales)) % 2 == 1
space = TreatmentSpace.from_dict(
    {"voucher": {"kind": "continuous", "lower": 0, "upper": 2, "control": 0}}
)
learner = ResponseLearner(basis="quadratic", space=space, random_state=0)
learner.fit(X[learn], voucher[learn], sales[learn])
theta = learner.predict(X[judge])  # one row a customer: θ₀, θ₁, θ₂

# COMMAND ----------

# MAGIC %md
# MAGIC ## What a voucher is worth
# MAGIC A dollar of sales is a dollar; a voucher costs 30 cents for every dollar on it (not all
# MAGIC are redeemed). Every customer has a value that earns most. These best values differ.

# COMMAND ----------

profit = Profit(margin="1", cost="0.3 * voucher")
values = np.linspace(0, 2, 201)
curves = theta @ np.vstack([values**0, values, values**2]) - 0.3 * values
gains = curves - curves[:, :1]  # above no voucher
best = values[curves.argmax(axis=1)]
shown = np.argsort(best)[(np.array([0.05, 0.25, 0.5, 0.75, 0.95]) * len(best)).astype(int)]

figure, (left, right) = plt.subplots(1, 2)
left.plot(values, gains[shown].T)
left.plot(best[shown], gains[shown].max(axis=1), "ko", label="the customer's best")
left.set_title("Five customers")
left.set_xlabel("voucher, dollars")
left.set_ylabel("expected profit above no voucher, dollars")
right.hist(best, bins=np.arange(0, 2.05, 0.1), color="0.7")
right.set_title("All customers")
right.set_xlabel("the customer's best voucher, dollars")
right.set_ylabel("customers")
figure.legend(loc="outside lower center")
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## The menu
# MAGIC `choose_menu` finds the K values and the assignment that earn most. Every menu comes with an
# MAGIC **upper bound**: no K values whatever could earn more than that by these responses.
# MAGIC
# MAGIC Two shares say how near a menu comes to *full personalization*, where everybody gets the
# MAGIC own best value: the share of its gain **above nobody treated** (the easy one), and
# MAGIC **above the best single voucher for all** (the hard one).

# COMMAND ----------

menus = [
    choose_menu(theta, space=space, basis="quadratic", profit=profit, k=k) for k in range(1, 6)
]
table = pd.DataFrame(
    {
        "vouchers": [", ".join(f"{v:.2f}" for v in menu.treatments["voucher"]) for menu in menus],
        "profit": [menu.value for menu in menus],
        "of_control": [menu.captured_of_control for menu in menus],
        "of_single": [menu.captured_of_uniform for menu in menus],
        "gap": [menu.gap for menu in menus],
    },
    index=pd.Index([menu.k for menu in menus], name="K"),
)
table.style.format(
    {"profit": "{:.3f}", "of_control": "{:.2%}", "of_single": "{:.1%}", "gap": "{:.3%}"}
)

# COMMAND ----------

figure, axes = plt.subplots()
axes.plot(table.index, 100 * table["of_control"], "o-", label="above nobody treated")
axes.plot(table.index, 100 * table["of_single"], "s--", label="above the best single voucher")
axes.axhline(100, color="0.4", lw=1)
axes.text(1, 101, "full personalization", color="0.4")
axes.set_xticks(table.index)
axes.set_ylim(-5, 110)
axes.set_title("A few vouchers keep nearly all that full personalization gains")
axes.set_xlabel("K, number of different vouchers")
axes.set_ylabel("share of the gain kept, %")
figure.legend(loc="outside lower center", ncols=3)
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## What it earns, honestly
# MAGIC The numbers above are *plug-in* values: what the estimated responses promise of
# MAGIC themselves. They are optimistic, because the menu takes the largest of numbers that are
# MAGIC partly noise. The customers whose sales the learner never saw judge better:
# MAGIC `honest_values` needs their vouchers and sales.

# COMMAND ----------

honest = honest_values(
    theta, voucher[judge], sales[judge], menus, space=space, basis="quadratic", profit=profit
)
honest.policy_values[["policy", "k", "value", "ci_low", "ci_high"]].round(3)

# COMMAND ----------

# MAGIC %md
# MAGIC All values share the same customers, hence the same noise. Differences, customer by
# MAGIC customer, are far surer than the values themselves: here what menus earn above one
# MAGIC voucher for all. Because this is a simulation, the truth can be drawn beside.

# COMMAND ----------

gain = honest.contrasts.query("policy == 'menu' and versus == 'uniform'").set_index("k")
truth = experiment.theta[judge]


def true_profit(given: np.ndarray) -> float:
    """Return what vouchers truly earn a customer on average."""
    earned = truth[:, 0] + truth[:, 1] * given + truth[:, 2] * given**2 - 0.3 * given
    return float(earned.mean())


single = true_profit(np.full(len(truth), menus[0].treatments["voucher"].iloc[0]))
true_gain = [
    true_profit(menu.treatments["voucher"].to_numpy()[menu.assign(theta)]) - single
    for menu in menus
]
plug_in = [menu.value - menu.uniform_value for menu in menus]
error = [gain["difference"] - gain["ci_low"], gain["ci_high"] - gain["difference"]]

figure, axes = plt.subplots()
axes.errorbar(
    gain.index, gain["difference"], error, fmt="o", capsize=3, label="honest, 95 % interval"
)
axes.plot(gain.index + 0.1, plug_in, "D", mfc="none", color="0.5", label="plug-in")
axes.plot(gain.index - 0.1, true_gain, "k_", ms=12, label="truth")
axes.axhline(0, color="0.4", lw=1)
axes.set_title("What a menu earns above the best single voucher")
axes.set_xlabel("K, number of different vouchers")
axes.set_ylabel("dollars a customer")
figure.legend(loc="outside lower center", ncols=3)
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## What to do

# COMMAND ----------

chosen, row = menus[2], gain.loc[3]
more = honest.contrasts.query("versus == 'menu of 3'").iloc[0]
values_given = chosen.treatments["voucher"].to_numpy()[chosen.assign(theta)]
figure, axes = plt.subplots()
axes.hist(
    [best[values_given == value] for value in chosen.treatments["voucher"]],
    bins=np.arange(0, 2.05, 0.1),
    stacked=True,
    label=[f"gets {value:.2f} dollars" for value in chosen.treatments["voucher"]],
)
axes.set_title("Who gets which: everybody the one that earns most, mostly the nearest")
axes.set_xlabel("the customer's own best voucher, dollars")
axes.set_ylabel("customers")
figure.legend(loc="outside lower center", ncols=3)
plt.show()

who = pd.DataFrame(
    {
        "voucher": chosen.treatments["voucher"].round(2),
        "share of customers": pd.Series(chosen.shares).map("{:.0%}".format),
    }
)
print(who.to_string(index=False))


def with_interval(row: pd.Series) -> str:
    """Return a difference with its 95 % interval in words."""
    return f"{row['difference']:.3f} dollars ({row['ci_low']:.3f} to {row['ci_high']:.3f})"


print(f"""
Offer these three. They keep {chosen.captured_of_control:.1%} of what full personalization gains
above nobody treated, and {chosen.captured_of_uniform:.0%} of that above the best single voucher.
No other three could gain more than {chosen.gap:.2%} of it besides. Honestly they earn a customer
{with_interval(row)} more than one voucher for all; in truth {true_gain[2]:.3f}.
A fourth would add {with_interval(more)}.""")

# COMMAND ----------

# MAGIC %md
# MAGIC New customers need no new search: predict their responses, and let the menu assign.

# COMMAND ----------

newcomers = field_simulation(5, dimensions=1, seed=2).X
chosen.treatments.round(2).iloc[chosen.assign(learner.predict(newcomers))]

# COMMAND ----------

# MAGIC %md
# MAGIC Next: `02_promotions` does the same for a whole customer base on Spark, ending in tables
# MAGIC and SQL.
