"""Simulated data with known responses, for the command ``simulate``, tests and benchmarks.

``field`` and ``promotions`` make frames and know no Spark; ``tables`` writes promotions to Delta.
"""
