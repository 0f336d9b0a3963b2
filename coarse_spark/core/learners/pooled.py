"""The pooled model as a member of a partition's stack.

Partitions with few rows lean on what all partitions have in common. Pooled and partition models cut
rows into the same folds and validation parts (hashes of the unit). So the pooled model that was
fitted without a fold and a part predicts the partition's rows there without having seen any of
them, and its weight in the stack is as honest as those of the partition's own members: like theirs,
only its penalty multiplier was chosen on all parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.learners.encoding.preparation import Preparation
from coarse_spark.core.learners.model import Functions
from coarse_spark.core.learners.sieve import FoldSieve
from coarse_spark.errors import InvalidInputError


@dataclass(frozen=True)
class PooledMember:
    """The pooled model for one partition and fold.

    Attributes
    ----------
    functions : in the partition's coordinates.
    held_out : (n, p) held-out values for the partition's rows.
    """

    functions: Functions
    held_out: FloatArray


@dataclass(frozen=True)
class PooledModels:
    """Coefficient functions of the pooled sieves; constant effects where no others are detectable.

    Attributes
    ----------
    preparation : of the pooled rows.
    functions : C (p, m) fitted without a fold, by fold.
    held_out : C (p, m) fitted without a fold and a validation part, by fold and number of the part.
    """

    preparation: Preparation
    functions: Mapping[int, FloatArray]
    held_out: Mapping[int, Mapping[int, FloatArray]]

    @staticmethod
    def of(
        preparation: Preparation, sieves: Iterable[FoldSieve], *, constant: bool = False
    ) -> PooledModels:
        """Return what sieves of the pooled rows predict.

        Parameters
        ----------
        preparation : of the pooled rows.
        sieves : of all rows and without every fold.
        constant : take their constant effects, detectable heterogeneity or not.
        """
        functions, held_out = {}, {}
        for sieve in sieves:
            fit = sieve.fit.shown(constant=constant)
            functions[sieve.fold] = fit.functions
            held_out[sieve.fold] = dict(zip(sieve.parts, fit.held_out, strict=True))
        return PooledModels(preparation, functions, held_out)

    def member(
        self, own: Preparation, sieve: FoldSieve, features: FloatArray, part: IntArray
    ) -> PooledMember:
        """Return the pooled model as a member of a partition's stack, in its coordinates.

        Parameters
        ----------
        own : preparation of the partition.
        sieve : of the partition's rows without a fold.
        features : (n, m) the partition's rows in the pooled encoding.
        part : (n,) number of each row's part.

        Raises
        ------
        InvalidInputError : the two preparations have different bases or scales.
        """
        held_out = np.zeros((len(features), own.basis.size))
        for number in sieve.parts:
            here = np.flatnonzero(part == number)
            held_out[here] = (
                features[here] @ self._in_coordinates_of(own, self.held_out[sieve.fold][number]).T
            )
        functions = self._in_coordinates_of(own, self.functions[sieve.fold])
        return PooledMember(Functions(self.preparation.encoder, functions), held_out)

    def _in_coordinates_of(self, own: Preparation, functions: FloatArray) -> FloatArray:
        """C (p, m) for the whitened coefficients and the standardized outcome of ``own``."""
        if own.response_scale != self.preparation.response_scale:
            raise InvalidInputError("the pooled model and the partition's are of different scales")
        if own.basis.columns != self.preparation.basis.columns:
            raise InvalidInputError(
                f"the pooled model has the basis '{self.preparation.basis.name}', expected "
                f"'{own.basis.name}' as in the partition"
            )
        # φ·θ = z·θ_z whatever the whitening, θ = Wᵀ θ_z; f₀ = 1 takes what the outcome's centres
        # differ by
        moved = np.linalg.solve(
            own.whitening.matrix.T, self.preparation.whitening.matrix.T @ functions
        )
        if own.treatment_means:
            moved[0] = functions[0]  # E[y | x], wherever treatments are centred
        moved *= self.preparation.scale / own.scale
        moved[0, 0] += (self.preparation.center - own.center) / own.scale
        return np.asarray(moved)
