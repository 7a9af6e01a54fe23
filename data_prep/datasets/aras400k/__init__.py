"""ARAS400k: published archives, parquet shards, and raw rasters."""
