# Databricks notebook source
# MAGIC %md
# MAGIC # 4. Incentives within a capacity and a budget
# MAGIC **The question.** A health programme wants people to come and collect their test result.
# MAGIC Money helps, and so do visits by a health worker. Both are short. *Which incentives, and
# MAGIC for whom?*
# MAGIC
# MAGIC The first part is a real experiment, the second a simulated one in which people differ
# MAGIC more.

# COMMAND ----------

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from causaldata import thornton_hiv

from coarse_spark import Profit, ResponseLearner, TreatmentSpace, choose_menu, honest_values
from coarse_spark.core.menu.menu import Menu
from coarse_spark.core.menu.problem.limits import Budget

plt.style.use("seaborn-v0_8-whitegrid")
plt.rcParams.update({"figure.constrained_layout.use": True, "figure.figsize": (8, 4)})

# COMMAND ----------

# MAGIC %md
# MAGIC ## Part one: a real experiment
# MAGIC Thornton (2008, American Economic Review 98(5)) drew cash vouchers for people in rural
# MAGIC Malawi who had been tested for HIV. A voucher was paid when they came for their result.
# MAGIC The data come with the package `causaldata`.
# MAGIC
# MAGIC | | |
# MAGIC |---|---|
# MAGIC | `tinc` | the voucher, dollars; 0 for none |
# MAGIC | `got` | 1 when the person collected the result |
# MAGIC | `age`, `distvct` | years; kilometres to the centre |
# MAGIC | `villnum` | the village: neighbours are alike, so intervals count villages, not people |

# COMMAND ----------

people = thornton_hiv.load_pandas().data.astype(float).round(5)
people = people.dropna(subset=["got", "tinc", "villnum"]).drop(columns=["hiv2004", "any"])
bins = pd.cut(people["tinc"], [-1, 0, 0.5, 1, 1.5, 2, 2.5, 3])
shown = people.groupby(bins, observed=True).agg(
    tinc=("tinc", "mean"), mean=("got", "mean"), error=("got", "sem")
)
figure, axes = plt.subplots()
axes.errorbar(shown["tinc"], 100 * shown["mean"], 196 * shown["error"], fmt="o", capsize=3)
axes.set_ylim(0, 100)
axes.set_title("The smallest vouchers do most of it")
axes.set_xlabel("voucher, dollars (none, and bins of 50 cents)")
axes.set_ylabel("people who came, % (95 % interval)")
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC A collected result is worth 4 dollars to the programme, and a voucher is paid only when
# MAGIC somebody comes: the margin of a success is 4 − voucher. The chance jumps with any
# MAGIC voucher at all, and then bends: basis `any+quadratic`. One half of the villages teaches,
# MAGIC the other half judges.

# COMMAND ----------

space = TreatmentSpace.from_dict(
    {"tinc": {"kind": "continuous", "lower": 0, "upper": 2.8, "step": 0.1, "control": 0}}
)
problem = {"space": space, "basis": "any+quadratic", "profit": Profit(margin="4 - tinc")}
villages = np.random.default_rng(0).permutation(people["villnum"].unique())
learning = people["villnum"].isin(villages[::2])
learn, judge = people[learning], people[~learning]

learner = ResponseLearner(basis="any+quadratic", space=space, random_state=0)
learner.fit(learn[["age", "distvct"]], learn[["tinc"]], learn["got"], groups=learn["villnum"])
theta = learner.predict(judge[["age", "distvct"]])
menus = {k: choose_menu(theta, k=k, **problem) for k in (1, 2, 3)}
honest = honest_values(
    theta, judge[["tinc"]], judge["got"], menus.values(), groups=judge["villnum"], **problem
)


def with_interval(row: pd.Series, digits: int = 2) -> str:
    """Return a difference with its 95 % interval in words."""
    low, high = (f"{row[end]:.{digits}f}" for end in ("ci_low", "ci_high"))
    return f"{row['difference']:.{digits}f} dollars ({low} to {high})"


differences = honest.contrasts.set_index(["policy", "versus", "k"])
one, more = differences.loc["menu", "control", 1], differences.loc["menu", "uniform", 3]
print(f"""One voucher of {menus[1].treatments["tinc"].iloc[0]:.2f} dollars for all earns honestly
{with_interval(one)} a person more than none.
Three vouchers add {with_interval(more, 3)} to that.""")

# COMMAND ----------

# MAGIC %md
# MAGIC The honest answer here is **one voucher for all**: people differ too little, in what is
# MAGIC known of them, for a second one to pay. A method that always found segments would have
# MAGIC found some here.
# MAGIC
# MAGIC ## A budget
# MAGIC Donors allow so many cents a person, on average. `Budget` says what counts: the voucher,
# MAGIC when it is paid. The menu then mixes, and its **budget price** says what one more dollar
# MAGIC would earn.

# COMMAND ----------

