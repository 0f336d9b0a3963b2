"""Choose a menu of every size for the run of --run-id, or the only unfinished one.

spark-submit jobs/choose_menu.py --config conf/NAME.yml
"""

import sys

from coarse_spark.cli import main

main(["choose", *sys.argv[1:]])
