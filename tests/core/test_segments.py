"""What is said of segments: nothing that chance alone may say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from coarse_spark.core.segments import distinguishing_features, segment_rules

NAMES = [f"f{i}" for i in range(25)]


def told(values: np.ndarray, levels: tuple[str, ...] = ()) -> list[str]:
    """What distinguishes a segment of units (n, 25) from a population of mean 0 and deviation 1."""
    frame = pd.DataFrame(values, columns=NAMES)
    (words,) = distinguishing_features(
        frame.mean().to_frame().T,
        pd.Series(0.0, index=NAMES),
        pd.Series(1.0, index=NAMES),
        frame.count().to_frame().T,
        levels,
    )
    return words


@pytest.mark.parametrize("count", [1, 20, 400])
def test_chance_distinguishes_no_segment(count: int) -> None:
    rng = np.random.default_rng(count)
    assert [told(rng.normal(size=(count, 25))) for _ in range(50)] == [[]] * 50


def test_what_differs_is_told_past_what_few_units_hold() -> None:
    values = np.random.default_rng(0).normal(size=(400, 25)) * 0.5
    values[:, 7] += 1.0
    values[:, 3] -= 0.5
    values[4:, :3] = np.nan
    values[:4, :3] = 1.9  # the largest gaps, of four units
    assert [text.split(":")[0] for text in told(values)] == ["f7 higher", "f3 lower"]


def test_a_difference_is_worth_a_word_from_a_tenth_on() -> None:
    values = np.tile(np.where(np.arange(25) == 4, 0.11, 0.09), (10_000, 1))
    assert told(values) == ["f4 higher: 0.11 (overall 0)"]


def test_segments_that_were_hardly_looked_at_have_no_rule() -> None:
    features = pd.DataFrame({"age": np.arange(1_000.0)})
    segment = np.where(np.arange(1_000) < 500, 0, 1)
    segment[::200] = 2
    rules = segment_rules(features, segment, np.ones(1_000), [0, 1, 2, 3])
    assert rules[0].startswith("age <= ")
    assert rules[1].startswith("age > ")
    few = "no short rule: too few of its units were looked at"
    assert rules[2:] == [f"{few} (5 of 1,000 units)", f"{few} (0 of 1,000 units)"]
    segment[::3] = 2
    (*_, spread) = segment_rules(features, segment, np.ones(1_000), [0, 1, 2])
    assert spread == "no short rule: its units are spread over the features"


def test_everyone_is_told_of_the_only_segment() -> None:
    features, zeros = pd.DataFrame({"age": np.arange(100.0)}), np.zeros(100, dtype=int)
    assert segment_rules(features, zeros, np.ones(100), [0]) == ["everyone"]
    first, second = segment_rules(features, zeros, np.ones(100), [0, 1])
    assert first == "everyone (100% of these units)"
    assert second.startswith("no short rule: too few")
