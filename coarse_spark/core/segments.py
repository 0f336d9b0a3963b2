"""Who the units of a segment are: what distinguishes them, and a rule that nearly finds them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.tree import DecisionTreeClassifier

_MAX_DEPTH = 3
_MIN_LEAF_SHARE = 0.01
_WORDS = 3


def distinguishing_features(
    means: pd.DataFrame, overall: pd.Series, spread: pd.Series
) -> list[list[str]]:
    """Return for every segment, in words, what distinguishes it from the whole population.

    The features whose means differ most, in population standard deviations; differences below a
    tenth are not worth a word.

    Parameters
    ----------
    means : (K, features) means of numbers and shares of levels (``feature=level``).
    overall : the population's means, by feature.
    spread : the population's standard deviations, by feature.
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
            if "=" in name:
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
    """Return one readable rule a segment from a shallow decision tree on a sample of units.

    A rule is the tree's largest leaf of the segment, with the share of that leaf's units that
    belong to it; a segment without a leaf of its own has no short rule, and says so.

    Parameters
    ----------
    features : (n, ·) numbers and texts.
    segment : (n,) segment of every unit.
    weight : (n,).
    segments : the segments to describe.
    """
    encoded = pd.get_dummies(features, prefix_sep="=", dummy_na=False).astype(np.float64)
    columns = list(encoded.columns)
    values = encoded.fillna(encoded.mean()).fillna(0.0).to_numpy()
    if len(set(segment.tolist())) < 2 or not columns:
        return ["everyone"] * len(segments)
    tree = DecisionTreeClassifier(
        max_depth=_MAX_DEPTH, min_weight_fraction_leaf=_MIN_LEAF_SHARE, random_state=0
    )
    fitted = tree.fit(values, segment, sample_weight=weight).tree_
    classes = tree.classes_.tolist()
    found: dict[int, tuple[float, str]] = {}

    def visit(node: int, path: list[str]) -> None:
        if fitted.children_left[node] < 0:
            shares = fitted.value[node][0] / fitted.value[node][0].sum()
            winner = int(shares.argmax())
            size = float(fitted.weighted_n_node_samples[node])
            rule = f"{' and '.join(path) or 'everyone'} ({shares[winner]:.0%} of these units)"
            if size > found.get(classes[winner], (0.0, ""))[0]:
                found[classes[winner]] = (size, rule)
            return
        name, threshold = columns[fitted.feature[node]], float(fitted.threshold[node])
        feature, is_level, level = name.partition("=")
        low = f"{feature} is not {level}" if is_level else f"{name} <= {threshold:.4g}"
        high = f"{feature} is {level}" if is_level else f"{name} > {threshold:.4g}"
        visit(int(fitted.children_left[node]), [*path, low])
        visit(int(fitted.children_right[node]), [*path, high])

    visit(0, [])
    return [
        found.get(number, (0.0, "no short rule: its units are spread over the features"))[1]
        for number in segments
    ]
