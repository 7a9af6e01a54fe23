"""Locks between processes, which the kernel frees when a process ends, however it does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def lock(file: int, wait: bool = True) -> bool:
    """Locks an open file until it is closed, in all processes that have inherited it.

    Where there are no locks, on Windows and in some network file systems, nothing is locked.

    Args:
        file: Its descriptor.
        wait: Whether to wait for another process that holds it.

    Returns:
        False where another process holds it and `wait` is off.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


@contextmanager
def held(path: Path, wait: bool = True) -> Iterator[bool]:
    """Holds a file of its own for the length of the block, and removes it at the end; on Windows there is no file.

    Args:
        path: The file, made if missing; its text may say who holds it.
        wait: Whether to wait for another process that holds it.

    Yields:
        False where another process holds it and `wait` is off; the file is its then.
    """
    if fcntl is None:
        yield True
        return
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            mine = lock(file, wait)
            # Another file, if the one who held it before has removed it meanwhile.
            if mine and not _is_at(path, file):
                continue
            try:
                yield mine
            finally:
                if mine:
                    path.unlink(missing_ok=True)
            return
        finally:
            os.close(file)


def _is_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False
