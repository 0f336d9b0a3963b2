# Databricks notebook source
# MAGIC %md
# MAGIC # 5. The same question elsewhere: what to ask of donors, which products to make
# MAGIC A *treatment* need not be a price or a discount. Wherever a few variants go to many who
# MAGIC differ, the question is the same: which variants, and who gets which? Two more, both
# MAGIC **simulated**:
# MAGIC
# MAGIC 1. a charity's letters: which amounts to ask for;
# MAGIC 2. a product line: which boxes of coffee to make, when every product has a fixed cost.

# COMMAND ----------

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from coarse_spark import Profit, ResponseLearner, TreatmentSpace, choose_menu, honest_values
from coarse_spark.core.menu.menu import Menu

plt.style.use("seaborn-v0_8-whitegrid")
plt.rcParams.update({"figure.constrained_layout.use": True, "figure.figsize": (8, 4)})


def with_interval(row: pd.Series) -> str:
    """Return a difference with its 95 % interval in words."""
    return f"{row['difference']:.2f} dollars ({row['ci_low']:.2f} to {row['ci_high']:.2f})"


# COMMAND ----------

# MAGIC %md
# MAGIC ## Ask amounts
# MAGIC Who is asked for more gives more, and gives more rarely. Large donors mind less. The
# MAGIC printer makes a few versions of the letter.
# MAGIC
# MAGIC | | |
# MAGIC |---|---|
# MAGIC | `last_gift`, `years` | the last donation, dollars; years since the first one |
# MAGIC | `regular` | gave in each of the last three years |
# MAGIC | `ask` | the amount in the letter, dollars, by lot: 10, 15, 25 … 200; last year's was 25 |
# MAGIC | `gift` | what came back, dollars: mostly nothing |

# COMMAND ----------

ASKS = [10, 15, 25, 35, 50, 75, 100, 150, 200]


def expected_gift(donors: pd.DataFrame, ask: np.ndarray) -> np.ndarray:
    """Return the true expected gift: a chance that falls with the ask, times an amount."""
    chance = 0.1 * (1 + donors["regular"]) * np.exp(-ask / (1.5 * donors["last_gift"] + 15))
    return np.asarray(chance * np.sqrt(ask * donors["last_gift"]))


rng = np.random.default_rng(0)
n = 80_000
donors = pd.DataFrame(
    {
        "last_gift": np.exp(rng.normal(3.5, 0.8, n)).round(),
        "years": rng.integers(1, 20, n),
        "regular": rng.random(n) < 0.4,
    }
)
ask = rng.choice(ASKS, n).astype(float)
chance = 0.1 * (1 + donors["regular"]) * np.exp(-ask / (1.5 * donors["last_gift"] + 15))
amount = np.sqrt(ask * donors["last_gift"]) * np.exp(rng.normal(-0.125, 0.5, n))  # mean as above
gift = np.where(rng.random(n) < chance, amount, 0.0)

groups = pd.cut(donors["last_gift"], [0, 25, 60, np.inf], labels=["≤ 25", "26 to 60", "> 60"])
shown = pd.Series(gift).groupby([groups, ask], observed=True).agg(["mean", "sem"])
figure, axes = plt.subplots()
for number, group in enumerate(groups.cat.categories):
    rows = shown.loc[group]
    axes.errorbar(
        rows.index * (1 + 0.02 * number),  # beside each other
        rows["mean"],
        1.96 * rows["sem"],
        fmt="o^s"[number] + "-",
        capsize=3,
        label=f"last gift {group} dollars",
    )
axes.set_xscale("log", base=2)
axes.set_xticks(ASKS, [str(amount) for amount in ASKS])
axes.set_title("What came back, by what was asked for")
axes.set_xlabel("ask, dollars (logarithmic)")
axes.set_ylabel("mean gift, dollars a letter (95 % interval)")
figure.legend(loc="outside lower center", ncols=3)
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC How gifts depend on the ask is not known, and the picture shows no simple curve. With
# MAGIC nine asks none is needed: basis `arms` has a column of its own for every ask, so that
# MAGIC nothing is assumed between them. (With a quadratic, say, values would be honest only as
# MAGIC far as the response is one: here it is not.) Gifts and their noise grow with the donor;
# MAGIC `scale` is chosen by the learner.

# COMMAND ----------

space = TreatmentSpace.from_candidates(pd.DataFrame({"ask": ASKS}), control={"ask": 25})
learn, judge = np.arange(n) < n // 2, np.arange(n) >= n // 2
learner = ResponseLearner(basis="arms", space=space, random_state=0)
learner.fit(donors[learn], ask[learn], gift[learn])
print(f"scale: {learner.scale_}")

