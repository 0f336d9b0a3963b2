"""Learners of varying-coefficient responses E[y | x, t] = φ(t)·θ(x).

Words
-----
trial rows : features X, treatments T, outcomes y, weights and strata of an experiment's units.
fold : units that a model must not have seen when it judges them; ``ALL_FOLDS`` stands for none.
part : a piece of a fold, held out to choose penalties, rounds and weights inside a fit.
whitened : in columns z = W φ(t) that are uncorrelated in the experiment; θ_z are their
    coefficients. The first is the baseline E[y | x], the others are effects.
encoding : features as numbers f(x), f₀ = 1; a coefficient function is C f(x).
sieve : ridge regression on f(x) ⊗ z(t), solved from sums over rows.
booster : trees whose leaves hold coefficients.
pooled model : the sieve of all partitions, which the models of partitions may lean on.
scale : additive, or in proportion to a baseline b(x) (relative) or to b (1 − b) (logistic), which
    is divided out of the outcome.
member, blend : a fit and its share, weighed by what it predicts for held-out rows.
record : a fitted model as plain values, a row of the models table.

To read, from the outside in
----------------------------
1. ``response`` : the learner as users call it; ``settings``, ``choose_basis`` and
   ``choose_scale`` are its choices.
2. ``crossfit`` : one model a fold, in memory or from sums over many machines; ``folds``.
3. ``encoding`` : ``rows``, ``features``, ``whitening``, ``baseline`` (of responses that are not
   additive) and ``screening``, put together by ``preparation``.
4. ``ridge`` : ``gram`` (the sums), ``penalties`` (empirical Bayes) and ``axes``; the ``sieve`` is
   made of them.
5. ``boosting`` : ``trees`` and the ``booster``.
6. ``stack`` : all members weighed against each other by ``blend``, the ``pooled`` model among them.
7. ``model`` : the fitted model, its ``shape`` and its ``record``.
"""
