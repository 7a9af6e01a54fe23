"""Slide mode and its test-time augmentation through tools/test.py, on the toy set."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from lale_mmseg.errors import ConfigError
from lale_mmseg.inference import Predictor
from tests.support import REPO, run_tool
from tests.test_docs import load_script
from tests.test_tools import CONFIG, short, train

SLIDE = [
    'model.type=SlidingEncoderDecoder',
    'model.test_cfg.mode=slide',
    'model.test_cfg.crop_size=(64,64)',
    'model.test_cfg.stride=(43,43)',
]


@pytest.fixture(scope='module')
def checkpoint(toy_root, tmp_path_factory):
    """Weights after two iterations."""
    work_dir = tmp_path_factory.mktemp('trained')
    train(toy_root, work_dir, iterations=2)
    return work_dir / 'iter_2.pth'


def run_test(toy_root, checkpoint, work_dir, *options: str, overrides: list[str] = [], check: bool = True):
    return run_tool(
        'python', 'tools/test.py', CONFIG, checkpoint, '--work-dir', work_dir, *options,
        '--cfg-options', *short(toy_root, 2), *overrides, check=check,
    )  # fmt: skip


def test_windows_as_large_as_the_images_score_as_whole_images(toy_root, checkpoint, tmp_path):
    run_test(toy_root, checkpoint, tmp_path / 'whole')
    run_test(toy_root, checkpoint, tmp_path / 'slide', overrides=SLIDE)
    tables = [(tmp_path / mode / 'test/confusion_matrix.csv').read_text() for mode in ('whole', 'slide')]
    assert tables[0] == tables[1]


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['slide', 'whole'])
def test_tta_of_windows_averages_the_views_of_tta_cfg(toy_root, checkpoint, tmp_path, mode):
    overrides = [*SLIDE, f'model.test_cfg.mode={mode}', 'tta_cfg.views=flips', 'tta_cfg.scales=(1.0,)']
    run_test(toy_root, checkpoint, tmp_path, '--tta', '--out', tmp_path / 'index', overrides=overrides)
    assert json.loads((tmp_path / 'test/metrics.json').read_text())['num_images'] == 5
    predictor = Predictor.from_checkpoint(checkpoint)
    path = next((toy_root / 'test/images').glob('*.png'))
    image = cv2.imread(str(path))
    probabilities = [
        predictor.logits(image).softmax(0),
        predictor.logits(image[:, ::-1]).softmax(0).flip(2),
        predictor.logits(image[::-1]).softmax(0).flip(1),
    ]
    found = cv2.imread(str(tmp_path / 'index' / path.name), cv2.IMREAD_UNCHANGED)
    assert (found == torch.stack(probabilities).sum(0).argmax(0).numpy()).mean() > 0.999


def test_an_unknown_view_is_one_line(toy_root, checkpoint, tmp_path):
    done = run_test(toy_root, checkpoint, tmp_path, '--tta', overrides=[*SLIDE, 'tta_cfg.views=d5'], check=False)
    assert done.returncode == 2
    assert "model.test_cfg.views is 'd5': one of none, flips, d4 is due" in done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize(
    ('tta_cfg', 'message'),
    [
        (dict(angles=4), r"tta_cfg: unknown field 'angles'; .*known are mode, crop_size"),
        (None, r'--tta: the config has no field tta_cfg, such as'),
    ],
)
def test_wrong_tta_cfg_is_named(tta_cfg, message, monkeypatch):
    monkeypatch.syspath_prepend(str(REPO / 'tools'))
    cfg = Config.fromfile(REPO / CONFIG)
    cfg.model.type = 'SlidingEncoderDecoder'
    cfg.tta_cfg = tta_cfg
    with pytest.raises(ConfigError, match=message):
        load_script('tools/test.py').apply_tta(cfg)


def test_predict_reads_checkpoints_of_sliding_segmentors(toy_root, checkpoint, tmp_path):
    trained = torch.load(checkpoint, weights_only=True)
    described = json.loads(trained['lale_mmseg'])
    described['config']['model'].update(
        type='SlidingEncoderDecoder',
        test_cfg=dict(mode='slide', crop_size=[32, 32], stride=[16, 16], views='d4'),
    )
    torch.save({**trained, 'lale_mmseg': json.dumps(described)}, tmp_path / 'sliding.pth')
    predictor = Predictor.from_checkpoint(tmp_path / 'sliding.pth')
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    probabilities = predictor.logits(image).exp()
    assert probabilities.shape == (7, 50, 70)
    torch.testing.assert_close(probabilities.sum(0), torch.ones(50, 70))
    assert predictor.predict(image).shape == (50, 70)


def test_the_runtime_names_views():
    assert Config.fromfile(REPO / 'configs/_base_/default_runtime.py').tta_cfg.views == 'd4'
