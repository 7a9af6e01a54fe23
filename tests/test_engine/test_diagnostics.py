"""One row an epoch, of the right numbers, and nothing twice."""

import csv
import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from lale_mmseg.engine.hooks import diagnostics
from lale_mmseg.engine.hooks.diagnostics import read_rows, write_row
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


def test_a_row_an_epoch(work_dir):
    rows = read_rows(work_dir)
    assert [(row['epoch'], row['iter']) for row in rows] == [(1, 2), (2, 4), (3, 6), (4, 8)]
    last = rows[-1]
    assert list(last) == [
        'epoch', 'iter', 'lr', 'lr_backbone', 'train', 'val', 'tiles', 'worst_tile', 'memory_mb', 'memory_kind',
        'step_time_s', 'data_time_s', 'epoch_time_s', 'parameters', 'trainable_parameters',
        'processes', 'starts',
    ]  # fmt: skip
    assert (last['lr'], last['lr_backbone']) == pytest.approx((1e-3, 1e-4))
    assert last['parameters'] == last['trainable_parameters'] == 546
    assert last['memory_kind'] == ('gpu' if torch.cuda.is_available() else 'process')
    assert last['memory_mb'] > 0
    assert 0 < last['data_time_s'] < last['step_time_s'] < last['epoch_time_s']


def test_losses_are_means_of_the_epoch(work_dir):
    rows = read_rows(work_dir)
    # Each logged value is a mean of all so far (at most 10), so their sums give those of single iterations.
    means = [entry['train/loss'] for entry in logged(work_dir) if 'train/loss' in entry]
    single = np.diff([0, *(mean * (count + 1) for count, mean in enumerate(means))])
    for row, pair in zip(rows, single.reshape(4, 2), strict=True):
        assert row['train']['loss'] == pytest.approx(pair.mean(), rel=1e-5)
        parts = [row['train'][f'decode.loss_{name}'] for name in ('bce', 'dice')]
        assert row['train']['loss'] == pytest.approx(sum(parts), rel=1e-5)
    assert abs(single[-1] - single[-2]) > 1e-4  # the last value is not the mean


def test_scores_and_tiles_are_those_of_the_validation(work_dir):
    last = read_rows(work_dir)[-1]
    metrics = json.loads((work_dir / 'val/metrics.json').read_text())
    assert last['tiles'] == {tile: score['IoU'] for tile, score in metrics['tiles'].items()}
    assert list(last['tiles']) == ['austin1', 'austin6']
    assert last['worst_tile'] == metrics['worst_tile']
    assert last['val']['mIoU'] == metrics['summary']['mIoU']
    assert last['val']['loss'] == pytest.approx(last['val']['loss_bce'] + last['val']['loss_dice'])
    # mmengine logs the loss of each validation as it is.
    losses = [entry['val/loss'] for entry in logged(work_dir) if 'val/loss' in entry]
    assert losses == [row['val']['loss'] for row in read_rows(work_dir)]


def test_the_table_has_everything_but_tiles(work_dir):
    with open(work_dir / 'diagnostics.csv', newline='') as file:
        table = list(csv.DictReader(file))
    rows = read_rows(work_dir)
    assert len(table) == len(rows)
    for line, row in zip(table, rows, strict=True):
        assert float(line['val/mIoU']) == row['val']['mIoU']
        assert float(line['train/loss']) == row['train']['loss']
        assert (line['worst_tile'], float(line['worst_tile_IoU'])) == tuple(row['worst_tile'].values())
    assert not [name for name in table[0] if name.startswith('tiles')]


def test_tensorboard_has_what_the_logger_lacks(work_dir):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = work_dir.rglob('events.out.tfevents*')
    events = EventAccumulator(str(file))
    events.Reload()
    tags = events.Tags()['scalars']
    assert {'epoch/loss', 'epoch/step_time_s', 'epoch/memory_mb', 'tile_IoU/austin1', 'val/mIoU', 'val/loss'} <= set(
        tags
    )
    rows = read_rows(work_dir)
    assert [event.step for event in events.Scalars('tile_IoU/austin6')] == [1, 2, 3, 4]
    assert [event.value for event in events.Scalars('epoch/loss')] == pytest.approx(
        [row['train']['loss'] for row in rows]
    )
    assert len(events.Scalars('val/mIoU')) == 4  # not logged twice


