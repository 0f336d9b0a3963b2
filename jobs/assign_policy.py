"""Assign every unit a treatment of the selected menu, and publish.

spark-submit jobs/assign_policy.py --config conf/NAME.yml
"""

import sys

from coarse_spark.cli import main

main(["assign", *sys.argv[1:]])
