"""Who the units of a segment are: what distinguishes them, and a rule that nearly finds them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from coarse_spark.core.policy_tree.rule import MIN_SHARE, fit_rule
from coarse_spark.text import counted

_MAX_DEPTH = 3
_WORDS = 3
_LEAST_GAP = 0.1  # population standard deviations; smaller ones are not worth a word
# standard errors of a segment's mean: the largest gaps of many features and segments are told, and
# of a thousand that are chance alone the largest is of more than three
_CERTAIN = 4.0


def distinguishing_features(
    means: pd.DataFrame,
    overall: pd.Series,
    spread: pd.Series,
    counts: pd.DataFrame,
    levels: Collection[str],
) -> list[list[str]]:
    """Return for every segment, in words, what distinguishes it from the whole population.

    The features whose means differ most, in population standard deviations: by a tenth at least,
    and by more than chance does in a segment of as few units.

    Parameters
    ----------
    means : (K, features) means of numbers and shares of levels (``feature=level``).
    overall : the population's means, by feature.
    spread : the population's standard deviations, by feature.
    counts : (K, features) units that the segments' means are of.
    levels : which of the features are shares of levels; numbers may have an = in their names too.
    """
    usable = spread.where(spread > 0)
    distance = (means - overall) / usable
    least = (_CERTAIN * counts.where(counts > 0).pow(-0.5)).clip(lower=_LEAST_GAP)
    told = distance.where(distance.abs() >= least)
    result = []
    for segment in means.index:
        gaps = told.loc[segment].dropna().abs()
        words = []
        for name in gaps.sort_values(ascending=False, kind="stable").index[:_WORDS]:
            side = "higher" if told.loc[segment, name] > 0 else "lower"
            if name in levels:
                words.append(
                    f"{name} in {means.loc[segment, name]:.0%} (overall {overall[name]:.0%})"
                )
            else:
                words.append(
                    f"{name} {side}: {means.loc[segment, name]:.4g} (overall {overall[name]:.4g})"
                )
        result.append(words)
    return result


def segment_rules(
    features: pd.DataFrame, segment: np.ndarray, weight: np.ndarray, segments: Sequence[int]
) -> list[str]:
    """Return one readable rule a segment from a shallow tree on a sample of units.

    The tree finds as many units as it can: a unit earns 1 in its own segment. A rule is the largest
    leaf of the segment, with the share of that leaf's units that belong to it; a segment without a
    leaf of its own has no short rule, and says so, and whether it has too few units for one.

    Parameters
    ----------
    features : (n, ·) numbers and texts.
    segment : (n,) segment of every unit.
    weight : (n,).
    segments : the segments to describe.
    """
    if len(segments) < 2:
        return ["everyone"] * len(segments)
    own = (segment[:, None] == np.asarray(segments)).astype(np.float64)
    rule = fit_rule(features, own, weight, depth=_MAX_DEPTH)
    told = []
    units = own.sum(axis=0)
    for position in range(len(segments)):
        leaves = [leaf for leaf in rule.leaves if leaf.treatment == position]
        if leaves:
            largest = max(leaves, key=lambda leaf: leaf.share)
            told.append(f"{rule.words(largest)} ({largest.earned:.0%} of these units)")
        elif units[position] < MIN_SHARE * len(own):
            told.append(
                "no short rule: too few of its units were looked at "
                f"({units[position]:,.0f} of {counted(len(own), 'unit')})"
            )
        else:
            told.append("no short rule: its units are spread over the features")
    return told
