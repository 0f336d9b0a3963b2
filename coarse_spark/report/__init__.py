"""What a person sees of a run: the summary on the terminal and the page. Nothing in this package imports pyspark."""
