"""The treatment basis φ: T → R^p with φ₀ = 1.

Every response is linear in it: E[y | x, t] = φ(t)·θ(x). A basis is named by a text: terms joined by
``+``, each adding columns after the constant. ``a * b`` adds the columns of both and all their
products. A kind of term may be restricted to dimensions: ``levels(channel) * quadratic(price) +
any``. The polynomial terms follow the column order of scikit-learn's PolynomialFeatures.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import floor, log10

import numpy as np

from coarse_spark.core.arrays import FloatArray, IntArray
from coarse_spark.core.basis_terms import Factor, parse, term_columns, term_values
from coarse_spark.core.treatments import STORED, Categorical, TreatmentSpace
from coarse_spark.errors import InvalidInputError

_KNOT_SHARES = (0.25, 0.5, 0.75)
_CONSTANT: tuple[Hashable, ...] = ()  # what the column of the constant is
_MOST_ARMS = 50  # candidates of a finite list that `auto` tries one column each for
_MOST_CELLS = 256  # and combinations of levels


@dataclass(frozen=True)
class Basis:
    """φ on one treatment space.

    Parameters
    ----------
    name : terms joined by ``+``: linear, quadratic, cubic (polynomials with all products up to that
        degree), spline (natural cubic, one set of columns a dimension; ``spline(price, 0.85, 0.9)``
        gives the knots), log1p (logarithm of one plus the distance from the control, one column a
        dimension), any (1 off the control: a jump), levels (1 for every level of a categorical
        dimension but the control), products of terms with ``*``; or ``arms`` alone (one column a
        candidate; no constant).
    space : the treatments it is defined on.

    Raises
    ------
    InvalidInputError : an unknown term, treatment or knot, a treatment that no term uses, or two
        columns that have one name.

    Examples
    --------
    >>> dimension = {"kind": "continuous", "lower": 0, "upper": 2, "control": 0}
    >>> space = TreatmentSpace.from_dict({"t1": dimension, "t2": dimension})
    >>> basis = Basis("quadratic", space)
    >>> basis.columns
    ('1', 't1', 't2', 't1^2', 't1 t2', 't2^2')
    >>> basis(np.array([[1.0, 2.0]]))
    array([[1., 1., 2., 1., 2., 4.]])
    """

    name: str
    space: TreatmentSpace

    def __post_init__(self) -> None:
        terms = self.terms
        if "arms" in terms and len(terms) > 1:
            raise InvalidInputError(
                f"basis '{self.name}': arms has one column a candidate and cannot be joined with "
                "other terms"
            )
        if not self.is_arms:
            _ = self._columns

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms of the name."""
        return tuple(term.strip() for term in self.name.split("+"))

    @property
    def is_arms(self) -> bool:
        """Whether the basis has one column a candidate, and no constant."""
        return self.terms == ("arms",)

    @cached_property
    def _factors(self) -> tuple[tuple[Factor, ...], ...]:
        return parse(self.name, self.space)

    @cached_property
    def jumps(self) -> tuple[tuple[int, ...], ...]:
        """The dimensions of every term that jumps off the control: ``any``."""
        factors = () if self.is_arms else self._factors
        found = (factor.dimensions for term in factors for factor in term if factor.kind == "any")
        return tuple(dict.fromkeys(found))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Readable names of the p columns."""
        if self.is_arms:
            return tuple(self.space.describe(candidate) for candidate in self.space.candidates)
        return tuple(self._columns[0])

    @property
    def size(self) -> int:
        """p, the number of columns."""
        return len(self.columns)

    @cached_property
    def by_name(self) -> IntArray:
        """(p,) positions of the columns, in their order where treatments are declared by name.

        What takes columns one after another (whitening) takes them in this order, so that learners
        give the same responses whatever the order of treatments in a configuration. Arms, columns
        of equal rank, stay in theirs.
        """
        if not self.is_arms:
            same = Basis(
                self.name,
                TreatmentSpace(tuple(sorted(self.space.dimensions, key=lambda d: d.name))),
            )
            own, other = (
                [sorted(re.split(r"[ ,()]+", label)) for label in basis.columns]
                for basis in (self, same)
            )
            order = [own.index(parts) for parts in other if parts in own]
            if sorted(order) == list(range(self.size)):
                return np.array(order, dtype=np.int64)
        return np.arange(self.size)

    @cached_property
    def constant(self) -> FloatArray:
        """(p,) the coefficients with which the columns add up to one at every treatment."""
        constant = np.ones(self.size) if self.is_arms else np.eye(self.size)[0]
        constant.flags.writeable = False
        return constant

    def __call__(self, treatments: FloatArray) -> FloatArray:
        """Return φ at encoded treatments (n, d) as (n, p).

        Raises
        ------
        InvalidInputError : basis ``arms`` at a treatment that is no candidate.
        """
        treatments = np.atleast_2d(np.asarray(treatments, dtype=np.float64))
        if self.is_arms:
            return self._arms(treatments)
        parts = [np.ones((len(treatments), 1))]
        for term, fresh in zip(self._factors, self._columns[1], strict=True):
            values = term_values(term, treatments, self.space)
            parts.append(values if len(fresh) == values.shape[1] else values[:, fresh])
        return np.hstack(parts)

    @cached_property
    def _columns(self) -> tuple[list[str], list[IntArray]]:
        """The names of the columns, and which columns of every term are new."""
        known, fresh = {_CONSTANT: "1"}, []
        for term in self._factors:
            new = []
            for position, column in enumerate(term_columns(term, self.space)):
                if column.what not in known:
                    known[column.what] = column.label
                    new.append(position)
            fresh.append(np.array(new, dtype=np.intp))
        names = list(known.values())
        if len(set(names)) < len(names):
            name = Counter(names).most_common(1)[0][0]
            raise InvalidInputError(
                f"basis '{self.name}': two different columns are called '{name}', expected names "
                "of treatments and levels that tell them apart; rename one"
            )
        return names, fresh

    def _arms(self, treatments: FloatArray) -> FloatArray:
        # a treatment belongs to the candidate that it is stored as; candidates are few and distinct
        candidates = self.space.candidates
        distance = np.zeros((len(treatments), len(candidates)))
        for given, offered, width in zip(
            treatments.T, candidates.T, self.space.widths, strict=True
        ):
            np.maximum(distance, np.abs(given[:, None] - offered) / width, out=distance)
        arm = distance.argmin(axis=1)
        stray = distance[np.arange(len(arm)), arm] > STORED
        if stray.any():
            place = self.space.describe(treatments[np.flatnonzero(stray)[0]])
            raise InvalidInputError(
                f"basis 'arms': {place} is not one of the {len(candidates)} candidates"
            )
        return np.asarray(np.eye(len(candidates))[arm])


def place_knots(name: str, space: TreatmentSpace, treatments: FloatArray) -> str:
    """Return a basis name whose splines have their knots spelled out.

    They lie at the quartiles of the observed treatments; the name alone then fixes φ. Splines with
    knots and other terms stay as they are; a spline of a treatment with fewer than five distinct
    observed values gets the knots between them that it can carry.

    Parameters
    ----------
    name : of a basis.
    space : the treatments.
    treatments : (n, d) observed ones, encoded.
    """
    if "spline" not in name:
        return name
    terms = []
    for term in parse(name, space):
        factors = []
        for factor in term:
            if factor.kind != "spline" or factor.knots:
                factors.append([factor.text(space)])
                continue
            factors.append(
                [
                    _knotted(position, space, treatments[:, position])
                    for position in factor.dimensions
                ]
            )
        # a product of splines of several treatments is the sum of the products of each
        expanded = [""]
        for texts in factors:
            expanded = [f"{head} * {text}" if head else text for head in expanded for text in texts]
        terms += expanded
    return " + ".join(terms)


def separated(name: str, space: TreatmentSpace, treatments: FloatArray) -> str:
    """Return a basis name whose levels tell apart what the observed treatments do.

    Where a control has none of several categorical dimensions, the levels of each add up to one
    column: whoever is treated. Their ``levels`` become ``any``, the effect of being treated, and
    ``among``, what the levels differ by. Other terms, and products, stay as they are.

    Parameters
    ----------
    name : of a basis.
    space : the treatments.
    treatments : (n, d) observed ones, encoded.

    Examples
    --------
    >>> letter = {"kind": "categorical", "levels": ["none", "short", "long"], "control": "none"}
    >>> space = TreatmentSpace.from_dict({"letter": letter, "stamp": letter})
    >>> separated("levels", space, np.array([[0, 0], [1, 1], [1, 2], [2, 1], [2, 2]]))
    'any(letter, stamp) + among(letter, stamp)'
    >>> separated("levels", space, space.candidates)
    'levels'
    """
    off = np.unique(treatments, axis=0) != space.control
    terms, changed = [], False
    for term in parse(name, space):
        together: dict[bytes, list[str]] = {}
        if [factor.kind for factor in term] == ["levels"]:
            for j in term[0].dimensions:
                together.setdefault(off[:, j].tobytes(), []).append(space.names[j])
        if all(len(names) == 1 for names in together.values()):
            terms.append(" * ".join(factor.text(space) for factor in term))
            continue
        changed = True
        # in the order of names, whatever the order of treatments in a configuration
        for names in sorted(map(sorted, together.values())):
            kinds = ("levels",) if len(names) == 1 else ("any", "among")
            terms += [f"{kind}({', '.join(names)})" for kind in kinds]
    return " + ".join(terms) if changed else name


def candidate_bases(
    wanted: str | Sequence[str], space: TreatmentSpace, *, shaped: bool = False
) -> tuple[str, ...]:
    """Return the names of the bases to compare on a space.

    Parameters
    ----------
    wanted : one name, several, or ``auto``, which stands for a list that suits the space.
    space : the treatments.
    shaped : whether responses get a shape, which ``arms`` cannot have: ``auto`` leaves them out.
    """
    if wanted == "auto":
        suited = default_bases(space)
        return tuple(name for name in suited if not shaped or name != "arms") or suited
    return (wanted,) if isinstance(wanted, str) else tuple(wanted)


def default_bases(space: TreatmentSpace) -> tuple[str, ...]:
    """Return the bases that ``auto`` compares on a space, the smallest first."""
    categorical = [isinstance(d, Categorical) for d in space.dimensions]
    if all(categorical):
        # an experiment may have given what is excluded now: arms know nothing of it
        several = len(categorical) > 1 or space.exclude is not None
        if not several:
            return ("arms",)
        return ("levels", "arms") if _few_arms(space, _MOST_CELLS) else ("any", "levels")
    bases: tuple[str, ...] = ("linear", "quadratic", "any + quadratic", "spline")
    if any(categorical):
        smooth = ("linear", "quadratic", "spline")
        bases = tuple(f"levels {sign} {term}" for sign in ("+", "*") for term in smooth)
    listed = space.finite is not None and _few_arms(space, _MOST_ARMS)
    return (*bases, "arms") if listed else bases


def _few_arms(space: TreatmentSpace, most: int) -> bool:
    """Whether the candidates are few enough to try one column for each."""
    return space.searchable and len(space.candidates) <= most


def _knotted(position: int, space: TreatmentSpace, observed: FloatArray) -> str:
    lower, upper = space.bounds[position]
    inside = observed[(observed > lower) & (observed < upper)]
    places = np.quantile(inside, _KNOT_SHARES) if len(inside) else np.empty(0)
    # to a millionth of the range: columns of single precision hold 0.3 as 0.300000011920929
    decimals = 6 - floor(log10(upper - lower))
    places = np.unique(np.round(places, decimals))
    carried = max(
        len(np.unique(observed)) - 2, 0
    )  # a natural spline with k interior knots needs k + 2 values
    places = places[(places > lower) & (places < upper)][:carried]
    name = space.names[position]
    return (
        f"spline({', '.join([name, *(f'{place:.12g}' for place in places)])})"
        if len(places)
        else f"linear({name})"
    )
