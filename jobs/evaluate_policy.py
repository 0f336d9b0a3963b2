"""Estimate honest values and select the menu size.

spark-submit jobs/evaluate_policy.py --config conf/NAME.yml
"""

import sys

from coarse_spark.cli import main

main(["evaluate", *sys.argv[1:]])
