"""Which products of features deserve a column, where not all pairs fit.

Each pair gets the score test of adding its product to a model with all main effects: for the baseline and for the effects.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def screen_products(
    plain: FloatArray, z: FloatArray, outcome: FloatArray, weight: FloatArray, pairs: Sequence[tuple[int, int]], count: int
) -> list[int]:
    """Return the positions in ``pairs`` of the most promising ones, half by the baseline and half by the effects, ascending.

    Parameters
    ----------
    plain : (n, L) columns that ``pairs`` number.
    z : (n, p) whitened basis; outcome, weight : (n,).
    count : how many to keep.
    """
    if count >= len(pairs):
        return list(range(len(pairs)))
    design = np.column_stack([np.ones(len(plain)), plain])
    design = (z[:, :, None] * design[:, None, :]).reshape(len(plain), -1)
    gram = (design * weight[:, None]).T @ design
    gram[np.diag_indices(len(gram))] += 1e-6 * max(np.diag(gram).mean(), 1e-300)
    residual = outcome - design @ np.linalg.solve(gram, design.T @ (weight * outcome))
    left, right = np.array(pairs).T
    spread = ((plain**2 * weight[:, None]).T @ plain**2)[left, right]
    scores = np.stack([(plain.T @ (plain * (weight * column * residual)[:, None]))[left, right] for column in z.T]) ** 2
    scores /= np.maximum(spread, 1e-300)
    by_baseline, by_effect = np.argsort(-scores[0], kind="stable"), np.argsort(-scores[1:].sum(axis=0), kind="stable")
    chosen: dict[int, None] = {}
    for pair in np.column_stack([by_effect, by_baseline]).ravel():
        if len(chosen) == count:
            break
        chosen[int(pair)] = None
    return sorted(chosen)
