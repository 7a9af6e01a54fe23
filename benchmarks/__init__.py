"""Measurements; `python -m benchmarks.NAME --save` writes what one found into benchmarks/results."""
