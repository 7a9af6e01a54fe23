"""Benchmarks; `python -m benchmarks.NAME --save` writes the results to benchmarks/results."""
