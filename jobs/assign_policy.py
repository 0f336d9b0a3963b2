"""Assign every unit a treatment for the last run, or --run-id: spark-submit jobs/assign_policy.py --config conf/NAME.yml."""

import sys

from coarse_spark.cli import main

main(["assign", *sys.argv[1:]])
