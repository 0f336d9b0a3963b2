"""What a menu is chosen from: space, basis and profit, the rules that hold for units, and limits.

``problem`` puts them together, ``rules`` are coefficients of units beside those of the basis,
``limits`` are what users ask of shares and spending, ``polish`` finds treatments between the
candidates.
"""
