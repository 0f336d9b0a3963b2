"""Given treatments: who takes which, within limits on shares and a budget.

``assign`` is the entry; ``transport`` keeps limits on shares, ``budget_price`` finds the price at
which a budget is kept, ``feasible`` says which limits eligibility does not allow to keep.
"""
