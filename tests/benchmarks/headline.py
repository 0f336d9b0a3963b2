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
from pathlib import Path

import pandas as pd
from headline_found import FIVE, REFERENCES, SEARCHED, SIZES, Found, table, with_truth
from headline_words import beside_others, by_policy, by_size, headline, picture, verdict

from coarse_spark.config.load import load_configuration

ROOT = Path(__file__).parents[2]
MARKS = ("<!-- headline: written by make headline -->", "<!-- end of headline -->")


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


def found(name: str, title: str, what: str, folder: Path) -> Found:
    return Found(name, title, what, table(folder, "policy_values"), table(folder, "contrasts"))


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
            parts += [f"![{about}]({image})\n", by_size(one)]
        parts.append(by_policy(one))
    parts.append(
        "Plug-in values of comparisons on simulated data, and all true values, are of policies "
        "rebuilt from the published tables, as tests/benchmarks/headline_found.py does. Elsewhere "
        "comparisons have no plug-in value (–): none is published.\n"
    )
    return "\n".join(parts)


if __name__ == "__main__":
    main()
