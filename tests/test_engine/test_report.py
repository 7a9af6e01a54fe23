"""The copy of the best validation: which one it is, and what a resumed training does with it."""

import json
from pathlib import Path

import pytest
from mmengine.hooks import Hook
from mmseg.registry import HOOKS, METRICS

from lale_mmseg.evaluation import SegmentationMetric
from tests.test_engine.tiny_run import build, tiny_config


@METRICS.register_module(force=True)
class PlantedMetric(SegmentationMetric):
    """Predictions are the upper rows of the labels: none of them, all, or those above row `rows[0]`."""

    rows: list[int] = []

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            prediction = sample['pred_sem_seg']['data']
            prediction[:] = sample['gt_sem_seg']['data']
            prediction[:, self.rows[0] :] = 0
        super().process(data_batch, data_samples)

    def evaluate(self, size):
        self.rows.pop(0)
        return super().evaluate(size)


def best(work_dir):
    path = Path(work_dir) / 'val_best/metrics.json'
    return json.loads(path.read_text())['summary']['mIoU'] if path.exists() else None


@HOOKS.register_module(force=True)
class SeenBest(Hook):
    """Notes the score in the best folder when a training begins and after each validation."""

    priority = 'LOWEST'
    seen: list[float | None] = []

    def before_train(self, runner):
        self.seen.append(best(runner.work_dir))

    def after_val_epoch(self, runner, metrics=None):
        self.seen.append(best(runner.work_dir))


def train(work_dir, rows, **changes):
    """A training with one validation for each of `rows`; returns what the best folder held before and after each."""
    PlantedMetric.rows[:] = rows
    SeenBest.seen.clear()
    cfg = tiny_config(work_dir, len(rows), custom_hooks=[dict(type='SeenBest')], **changes)
    cfg.default_hooks.checkpoint.max_keep_ckpts = -1
    cfg.val_evaluator = dict(type='PlantedMetric', score_classes=[1], per_tile=True)
    build(cfg).train()
    return [*SeenBest.seen]


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()
    }


def test_the_best_validation_stays(tmp_path):
    before, *seen = train(tmp_path, [10, 16, 16, 0])
    assert before is None
    assert 0 < seen[0] < seen[1] == seen[2] == seen[3] == 100
    assert (tmp_path / 'val_best/checkpoint.txt').read_text() == 'best_mIoU_epoch_2.pth\n'  # the first of two equals
    kept, last = content(tmp_path / 'val_best'), content(tmp_path / 'val')
    assert {name.partition('/')[0] for name in kept} >= {'metrics.json', 'per_tile.csv', 'overlays', 'predictions'}
    assert kept['labels/austin1_0.png'] == last['labels/austin1_0.png']
    assert kept['predictions/austin1_0.png'] == kept['labels/austin1_0.png'] != last['predictions/austin1_0.png']
    assert not list(tmp_path.glob('.val_best*'))


def test_a_resumed_training_continues_from_the_best(tmp_path):
    first = train(tmp_path, [10, 14])[-1]
    assert train(tmp_path, [12, 12, 12], resume='auto')[0] == first
    assert best(tmp_path) == first


@pytest.mark.parametrize('elsewhere', [False, True], ids=['work dir', 'new work dir'])
def test_a_best_of_epochs_that_are_trained_again_is_removed(tmp_path, elsewhere):
    _, first, *_ = train(tmp_path / 'a', [12, 10, 16])
    resumed = dict(resume=True, load_from=str(tmp_path / 'a/epoch_2.pth'))
    before, *after = train(tmp_path / ('b' if elsewhere else 'a'), [11, 14, 10, 0], **resumed)
    assert before is None
    assert first < after[-1] < 100


def test_a_new_training_begins_without_a_best(tmp_path):
    train(tmp_path, [16])
    assert train(tmp_path, [10], overwrite=True)[0] is None
