"""The mathematics: numpy in, numpy out. Nothing in this package imports pyspark."""
