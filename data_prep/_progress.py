"""Progress bars with the time left, and work shared out to processes."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import cv2
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lale_mmseg.errors import ConfigError

Job = TypeVar('Job')
Result = TypeVar('Result')


@contextmanager
def progress_bar(title: str, total: int | None, unit: str = 'files') -> Iterator[Callable[[int], None]]:
    """Shows a bar on stderr; the function that it gives advances it by a number of units."""
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn('left'),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)


def default_workers() -> int:
    """Number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def check_workers(workers: int | None) -> int:
    """The number of processes to use; None means one for each CPU."""
    if workers is None:
        return default_workers()
    if workers < 1:
        raise ConfigError(f'--workers {workers}: at least 1 is due')
    return workers


def map_jobs(
    function: Callable[[Job], Result],
    jobs: Iterable[Job],
    workers: int,
    chunks_ahead: int = 4,
    threads: bool = False,
    stop: Callable[[], None] | None = None,
) -> Iterator[Result]:
    """Results of `function` over `jobs`, in order, from `workers` processes (in this process if it is one).

    At most `chunks_ahead` jobs for each process are under way, so memory does not grow with their number.

    Args:
        function: What is done; it can be pickled unless `threads` is on.
        jobs: Its arguments.
        workers: Number of processes or threads.
        chunks_ahead: Jobs under way for each of them.
        threads: Use threads of this process, which share its memory: for work that is done outside of Python, such as
            reading, packing and writing images.
        stop: Called when no more results are wanted, because all are there or something was raised; tells jobs that
            are running to end early.
    """
    if workers == 1:
        yield from map(function, jobs)
        return
    with _pool(workers, threads) as pool:
        pending: deque[Future[Result]] = deque()
        try:
            for job in jobs:
                pending.append(pool.submit(function, job))
                if len(pending) >= workers * chunks_ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
            if stop is not None:
                stop()


def _pool(workers: int, threads: bool) -> Executor:
    if threads:
        return ThreadPoolExecutor(workers)
    # "spawn": a forked child would inherit the locks of the progress bar's and OpenCV's threads.
    context = multiprocessing.get_context('spawn')
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_single_thread)


def _single_thread() -> None:
    cv2.setNumThreads(1)
