"""What the preparation of all datasets shares."""
