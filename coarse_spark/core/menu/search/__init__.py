"""The search for menus on weighted units.

``search`` finds the menus of all sizes: by the dynamic program of ``exact`` along one dimension,
else from ``starts`` by swaps on a ``table`` of profits and by the loop of ``lloyd``, whose
``steps`` say how units are assigned. ``budget`` searches the price of spending around all that.
"""
