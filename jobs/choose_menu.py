"""Choose a menu of every size for the last run, or the one of --run-id.

spark-submit jobs/choose_menu.py --config conf/NAME.yml
"""

import sys

from coarse_spark.cli import main

main(["choose", *sys.argv[1:]])
