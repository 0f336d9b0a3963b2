"""Who the units of a segment are: what distinguishes them, and a rule that nearly finds them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from coarse_spark.core.policy_tree.rule import fit_rule

_MAX_DEPTH = 3
_WORDS = 3


def distinguishing_features(
    means: pd.DataFrame, overall: pd.Series, spread: pd.Series, levels: Collection[str]
) -> list[list[str]]:
    """Return for every segment, in words, what distinguishes it from the whole population.

    The features whose means differ most, in population standard deviations; differences below a
    tenth are not worth a word.

    Parameters
    ----------
    means : (K, features) means of numbers and shares of levels (``feature=level``).
    overall : the population's means, by feature.
    spread : the population's standard deviations, by feature.
    levels : which of the features are shares of levels; numbers may have an = in their names too.
    """
    usable = spread.where(spread > 0)
    distance = (means - overall) / usable
    result = []
    for segment in means.index:
        order = (
            distance.loc[segment].abs().sort_values(ascending=False, kind="stable").index[:_WORDS]
        )
        words = []
        for name in order:
            gap = distance.loc[segment, name]
            if not abs(gap) >= 0.1:
                continue
            side = "higher" if gap > 0 else "lower"
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
    leaf of its own has no short rule, and says so.

    Parameters
    ----------
    features : (n, ·) numbers and texts.
    segment : (n,) segment of every unit.
    weight : (n,).
    segments : the segments to describe.
    """
    if len(set(segment.tolist())) < 2:
        return ["everyone"] * len(segments)
    own = (segment[:, None] == np.asarray(segments)).astype(np.float64)
    rule = fit_rule(features, own, weight, depth=_MAX_DEPTH)
    told = []
    for position in range(len(segments)):
        leaves = [leaf for leaf in rule.leaves if leaf.treatment == position]
        if leaves:
            largest = max(leaves, key=lambda leaf: leaf.share)
            told.append(f"{rule.words(largest)} ({largest.earned:.0%} of these units)")
        else:
            told.append("no short rule: its units are spread over the features")
    return told
