"""Folds and validation parts: which rows a model must not see.

Every fold is cut into validation parts, numbered fold · parts_per_fold + part over all folds. A
hash of what identifies a row decides, so that the order of rows and the number of machines do not;
where rows share clusters it is a hash of the cluster, which no fold and no part splits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coarse_spark.core.arrays import IntArray
from coarse_spark.core.learners.settings import LearnerSettings
from coarse_spark.errors import TooFewRowsError

ALL_FOLDS = -1  # the fold number of models fitted on all folds
# what rows are divided by or centred on was fitted without the third (part % THIRDS) they are in
THIRDS = 3


def hash_uniform(key: npt.ArrayLike, seed: int) -> npt.NDArray[np.uint64]:
    """Return well-mixed 64-bit numbers (n,) of keys and a seed.

    The finalizer of SplitMix64 (Steele, Lea & Flood 2014).
    """
    with np.errstate(over="ignore"):
        value = np.asarray(key).astype(np.int64).view(np.uint64) + np.uint64(
            0x9E3779B97F4A7C15
        ) * np.uint64(2 * (seed % 2**31) + 1)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: npt.NDArray[np.uint64] = value ^ (value >> np.uint64(31))
    return mixed


def random_order(key: IntArray, seed: int) -> IntArray:
    """Return the order (n,) of mixed keys: random, and the same whatever order rows arrive in."""
    return np.asarray(np.lexsort([key, hash_uniform(key, seed)]))


def left_out(folds: int) -> list[int]:
    """Return the folds that a model each leaves out: none (``ALL_FOLDS``), then every fold."""
    return [ALL_FOLDS, *(range(folds) if folds > 1 else [])]


def parts_per_fold(folds: int, settings: LearnerSettings) -> int:
    """Return into how many parts a fold is cut.

    Those outside a fold are as many as is set, or somewhat fewer, but at least two.
    """
    return max(settings.validation_parts // max(folds - 1, 1), 1)


def fewest_parts(part: IntArray, folds: int, settings: LearnerSettings) -> int:
    """Return the least number of parts with rows that any model sees: it needs two.

    Parameters
    ----------
    part : (n,) of ``parts_of``.
    folds : number of folds.
    settings : of which ``validation_parts`` counts.
    """
    fold = np.unique(part) // parts_per_fold(folds, settings)
    return min(int((fold != number).sum()) for number in left_out(folds))


def check_thirds(part: IntArray, *without: str) -> None:
    """Check that rows lie in several thirds, so that each third has rows outside it to fit on.

    Parameters
    ----------
    part : (n,) of ``parts_of``.
    without : what is left out of the rows, in words.

    Raises
    ------
    TooFewRowsError : all rows are in one third.
    """
    if len(np.unique(part % THIRDS)) < 2:
        left = f" without {' and '.join(without)}" if without else ""
        raise TooFewRowsError(
            f"the {len(part)} rows{left} are all in one third of the validation parts, expected "
            "some in others: what scales or centres a row must not have seen it; use more "
            "clusters, or an additive scale of treatments that were randomized"
        )


def parts_of(
    fold: IntArray, cluster: npt.ArrayLike, folds: int, settings: LearnerSettings, seed: int
) -> IntArray:
    """Return the validation part (n,) of every row, numbered over all folds.

    Parameters
    ----------
    fold : (n,) 0 … folds − 1.
    cluster : (n,) integers that identify clusters, or rows where each is one of its own.
    folds : number of folds.
    settings : of which ``validation_parts`` counts.
    seed : another one, other parts.
    """
    parts = parts_per_fold(folds, settings)
    within = hash_uniform(cluster, seed) >> np.uint64(32)  # the low bits already order the rows
    return np.asarray(
        np.asarray(fold, dtype=np.int64) * parts + (within % np.uint64(parts)).astype(np.int64)
    )
