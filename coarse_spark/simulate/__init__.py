"""Simulated tables with known responses."""
