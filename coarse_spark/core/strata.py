"""Strata that do not identify the basis, merged with those nearest to them in treatment mix.

Within such a stratum (a single unit, controls only, an arm that nobody got) no honest value can be
told from its own rows. Its units are judged together with units of other strata, as if treatments
had been given alike to all of them. That is exact where they were, and biased by as much as the
mixes differ times what the response models miss; so as little as possible is merged, with the
nearest, and everybody concerned is counted.

Of a few units the mix that they happened to get says little about how they were treated: merged by
it, lone controls would join one stratum and lone treated units another. They are taken together
instead, and with other small strata first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add

import numpy as np
from scipy import stats

from coarse_spark.core.design import FEW, MomentSums
from coarse_spark.core.learned_design import FLOOR
from coarse_spark.text import counted, shown

_EQUAL = 1e-9  # of the experiment's own spread: mixes that differ by rounding do not differ
_EXAMPLES = 3
_CHANCE, _LONG_TAILS = 1e-3, 20.0
# what one ordinary row says of a direction, less rounding: one unit in every arm may say just that
_ENOUGH = 1 - 1e-6


@dataclass(frozen=True, eq=False)
class MergedStrata:
    """The strata of a design, as far as needed merged.

    Attributes
    ----------
    moments : by label of every stratum, those of the group that it is in.
    unidentified : strata that do not identify the basis, with their rows, largest first. Their rows
        together say less of some direction of the basis than one ordinary row of the experiment.
    groups : of two strata or more that stand together, by label.
    rows : of all strata in these groups.
    """

    moments: dict[str, MomentSums]
    unidentified: dict[str, int] = field(default_factory=dict)
    groups: tuple[tuple[str, ...], ...] = ()
    rows: int = 0

    def problems(self, basis: str, *, private: bool = False) -> list[str]:
        """Return one sentence on what was merged; none where nothing was.

        Parameters
        ----------
        basis : its name.
        private : show hashes of labels.
        """
        if not self.unidentified:
            return []
        count, total = len(self.unidentified), len(self.moments)
        named = [
            f"{shown(label, private=private)} ({counted(rows, 'unit')})"
            for label, rows in list(self.unidentified.items())[:_EXAMPLES]
        ]
        more = ", ..." if count > _EXAMPLES else ""
        others = sum(map(len, self.groups)) - count
        taken = f" with {others} of the nearest treatment mix" if others else ""
        return [
            f"{count} of {total} strata {'does' if count == 1 else 'do'} not identify '{basis}' "
            f"({', '.join(named)}{more}): merged{taken}, so that honest values take treatments as "
            f"given alike to the {counted(self.rows, 'unit')} of "
            f"{counted(len(self.groups), 'group')} of strata, and are biased as far as "
            "they were not"
        ]


def merge_strata(moments: Mapping[str, MomentSums]) -> MergedStrata:
    """Return strata of which every one identifies the basis, alone or with others.

    Small strata that do not, of fewer than ``FEW`` effective rows, are taken together. Each larger
    one, and those together, are joined by the identified strata of nearest treatment mix (Euclidean
    distance of the mean whitened columns; of equal ones the largest), until the basis is identified
    and no residual of the group counts more than 1 / ``FLOOR`` times as in the whole experiment.
    Small ones are joined by small ones first, larger ones by larger ones. Groups that share a
    stratum are one. Where no stratum identifies the basis, all are one group.

    A stratum identifies the basis where its rows say of every direction as much as one ordinary row
    of the experiment: where n times the least eigenvalue of its Λ is at least 1. Then none of its n
    residuals counts more than n times as in the whole experiment. Of a basis with one column an
    arm, one unit in every arm is enough, whatever the shares of the arms.

    The result depends on the sums alone, not on the order of strata.

    Parameters
    ----------
    moments : by label, in columns whitened over the whole experiment, which identifies the basis.

    Examples
    --------
    >>> from coarse_spark.core.design import moment_sums
    >>> treated = np.array([1, 0, 1, 0, 0, 0, 0])
    >>> z = np.column_stack([np.ones(7), (treated - 2 / 7) / 0.45])
    >>> merged = merge_strata(moment_sums(z, list("aabbbcc")))
    >>> merged.unidentified, merged.groups, merged.rows
    ({'c': 2}, (('b', 'c'),), 5)
    """
    labels = sorted(moments, key=lambda label: (-moments[label].rows, label))
    lost = [label for label in labels if _lost(moments[label])]
    if not lost:
        return MergedStrata(dict(moments))
    alone = set(lost)
    hosts = [label for label in labels if label not in alone]
    if hosts:
        small = {label for label in labels if moments[label].effective_rows < FEW}
        together = [label for label in lost if label in small]
        seeds = [[label] for label in lost if label not in small]
        seeds += [together] if together else []
        groups = _joined([_with_nearest(moments, seed, hosts, small) for seed in seeds])
    else:
        groups = [tuple(sorted(labels))]
    result = dict(moments)
    for group in groups:
        result |= dict.fromkeys(group, _total(moments, group))
    return MergedStrata(
        result,
        {label: int(moments[label].rows) for label in lost},
        tuple(groups),
        int(sum(moments[label].rows for group in groups for label in group)),
    )


def treated_differently(moments: Mapping[str, MomentSums]) -> bool:
    """Whether strata got treatments of different kinds, beyond chance.

    By the means of the whitened columns, whose variance is about 1, and of their products, whose
    variance is 20 at most of treatments without very long tails.

    Parameters
    ----------
    moments : by label, in columns whitened over the whole experiment.
    """
    some = [sums for sums in moments.values() if sums.rows]
    if len(some) < 2:
        return False
    rows = np.array([sums.effective_rows for sums in some])
    matrices = np.stack([sums.matrix for sums in some])
    apart = matrices - reduce(add, some).matrix
    across = np.triu_indices(apart.shape[1] - 1)
    for differ, variance in [(apart[:, 0, 1:], 1.0), (apart[:, 1:, 1:][:, *across], _LONG_TAILS)]:
        statistic = float(rows @ (differ**2).sum(axis=1)) / variance
        if stats.chi2.sf(statistic, (len(some) - 1) * differ.shape[1]) < _CHANCE:
            return True
    return False


def said_of_outcomes(sentences: Sequence[Sequence[str]], outcomes: Sequence[str]) -> list[str]:
    """Return sentences on outcomes, those on all of them once and others with what they are of.

    Parameters
    ----------
    sentences : of every outcome.
    outcomes : their names.
    """
    of: dict[str, list[str]] = {}
    for outcome, some in zip(outcomes, sentences, strict=True):
        for sentence in some:
            of.setdefault(sentence, []).append(outcome)
    return [
        sentence
        if len(names) == len(outcomes)
        else f"of the units with {' and with '.join(names)}: {sentence}"
        for sentence, names in of.items()
    ]


def _lost(sums: MomentSums) -> bool:
    # the first is the second's consequence, and spares thousands of lone units the arithmetic
    return sums.rows < len(sums.moment) or bool(
        sums.rows * np.linalg.eigvalsh(sums.matrix)[0] < _ENOUGH
    )


def _total(moments: Mapping[str, MomentSums], labels: Sequence[str]) -> MomentSums:
    return reduce(add, (moments[label] for label in sorted(labels)))


def _with_nearest(
    moments: Mapping[str, MomentSums], seed: Sequence[str], hosts: Sequence[str], small: set[str]
) -> list[str]:
    """Return a seed with as many hosts, given largest first, as it needs."""
    total, group = _total(moments, seed), list(seed)
    mixes = np.array([moments[label].matrix[0] for label in hosts])
    distance = np.linalg.norm(mixes - total.matrix[0], axis=1)
    unlike = [(label in small) != (seed[0] in small) for label in hosts]
    # a stable sort, last key first
    for number in np.lexsort([np.floor(distance / _EQUAL + 0.5), unlike]):
        if np.linalg.eigvalsh(total.matrix)[0] >= FLOOR:
            break
        group.append(hosts[number])
        total = total + moments[hosts[number]]
    return group


def _joined(groups: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Return the unions of groups that share a label, sorted."""
    unions: list[set[str]] = []
    for group in groups:
        apart = [union for union in unions if union.isdisjoint(group)]
        touched = [union for union in unions if not union.isdisjoint(group)]
        unions = [*apart, set(group).union(*touched)]
    return sorted(tuple(sorted(union)) for union in unions)
