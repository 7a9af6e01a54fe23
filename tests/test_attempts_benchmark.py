"""The comparison of attempts in one command: what it keeps of an earlier one, and what it refuses."""

import json
from pathlib import Path

import pytest

from benchmarks import attempts
from lale_mmseg.errors import ConfigError


@pytest.fixture
def compare(tmp_path, monkeypatch):
    """Runs the script with tools that leave the files of a training and a test; returns the tools that it ran."""
    done = []

    def run(tool, *words):
        done.append(Path(tool).name)
        words = [str(word) for word in words]
        if '--work-dir' in words:
            folder = Path(words[words.index('--work-dir') + 1])
            (folder / 'test').mkdir(parents=True, exist_ok=True)
            (folder / ('best_mIoU_epoch_1.pth' if 'train' in tool else 'test/metrics.json')).touch()

    def call(*options):
        done.clear()
        words = [tmp_path / 'data', '--attempts', 'unet_c32', '--work-dir', tmp_path / 'work', *options]
        monkeypatch.setattr('sys.argv', ['attempts.py', *map(str, words)])
        attempts.main()
        return list(done)

    monkeypatch.setattr(attempts, 'run', run)
    return call


def test_finished_attempts_of_the_same_command_are_kept(compare):
    assert compare() == ['train.py', 'test.py', 'compare_attempts.py']
    assert compare() == ['compare_attempts.py']
    assert compare('--seeds', 42, 43) == ['train.py', 'test.py', 'compare_attempts.py']


@pytest.mark.parametrize(
    ('options', 'field'),
    [
        (['--epochs', 9], 'epochs 5, now 9'),
        (['--random-init'], 'random_init False, now True'),
        (['--options', 'optim_wrapper.optimizer.lr=1'], r'options \[\], now \['),
    ],
)
def test_scores_of_another_command_are_refused(compare, options, field):
    compare()
    with pytest.raises(ConfigError, match=rf'unet_c32_seed-42: was made with another command \({field}'):
        compare(*options)


def test_scores_of_other_data_or_unknown_ones_are_refused(compare, tmp_path):
    compare()
    path = tmp_path / 'work' / 'unet_c32_seed-42' / 'attempt.json'
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, 'data_root': '/elsewhere'}))
    with pytest.raises(ConfigError, match="data_root '/elsewhere', now "):
        compare()
    path.unlink()
    with pytest.raises(ConfigError, match=r"epochs 'unknown', now 5"):
        compare()


def test_a_command_that_was_refused_leaves_no_claim(compare, tmp_path):
    compare('--seeds', 43)
    with pytest.raises(ConfigError, match='seed-43: was made with another'):
        compare('--seeds', 42, 43, '--epochs', 9)
    assert compare('--seeds', 42, 43) == ['train.py', 'test.py', 'compare_attempts.py']
