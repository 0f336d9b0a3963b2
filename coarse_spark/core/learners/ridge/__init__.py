"""Ridge regression of features ⊗ treatments from sums over rows that add up."""
