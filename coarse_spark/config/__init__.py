"""The configuration of a run: what a YAML file may say, and every problem in it reported at once. Knows no Spark."""