def test_memory_on_a_gpu_is_the_peak_of_each_epoch(tmp_path, monkeypatch):
    peaks = iter([5, 9, 7, 3, 4, 2])  # of each iteration: the logger sets the counter back in between
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
    assert [(row['memory_mb'], row['memory_kind']) for row in read_rows(tmp_path)] == [
        (9, 'gpu'), (7, 'gpu'), (4, 'gpu'),
    ]  # fmt: skip
    assert len(resets) == 3


def test_another_run_in_the_work_dir_replaces_the_rows(tmp_path):
    for epoch in range(1, 6):
        write_row(tmp_path, dict(epoch=epoch, val=dict(old=1)))
    train(tmp_path, 1)
    (row,) = read_rows(tmp_path)
    assert 'old' not in row['val']


def test_epochs_without_validation_have_rows(tmp_path):
    cfg = tiny_config(tmp_path, 3)
    cfg.train_cfg.val_interval = 2
    cfg.default_hooks.report = None
    build(cfg).train()
    rows = read_rows(tmp_path)
    assert [(row['epoch'], bool(row['val']), bool(row['tiles'])) for row in rows] == [
        (1, False, False), (2, True, True), (3, True, True),
    ]  # fmt: skip


def test_rows_are_added_or_replaced(tmp_path):
    for epoch in (1, 2, 3):
        write_row(tmp_path, dict(epoch=epoch, run=1))
    with open(tmp_path / 'diagnostics.jsonl', 'a') as file:
        file.write('{"epoch": 4, "ru')
    assert [row['epoch'] for row in write_row(tmp_path, dict(epoch=4, run=1))] == [1, 2, 3, 4]
    write_row(tmp_path, dict(epoch=3, run=2))
    assert read_rows(tmp_path) == [dict(epoch=1, run=1), dict(epoch=2, run=1), dict(epoch=3, run=2)]
    assert (tmp_path / 'diagnostics.jsonl').read_text().count('\n') == 3


def test_rows_are_of_epochs(tmp_path):
    cfg = tiny_config(tmp_path)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=1)
    cfg.param_scheduler = []
    with pytest.raises(ConfigError, match=r'EpochDiagnosticsHook writes a row an epoch, but .* IterBasedTrainLoop'):
        build(cfg).train()
    cfg.default_hooks.diagnostics = None
    with pytest.raises(ConfigError, match=r'overlay_interval=10 counts epochs'):
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


def test_what_later_pictures_need_lies_beside(work_dir):
    folder = work_dir / 'val'
    matrix = np.zeros((2, 2), np.int64)
    for path in sorted((folder / 'predictions').iterdir()):
        pred, label = (
            cv2.imread(str(folder / kind / path.name), cv2.IMREAD_UNCHANGED) for kind in ('predictions', 'labels')
        )
        assert pred.shape == label.shape == (SIZE, SIZE)
        assert pred.dtype == np.uint8
        np.add.at(matrix, (label.ravel(), pred.ravel()), 1)
        image = cv2.imread(str(folder / 'images' / f'{path.stem}.jpg'))
        assert image.shape == (SIZE, SIZE, 3)
        assert image[label == 1].mean() > image[label == 0].mean() + 50
    assert matrix.tolist() == json.loads((folder / 'metrics.json').read_text())['matrix']


def test_large_images_are_kept_small(tmp_path):
    from lale_mmseg.engine.hooks.report import _keep

    label = np.zeros((1500, 3000), np.uint8)
    label[:, 1500:] = 1
    _keep(tmp_path, 'a', np.zeros((1500, 3000, 3), np.uint8), label, label.astype(np.int64))
    found = cv2.imread(str(tmp_path / 'predictions/a.png'), cv2.IMREAD_UNCHANGED)
    assert found.shape == (512, 1024)
    assert set(np.unique(found)) == {0, 1}
    assert cv2.imread(str(tmp_path / 'images/a.jpg')).shape == (512, 1024, 3)
