"""The headline: what a menu of five keeps of full personalization, beside what else could be done.

    python tests/benchmarks/headline.py                     some ten minutes, 200,000 units
    python tests/benchmarks/headline.py --units 5000 --out output/headline/docs

Runs ``coarse-spark run`` on the simulated promotions, on Thornton's incentives and, where the file
is there, on the loan experiment, each with menus of K = 1 … 8 and the menu of five selected, since
comparisons have as many treatments as the selected menu. All else is as in ``conf/``. What it says
is read back from the published tables by a reader that is not Spark.

True values are those of the simulation's own responses. Policies are rebuilt for them as they were
published: menus and own best treatments from their tables, the rule by the SQL that ``export-rule``
prints. Comparisons publish no treatments (each fold has its own), so they are fitted once more by
the run's own functions and seeds, on the published responses of all units. The plug-in values of
the rebuilt policies have to be the published ones.

Writes headline.md, a picture a data set, and the headline table between the marks of the README.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
from deltalake import DeltaTable
from matplotlib.axes import Axes

from coarse_spark.config.load import load_configuration
from coarse_spark.config.models import Configuration
from coarse_spark.core.arrays import FloatArray
from coarse_spark.core.comparisons import fit_comparisons
from coarse_spark.core.menu.menu import PricedMenu
from coarse_spark.core.menu.problem.problem import MenuProblem
from coarse_spark.core.menu.search.search import best_single, search_menus
from coarse_spark.core.menu.units import WeightedUnits
from coarse_spark.core.policies import COMPARISONS, PolicyUnits, menu_policy
from coarse_spark.report.drawing import INK, MUTED, colour, new_figure, style
from coarse_spark.report.wording import NONE, decimals_for, number, policy_name

ROOT = Path(__file__).parents[2]
FIVE, CLAIM = 5, 0.995
SIZES = range(1, 9)
FITTED = 20_000  # units that a run fits comparisons on too
SEARCHED = 10_000  # units that menus of the true responses are searched on
REFERENCES = ("control", "uniform")
_BRIEFLY = {
    "holds": "at least",
    "does not hold": "below",
    "is neither confirmed nor refuted": "not told from",
}
_POINTS = {"fmt": "o", "ms": 3.5, "lw": 1.2}
MARKS = ("<!-- headline: written by make headline -->", "<!-- end of headline -->")


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


def run(configuration: str, folder: Path, *settings: str) -> None:
    """Run a configuration with menus up to eight and five selected, into a folder of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    coarse_spark("run", *options_of(configuration, folder, *settings))


def options_of(configuration: str, folder: Path, *settings: str) -> list[str]:
    """The options of commands about such a run."""
    given = (f"menu.sizes={SIZES[0]}-{SIZES[-1]}", f"menu.select={FIVE}", f"output.path={folder}")
    words = [word for setting in (*settings, *given) for word in ("--set", setting)]
    return ["--config", configuration, *words]


def coarse_spark(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "coarse_spark.cli", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"coarse-spark {' '.join(words)} failed:\n{done.stdout}")
    return done.stdout


def table(folder: Path, name: str) -> pd.DataFrame:
    return DeltaTable(str(folder / name)).to_pandas()


def found(name: str, title: str, what: str, folder: Path) -> Found:
    return Found(name, title, what, table(folder, "policy_values"), table(folder, "contrasts"))


# --- true values ----------------------------------------------------------------------------------


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


# --- words ----------------------------------------------------------------------------------------


def percent(share: float) -> str:
    return NONE if pd.isna(share) else f"{number(100 * share, 1)} %"


def honest_share(row: pd.Series, reference: str) -> str:
    """A captured share with its interval, or that it is not identified."""
    low, high = (row[f"captured_of_{reference}_{end}"] for end in ("low", "high"))
    if pd.isna(low):
        return "not identified"
    return f"{percent(row[f'captured_of_{reference}'])} ({percent(low)} to {percent(high)})"


def claimed(row: pd.Series, reference: str) -> str | None:
    """Whether the claim holds of a captured share, or None where the share is not identified."""
    low, high = (row[f"captured_of_{reference}_{end}"] for end in ("low", "high"))
    if pd.isna(low):
        return None
    if low >= CLAIM:
        return "holds"
    return "does not hold" if high < CLAIM else "is neither confirmed nor refuted"


