"""Boosting of coefficient functions by shallow trees with vector leaves."""
