"""The steps, each a function of a run.

A step reads the tables of the steps before it and replaces the run's rows in its own.
"""
