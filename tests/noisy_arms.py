"""A noisy experiment with arms, on which models that saw their units are told from others."""

from __future__ import annotations

import numpy as np

ARMS = 3


def simulated(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, arms and outcomes of an experiment whose noise has deviation 1.5."""
    rng = np.random.default_rng(seed)
    x, arm = rng.uniform(-1, 1, (n, 8)), rng.integers(0, ARMS, n)
    effect = np.stack(
        [np.zeros(n), *(0.2 + 0.5 * x[:, j] * (x[:, j + 1] > 0) for j in (1, 2))], axis=1
    )
    y = np.sin(np.pi * x[:, 0] * x[:, 1]) + x[:, 2] + effect[range(n), arm]
    return x, arm, y + 1.5 * rng.normal(size=n)
