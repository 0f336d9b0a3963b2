"""A simulated fundraising letter like that of Karlan & List (2007), with its truth.

A third of the donors got the plain letter. All others were offered a match: one of 3 ratios, 4
sizes and 3 asks, crossed in 36 cells. The plain letter has none of the three, so that to have a
ratio is to have a size is to have an ask.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

RATIOS, SIZES, ASKS = (1, 2, 3), (25, 50, 75, 100), (1.0, 1.25, 1.5)
NAMES = ("ratio", "size", "ask")
CELLS = pd.DataFrame(list(product(RATIOS, SIZES, ASKS)), columns=list(NAMES))
GIFT = 40.0  # mean of a donation


def donors(units: int, seed: int = 0) -> pd.DataFrame:
    """Return one row a donor: what is known of it, its letter (0 for none) and its donation."""
    rng = np.random.default_rng(seed)
    years, regular = rng.integers(0, 20, units).astype(float), rng.random(units) < 0.5
    letters = CELLS.iloc[rng.integers(0, len(CELLS), units)].reset_index(drop=True)
    letters[rng.random(units) < 1 / 3] = 0
    gives = rng.random(units) < chance(letters, regular)
    amount = GIFT * np.exp(rng.normal(-0.18, 0.6, units))  # log-normal, of mean GIFT
    who = pd.DataFrame({"donor": range(units), "years": years, "regular": regular})
    return who.join(letters).assign(amount=np.where(gives, amount, 0.0))


def chance(letters: pd.DataFrame, regular: np.ndarray) -> np.ndarray:
    """Return the true probability of a donation: a match helps, its ratio and size do not."""
    matched = (letters["ratio"] > 0).to_numpy()
    base = np.where(regular, 0.025, 0.015)
    return np.asarray(base * np.where(matched, 1.5 - 0.1 * (letters["ask"] == 1.5), 1.0))


def named(letters: pd.DataFrame) -> pd.DataFrame:
    """Return letters by the names of their levels, "none" where they have none."""
    words = {column: letters[column].map(lambda value: f"{value:g}") for column in NAMES}
    return pd.DataFrame(words).where(letters["ratio"] > 0, "none")
