"""Menus: which K treatments to offer and who gets which.

The way through: ``choose`` (public entry) puts a population into a ``problem``, adds ``rules`` and compresses it to a ``sketch``;
``curve`` searches menus of all sizes there, by the dynamic program of ``exact`` or the starts and swaps of ``search``; ``lloyd``
refines them on all units, ``climb`` finding the treatments between candidates; ``certificate`` and ``rounding`` bound what any
menu could earn; ``result`` is what comes out. Under ``limits``, ``constrained`` and ``budget`` search by ``transport``
(``limited``), with ``milp`` as an oracle. ``stability`` and ``debiased`` deal with responses that are estimates.
"""
