"""Made scenes in the format of ARAS400k: land cover, and its satellite image."""
