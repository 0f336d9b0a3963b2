"""Start a run: fit response models per partition and score the population.

spark-submit jobs/fit_responses.py --config conf/NAME.yml
"""

import sys

from coarse_spark.cli import main

main(["fit", *sys.argv[1:]])
