"""The lock of held-out test splits: a dataset of one can read it only while a test runs.

A protocol that reads its test split once, after all tuning, needs more than good intentions: training and tuning build
datasets from configs, and a config can name any split. So a dataset asks here before it lists the files of a held-out
split, and only `LALERunner.test`, which keeps a ledger of such reads, opens the lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import ConfigError

_open = False


@contextmanager
def opened() -> Iterator[None]:
    """Opens the lock for the length of the block."""
    global _open
    before, _open = _open, True
    try:
        yield
    finally:
        _open = before


def require_open(what: str) -> None:
    """Raises ConfigError unless the lock is open.

    Args:
        what: Dataset and split, for the message.
    """
    if not _open:
        raise ConfigError(
            f'{what} is held out: it is read by tools/test.py alone, after all training and tuning, and each read is '
            'noted in the work dir, beside the checkpoint and in the data folder; train on '
            "split='train' and choose by split='val'"
        )
