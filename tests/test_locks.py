"""Locks that processes hold against each other."""

import os
import subprocess
import sys

import pytest

from lale_mmseg import locks

HOLDER = """
import sys
from pathlib import Path
from lale_mmseg.locks import held
with held(Path(sys.argv[1])):
    print('held', flush=True)
    sys.stdin.read()
"""


@pytest.fixture(name='holder')
def holding(tmp_path):
    """Another process that holds a file until its input ends."""
    with subprocess.Popen(
        [sys.executable, '-c', HOLDER, tmp_path / 'lock'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == 'held\n'
        yield process
        process.kill()


def test_a_file_is_held_by_one_process(tmp_path, holder):
    path = tmp_path / 'lock'
    with locks.held(path, wait=False) as mine:
        assert not mine
    assert path.exists()  # it is of the other one
    holder.communicate()
    assert not path.exists()
    with locks.held(path, wait=False) as mine:
        assert mine
        assert path.exists()
    assert not path.exists()


def test_a_killed_process_holds_nothing(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert (tmp_path / 'lock').exists()
    with locks.held(tmp_path / 'lock', wait=False) as mine:
        assert mine


def test_a_file_that_was_removed_meanwhile_is_not_held(tmp_path, monkeypatch):
    """The one who held it removes it after this process has opened it: the lock would be of a file without a name."""
    path, opened = tmp_path / 'lock', []
    real = locks.lock

    def removed_before(file, wait):
        opened.append(os.fstat(file).st_ino)
        if len(opened) == 1:
            (tmp_path / 'other').touch()  # keeps the number from being given again
            os.rename(path, tmp_path / 'gone')
        return real(file, wait)

    monkeypatch.setattr(locks, 'lock', removed_before)
    with locks.held(path):
        assert path.stat().st_ino == opened[1] != opened[0]


def test_errors_in_the_block_free_it(tmp_path):
    with pytest.raises(ZeroDivisionError), locks.held(tmp_path / 'lock'):
        _ = 1 / 0
    assert not (tmp_path / 'lock').exists()


def test_nothing_is_locked_where_there_are_no_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, 'fcntl', None)
    with locks.held(tmp_path / 'lock') as one, locks.held(tmp_path / 'lock', wait=False) as other:
        assert one
        assert other
        assert not (tmp_path / 'lock').exists()  # an open file cannot be removed on Windows
