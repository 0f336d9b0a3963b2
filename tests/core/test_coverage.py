"""Intervals of honest values cover the truth where policies are chosen, by units or by clusters."""

from __future__ import annotations

import numpy as np
import pytest
from judged import QUANTITIES, Design, Judged, coverage, drawn, judged

from coarse_spark.core.values import ScoreMoments


def test_fewer_villages_make_up_a_value_where_they_differ() -> None:
    rng = np.random.default_rng(1)

    def effective(sizes: np.ndarray, treated: np.ndarray) -> float:
        village = np.repeat(np.arange(len(sizes)), sizes)
        scores = (rng.normal(size=len(sizes)) * treated)[village][:, None]
        sums = ScoreMoments.sums(scores, np.ones(len(village)), np.zeros(1), village)
        return float(np.broadcast_to(ScoreMoments.of(sums, np.zeros(1)).effective, 1)[0])

    alike, every = np.full(2_000, 3), np.ones(2_000)
    assert effective(alike, every) == pytest.approx(2_000, rel=0.15)
    assert effective(alike, every * (np.arange(2_000) % 2)) == pytest.approx(1_000, rel=0.2)
    large = np.where(np.arange(2_000) % 20 == 0, 60, 3)  # a twentieth of them, and all that counts
    assert effective(large, every) == pytest.approx(100, rel=0.3)


def _repeated(design: Design, repetitions: int) -> list[Judged]:
    return [
        judged(drawn(design, np.random.default_rng([77, seed])), seed=seed)
        for seed in range(repetitions)
    ]


KINDS = ("randomized", "stratified", "learned")


def test_a_few_cross_fitted_intervals_cover() -> None:
    found = [one for kind in KINDS for one in _repeated(Design(kind, units=300, spread=3), 4)]
    covered = coverage(found)
    # of 12 intervals of 95 %, fewer than 9 cover in 2 of 1000 tests
    assert (covered >= 9 / 12).all(), dict(zip(QUANTITIES, covered, strict=True))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", KINDS)
def test_cross_fitted_intervals_cover_values_contrasts_and_shares(kind: str) -> None:
    found = coverage(_repeated(Design(kind, units=800, spread=3), 500))
    assert ((found >= 0.93) & (found <= 0.97)).all(), dict(zip(QUANTITIES, found, strict=True))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_cross_fitted_intervals_cover_in_villages_that_were_treated_together() -> None:
    found = coverage(_repeated(Design("clustered", villages=50, icc=0.4), 500))
    covered = dict(zip(QUANTITIES, found, strict=True))
    for policy in ("control", "best single", "menu of 2"):
        assert 0.93 <= covered[policy] <= 0.97, covered
    # noise has a say in the menu's second arm, and the folds' errors go together (``core.values``)
    assert covered["menu − single"] >= 0.92