budgets = np.round(np.arange(0.1, 0.56, 0.05), 2)
limited = [choose_menu(theta, k=2, budget=Budget(b, Profit("tinc")), **problem) for b in budgets]
prices = [menu.limits.budget_price for menu in limited]

figure, (left, right) = plt.subplots(1, 2)
left.plot(budgets, [menu.value for menu in limited], "o-")
left.axhline(menus[2].value, color="0.4", lw=1)
left.text(0.1, menus[2].value + 0.003, "without a budget", color="0.4")
left.set_ylim(2.38, 2.5)
left.set_title("What two vouchers earn")
left.set_xlabel("budget, dollars a person")
left.set_ylabel("expected profit, dollars a person (plug-in)")
right.plot(budgets, prices, "o-")
right.set_title("What one more dollar would earn")
right.set_xlabel("budget, dollars a person")
right.set_ylabel("budget price, dollars a dollar")
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## Part two: when people differ
# MAGIC Now a **simulated** programme. People missed check-ups; the programme may send cash, or
# MAGIC a health worker. In its experiment everybody got one of five offers by lot.
# MAGIC
# MAGIC | | |
# MAGIC |---|---|
# MAGIC | `age`, `distance`, `phone` | years; kilometres; whether the person has a phone |
# MAGIC | `cash`, `visit` | the offer: dollars on coming (0, 0.50, 1, 2), or one visit |
# MAGIC | `came` | 1 when the person came for the check-up |

# COMMAND ----------

offers = pd.DataFrame({"cash": [0, 0.5, 1, 2, 0], "visit": [0, 0, 0, 0, 1]}).astype(float)
NAMES = ["nothing", "0.50 cash", "1.00 cash", "2.00 cash", "visit"]
FEATURES = ["age", "distance", "phone"]


def chances(X: pd.DataFrame) -> np.ndarray:
    """Return the true chance (n, 5) that people come, by offer."""
    young, old = (X["age"] < 35).to_numpy(), (X["age"] > 55).to_numpy()
    base = 0.4 - 0.45 * X["distance"].to_numpy()
    cash = 0.4 + 1.4 * young - 0.4 * old + 0.1 * X["distance"].to_numpy()
    visit = 0.2 + 1.9 * old + 0.9 * ~X["phone"].to_numpy()
    effect = cash[:, None] * np.sqrt(offers["cash"].to_numpy())
    effect += visit[:, None] * offers["visit"].to_numpy()
    return np.asarray(1 / (1 + np.exp(-base[:, None] - effect)))


rng = np.random.default_rng(0)
n = 40_000
X = pd.DataFrame(
    {
        "age": rng.integers(18, 80, n),
        "distance": rng.gamma(2, 1.2, n).round(2),
        "phone": rng.random(n) < 0.7,
    }
)
lot = rng.integers(0, 5, n)
came = (rng.random(n) < chances(X)[np.arange(n), lot]).astype(float)
given = offers.iloc[lot].reset_index(drop=True)

# COMMAND ----------

# MAGIC %md
# MAGIC A check-up is worth 10 dollars. Cash is paid when somebody comes, a visit costs 1.50
# MAGIC dollars whatever happens. Two things are short: health workers reach **15 %** of the
# MAGIC people, and all offers together may cost **75 cents** a person.

# COMMAND ----------

space = TreatmentSpace.from_candidates(offers, control={"cash": 0, "visit": 0})
wide = {
    "space": space,
    "basis": "arms",
    "profit": Profit(margin="10 - cash", cost="1.5 * visit"),
}
spending = Profit(margin="cash", cost="1.5 * visit")
VISIT, CAPACITY, MONEY = 4, 0.15, 0.75  # the row of the visit, shares, dollars
within = {"max_share": {VISIT: CAPACITY}, "budget": Budget(MONEY, spending)}

learns, judges = np.arange(n) < n // 2, np.arange(n) >= n // 2
learner = ResponseLearner(basis="arms", space=space, random_state=0)
learner.fit(X[learns], given[learns], came[learns])
response = learner.predict(X[judges])

free = {k: choose_menu(response, k=k, **wide) for k in (1, 2, 3, 4)}
kept = {k: choose_menu(response, k=k, **within, **wide) for k in (1, 2, 3, 4)}
judged = honest_values(response, given[judges], came[judges], kept.values(), **wide)
over_one = judged.contrasts.query("policy == 'menu' and versus == 'uniform'").set_index("k")


def profit_of(rows: np.ndarray) -> float:
    """Return what offers truly earn the people who judge, dollars a person."""
    cash, visit = offers.to_numpy()[rows].T
    chance = chances(X[judges])[np.arange(len(rows)), rows]
    return float(np.mean((10 - cash) * chance - 1.5 * visit))


