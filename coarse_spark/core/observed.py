"""The treatments that an experiment gave: responses to anything outside them are extrapolated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coarse_spark.core.arrays import BoolArray, FloatArray
from coarse_spark.core.treatments import Categorical, TreatmentSpace
from coarse_spark.text import shown

# Random draws end a little short of their bounds; only a wider gap is extrapolation, as a share of
# the range.
EDGE = 0.01


@dataclass(frozen=True)
class ObservedTreatments:
    """What was observed of every dimension of a space.

    Parameters
    ----------
    space : the declared treatments.
    values : by dimension, the smallest and the largest observed value; of a categorical one all
        observed codes.
    """

    space: TreatmentSpace
    values: tuple[tuple[float, ...], ...]

    def outside(self, treatments: FloatArray) -> BoolArray:
        """Return (n,) whether treatments (n, d) are beyond what was observed in any dimension."""
        beyond = np.zeros(len(treatments), dtype=bool)
        for position, (dimension, observed) in enumerate(
            zip(self.space.dimensions, self.values, strict=True)
        ):
            column = treatments[:, position]
            if isinstance(dimension, Categorical):
                beyond |= ~np.isin(column, observed)
            else:
                low, high = self._offered[position]
                slack = EDGE * (high - low)
                beyond |= (column < observed[0] - slack) | (column > observed[1] + slack)
        return beyond

    def problems(self, *, private: bool = False) -> list[str]:
        """Return a sentence for every dimension that offers more than was observed.

        The control aside, of which ``support_problems`` tells.

        Parameters
        ----------
        private : show hashes of what was observed.
        """
        sentences = []
        for position, (dimension, observed) in enumerate(
            zip(self.space.dimensions, self.values, strict=True)
        ):
            if isinstance(dimension, Categorical):
                offered = np.unique(self._treated[:, position])
                unseen = [
                    str(dimension.levels[int(code)]) for code in offered if code not in observed
                ]
                if unseen:
                    sentences.append(
                        f"treatment '{dimension.name}' is offered as {', '.join(unseen)}, which "
                        "nobody in the experiment got: "
                        "responses to that are extrapolated"
                    )
                continue
            low, high = self._offered[position]
            treated, slack = self._treated[:, position], EDGE * (high - low)
            if treated.min() < observed[0] - slack or treated.max() > observed[1] + slack:
                least, most = (shown(f"{value:g}", private=private) for value in observed)
                sentences.append(
                    f"treatment '{dimension.name}' is offered from {low:g} to {high:g} but was "
                    f"observed from {least} to {most}: responses beyond that are extrapolated"
                )
        return sentences

    @property
    def _treated(self) -> FloatArray:
        """(j, d) candidates other than the control; it too where there are no others."""
        candidates = self.space.candidates
        others = candidates[~self.space.same(candidates, self.space.control)]
        return others if len(others) else candidates

    @property
    def _offered(self) -> FloatArray:
        """(d, 2) what is offered: the last step may end short of the declared bound."""
        return np.column_stack(
            [self.space.candidates.min(axis=0), self.space.candidates.max(axis=0)]
        )
