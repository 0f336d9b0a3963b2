"""The steps. Each is a function of a run: it reads the tables of the steps before it and replaces the run's rows in its own."""