def verdict(run: Found, reference: str) -> str:
    """Whether five keep 99.5 % of full personalization above a reference, as sure as it is."""
    five = run.menus.loc[FIVE]
    above = {"control": "the control", "uniform": "the best single treatment"}[reference]
    said = claimed(five, reference)
    claim = f"Of what full personalization earns above {above}, 99.5 % with five"
    bound = run.share(five["upper_bound"], "plug_in_value", reference)
    if pd.isna(bound):
        return f"The learned responses give everybody {above}: there is nothing to keep."
    if said is None:
        text = f"{claim} cannot be said from the experiment: what there is to keep may be chance."
    else:
        text = f"{claim} {said}: five keep {honest_share(five, reference)}."
    text += f" By plug-in values, no five treatments could keep more than {percent(bound)}."
    if run.known is not None:
        true = float(run.share(five["true"], "true", reference))
        holds = "holds" if true >= CLAIM else "does not hold"
        alone = run.known.loc[FIVE, reference]
        text += (
            f" At the truth it {holds}: {percent(true)}; with responses that are known, "
            f"the best five found keep {percent(alone)}."
        )
    return text


def beside_others(run: Found) -> str:
    """Whether the menu of five earns more than each comparison, as sure as it is."""
    shown = policies_at_five(run)
    names = [name for name in ("rule", *COMPARISONS) if name in shown.index]
    found: dict[str, list[str]] = {
        "it earns more than": [],
        "less than": [],
        "the same as": [],
        "it is not settled against": [],
    }
    more, less, same, unsettled = found.values()
    for name in names:
        row = run.against(name)
        if nothing(row, shown.loc[name]):
            group = same
        elif row["ci_low"] <= 0 <= row["ci_high"]:
            group = unsettled
        else:
            group = more if row["difference"] > 0 else less
        group.append(policy_name(name, FIVE))
    listed = [f"{verb} {', '.join(group)}" for verb, group in found.items() if group]
    text = f"The menu of five against others, by honest values: {'; '.join(listed)}."
    if run.known is not None:
        ours = shown.loc["menu", "true"]
        ahead = [policy_name(name, FIVE) for name in names if shown.loc[name, "true"] >= ours]
        text += f" At the truth it earns more than all of them{_but_for(ahead)}."
    return text


def _but_for(names: list[str]) -> str:
    return f" but for {', '.join(names)}" if names else ""


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    ruled = ["|".join(["", *columns, ""]), "|" + "---|" * len(columns)]
    return "\n".join([*ruled, *("|".join(["", *row, ""]) for row in rows)]) + "\n"


def by_size(run: Found) -> str:
    """The table of captured shares by K."""
    columns, rows = ["K"], []
    for reference in REFERENCES:
        columns += [f"of {reference}: plug-in", "honest (95 % interval)"]
        columns += ["true", "responses known"] if run.known is not None else []
    for k, row in run.menus.iterrows():
        cells = [str(k)]
        for reference in REFERENCES:
            plug_in = run.share(row["plug_in_value"], "plug_in_value", reference)
            cells += [percent(plug_in), honest_share(row, reference)]
            if run.known is not None:
                cells.append(percent(run.share(row["true"], "true", reference)))
                cells.append(percent(run.known.loc[k, reference]))
        rows.append(cells)
    return markdown(columns, rows)


def policies_at_five(run: Found) -> pd.DataFrame:
    """The rows of policies that the menu of five is compared with, and its own."""
    values = run.policy_values
    order = ["menu", "rule", *COMPARISONS, "uniform", "control", "granular"]
    chosen = values[(values["policy"] != "menu") | (values["k"] == FIVE)]
    return chosen.set_index("policy").reindex([p for p in order if p in set(chosen["policy"])])


def nothing(difference: pd.Series, row: pd.Series) -> bool:
    """Whether a difference is rounding beside the standard error of a value."""
    return max(abs(difference["difference"]), difference["se"]) < 1e-6 * row["se"]


def by_policy(run: Found) -> str:
    """The table of all policies with five treatments."""
    shown = policies_at_five(run)
    digits = decimals_for(shown["se"])
    true = "true" in shown
    columns = ["policy", "plug-in", "honest (95 % interval)", *(["true"] if true else [])]
    columns += ["menu of 5 less this, honest (95 % interval)", *(["true"] if true else [])]
    rows = []
    for name, row in shown.iterrows():
        plug_in = row["rebuilt"] if true else row["plug_in_value"]
        ends = f"{number(row['ci_low'], digits)} to {number(row['ci_high'], digits)}"
        called = policy_name(str(name), FIVE)
        cells = [called, number(plug_in, digits), f"{number(row['value'], digits)} ({ends})"]
        cells += [number(row["true"], digits)] if true else []
        if name == "menu":
            cells += [NONE, *([NONE] if true else [])]
        else:
            less = run.against(str(name))
            fine = digits
            if nothing(less, row):
                cells.append("the same for every unit")
            else:
                fine = decimals_for([less["se"]])
                ends = f"{number(less['ci_low'], fine)} to {number(less['ci_high'], fine)}"
                cells.append(f"{number(less['difference'], fine)} ({ends})")
            cells += [number(shown.loc["menu", "true"] - row["true"], fine)] if true else []
        rows.append(cells)
    return markdown(columns, rows)


