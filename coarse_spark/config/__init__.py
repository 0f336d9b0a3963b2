"""The configuration of a run: what a YAML file may say, and all its problems at once. No Spark."""
