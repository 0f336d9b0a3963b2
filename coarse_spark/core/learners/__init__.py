"""Learners of varying-coefficient responses E[y | x, t] = φ(t)·θ(x)."""