def headline(runs: list[Found]) -> str:
    """The table of the README: what five keep, by data set."""
    columns = ["five treatments keep", "of what full personalization earns above no treatment"]
    columns += ["above the best single treatment"]
    rows = []
    for run in runs:
        five, n = run.menus.loc[FIVE], int(run.policy_values["n"].max())
        cells = [f"{run.name}, {n:,} units"]
        for reference in REFERENCES:
            text = honest_share(five, reference)
            if pd.isna(run.share(five["upper_bound"], "plug_in_value", reference)):
                text = "nothing to keep: all get the same"
            if run.known is not None:
                true = run.share(five["true"], "true", reference)
                text += f"; true {percent(float(true))}"
            if (answer := claimed(five, reference)) is not None:
                text += f": {_BRIEFLY[answer]} 99.5 %"
            cells.append(text)
        rows.append(cells)
    return markdown(columns, rows)


# --- pictures -------------------------------------------------------------------------------------


def picture(run: Found, path: Path) -> None:
    """Draw captured shares by K, and the menu of five against everything else."""
    with style():
        figure = new_figure(3.5)
        figure.set_facecolor("white")
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))
        _shares(left, run)
        _differences(right, run)
        figure.legend(loc="outside lower left", ncols=3, fontsize=7.5)
        figure.savefig(path, dpi=130, metadata={"Software": None})


def _shares(axes: Axes, run: Found) -> None:
    menus = run.menus
    axes.axhline(100, color=MUTED, lw=1, ls="--", zorder=1)
    ends = [100.0]
    for place, (reference, above) in enumerate(
        zip(REFERENCES, ("the control", "the best single treatment"), strict=True)
    ):
        if run.known is not None:
            true = 100 * run.share(menus["true"], "true", reference)
            axes.plot(true.index, true, lw=1, color=colour(place), label=f"above {above}, true")
        honest = menus[menus[f"captured_of_{reference}_low"].notna()]
        if honest.empty:
            axes.plot([], [], " ", label=f"above {above}: not identified")
            continue
        share, low, high = (
            100 * honest[f"captured_of_{reference}{end}"] for end in ("", "_low", "_high")
        )
        ends += [*low, *high]
        axes.errorbar(
            honest.index + 0.12 * (place - 0.5),
            share,
            [(share - low).clip(lower=0), (high - share).clip(lower=0)],  # 0 but for rounding
            color=colour(place),
            label=f"above {above}, honest, 95% interval",
            **_POINTS,
        )
    low, high = max(min(ends), -40), min(max(ends), 140)
    axes.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    axes.set_xticks(menus.index)
    axes.set_xlabel("K, number of unique treatments")
    axes.set_title("Captured of full personalization, %")


def _differences(axes: Axes, run: Found) -> None:
    shown = policies_at_five(run)
    names = [name for name in shown.index if name not in ("menu", "control")][::-1]
    rows = pd.DataFrame([run.against(name) for name in names])
    height = np.arange(len(names))
    axes.axvline(0, color=MUTED, lw=1, ls="--", zorder=1)
    if "true" in shown:
        true = shown.loc["menu", "true"] - shown.loc[names, "true"]
        axes.plot(true, height, "D", ms=5.5, mfc="none", mec=colour(2), label="difference, true")
    axes.errorbar(
        rows["difference"],
        height,
        xerr=[rows["difference"] - rows["ci_low"], rows["ci_high"] - rows["difference"]],
        color=INK,
        label="difference, honest, 95% interval",
        **_POINTS,
    )
    called = {"uniform": "best single treatment", "granular": "full personalization"}
    axes.set_yticks(height, [called.get(name, policy_name(name, FIVE)) for name in names])
    axes.set_title("Menu of five less …, profit per unit")


# --- all together ---------------------------------------------------------------------------------


def promotions(units: int, folder: Path, *, read: bool) -> Found:
    data, tables, conf = folder / "promotions-data", folder / "promotions", "conf/promotions.yml"
    settings = [f"{name}.path={data / name}" for name in ("experiment", "population")]
    rule = folder / "rule.sql"
    if not read:
        coarse_spark("simulate", "promotions", "--units", str(units), "--out", str(data))
        run(conf, tables, *settings)
        about = options_of(conf, tables, *settings)
        rule.write_text(coarse_spark("export-rule", *about, "--dialect", "duckdb"))
    what = (
        f"Simulated: `coarse-spark simulate promotions --units {units}`, run with {conf}. An "
        f"experiment of {units:,} customers with random discounts of 0 to 40 % that are valid for "
        f"0 to 28 days, and {units:,} others to be served, in 12 markets; the parameters are those "
        "that coarse_spark/simulate/promotions.py documents, and true responses are known."
    )
    result = found("promotions", "Promotions (simulated)", what, tables)
    configuration = load_configuration(ROOT / conf, {"output.path": str(tables)})
    return with_truth(result, configuration, data, rule.read_text())


