"""One row per epoch with the right numbers, and the pictures that the report hook leaves."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest

from lale_mmseg.engine.hooks import diagnostics
from lale_mmseg.engine.hooks.diagnostics import read_diagnostics
from lale_mmseg.errors import ConfigError
from tests.test_engine.tiny_run import SIZE, build, tiny_config, train


@pytest.fixture(scope='module')
def work_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    cfg = tiny_config(folder, 4)
    cfg.default_hooks.report.overlay_interval = 2
    cfg.optim_wrapper.paramwise_cfg = dict(custom_keys=dict(backbone=dict(lr_mult=0.1)))
    cfg.visualizer = dict(
        type='Visualizer', vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
    )
    build(cfg).train()
    return folder


def logged(work_dir):
    (file,) = work_dir.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_row_per_epoch(work_dir):
    rows = read_diagnostics(work_dir)
    assert rows[['epoch', 'iter']].values.tolist() == [[1, 2], [2, 4], [3, 6], [4, 8]]
    last = rows.iloc[-1]
    assert (last['lr'], last['lr_backbone']) == pytest.approx((1e-3, 1e-4))
    assert last['trainable_parameters'] == 546
    assert last['memory_mb'] > 0
    assert 0 < last['data_time_s'] < last['step_time_s'] < last['epoch_time_s']


def test_losses_are_means_of_the_epoch(work_dir):
    # Each logged value is a mean of all so far (at most 10), so their sums give those of single iterations.
    means = [entry['train/loss'] for entry in logged(work_dir) if 'train/loss' in entry]
    single = np.diff([0, *(mean * (count + 1) for count, mean in enumerate(means))])
    rows = read_diagnostics(work_dir)
    assert list(rows['train/loss']) == pytest.approx(single.reshape(4, 2).mean(axis=1), rel=1e-5)
    assert list(rows['train/loss']) == pytest.approx(rows['train/decode.loss_bce'] + rows['train/decode.loss_dice'])
    assert abs(single[-1] - single[-2]) > 1e-4  # the last value is not the mean


def test_scores_are_those_of_the_validation(work_dir):
    last = read_diagnostics(work_dir).iloc[-1]
    metrics = json.loads((work_dir / 'val/metrics.json').read_text())
    assert last['val/mIoU'] == pytest.approx(metrics['summary']['mIoU'])
    assert last['val/tile_IoU/austin1'] == pytest.approx(metrics['tiles']['austin1']['IoU'])
    assert last['val/mean_tile_IoU'] == pytest.approx(metrics['mean_tile_IoU'])
    # mmengine logs the loss of each validation as it is.
    losses = [entry['val/loss'] for entry in logged(work_dir) if 'val/loss' in entry]
    assert losses == pytest.approx(list(read_diagnostics(work_dir)['val/loss']))


def test_tensorboard_has_what_the_logger_lacks(work_dir):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = work_dir.rglob('events.out.tfevents*')
    events = EventAccumulator(str(file))
    events.Reload()
    names = {'epoch/loss', 'epoch/step_time_s', 'epoch/memory_mb', 'val/tile_IoU/austin1', 'val/mIoU', 'val/loss'}
    assert names <= set(events.Tags()['scalars'])
    means = [event.value for event in events.Scalars('epoch/loss')]
    assert means == pytest.approx(list(read_diagnostics(work_dir)['train/loss']))
    assert len(events.Scalars('val/mIoU')) == 4  # not logged twice


def test_memory_on_a_gpu_is_the_peak_of_each_epoch(tmp_path, monkeypatch):
    peaks = iter([5, 9, 7, 3, 4, 2])  # of each iteration: the logger resets the counter in between
    resets = []
    cuda = SimpleNamespace(
        is_available=lambda: True,
        max_memory_allocated=lambda: next(peaks) * 2**20,
        reset_peak_memory_stats=lambda: resets.append(1),
    )
    monkeypatch.setattr(diagnostics, 'torch', SimpleNamespace(cuda=cuda))
    cfg = tiny_config(tmp_path, 3)
    cfg.default_hooks.report = None
    build(cfg).train()
    assert list(read_diagnostics(tmp_path)['memory_mb']) == [9, 7, 4]
    assert len(resets) == 3


def test_another_run_in_the_work_dir_replaces_the_rows(tmp_path):
    pd.DataFrame(dict(epoch=range(1, 6), lr=7.0)).to_csv(tmp_path / 'diagnostics.csv', index=False)
    train(tmp_path, 1)
    assert list(read_diagnostics(tmp_path)['lr']) == [1e-3]


def test_epochs_without_validation_have_rows(tmp_path):
    cfg = tiny_config(tmp_path, 3)
    cfg.train_cfg.val_interval = 2
    cfg.default_hooks.report = None
    build(cfg).train()
    assert read_diagnostics(tmp_path)['val/mIoU'].notna().tolist() == [False, True, True]


def test_rows_are_of_epochs(tmp_path):
    cfg = tiny_config(tmp_path)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=1)
    cfg.param_scheduler = []
    with pytest.raises(ConfigError, match=r'EpochDiagnosticsHook writes a row per epoch, but .* IterBasedTrainLoop'):
        build(cfg).train()


def test_overlays_are_kept_every_few_epochs(work_dir):
    folders = sorted(path.name for path in (work_dir / 'val').glob('overlays*'))
    assert folders == ['overlays', 'overlays_epoch_002', 'overlays_epoch_004']
    names = {f'austin{tile}_{window}.png' for tile in (1, 6) for window in (0, 1)}
    for folder in folders:
        assert {path.name for path in (work_dir / 'val' / folder).iterdir()} == names
    pictures = [cv2.imread(str(work_dir / 'val' / folder / 'austin1_0.png')) for folder in folders]
    assert np.array_equal(pictures[0], pictures[2])
    assert not np.array_equal(pictures[0], pictures[1])


def test_parts_of_later_pictures_are_kept(work_dir):
    folder = work_dir / 'val'
    matrix = np.zeros((2, 2), np.int64)
    for path in sorted((folder / 'predictions').iterdir()):
        pred, label = (
            cv2.imread(str(folder / kind / path.name), cv2.IMREAD_UNCHANGED) for kind in ('predictions', 'labels')
        )
        assert pred.shape == label.shape == (SIZE, SIZE)
        np.add.at(matrix, (label.ravel(), pred.ravel()), 1)
        image = cv2.imread(str(folder / 'images' / f'{path.stem}.jpg'))
        assert image[label == 1].mean() > image[label == 0].mean() + 50
    assert matrix.tolist() == json.loads((folder / 'metrics.json').read_text())['matrix']
