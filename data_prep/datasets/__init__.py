"""What is particular to each dataset."""
