"""Policy trees: a shallow tree over features says who gets which treatment of a menu.

Causality ends at a matrix of profits, one row a unit and one column a treatment [1, 2]. In the
order to read: ``cells`` cuts features into cells, ``search`` grows the tree that earns most,
``rule`` is what it says as conditions on features, ``sql`` writes it, ``menu_rule`` fits it to a
menu.

References
----------
1. Athey, S. & Wager, S. (2021), Policy Learning with Observational Data, Econometrica 89(1).
2. Zhou, Z., Athey, S. & Wager, S. (2023), Offline Multi-Action Policy Learning: Generalization and
   Optimization, Operations Research 71(1).
"""
