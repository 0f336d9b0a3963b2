"""The headline in sentences, tables and pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from headline_found import FIVE, REFERENCES, Found
from matplotlib.axes import Axes

from coarse_spark.core.policies import COMPARISONS
from coarse_spark.report.drawing import INK, MUTED, colour, new_figure, style
from coarse_spark.report.wording import NONE, decimals_for, number, policy_name

CLAIM = 0.995
_BRIEFLY = {
    "holds": "at least",
    "does not hold": "below",
    "is neither confirmed nor refuted": "not told from",
}
_POINTS = {"fmt": "o", "ms": 3.5, "lw": 1.2}


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
