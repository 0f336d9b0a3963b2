"""What a person sees of a run: the summary on the terminal and the page. No pyspark here."""
