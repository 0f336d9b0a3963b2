"""Upper bounds on what any menu of a size can earn within its limits.

``bound`` is the entry and the mathematics; ``rounding`` extends it to treatments between the
candidates, with ``cut_cells`` where exclusions and rules cut the grid; ``single_precision`` makes
one pass over many units cheap.
"""
