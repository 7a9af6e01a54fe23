"""What several test modules use: where the repository is, and how to run its tools."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
TIMEOUT = 600

# Each tool runs in a process of its own, forked from one that has imported the package: an import takes 6 s of CPU.
_STARTS = multiprocessing.get_context('forkserver')
_STARTS.set_forkserver_preload(['lale_mmseg.register'])


def run_tool(*command: object, cwd: Path = REPO, env: dict | None = None, check: bool = True):
    """Runs a tool of the repository as a user would; returns the finished process with its output as text."""
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', **(env or {})}
    environment['PATH'] = f'{Path(sys.executable).parent}{os.pathsep}{environment["PATH"]}'
    environment['PYTHON'] = sys.executable
    words = [str(part) for part in command]
    if words[0] == 'python' and words[1].endswith('.py'):
        done = run_script(words[1:], cwd, environment)
    else:
        done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    if check and done.returncode != 0:
        raise AssertionError(f'{command} ended with {done.returncode}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}')
    return done


def run_script(words: list[str], cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
    """Runs a script with its arguments in a forked process."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, 'stdout'), Path(folder, 'stderr')]
        process = _STARTS.Process(target=_run, args=(words, str(cwd), environment, [str(path) for path in outputs]))
        process.start()
        process.join(TIMEOUT)
        if process.exitcode is None:
            process.kill()
            process.join()
        texts = [path.read_text() if path.exists() else '' for path in outputs]
    return subprocess.CompletedProcess(words, process.exitcode, *texts)


def _run(words: list[str], cwd: str, environment: dict[str, str], outputs: list[str]) -> None:
    for number, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    script = os.path.abspath(words[0])
    sys.argv = words
    sys.path.insert(0, os.path.dirname(script))
    runpy.run_path(script, run_name='__main__')
