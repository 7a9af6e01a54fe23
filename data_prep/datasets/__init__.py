"""What is particular to each data set."""
