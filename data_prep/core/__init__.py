"""What the preparation of all data sets shares."""
