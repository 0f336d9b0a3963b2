"""The shortest files: what a user leaves out is never reported as the user's mistake."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coarse_spark.config.load import load_configuration, read_configuration
from coarse_spark.config.models import Configuration
from coarse_spark.core.learners.response import ResponseLearner
from coarse_spark.errors import ConfigurationError

HEAD = """
experiment: {path: trial.parquet, unit_id: id, features: [age], outcome: bought}
output: {path: tables}
"""
# the treatments that a file declares, and how many of them there are
SHORTEST = {
    "binary arm": ("{mail: {kind: categorical, levels: ['no', 'yes'], control: 'no'}}", 2),
    "true and false": ("{mail: {kind: categorical, levels: [true, false], control: false}}", 2),
    "three arms": ("{arm: {kind: categorical, levels: [none, men, women], control: none}}", 3),
    "0/1 by a step": ("{mail: {kind: continuous, lower: 0, upper: 1, step: 1, control: 0}}", 2),
    "0/1 by values": ("{mail: {kind: continuous, values: [0, 1], control: 0}}", 2),
    "one value beside the control": ("{rate: {kind: continuous, values: [5], control: 0}}", 2),
    "one continuous": ("{price: {kind: continuous, lower: 1, upper: 2, control: 2}}", 257),
    "irregular": ("{ask: {kind: continuous, values: [40, 60, 100, 500], control: 0}}", 5),
    "two dimensions": (
        "{depth: {kind: continuous, lower: 0, upper: 40, control: 0}, "
        "days: {kind: continuous, lower: 0, upper: 28, control: 0}}",
        441,
    ),
    "an arm and a price": (
        "{arm: {kind: categorical, levels: [a, b], control: a}, "
        "price: {kind: continuous, values: [1, 2], control: 1}}",
        4,
    ),
    "two factors": (
        "{arm: {kind: categorical, levels: [a, b], control: a}, "
        "gift: {kind: categorical, levels: [none, mug], control: none}}",
        4,
    ),
    "a price of 100 shops": (
        f"{{shop: {{kind: categorical, levels: {list(range(100))}, control: 0}}, "
        "price: {kind: continuous, lower: 1, upper: 2, control: 2}}",
        20_000,
    ),
    "a finite list": (
        "{candidates: [{price: 9, gift: none}, {price: 8, gift: mug}], "
        "control: {price: 9.9, gift: none}}",
        3,
    ),
    "a finite list of one column": ("{candidates: [{price: 8}], control: {price: 9}}", 2),
}


def load(folder: Path, treatments: str, **overrides: str) -> Configuration:
    path = folder / "run.yml"
    path.write_text(f"{HEAD}treatments: {treatments}\n")
    return load_configuration(path, {k.replace("__", "."): v for k, v in overrides.items()})


@pytest.mark.parametrize(("treatments", "count"), SHORTEST.values(), ids=SHORTEST)
def test_the_shortest_file(treatments: str, count: int, tmp_path: Path) -> None:
    configuration = load(tmp_path, treatments)
    assert len(configuration.space.candidates) == count
    assert configuration.menu.sizes == tuple(range(1, min(count, 6) + 1))
    assert configuration.design.kind == "randomized"
    assert configuration.experiment.format == "parquet"
    # what fits is stored as if it had been given
    stored = Configuration.model_validate_json(configuration.to_json())
    assert (stored, stored.fingerprint()) == (configuration, configuration.fingerprint())


@pytest.mark.parametrize(
    ("treatments", "count"),
    [case for name, case in SHORTEST.items() if "shops" not in name],
    ids=[name for name in SHORTEST if "shops" not in name],
)
def test_the_bases_that_are_compared_suit_an_experiment_that_gave_every_candidate(
    treatments: str, count: int, tmp_path: Path
) -> None:
    configuration = load(tmp_path, treatments)
    space, rng = configuration.space, np.random.default_rng(0)
    given = space.candidates[rng.integers(0, count, 900)]
    given[:300] = space.control
    effect = (given != space.control).any(axis=1)
    X = rng.normal(size=(900, 1))
    y = (rng.random(900) < 0.2 + 0.3 * effect).astype(float)
    learner = ResponseLearner(
        basis=configuration.response.basis, learner="sieve", space=space, scale="additive"
    ).fit(X, space.decode(given), y)
    means = np.array(
        [(learner.predict(X) @ learner.basis_(row[None, :]).T).mean() for row in space.candidates]
    )
    is_control = (space.candidates == space.control).all(axis=1)
    assert means[~is_control].mean() - means[is_control].mean() > 0.15


def test_numbers_of_which_an_experiment_gave_two(tmp_path: Path) -> None:
    configuration = load(tmp_path, "{mail: {kind: continuous, lower: 0, upper: 1, control: 0}}")
    given = np.arange(600) % 2
    learner = ResponseLearner(
        basis=configuration.response.basis, learner="constant", space=configuration.space
    ).fit(np.arange(600)[:, None], given, 2.0 + given)
    assert learner.basis_.columns == ("1", "mail")
    np.testing.assert_allclose(learner.predict(np.ones((1, 1))), [[2, 1]], atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({"menu.select": "8"}, range(1, 9)),
        ({"menu.always_offer": "[{ask: 40}, {ask: 60}]"}, range(2, 7)),
        ({"menu.min_share": "0.3"}, range(1, 4)),
        ({"menu.max_share": "0.4"}, range(3, 7)),
        ({"menu.min_share": "[0.2, 0.3, 0.1, 0.1]"}, [4]),
        ({"menu.exclude": "40 <= ask < 90"}, range(1, 3)),
        # a menu of what members alone may get leaves nothing for others
        (
            {"menu.always_offer": "[{ask: 40}]", "menu.eligibility": "{member: ask < 50}"},
            range(1, 7),
        ),
        (
            {"menu.always_offer": "[{ask: 90}]", "menu.eligibility": "{member: ask > 50}"},
            range(2, 7),
        ),
    ],
    ids=str,
)
def test_sizes_keep_what_the_user_says_of_menus(
    settings: dict[str, str], sizes: object, tmp_path: Path
) -> None:
    asks = "{ask: {kind: continuous, values: [40, 50, 60, 70, 80, 85, 87, 89, 90], control: 40}}"
    if "ask < 50" in str(settings):
        settings = settings | {"menu.eligibility": "{member: 40 < ask < 50}"}
    found = load(tmp_path, asks, **{key.replace(".", "__"): v for key, v in settings.items()})
    assert list(found.menu.sizes) == list(sizes)  # type: ignore[call-overload]  # ranges and lists


def test_one_of_two_numbers_of_rows_follows_the_other(tmp_path: Path) -> None:
    binary = SHORTEST["binary arm"][0]
    assert load(tmp_path, binary, response__max_rows="100").response.min_rows == 100
    assert load(tmp_path, binary, response__min_rows="300000").response.max_rows == 300_000
    with pytest.raises(
        ConfigurationError, match=r"found 9, expected at most response\.max_rows = 8"
    ):
        load(tmp_path, binary, response="{min_rows: 9, max_rows: 8}")


def test_strata_mean_a_stratified_experiment(tmp_path: Path) -> None:
    binary = SHORTEST["binary arm"][0]
    strata = {"experiment__strata": "[wave]"}
    assert load(tmp_path, binary, **strata).design.kind == "stratified"
    given = load(tmp_path, binary, **strata, design="{kind: randomized}")
    assert given.design.kind == "randomized"
    # what honest values rest on is told where it is assumed
    path = tmp_path / "run.yml"
    assert read_configuration(path, {"experiment.strata": "[wave]"})[1] == [
        f"{path}: design.kind is not given, and honest values rest on it: treatments are taken as "
        "stratified"
    ]
    assert read_configuration(path, {"design.kind": "learned"})[1] == []


def test_a_shape_leaves_out_the_bases_that_cannot_have_it(tmp_path: Path) -> None:
    rows = "{candidates: [{price: 8}, {price: 7}], control: {price: 9}}"
    assert load(tmp_path, rows).bases[-1] == "arms"
    shaped = load(tmp_path, rows, response__shape="{price: decreasing}")
    assert shaped.bases == ("linear", "quadratic", "any + quadratic", "spline")


def test_what_is_given_stays_and_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="found 3, expected at most 2, the number of"):
        load(tmp_path, SHORTEST["binary arm"][0], menu__sizes="1-3")
    with pytest.raises(ConfigurationError, match="treatment 'mail' is categorical"):
        load(tmp_path, SHORTEST["binary arm"][0], response__basis="quadratic")
    given = load(tmp_path, SHORTEST["binary arm"][0], experiment__format="delta")
    assert given.experiment.format == "delta"