theta = learner.predict(donors[judge])
problem = {"space": space, "basis": "arms", "profit": Profit()}
letters = {k: choose_menu(theta, k=k, **problem) for k in range(1, 7)}
honest = honest_values(theta, ask[judge], gift[judge], letters.values(), **problem)
gain = honest.contrasts.query("policy == 'menu' and versus == 'uniform'").set_index("k")

asked = {k: menu.treatments["ask"].to_numpy()[menu.assign(theta)] for k, menu in letters.items()}
earned = {k: expected_gift(donors[judge], amounts).mean() for k, amounts in asked.items()}
truth = {k: value - earned[1] for k, value in earned.items()}
pd.DataFrame(
    {
        "asks": [
            ", ".join(f"{a:.0f}" for a in menu.treatments["ask"]) for menu in letters.values()
        ],
        "captured of control": [f"{menu.captured_of_control:.1%}" for menu in letters.values()],
        "captured of single": [f"{menu.captured_of_uniform:.1%}" for menu in letters.values()],
        "certified gap": [f"{menu.gap:.2%}" for menu in letters.values()],
        "honest gain": [with_interval(row) for _, row in gain.iterrows()],
        "true gain": [f"{value:.2f}" for value in truth.values()],
    },
    index=pd.Index(letters, name="K"),
)

# COMMAND ----------

# MAGIC %md
# MAGIC The two captured shares are of what an amount of one's own for every donor would bring,
# MAGIC above last year's letter and above the best single ask. Gains are dollars a letter above
# MAGIC that single ask.

# COMMAND ----------

three, amounts = letters[3], asked[3]
figure, axes = plt.subplots()
axes.hist(
    [np.log2(donors["last_gift"][judge][amounts == a]) for a in three.treatments["ask"]],
    bins=np.arange(1, 9.1, 0.25),
    stacked=True,
    label=[f"is asked for {a:.0f} dollars" for a in three.treatments["ask"]],
)
ticks = [2, 5, 10, 20, 50, 100, 200, 500]
axes.set_xticks(np.log2(ticks), [str(tick) for tick in ticks])
axes.set_title("Who is asked for what")
axes.set_xlabel("last gift, dollars (logarithmic)")
axes.set_ylabel("donors")
figure.legend(loc="outside lower center", ncols=3)
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## A product line
# MAGIC A roaster sends every customer an offer for one box of coffee. In the experiment size,
# MAGIC price and organic or not were drawn by lot. Making a box at all costs the same however
# MAGIC many are sold. *Which boxes should be in the line, how many, and which is offered to
# MAGIC whom?*
# MAGIC
# MAGIC | | |
# MAGIC |---|---|
# MAGIC | `household`, `income`, `green` | persons; thousand dollars a year; share of organic food |
# MAGIC | `grams` | size of the box: 250, 500, 1000 |
# MAGIC | `price` | dollars per 100 grams, 1.50 to 4.50 |
# MAGIC | `organic` | yes or no |
# MAGIC | `bought` | 1 when the customer took the offer |

# COMMAND ----------


def buying(who: pd.DataFrame, box: pd.DataFrame) -> np.ndarray:
    """Return the true chance that customers take the offer of a box."""
    need = 200 * who["household"].to_numpy()
    fits = -2.0 * np.abs(np.log(box["grams"].to_numpy() / need))
    dislike = (1.3 - 0.006 * who["income"].to_numpy()) * (box["price"].to_numpy() - 2.5)
    organic = (2.4 * who["green"].to_numpy() - 0.7) * (box["organic"] == "yes").to_numpy()
    return np.asarray(1 / (1 + np.exp(-0.8 - fits + dislike - organic)))


rng = np.random.default_rng(0)
m = 40_000
who = pd.DataFrame(
    {
        "household": rng.choice([1, 2, 3, 4, 5], m, p=[0.3, 0.32, 0.16, 0.14, 0.08]),
        "income": rng.gamma(5, 12, m).clip(10, 160).round(),
        "green": rng.beta(0.8, 1.6, m).round(2),
    }
)
box = pd.DataFrame(
    {
        "grams": rng.choice([250.0, 500.0, 1000.0], m),
        "price": rng.uniform(1.5, 4.5, m).round(2),
        "organic": rng.choice(["no", "yes"], m),
    }
)
bought = (rng.random(m) < buying(who, box)).astype(float)

# COMMAND ----------

# MAGIC %md
# MAGIC A box costs 1 dollar of postage, its coffee 80 cents per 100 grams, organic 40 cents
# MAGIC more. Today there is one box: 500 grams at 2.50, not organic.

# COMMAND ----------

