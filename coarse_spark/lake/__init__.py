"""Where data lives: the Spark session, Delta tables with their schemas, and the record of runs."""
