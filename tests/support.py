"""What several test modules use: where the repository is, and how to run its tools."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]


def run_tool(*command: object, cwd: Path = REPO, env: dict | None = None, check: bool = True):
    """Runs a tool of the repository as a user would; returns the finished process with its output as text."""
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', **(env or {})}
    environment['PATH'] = f'{Path(sys.executable).parent}{os.pathsep}{environment["PATH"]}'
    environment['PYTHON'] = sys.executable
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600
    )
    if check and done.returncode != 0:
        raise AssertionError(f'{command} ended with {done.returncode}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}')
    return done
