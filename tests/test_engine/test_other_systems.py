"""Systems without the modules of Unix, such as Windows."""

import sys

from lale_mmseg.files import write_atomic
from tests.support import run_tool

#: Hides a module that Windows lacks, then imports all and trains.
SCRIPT = """
import sys
sys.modules['fcntl'] = None
from pathlib import Path
import lale_mmseg.register
from tests.test_engine.tiny_run import train
train(Path(sys.argv[1]), 1)
"""


def test_training_needs_no_unix_module(tmp_path):
    run_tool(sys.executable, '-c', SCRIPT, tmp_path, env=dict(CUDA_VISIBLE_DEVICES=''))


def test_temporary_names_differ_even_if_process_numbers_do_not(tmp_path, monkeypatch):
    """Processes of two machines that write to a shared folder may have the same number."""
    used = []
    monkeypatch.setattr('lale_mmseg.files.os.replace', lambda source, target: used.append(source.name))
    monkeypatch.setattr('lale_mmseg.files.os.getpid', lambda: 7)
    for _ in range(2):
        write_atomic(tmp_path / 'a.txt', 'x')
    assert len(set(used)) == 2
    assert all(name.startswith('.a.txt.7.') and name.endswith('.tmp') for name in used)
    assert list(tmp_path.iterdir()) == []
