"""Who has an outcome that others lack: its chance given features and treatment, learned.

It is for learned designs; of known ones counting within strata is enough
(``design.representer_of_known``). Chances are those of a learned design's first pass: conditional
means of 0 and 1, of a unit by models without its fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from coarse_spark.core.arrays import BoolArray, FloatArray
from coarse_spark.core.learned_design import (
    FLOOR,
    DesignPreparation,
    DesignRows,
    NestedMeans,
    design_encoder,
)
from coarse_spark.core.learners.encoding.conditional_mean import ConditionalMean
from coarse_spark.core.learners.encoding.whitening import Whitening
from coarse_spark.core.learners.settings import LearnerSettings


def presence_rows(rows: DesignRows, X: pd.DataFrame, has: BoolArray) -> DesignRows:
    """Return rows whose moving columns tell who has the outcomes.

    Parameters
    ----------
    rows : of the experiment.
    X : (n, ·) features and treatments.
    has : (n, outcomes).
    """
    return replace(rows, X=X, phi=np.column_stack([np.ones(len(has)), has]))


def presence_preparation(
    rows: DesignRows, *, parts_per_fold: int, settings: LearnerSettings
) -> DesignPreparation:
    """Return the preparation whose first pass learns chances, from ``presence_rows``."""
    encoder = design_encoder(rows.X, rows.weight, settings)
    return DesignPreparation(encoder, Whitening(np.eye(rows.phi.shape[1])), parts_per_fold)


@dataclass(frozen=True, eq=False)
class Presence:
    """How many units like it one with an outcome stands for.

    Attributes
    ----------
    preparation : of ``presence_preparation``.
    means : chances by the fold that they serve.
    """

    preparation: DesignPreparation
    means: Mapping[int, ConditionalMean]

    @staticmethod
    def of(preparation: DesignPreparation, means: NestedMeans) -> Presence:
        """Return what the first pass amounts to."""
        served = {fold: ConditionalMean.average([*m.values()]) for fold, m in means.items()}
        return Presence(preparation, served)

    def weights(self, rows: DesignRows) -> FloatArray:
        """Return 1 / chance (n, outcomes) of ``presence_rows`` that have it, 0 of others.

        Chances are at least ``FLOOR``, so that no residual counts more than twenty times.
        """
        encoder, has = self.preparation.encoder, rows.phi[:, 1:]
        features, chance = encoder.transform(rows.X), np.ones(has.shape)
        for fold in np.unique(rows.fold):
            here = rows.fold == fold
            chance[here] = self.means[int(fold)](features[here], encoder.plain)
        return np.asarray(has / np.clip(chance, FLOOR, 1.0))
