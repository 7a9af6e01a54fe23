"""tools/test.py and tools/predict.py, each in a process of its own on the toy set: they give the same classes."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support import run_tool
from tests.test_tools import CONFIG, short, train

SLIDE = ['model.test_cfg.mode=slide', 'model.test_cfg.crop_size=(40,40)', 'model.test_cfg.stride=(27,27)']
#: The toy images have 64 x 64 = 4096 pixels.
CASES = {
    'whole': [],
    'whole, too large': ['model.test_cfg.max_pixels=4095', *SLIDE[1:]],
    'slide': SLIDE,
    'slide, too large': [*SLIDE, 'model.test_cfg.max_pixels=4095', 'model.test_cfg.blend=hann'],
}


@pytest.fixture(scope='module')
def checkpoint(toy_root, tmp_path_factory) -> Path:
    """Weights after two iterations."""
    work_dir = tmp_path_factory.mktemp('trained')
    train(toy_root, work_dir, iterations=2)
    return work_dir / 'iter_2.pth'


def run_test(toy_root, checkpoint, work_dir, *options: str, overrides: list[str]):
    return run_tool(
        'python', 'tools/test.py', CONFIG, checkpoint, '--work-dir', work_dir, '--out', work_dir / 'index', *options,
        '--cfg-options', *short(toy_root, 2), *overrides,
    )  # fmt: skip


def maps(folder: Path) -> np.ndarray:
    """Index maps of the five test images, (5, 64, 64)."""
    paths = sorted(path for path in folder.glob('*.png') if not path.stem.endswith('_overlay'))
    return np.stack([cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in paths])


@pytest.mark.parametrize('case', CASES)
def test_test_and_predict_give_identical_classes(toy_root, checkpoint, tmp_path, case):
    tta = ['--tta'] if case == 'slide' else []
    run_test(toy_root, checkpoint, tmp_path, *tta, overrides=CASES[case])
    overrides = ['--cfg-options', *CASES[case]] if CASES[case] else []
    run_tool(
        'python', 'tools/predict.py', checkpoint, toy_root / 'test/images', '--out-dir', tmp_path / 'out', *tta,
        *overrides,
    )  # fmt: skip
    tested = maps(tmp_path / 'index')
    assert tested.shape == (5, 64, 64)
    assert np.array_equal(maps(tmp_path / 'out'), tested)
    assert len(np.unique(tested)) > 1
    assert 'Prediction' in next(tmp_path.glob('*.py')).read_text()  # the dumped config shows the loop


def test_batches_of_small_images_give_the_same_classes(toy_root, checkpoint, tmp_path):
    for size in (1, 4):
        run_tool(
            'python', 'tools/predict.py', checkpoint, toy_root / 'test/images', '--out-dir', tmp_path / str(size),
            '--batch-size', size,
        )  # fmt: skip
    assert (maps(tmp_path / '1') == maps(tmp_path / '4')).mean() > 0.999


def test_an_unknown_view_is_one_line(toy_root, checkpoint, tmp_path):
    done = run_tool(
        'python', 'tools/predict.py', checkpoint, toy_root / 'test/images', '--out-dir', tmp_path, '--tta',
        '--cfg-options', 'tta_cfg.views=d5', check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "tta_cfg.views is 'd5'; expected one of none, hflip, flips, d4" in done.stderr
    assert 'Traceback' not in done.stderr