def thornton(folder: Path, *, read: bool) -> Found:
    tables = folder / "thornton"
    if not read:
        run("conf/thornton.yml", tables)
    what = (
        "A field experiment: cash incentives of 0 to 2.84 dollars to collect a test result "
        "(Thornton 2008), run with conf/thornton.yml. True values are not known."
    )
    return found("incentives", "Incentives (Thornton 2008)", what, tables)


def loans(folder: Path, source: Path, *, read: bool) -> Found:
    tables, prepared = folder / "loans", folder / "loans.parquet"
    if not read:
        mailers = pd.read_parquet(source)
        mailers = mailers[mailers["s_wave"] > 1]
        mailers["profit"] = mailers["y_gross_interest"] - mailers["y_past_due_avg"].fillna(0)
        mailers.rename_axis("mailer").reset_index().to_parquet(prepared)
        run("conf/loans.yml", tables, f"experiment.path={prepared}")
    what = (
        "A field experiment: monthly interest rates of mailed loan offers (Karlan & Zinman 2008), "
        "prepared as conf/loans.yml says and run with it. Profit is rare and heavy-tailed, and "
        "true values are not known."
    )
    return found("loans", "Interest rates (Karlan & Zinman 2008)", what, tables)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--units", type=int, default=200_000, help="of the simulated promotions")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    parser.add_argument(
        "--loans",
        type=Path,
        default=ROOT.parent / "shared" / "data" / "karlan_zinman_2008.parquet",
        help="the loan experiment; left out where it is not there",
    )
    parser.add_argument(
        "--read", action="store_true", help="run nothing: tell again what the last runs found"
    )
    options = parser.parse_args()
    folder = ROOT / "output" / "headline"
    folder.mkdir(parents=True, exist_ok=True)
    runs = [
        promotions(options.units, folder, read=options.read),
        thornton(folder, read=options.read),
    ]
    left_out = ""
    if options.loans.is_file():
        runs.append(loans(folder, options.loans, read=options.read))
    else:
        left_out = f"\nThe loan experiment is left out: {options.loans.name} is not there.\n"
    (options.out / "images").mkdir(parents=True, exist_ok=True)
    text = page(runs, options.units, options.out) + left_out
    (options.out / "headline.md").write_text(text, encoding="utf-8")
    print(text)
    readme = ROOT / "README.md"
    if options.out == ROOT / "docs":
        before, _, rest = readme.read_text(encoding="utf-8").partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        marked = f"{MARKS[0]}\n\n{headline(runs)}\n{MARKS[1]}"
        readme.write_text(before + marked + after, encoding="utf-8")


def page(runs: list[Found], units: int, out: Path) -> str:
    """Return headline.md, and write its pictures beside it."""
    parts = [
        "# The headline: what five treatments keep\n\n"
        f"Written by `make headline UNITS={units}`. Menus of K = 1 to 8 on each data set, and "
        "whatever else five treatments could be used for, tuned on the same folds and judged by "
        "the same scores. The published claim of coarse personalization (Zhang & Misra, arXiv "
        "2204.05793) is that five treatments keep over 99.5 % of the incremental profit of full "
        "personalization. Plug-in values are what responses promise themselves; honest ones are "
        "debiased, on folds that neither responses nor menus saw; true ones are those of the "
        "simulation. Shares are of what full personalization *with the learned responses* earns, "
        "above the control or above the best single treatment (uniform); “responses known” is the "
        f"same with the true ones, where menus are searched on {SEARCHED:,} units.\n",
        headline(runs),
    ]
    for one in runs:
        said = [*(verdict(one, reference) for reference in REFERENCES), beside_others(one)]
        parts += [f"## {one.title}\n\n{one.what}\n", "".join(f"- {line}\n" for line in said)]
        if one.menus["captured_of_control_low"].notna().any():
            image = f"images/headline-{one.name}.png"
            picture(one, out / image)
            about = f"Captured shares by K, and the menu of five against all else: {one.name}"
            parts.append(f"![{about}]({image})\n")
        parts += [by_size(one), by_policy(one)]
    parts.append(
        "Plug-in values of comparisons on simulated data, and all true values, are of policies "
        "rebuilt from the published tables, as tests/benchmarks/headline.py says. Elsewhere "
        "comparisons have no plug-in value (–): none is published.\n"
    )
    return "\n".join(parts)


if __name__ == "__main__":
    main()
