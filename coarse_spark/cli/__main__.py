"""``python -m coarse_spark.cli`` is ``coarse-spark``."""

from coarse_spark.cli import main

if __name__ == "__main__":
    main()
