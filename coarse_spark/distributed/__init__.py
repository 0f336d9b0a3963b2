"""Thin Spark glue: files map rows to functions of ``core`` and collect small results."""
