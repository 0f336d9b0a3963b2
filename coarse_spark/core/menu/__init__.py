"""Menus: which K treatments to offer, and who gets which.

In the order to read them:

problem : what menus are chosen from: candidates with their profit rows ψ, the rules of units (one
    coefficient and one entry of ψ each), limits as users write them and of the K places.
units : weighted units, the sums over segments that tell all of a menu's profit, who prefers what.
assignment : given treatments: who takes which, within limits on shares and on totals.
menu : ``PricedMenu``, K treatments with limits and prices; ``Menu``, the result.
sketch : a population of any size as a few thousand weighted units.
search : menus of all sizes on weighted units: starts, swaps and one Lloyd's loop with three steps.
certificate : what no menu of a size can exceed.
population : the five questions that a population answers (size, sample, sketch, sums, boundary),
    and ``ArrayPopulation``, which has its units in memory.
tried_prices : prices of limits from one pass to the next.
settle : limits kept to the unit.
choose : ``choose_menus``, the one driver over any population, and ``choose_menu`` for arrays.
extend : further units for a menu that stays.
stability : menus of resampled populations.

A *treatment* is a point of the space, a *candidate* one of its grid, the *control* being left
alone. *Required* treatments are on every menu. A *price* λ belongs to a share, a *limit price* μ to
one more of what counts against a limit on a total, such as money of a budget. Units at the
*boundary* are nearly indifferent. A *pass* reads the population once.
"""
