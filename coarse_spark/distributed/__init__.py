"""Thin Spark glue: each file maps rows to a function of ``core`` and collects small results. DataFrame API only."""
