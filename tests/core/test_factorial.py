"""A factorial with an untreated control: whoever has one dimension of a letter has them all."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fundraising import CELLS, GIFT, NAMES, chance, donors, named

from coarse_spark import ResponseLearner, TreatmentSpace
from coarse_spark.core.basis import Basis, default_bases, separated
from coarse_spark.core.identification import why_unidentified
from coarse_spark.errors import InvalidInputError

NONE = dict.fromkeys(NAMES, "none")
LEFT = pd.DataFrame([dict.fromkeys(NAMES, 0)])
GRID = TreatmentSpace.from_dict(
    {
        name: {"kind": "categorical", "levels": ["none", *values], "control": "none"}
        for name, values in ((n, list(dict.fromkeys(named(CELLS)[n]))) for n in NAMES)
    }
)
LIST = TreatmentSpace.from_candidates(named(CELLS), NONE)
NUMBERS = TreatmentSpace.from_candidates(CELLS, dict.fromkeys(NAMES, 0))
VALUES = TreatmentSpace.from_dict(
    {
        name: {"kind": "continuous", "values": sorted(set(CELLS[name])), "control": 0}
        for name in NAMES
    }
)
APART = "any(ask, ratio, size) + among(ask, ratio, size)"


@pytest.fixture(scope="module")
def trial() -> pd.DataFrame:
    return donors(30_000)


@pytest.mark.parametrize(
    "space", [GRID, LIST, NUMBERS, VALUES], ids=["grid", "list", "0", "values"]
)
def test_auto_learns_what_a_match_is_worth(space: TreatmentSpace, trial: pd.DataFrame) -> None:
    words = space in (GRID, LIST)
    letters = named(trial) if words else trial[list(NAMES)]
    X = trial[["years", "regular"]]
    learner = ResponseLearner(basis="auto", learner="sieve", space=space, scale="relative").fit(
        X, letters, trial["amount"]
    )
    cells = space.encode(named(CELLS) if words else CELLS)
    phi, theta = learner.basis_, learner.predict(X).mean(axis=0)
    gain = phi(cells) @ theta - (phi(space.control[None, :]) @ theta)[0]
    regular = trial["regular"].to_numpy()
    left = chance(pd.concat([LEFT] * len(regular)), regular).mean()
    truth = [chance(pd.DataFrame([cell] * 1_000), regular[:1_000]).mean() for cell in _rows(CELLS)]
    assert gain.mean() == pytest.approx(GIFT * (np.mean(truth) - left), abs=0.2)  # of 0.37
    assert gain.mean() > 0.15
    if words:
        assert APART in learner.basis_losses_
        assert "levels" not in learner.basis_losses_


def _rows(frame: pd.DataFrame) -> list[dict[str, float]]:
    return frame.to_dict("records")


def test_the_message_says_which_columns_coincide_and_what_to_use(trial: pd.DataFrame) -> None:
    with pytest.raises(InvalidInputError) as caught:
        ResponseLearner(basis="levels", space=GRID).fit(
            trial[["years"]], named(trial), trial["amount"]
        )
    assert str(caught.value) == (
        "basis 'levels': the observed treatments do not identify its column 'ratio = 3', which is "
        "'ask = 1' + 'ask = 1.25' + 'ask = 1.5' - 'ratio = 1' - 'ratio = 2': 30000 rows with 37 "
        f"distinct treatments for 11 columns; use '{APART}'"
    )
    learner = ResponseLearner(basis=APART, learner="constant", space=GRID)
    assert learner.fit(trial[["years"]], named(trial), trial["amount"]).basis_.columns[:5] == (
        "1",
        "any(ask, ratio, size)",
        "ask = 1.25 rather than 1",
        "ask = 1.5 rather than 1",
        "ratio = 2 rather than 1",
    )


def test_candidates_that_nobody_got_are_counted(trial: pd.DataFrame) -> None:
    treatments = GRID.encode(named(trial))
    reason = why_unidentified(Basis("arms", GRID), treatments, np.ones(len(trial)))
    assert reason == (
        "basis 'arms': the observed treatments do not identify its column 'ratio = none, size = "
        "none, ask = 1' (and 42 more), which nobody got: 30000 rows with 37 distinct treatments "
        "for 80 columns"
    )


def test_columns_coincide_whatever_their_units() -> None:
    dimension = {"kind": "continuous", "lower": 0, "upper": 1e7, "control": 0}
    space = TreatmentSpace.from_dict(dict.fromkeys(("a", "income", "z"), dimension))
    rng = np.random.default_rng(0)
    a, income = rng.normal(size=50), 1e7 * rng.random(50)
    for z, told in (
        (3 - a + 1e-7 * income, "which is 3 - 'a' + 1e-07 'income': "),
        (np.full(50, 5.0), "which is 5: "),
        (-2 * a, "which is - 2 'a': "),
    ):
        given = np.column_stack([a, income, z])
        reason = why_unidentified(Basis("linear", space), given, np.ones(50))
        assert reason is not None
        assert f"do not identify its column 'z', {told}50 rows" in reason


def test_where_no_basis_is_identified_the_message_says_what_to_use() -> None:
    calls = np.arange(600) % 3
    both = pd.DataFrame({"calls": calls, "letters": 2 * calls + 1})
    dimension = {"kind": "continuous", "lower": 0, "upper": 5}
    space = TreatmentSpace.from_dict(
        {"calls": dimension | {"control": 0}, "letters": dimension | {"control": 1}}
    )
    with pytest.raises(InvalidInputError) as caught:
        ResponseLearner(basis="auto", space=space).fit(np.ones((600, 1)), both, calls)
    head, *reasons, advice = str(caught.value).splitlines()
    assert head.startswith("none of the bases linear, quadratic, any + quadratic, spline(")
    assert len(reasons) == 4
    assert reasons[0] == (
        "  basis 'linear': the observed treatments do not identify its column 'letters', which is "
        "1 + 2 'calls': 600 rows with 3 distinct treatments for 3 columns"
    )
    assert advice == (
        "  use basis 'any', one effect of whatever is not the control, or basis 'arms' on a finite "
        "list of the 3 treatments that were given"
    )
    # and both do
    listed = TreatmentSpace.from_candidates(both.drop_duplicates(), {"calls": 0, "letters": 1})
    for basis, offered in (("any", space), ("arms", listed), ("auto", listed)):
        learner = ResponseLearner(basis=basis, learner="constant", space=offered)
        theta = learner.fit(np.ones((600, 1)), both, calls).predict(np.ones((1, 1)))
        assert np.isfinite(theta).all()


@pytest.mark.parametrize("together", [("a", "b"), ("a", "b", "c"), ("b", "c")])
@pytest.mark.parametrize("order", ["abc", "cab"])
def test_separated_levels_say_the_same_of_what_was_given(
    together: tuple[str, ...], order: str
) -> None:
    levels = {"a": 3, "b": 4, "c": 3}
    space = TreatmentSpace.from_dict(
        {
            name: {"kind": "categorical", "levels": list(range(levels[name])), "control": 0}
            for name in order
        }
    )
    off = space.candidates[:, [order.index(name) for name in together]] > 0
    given = space.candidates[off.all(axis=1) | ~off.any(axis=1)]
    name = separated("levels", space, given)
    alone = "".join(f" + levels({d})" for d in "abc" if d not in together)
    names = ", ".join(together)
    expected = f"any({names}) + among({names})"
    assert name == (f"{expected}{alone}" if alone != " + levels(a)" else f"levels(a) + {expected}")
    levelled, apart = Basis("levels", space)(given), Basis(name, space)(given)
    rank = np.linalg.matrix_rank(levelled)
    assert apart.shape[1] == rank < levelled.shape[1]
    assert np.linalg.matrix_rank(np.hstack([levelled, apart])) == rank
    assert why_unidentified(Basis(name, space), given, np.ones(len(given))) is None
    # where every combination was given nothing coincides
    assert separated(name, space, space.candidates) == name
    assert separated("levels", space, space.candidates) == "levels"


def test_bases_for_a_space() -> None:
    assert default_bases(GRID) == ("levels", "arms")
    assert default_bases(LIST) == ("levels", "arms")
    assert default_bases(NUMBERS)[-1] == "arms"
    assert "arms" not in default_bases(VALUES)
    arm = {"kind": "categorical", "levels": ["none", "mail", "phone"], "control": "none"}
    assert default_bases(TreatmentSpace.from_dict({"arm": arm})) == ("arms",)
    # rows of an excluded arm are rows of the experiment still
    without = TreatmentSpace.from_dict({"arm": arm}, exclude="arm == 'phone'")
    assert default_bases(without) == ("levels", "arms")
    given = pd.DataFrame({"arm": ["none", "mail", "phone"] * 100})
    learner = ResponseLearner(basis="auto", learner="constant", space=without)
    learner.fit(np.arange(300)[:, None], given, np.arange(300) % 3)
    assert learner.basis_.name == "levels"
