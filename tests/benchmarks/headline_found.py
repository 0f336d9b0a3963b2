"""What a run of the headline found, with true values where responses are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
from deltalake import DeltaTable

from coarse_spark.config.models import Configuration
from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.comparisons import fit_comparisons
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.search import best_single, search_menus
from coarse_spark.core.menu.units import WeightedUnits
from coarse_spark.core.policies import COMPARISONS, PolicyUnits, menu_policy

FIVE = 5
SIZES = range(1, 9)
REFERENCES = ("control", "uniform")
FITTED = 20_000  # units that a run fits comparisons on too
SEARCHED = 10_000  # units that menus of the true responses are searched on


@dataclass
class Found:
    """One data set's run.

    Attributes
    ----------
    name, title, what : of the data set, in a word, a title and a sentence.
    policy_values, contrasts : the rows of the tables, with the columns ``rebuilt`` (plug-in) and
        ``true`` where the truth is known.
    known : (8,) captured share of control and uniform (columns) when responses are known.
    """

    name: str
    title: str
    what: str
    policy_values: pd.DataFrame
    contrasts: pd.DataFrame
    known: pd.DataFrame | None = None

    @property
    def menus(self) -> pd.DataFrame:
        return (
            self.policy_values[self.policy_values["policy"] == "menu"].set_index("k").sort_index()
        )

    def value(self, policy: str, column: str) -> float:
        return float(self.policy_values.loc[self.policy_values["policy"] == policy, column].iloc[0])

    def share(self, value: float | pd.Series, column: str, reference: str) -> float | pd.Series:
        """(value − reference) / (granular − reference) in a column; NaN where that is nothing."""
        low, high = self.value(reference, column), self.value("granular", column)
        return (value - low) / (high - low if high - low > 1e-9 * abs(high) else np.nan)

    def against(self, policy: str) -> pd.Series:
        """The paired difference of the menu of five and a policy."""
        rows = self.contrasts
        straight = rows[
            (rows["policy"] == "menu") & (rows["k"] == FIVE) & (rows["versus"] == policy)
        ]
        if len(straight):
            return straight.iloc[0]
        turned = rows[(rows["policy"] == policy) & (rows["versus"] == f"menu of {FIVE}")]
        row = turned.iloc[0].copy()
        row["difference"], row["ci_low"], row["ci_high"] = (
            -row["difference"],
            -row["ci_high"],
            -row["ci_low"],
        )
        return row


def table(folder: Path, name: str) -> pd.DataFrame:
    return DeltaTable(str(folder / name)).to_pandas()


def with_truth(run: Found, configuration: Configuration, data: Path, rule: str) -> Found:
    """Return what was found with plug-in and true values of rebuilt policies.

    Parameters
    ----------
    run : what was found.
    configuration : of the run.
    data : folder of the simulated tables.
    rule : the rule of the menu of five in DuckDB's SQL.
    """
    folder = Path(str(configuration.output.path))
    responses = table(folder, "responses").sort_values("unit_id", ignore_index=True)
    units = responses[["unit_id"]].merge(table(data, "population"), how="left")
    names = [f"theta_{j}" for j in range(6)]
    truth = responses[["unit_id"]].merge(table(data, "truth"), how="left")[names].to_numpy()
    problem = configuration.problem_within(None)
    features = units[list(configuration.experiment.features)]
    known = PolicyUnits(problem, responses[names].to_numpy(), features)
    policies = rebuilt(known, table(folder, "menu"), configuration)
    own = responses[[f"best_{name}" for name in configuration.space.names]].to_numpy(np.float64)
    policies["granular", 0] = problem.psi_at(own)
    five = table(folder, "menu").query("k == @FIVE").sort_values("treatment_id")
    query = f"SELECT {rule} AS taken FROM units ORDER BY unit_id"  # noqa: S608
    given = duckdb.sql(query).df()["taken"].to_numpy()
    offered = five[list(configuration.space.names)].to_numpy(np.float64)
    policies["rule", FIVE] = problem.psi_at(offered)[given]
    earned = pd.DataFrame(
        [
            (*key, mean_profit(psi, known.theta), mean_profit(psi, truth))
            for key, psi in policies.items()
        ],
        columns=["policy", "k", "rebuilt", "true"],
    )
    run.policy_values = run.policy_values.merge(earned, how="left", on=["policy", "k"])
    # what the rule loses a run knows of a sample alone, as far as there are more units
    published = run.policy_values.dropna(subset="plug_in_value").query("policy != 'rule'")
    off = (published["plug_in_value"] - published["rebuilt"]).abs().max()
    if not off < 1e-6 * published["plug_in_value"].abs().max():
        raise SystemExit(f"rebuilt policies are not the published ones: plug-in is off by {off}")
    run.known = captured_when_known(problem, truth)
    return run


def rebuilt(
    known: PolicyUnits, menus: pd.DataFrame, configuration: Configuration
) -> dict[tuple[str, int], FloatArray]:
    """Return the rows ψ (n, p + 1) that units get, by policy and size."""
    problem, theta = known.problem, known.theta
    everyone = WeightedUnits.of(theta, np.ones(len(theta)))
    drawn = np.random.default_rng(0).permutation(len(theta))[:FITTED]
    sample = PolicyUnits(problem, theta[drawn], known.features.iloc[drawn])
    # folds draw random menus of their own: a mean of rows ψ has the mean of their values
    fitted = [
        fit_comparisons(
            COMPARISONS,
            FIVE,
            sketch=everyone,
            sample=sample,
            weights=np.ones(len(drawn)),
            grid_points=configuration.evaluation.grid_points,
            seed=configuration.menu.seed + fold,
        )
        for fold in range(configuration.response.folds)
    ]
    names = list(configuration.space.names)
    offered = {
        ("menu", int(k)): PricedMenu.build(problem, rows[names].to_numpy(np.float64))
        for k, rows in menus.sort_values("treatment_id").groupby("k")
    }
    offered["uniform", 1] = best_single(problem, everyone)
    rows = {key: menu_policy(menu)(known) for key, menu in offered.items()}
    for name in COMPARISONS:
        rows[name, FIVE] = np.mean([policies[name](known) for policies in fitted], axis=0)
    return rows | {("control", 1): np.tile(problem.control_psi, (len(theta), 1))}


def mean_profit(psi: FloatArray, theta: FloatArray) -> float:
    return float((psi[:, :-1] * theta).sum(axis=1).mean() + psi[:, -1].mean())


def captured_when_known(problem: MenuProblem, truth: FloatArray) -> pd.DataFrame:
    """Return what menus of K capture where responses are known, by K: what K alone costs."""
    units = PolicyUnits(problem, truth)
    everyone = WeightedUnits.of(truth, np.ones(len(truth)))
    menus = search_menus(
        problem, WeightedUnits.of(truth[:SEARCHED], np.ones(len(truth[:SEARCHED]))), SIZES
    )
    value = pd.Series({k: mean_profit(menu_policy(m)(units), truth) for k, m in menus.items()})
    granular = float(problem.granular(truth)[1].mean())
    control = float(truth.mean(axis=0) @ problem.control_psi[:-1] + problem.control_psi[-1])
    uniform = mean_profit(menu_policy(best_single(problem, everyone))(units), truth)
    return pd.DataFrame(
        {
            name: (value - low) / (granular - low)
            for name, low in zip(REFERENCES, (control, uniform), strict=True)
        }
    )
