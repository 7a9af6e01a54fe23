"""Progress bars with the estimated time left, and work spread over threads or processes."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import cv2
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Job = TypeVar('Job')
Result = TypeVar('Result')


@contextmanager
def progress_bar(title: str, total: int, unit: str = 'files') -> Iterator[Callable[[int], None]]:
    """Shows a progress bar on stderr; yields a function that advances it by a number of units."""
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


def count_cpus() -> int:
    """Number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def map_jobs(
    title: str,
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int | None,
    threads: bool = False,
    unit: str = 'files',
) -> Iterator[Result]:
    """Yields the results of `function` over `jobs` in order, and shows a progress bar.

    After an error no further job is started, those under way finish, and the error is raised.

    Args:
        title: Text beside the progress bar.
        function: Must be picklable unless `threads` is True.
        jobs: Arguments of `function`.
        workers: Number of processes or threads, None for one per CPU; 1 runs everything in the calling thread.
        threads: Use threads. They suit work that releases the GIL, such as reading, compressing and writing images.
        unit: Name of what the progress bar counts.
    """
    workers = min(workers or count_cpus(), len(jobs))
    with progress_bar(title, len(jobs), unit) as advance:
        for result in map(function, jobs) if workers <= 1 else _map_parallel(function, jobs, workers, threads):
            yield result
            advance(1)


def _map_parallel(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int, threads: bool
) -> Iterator[Result]:
    pending: deque[Future[Result]] = deque()
    pool = _pool(workers, threads)
    try:
        for job in jobs:
            pending.append(pool.submit(function, job))
            # A bounded queue keeps memory independent of the number of jobs.
            if len(pending) >= 4 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(workers: int, threads: bool) -> Executor:
    if threads:
        return ThreadPoolExecutor(workers)
    # "spawn": a forked child would inherit locks held by threads of the progress bar and of OpenCV.
    context = multiprocessing.get_context('spawn')
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_use_one_thread)


def _use_one_thread() -> None:
    cv2.setNumThreads(1)
