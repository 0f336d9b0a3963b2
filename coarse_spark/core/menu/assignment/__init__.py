"""Given treatments: who takes which, within limits on shares and on totals such as a budget.

``assign`` is the entry; ``transport`` keeps limits on shares, ``limit_price`` finds the price at
which one limit on a total is kept, ``programme`` those of several; ``feasible`` says which limits
eligibility does not allow to keep.
"""
