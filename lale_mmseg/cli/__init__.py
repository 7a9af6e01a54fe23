"""The commands behind tools/*.py and the console scripts `lale-train`, `lale-test` and `lale-predict`."""

import os

# Read when torch is loaded. Threads that wait actively take the cores from other processes, which then make them wait:
# benchmarks/threads.py.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

# The framework is adapted before any command imports it.
from .. import register  # noqa: F401
