"""A confounded price experiment: price and demand step with the same feature.

It looks like the media-subscription example of EconML's case studies: customers of an income below
1 were shown lower prices and react to them six times as much.
"""

from __future__ import annotations

import numpy as np
import pandas as pd


def pricing(rows: int, seed: int = 0) -> pd.DataFrame:
    """Return units with features, price, demand, and the truth: demand = base + slope · price."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "income": np.exp(rng.normal(0.0, 0.5, rows)),
            "age": rng.integers(18, 70, rows).astype(float),
            "account_age": rng.integers(1, 6, rows).astype(float),
            "avg_hours": rng.gamma(4.0, 1.0, rows),
            "days_visited": rng.integers(0, 8, rows).astype(float),
            "friends_count": rng.poisson(5.0, rows).astype(float),
            "has_membership": rng.integers(0, 2, rows).astype(float),
        }
    )
    low = X["income"].to_numpy() < 1
    price = np.where(low, 0.75, 0.9) + rng.uniform(-0.2, 0.2, rows)
    slope = np.where(low, -17.0, -3.0)
    base = 20 + 0.5 * X["avg_hours"].to_numpy() + 5.0 * (X["days_visited"].to_numpy() > 4)
    demand = base + slope * price + rng.normal(0.0, 1.0, rows)
    return X.assign(price=price, demand=demand, base=base, slope=slope)


FEATURES = (
    "income",
    "age",
    "account_age",
    "avg_hours",
    "days_visited",
    "friends_count",
    "has_membership",
)
