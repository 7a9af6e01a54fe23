"""Times functions against each other in one process, and writes results with the environment they were measured in."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / 'results'


def interleaved_medians(
    functions: Mapping[str, Callable[[], Any]], repeats: int = 50, warmup: int = 3, pause: float = 0.01
) -> dict[str, float]:
    """Median seconds of each function. Runs alternate (A B A B ...), so a slow phase of the machine affects them all.

    Args:
        functions: Functions to time, by name.
        repeats: Number of timed runs of each function.
        warmup: Number of runs of each function before that, not timed.
        pause: Seconds to wait before each run. OpenMP threads keep their core busy for some milliseconds after their
            last work, which would slow down the next function.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(warmup + repeats):
        for name, function in functions.items():
            # A busy loop instead of a sleep: a core is slow right after it slept.
            resume = time.perf_counter() + pause
            while time.perf_counter() < resume:
                pass
            start = time.perf_counter()
            function()
            elapsed = time.perf_counter() - start
            if turn >= warmup:
                seconds[name].append(elapsed)
    return {name: statistics.median(values) for name, values in seconds.items()}


def table_text(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table with aligned columns; all cells are right-aligned."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        '| ' + ' | '.join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) + ' |' for row in cells
    ]
    lines.insert(1, '|' + '|'.join('-' * (width + 1) + ':' for width in widths) + '|')
    return '\n'.join(lines)


def environment() -> dict[str, Any]:
    """Commit, command, date and machine of this run."""
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return {
        'command': _command(),
        'commit': _commit(),
        'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'cpu': _cpu_model(),
        'cores': os.cpu_count(),
        'memory_gib': round(memory / 2**30, 1),
        'gpu': torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        'python': platform.python_version(),
        'torch': torch.__version__,
        'torch_threads': torch.get_num_threads(),
        'load_average': round(os.getloadavg()[0], 2),
    }


def write_result(name: str, values: dict[str, Any], text: str) -> list[Path]:
    """Writes benchmarks/results/NAME.json (values and environment) and NAME.md (text and environment).

    Args:
        name: Name of the benchmark.
        values: The measurements, as plain JSON types.
        text: The measurements as readable text, in Markdown.

    Returns:
        Paths of the two files.
    """
    where = environment()
    lines = [f'# {name}', '', text, '', *(f'- {key}: {value}' for key, value in where.items()), '']
    contents = {
        RESULTS / f'{name}.json': json.dumps({'environment': where, 'values': values}, indent=2) + '\n',
        RESULTS / f'{name}.md': '\n'.join(lines),
    }
    RESULTS.mkdir(exist_ok=True)
    for path, content in contents.items():
        temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
        temporary.write_text(content, encoding='utf-8')
        os.replace(temporary, path)
    return list(contents)


def _command() -> str:
    # Works for `python -m benchmarks.NAME` and `python benchmarks/NAME.py`; leaves out absolute paths of this machine.
    script = Path(sys.argv[0]).resolve()
    shown = script.relative_to(REPOSITORY) if script.is_relative_to(REPOSITORY) else Path(script.name)
    return ' '.join(['python', str(shown), *sys.argv[1:]])


def _commit() -> str:
    """The git commit, marked `-dirty` if the working tree differs from it; benchmarks/results is ignored."""
    try:
        commit = _git('rev-parse', 'HEAD')
        changed = _git('status', '--porcelain', '--', '.', ':!benchmarks/results')
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'
    return f'{commit}-dirty' if changed else commit


def _git(*arguments: str) -> str:
    command = ['git', '-C', str(REPOSITORY), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _cpu_model() -> str:
    cpuinfo = Path('/proc/cpuinfo')
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding='utf-8').splitlines():
            if line.startswith('model name'):
                return line.split(':', 1)[1].strip()
    return platform.processor() or platform.machine()
