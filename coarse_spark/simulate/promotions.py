"""A simulated retail promotion with known responses that looks like real tables.

It has mixed features, skewed markets, missing values and many zeros in the outcome. Rows come in
blocks that depend on nothing but a seed and their number; ``simulate.tables`` writes them to Delta.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.errors import InvalidInputError

# Rows of a full block. A block is always drawn whole and then cut, so that more units never change
# the earlier ones.
BLOCK_ROWS = 10_000

FEATURES = (
    "tenure_months",
    "age",
    "visits",
    "past_spend",
    "distance_km",
    "basket_size",
    "channel",
    "tier",
    "device",
)
TREATMENTS = ("depth", "days")
MAX_DEPTH, MAX_DAYS = 40.0, 28.0
UNIT_COLUMNS = ("unit_id", "market", *FEATURES)
EXPERIMENT_COLUMNS = (*UNIT_COLUMNS, *TREATMENTS, "spend")
TRUTH_COLUMNS = ("unit_id", *(f"theta_{j}" for j in range(6)))

_CONTROL_SHARE = 0.125
_MISSING_SHARE = 0.025
_FIRST_EXPERIMENT_ID = 1_000_000_000_000  # above any population: no unit is in both tables

# share of units, level of spend, appetite for deep discounts, appetite for long validity, how much
# age matters for depth
_MARKETS: dict[str, tuple[float, float, float, float, float]] = {
    "capital": (0.350, 1.15, 0.3, -0.7, 1.0),
    "harbour": (0.170, 1.05, -0.4, 0.2, 1.3),
    "north": (0.120, 0.95, 0.8, 0.6, 0.6),
    "south": (0.090, 0.85, 1.2, -0.2, -0.4),
    "lakes": (0.070, 1.20, -1.0, 0.5, 0.9),
    "valley": (0.060, 0.90, 0.5, 1.0, 1.2),
    "coast": (0.045, 1.10, -0.7, -0.9, 0.3),
    "objective": (0.035, 0.80, 0.1, 1.2, 0.8),
    "east": (0.025, 0.75, 1.4, 0.1, -0.8),
    "west": (0.025, 1.00, -0.2, -0.4, 1.5),
    "islands": (0.005, 1.25, -1.3, 1.5, 0.5),
    "border": (0.005, 0.70, 1.6, -1.2, 1.0),
}
MARKETS = tuple(_MARKETS)
_CHANNELS = ("email", "app", "post", "store")
_TIERS = ("basic", "silver", "gold")
_DEVICES = ("android", "ios", "desktop")


def simulate_promotions_block(
    block: int, seed: int, rows: int = BLOCK_ROWS, *, experiment: bool
) -> pd.DataFrame:
    """Return one block of simulated customers: the same for the same block, seed and table.

    The mean of spend is exactly quadratic in the treatment, E[spend | x, t] = φ(t)·θ(x) with
    φ(t) = [1, depth, days, depth², depth·days, days²], and positive on the whole box of treatments.
    Spend itself is zero for part of the customers and right-skewed for the rest.

    Parameters
    ----------
    block : 0, 1, …; unit ids of different blocks and of experiment and population never meet.
    seed : a non-negative integer.
    rows : rows of this block that are kept, at most ``BLOCK_ROWS``; a table's last block is cut.
    experiment : with randomized treatment (depth in percent on [0, 40], days on [0, 28], one eighth
        control at (0, 0)) and the outcome spend in money; otherwise the population, without either.

    Returns
    -------
    DataFrame (rows, ·) with UNIT_COLUMNS (EXPERIMENT_COLUMNS in the experiment) and theta_0 …
    theta_5. The share 0.025 of age and of distance_km is missing (NaN); responses depend on the
    values behind the gaps.

    Raises
    ------
    InvalidInputError : a negative block or seed, or more rows than a block holds.
    """
    if block < 0 or seed < 0:
        raise InvalidInputError(
            f"simulation: block is {block} and seed {seed}, expected integers from 0"
        )
    if not 0 <= rows <= BLOCK_ROWS:
        raise InvalidInputError(
            f"simulation: a block of {rows} rows was asked for, expected 0 to {BLOCK_ROWS}"
        )
    # one stream for the customers and one for the trial: both tables draw customers in the same way
    streams = np.random.SeedSequence(seed, spawn_key=(int(experiment), block)).spawn(2)
    customers, trial = (np.random.Generator(np.random.Philox(stream)) for stream in streams)
    units = _customers(customers, BLOCK_ROWS)
    theta = promotions_response(units)
    first = block * BLOCK_ROWS + (_FIRST_EXPERIMENT_ID if experiment else 0)
    units.insert(0, "unit_id", np.arange(first, first + BLOCK_ROWS, dtype=np.int64))
    for name in ("age", "distance_km"):
        units.loc[customers.random(BLOCK_ROWS) < _MISSING_SHARE, name] = np.nan
    if experiment:
        box = trial.random((BLOCK_ROWS, 2)) * (MAX_DEPTH, MAX_DAYS)
        treatments = np.where(trial.random((BLOCK_ROWS, 1)) < _CONTROL_SHARE, 0.0, box)
        units[list(TREATMENTS)] = treatments
        units["spend"] = _spend(trial, (_quadratic(treatments) * theta).sum(axis=1))
    truth = pd.DataFrame(theta, columns=list(TRUTH_COLUMNS[1:]))
    return pd.concat([units, truth], axis=1).iloc[:rows]


def _customers(rng: np.random.Generator, n: int) -> pd.DataFrame:
    shares = np.array([row[0] for row in _MARKETS.values()])
    market = rng.choice(len(MARKETS), size=n, p=shares)
    level = np.array([row[1] for row in _MARKETS.values()])[market]
    loyalty, affluence, life = rng.standard_normal((3, n))
    noise = rng.standard_normal((5, n))
    age = np.clip(np.round(43 + 9 * life + 4 * loyalty + 9 * noise[0]), 18, 92)
    visits = rng.poisson(np.exp(1.7 + 0.65 * loyalty + 0.1 * affluence))
    basket = np.exp(3.2 + 0.45 * affluence + 0.15 * np.log(level) + 0.2 * noise[1])
    distance = np.exp(1.3 + 0.7 * noise[2] - 0.15 * loyalty)
    young = (40 - age) / 15
    channel = _pick(
        rng,
        np.column_stack(
            [np.full(n, 0.6), 0.3 + young, -0.9 - 0.9 * young, -0.2 - 0.3 * np.log(distance)]
        ),
    )
    tier = (loyalty + 0.4 * noise[3] > 0.4).astype(int) + (loyalty + 0.4 * noise[3] > 1.4)
    device = _pick(
        rng, np.column_stack([0.4 + 0.2 * young, 0.3 * affluence + 0.4 * young, -0.3 - 0.8 * young])
    )
    return pd.DataFrame(
        {
            "market": np.array(MARKETS, dtype=object)[market],
            "tenure_months": np.clip(
                np.round(np.exp(2.9 + 0.6 * loyalty + 0.01 * (age - 43) + 0.6 * noise[4])), 1, 240
            ).astype(np.int64),
            "age": age,
            "visits": visits,
            "past_spend": np.round(visits * basket * rng.gamma(8, 1 / 8, n), 2),
            "distance_km": np.round(distance, 2),
            "basket_size": np.round(basket, 2),
            "channel": np.array(_CHANNELS, dtype=object)[channel],
            "tier": np.array(_TIERS, dtype=object)[tier],
            "device": np.array(_DEVICES, dtype=object)[device],
        }
    )


def _pick(rng: np.random.Generator, scores: FloatArray) -> IntArray:
    # Gumbel noise makes the argmax a draw from the multinomial logit of the scores
    return np.asarray((scores + rng.gumbel(size=scores.shape)).argmax(axis=1))


def promotions_response(units: pd.DataFrame) -> FloatArray:
    """Return the true response coefficients θ(x) (n, 6) of customers.

    With u = depth / 40 and v = days / 28 the mean is
    base·(1 + rise·u − c·u² + d·(2·peak·v − v²) + e·u·v): depth pays off more or less steeply (c
    below 0: small discounts go unnoticed), validity has a peak before which customers find no
    occasion to buy and after which the offer loses its urgency.

    Parameters
    ----------
    units : (n, ·) with the columns UNIT_COLUMNS, none missing.
    """
    table = np.array(list(_MARKETS.values()))[[MARKETS.index(name) for name in units["market"]]]
    _, level, deep, long, slope = table.T
    age, visits, basket = (
        units[name].to_numpy(np.float64) for name in ("age", "visits", "basket_size")
    )
    distance, tenure = (
        units["distance_km"].to_numpy(np.float64),
        units["tenure_months"].to_numpy(np.float64),
    )
    gold, silver = (units["tier"] == "gold").to_numpy(), (units["tier"] == "silver").to_numpy()
    app, post = (units["channel"] == "app").to_numpy(), (units["channel"] == "post").to_numpy()
    ios = (units["device"] == "ios").to_numpy()

    base = level * (4 + 0.5 * basket * visits / (visits + 5) + 3 * silver + 7 * gold)
    appetite = (
        0.9 * deep
        - 0.5
        - 1.3 * slope * np.tanh((age - 43) / 12)
        - 1.2 * np.tanh((basket - 27) / 12)
        + 0.9 * app * (visits < 6)
        - 1.1 * gold
        + 0.6 * np.sin(np.log(distance + 0.2) * 1.5)
        - 0.6 * ios
    )
    patience = (
        0.8 * long
        + 1.6 * np.tanh((distance - 5) / 4)
        - 1.5 * np.tanh((visits - 6) / 5)
        + 1.2 * post
        - 0.9 * app * (age < 40)
        + 0.8 * (tenure > 24) * np.where(silver | gold, 1.0, -0.6)
    )
    # in these ranges the bracket stays above 1 - 1.05·0.88 > 0 on the whole box:
    # rise·u - c·u² - 0.2·u is never negative
    bargain = _sigmoid(appetite)
    base *= 1.4 - bargain
    rise = 1.6 + 0.6 * bargain
    c = 1.4 - 7.5 * bargain
    peak = 0.06 + 0.9 * _sigmoid(patience)
    d = 0.95 + 0.1 * np.tanh((age - 45) / 15)
    e = 0.2 * np.tanh(appetite - patience)
    theta = np.column_stack(
        [
            np.ones_like(base),
            rise / MAX_DEPTH,
            2 * d * peak / MAX_DAYS,
            -c / MAX_DEPTH**2,
            e / (MAX_DEPTH * MAX_DAYS),
            -d / MAX_DAYS**2,
        ]
    )
    return np.asarray(base[:, None] * theta, dtype=np.float64)


def _sigmoid(z: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-z)), dtype=np.float64)


def _quadratic(t: FloatArray) -> FloatArray:
    return np.column_stack(
        [np.ones(len(t)), t[:, 0], t[:, 1], t[:, 0] ** 2, t[:, 0] * t[:, 1], t[:, 1] ** 2]
    )


def _spend(rng: np.random.Generator, mean: FloatArray) -> FloatArray:
    # buyers are likelier where more is expected; dividing by their share keeps the mean exact
    buying = 0.6 + 0.4 * mean / (mean + 15)
    amount = mean / buying * rng.gamma(6, 1 / 6, len(mean))
    return np.where(rng.random(len(mean)) < buying, amount, 0.0)