line_space = TreatmentSpace.from_dict(
    {
        "grams": {"kind": "continuous", "values": [250, 500, 1000], "control": 500},
        "price": {"kind": "continuous", "lower": 1.5, "upper": 4.5, "step": 0.1, "control": 2.5},
        "organic": {"kind": "categorical", "levels": ["no", "yes"], "control": "no"},
    }
)
line = {
    "space": line_space,
    "basis": "quadratic(grams, price) * levels(organic)",
    "profit": Profit(margin="grams / 100 * (price - 0.8 - where(organic == 'yes', 0.4, 0)) - 1"),
}
teach, test = np.arange(m) < m // 2, np.arange(m) >= m // 2
taster = ResponseLearner(basis=line["basis"], space=line_space, random_state=0)
taster.fit(who[teach], box[teach], bought[teach])
tastes = taster.predict(who[test])
lines = {k: choose_menu(tastes, k=k, **line) for k in range(1, 9)}
judged = honest_values(tastes, box[test], bought[test], lines.values(), **line)
print(judged.lack_of_fit)  # a small p would say that the basis misses the responses
print(lines[4])

# COMMAND ----------

# MAGIC %md
# MAGIC Who is offered which box: large households the large one, those with a green past the
# MAGIC organic one.

# COMMAND ----------

names = [
    f"{row.grams:.0f} g at {row.price:.2f}" + (", organic" if row.organic == "yes" else "")
    for row in lines[4].treatments.itertuples()
]
offered = pd.Series(np.array(names)[lines[4].assign(tastes)], name="box")
customers = who[test].reset_index(drop=True)
customers.groupby(offered).agg(
    household=("household", "mean"), income=("income", "mean"), green=("green", "mean")
).assign(share=offered.value_counts(normalize=True)).round(2)

# COMMAND ----------

# MAGIC %md
# MAGIC ## How long a line?
# MAGIC More boxes earn more before fixed costs. With `cost_per_treatment`, what a box costs per
# MAGIC customer whether it sells or not, the choice of K is part of the problem.

# COMMAND ----------

costs = [0.02, 0.05, 0.1, 0.2, 0.4]
lengths = [choose_menu(tastes, k=8, cost_per_treatment=c, **line).k for c in costs]
figure, (left, right) = plt.subplots(1, 2)
sizes = np.array(list(lines))
values = np.array([menu.value for menu in lines.values()])
left.plot(sizes, values, "ko-", label="before fixed costs")
for cost, style in zip((0.05, 0.2), ("s--", "^:"), strict=True):
    left.plot(sizes, values - cost * sizes, style, label=f"less {cost:.2f} dollars a box")
left.set_title("What a line earns")
left.set_xlabel("K, boxes in the line")
left.set_ylabel("expected profit, dollars a customer (plug-in)")
right.plot(costs, lengths, "o-")
right.set_xscale("log")
right.set_xticks(costs, [f"{cost:.2f}" for cost in costs])
right.minorticks_off()
right.set_title("The best length of the line")
right.set_xlabel("fixed cost of a box, dollars a customer")
right.set_yticks(range(1, 7))
right.set_ylabel("boxes in the line")
figure.legend(loc="outside lower center", ncols=3)
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## What to do

# COMMAND ----------

ask_gain = gain.loc[3]
line_gain = judged.contrasts.query("policy == 'menu' and versus == 'uniform' and k == 4").iloc[0]
four = lines[4]


def margin_of(given: pd.DataFrame) -> float:
    """Return what boxes truly earn, dollars a customer."""
    unit = given["price"] - 0.8 - 0.4 * (given["organic"] == "yes")
    return float(np.mean(buying(who[test], given) * (given["grams"] / 100 * unit - 1)))


def sent(menu: Menu) -> pd.DataFrame:
    """Return the box that every customer is offered."""
    return menu.treatments.iloc[menu.assign(tastes)].reset_index(drop=True)


line_truth = margin_of(sent(four)) - margin_of(sent(lines[1]))
best_asks = ", ".join(f"{a:.0f}" for a in three.treatments["ask"])
kept = three.captured_of_uniform
print(f"""Asks of {best_asks} dollars look best. They keep {kept:.0%} of what an ask of one's own
for everybody would bring. Honestly they bring {with_interval(ask_gain)} a letter
more than the best single ask (in truth {truth[3]:.2f}). The interval holds 0: send these three and
the single one at random once more before the charity relies on them.

Of coffee, with a fixed cost of {costs[1]:.2f} dollars a customer and box, make {lengths[1]} boxes.
Four honestly earn {with_interval(line_gain)} a customer more than the
best single box, before fixed costs (in truth {line_truth:.2f}), and keep
{four.captured_of_uniform:.0%} of what a box of one's own for everybody would.""")
