"""Scripts that bring each dataset into the layout that the configs read, and that check data before training."""
