"""Run all steps and publish.

spark-submit jobs/run_pipeline.py --config conf/NAME.yml
"""

import sys

from coarse_spark.cli import main

main(["run", *sys.argv[1:]])