def offer_of(menu: Menu) -> np.ndarray:
    """Return the offer (n,) of the people who judge, as rows of ``offers``."""
    which = [
        int(np.flatnonzero((offers == row).all(axis=1))[0]) for row in menu.treatments.to_numpy()
    ]
    return np.array(which)[menu.assign(response)]


given_by = {k: offer_of(menu) for k, menu in kept.items()}
truth = {k: profit_of(rows) - profit_of(given_by[1]) for k, rows in given_by.items()}
pd.DataFrame(
    {
        "offers": [", ".join(NAMES[row] for row in np.unique(rows)) for rows in given_by.values()],
        "spending": [menu.limits.spending for menu in kept.values()],
        "captured of control": [menu.captured_of_control for menu in kept.values()],
        "captured of single": [menu.captured_of_uniform for menu in kept.values()],
        "certified gap": [menu.gap for menu in kept.values()],
        "captured of control without limits": [menu.captured_of_control for menu in free.values()],
    },
    index=pd.Index(kept, name="K"),
).round(3)

# COMMAND ----------

# MAGIC %md
# MAGIC Captured shares are of what full personalization would gain *without* limits. The last
# MAGIC column, menus without limits, shows that what is missing is mostly the price of the
# MAGIC limits. Who gets which within them is part of the choice, and certified with it.
# MAGIC
# MAGIC ## What it earns, honestly

# COMMAND ----------

figure, axes = plt.subplots()
error = [over_one["difference"] - over_one["ci_low"], over_one["ci_high"] - over_one["difference"]]
axes.errorbar(
    over_one.index, over_one["difference"], error, fmt="o", capsize=3, label="honest, 95 % interval"
)
plug_in = [menu.value - kept[1].value for menu in kept.values()]
axes.plot(list(kept), plug_in, "D", mfc="none", color="0.5", label="plug-in")
axes.plot(list(truth), list(truth.values()), "k_", ms=14, label="truth")
axes.axhline(0, color="0.4", lw=1)
axes.set_xticks(list(kept))
axes.set_title("What menus within the limits earn above one offer for all within them")
axes.set_xlabel("K, number of different offers")
axes.set_ylabel("dollars a person")
figure.legend(loc="outside lower center", ncols=3)
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## Who gets a visit
# MAGIC Two offers are enough to see it: visits go to those who gain most by them *compared with
# MAGIC cash*, until the health workers are busy.

# COMMAND ----------

judging = X[judges]
figure, columns = plt.subplots(1, 2, sharey=True)
for axes, phone in zip(columns, [True, False], strict=True):
    for row, mark, colour in ((2, ".", "0.75"), (VISIT, "s", "tab:red")):
        people_here = judging[(given_by[2] == row) & (judging["phone"] == phone)][::5]
        axes.plot(
            people_here["age"],
            people_here["distance"],
            mark,
            color=colour,
            ms=4,
            label=NAMES[row] if phone else None,
        )
    axes.set_title("with a phone" if phone else "without a phone")
    axes.set_xlabel("age, years")
columns[0].set_ylabel("distance, kilometres")
figure.legend(loc="outside lower center", ncols=2, markerscale=2)
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## Is it worth hiring?
# MAGIC The menu's **shadow price** of the visit says what one more person visited would earn,
# MAGIC above what that person gets now. It tells whether capacity is worth buying, without
# MAGIC solving anything again. Solved again for other capacities, the values rise at that
# MAGIC slope.

# COMMAND ----------

capacities = np.array([0.05, 0.1, 0.15, 0.2])
more_visits = [
    choose_menu(response, k=2, max_share={VISIT: c}, budget=Budget(MONEY, spending), **wide)
    for c in capacities
]
shadow = [float(menu.prices.max()) for menu in more_visits]
figure, (left, right) = plt.subplots(1, 2)
left.plot(100 * capacities, [menu.value for menu in more_visits], "o-")
left.set_title("What two offers earn")
left.set_xlabel("people whom health workers reach, %")
left.set_ylabel("expected profit, dollars a person (plug-in)")
right.plot(100 * capacities, shadow, "o-")
right.axvline(100 * CAPACITY, color="0.4", lw=1, ls=":")
right.set_title("What one more visit would earn")
right.set_xlabel("people whom health workers reach, %")
right.set_ylabel("shadow price, dollars a visit")
plt.show()

# COMMAND ----------

# MAGIC %md
# MAGIC ## What to do

# COMMAND ----------

two, voucher = kept[2], menus[1].treatments["tinc"].iloc[0]
print(f"""In the real programme: one voucher of {voucher:.2f} dollars for all.

In the simulated one: visit {two.shares[0]:.0%}, and give all others {NAMES[2]}. That honestly earns
{with_interval(over_one.loc[2])} a person more than one offer for all within the limits
(in truth {truth[2]:.2f}), and spends {two.limits.spending:.2f} of {MONEY:.2f} dollars.
One more visit would earn {two.prices.max():.2f} dollars: health workers are what is short.""")
