"""What remains of a training that the user interrupts."""

import os
import signal
import subprocess
import sys
import time

from tests.support import REPO
from tests.test_tools import CONFIG, short, train


def test_an_interrupted_training_ends_in_one_line_and_can_be_resumed(toy_root, tmp_path):
    command = [sys.executable, 'tools/train.py', CONFIG, '--work-dir', str(tmp_path)]
    log = tmp_path.with_suffix('.log')
    options = [*short(toy_root, 10000), 'train_dataloader.num_workers=1']
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    with log.open('w') as file:
        process = subprocess.Popen(
            [*command, '--cfg-options', *options],
            cwd=REPO,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            # Shells let background processes, such as these tests, ignore SIGINT.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            end = time.monotonic() + 120
            while not (tmp_path / 'iter_2.pth').exists():
                assert process.poll() is None, log.read_text()[-2000:]
                assert time.monotonic() < end, log.read_text()[-2000:]
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        finally:
            process.kill()
    text = log.read_text()
    assert text.strip().splitlines()[-1] == 'interrupted; to continue, run the same command with --resume'
    assert 'Traceback' not in text
    assert not list(tmp_path.rglob('*.part'))
    done = max(int(path.stem.partition('_')[2]) for path in tmp_path.glob('iter_*.pth'))
    resumed = train(toy_root, tmp_path, '--resume', iterations=done + 2)
    assert (tmp_path / f'iter_{done + 2}.pth').is_file()
    assert f'iter: {done}' in resumed.stdout + resumed.stderr
