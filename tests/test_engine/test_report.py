"""The folder of the best validation: which one it is, that it is whole, and what a resumed training does with it."""

import json
from pathlib import Path

import cv2
import pytest
from mmengine.hooks import Hook
from mmseg.registry import HOOKS, METRICS

from lale_mmseg.engine.hooks import ReportHook, report
from lale_mmseg.errors import ConfigError
from lale_mmseg.evaluation import TileSegmentationMetric
from tests.test_engine.tiny_run import build, tiny_config

FILES = ('metrics.json', 'per_tile.csv', 'per_city.csv')
FOLDERS = ('images', 'labels', 'predictions', 'overlays')


@METRICS.register_module(force=True)
class PlantedMetric(TileSegmentationMetric):
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


@HOOKS.register_module(force=True)
class KeepEach(Hook):
    """Notes what the best folder has after each validation."""

    priority = 'LOWEST'
    seen: list[float | None] = []

    def after_val_epoch(self, runner, metrics=None):
        path = Path(runner.work_dir) / 'val_best/metrics.json'
        self.seen.append(json.loads(path.read_text())['summary']['mIoU'] if path.exists() else None)


def config(work_dir, rows, prefix=None, **changes):
    """A training with one validation for each of `rows`."""
    PlantedMetric.rows[:] = rows
    KeepEach.seen.clear()
    cfg = tiny_config(work_dir, len(rows), custom_hooks=[dict(type='KeepEach')], **changes)
    cfg.val_evaluator = dict(type='PlantedMetric', score_classes=[1], prefix=prefix)
    return cfg


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()
    }


def leftovers(work_dir):
    return [path.name for path in work_dir.glob('.val_best*')]


def test_the_best_validation_stays(tmp_path):
    build(config(tmp_path, [10, 16, 12, 0])).train()
    scores = [row['val']['mIoU'] for row in map(json.loads, (tmp_path / 'diagnostics.jsonl').read_text().splitlines())]
    assert 0 == scores[3] < scores[0] < scores[2] < scores[1] == 100
    assert KeepEach.seen == [scores[0], 100, 100, 100]
    best = content(tmp_path / 'val_best')
    assert {name.partition('/')[0] for name in best} == {*FILES, *FOLDERS}
    assert {name.rpartition('/')[0] for name in best} == {'', *FOLDERS}
    names = {Path(name).stem for name in best if '/' in name}
    assert names == {f'{tile}_{window}' for tile in ('austin1', 'austin6') for window in range(2)}
    for name in names:
        prediction, label = (
            cv2.imread(str(tmp_path / 'val_best' / kind / f'{name}.png'), cv2.IMREAD_UNCHANGED)
            for kind in ('predictions', 'labels')
        )
        assert label.any()
        assert (prediction == label).all()  # in val/ there is none
        assert not cv2.imread(str(tmp_path / 'val/predictions' / f'{name}.png'), cv2.IMREAD_UNCHANGED).any()
    assert 'austin1,austin,100.0' in best['per_tile.csv'].decode()
    assert leftovers(tmp_path) == []


def test_of_equal_validations_the_first_stays(tmp_path, monkeypatch):
    replaced = []
    replace = report._replace_best
    monkeypatch.setattr(report, '_replace_best', lambda *args: (replaced.append(1), replace(*args)))
    build(config(tmp_path, [16, 16])).train()
    assert replaced == [1]


def test_nothing_is_kept_without_the_argument_and_outside_a_training(tmp_path):
    cfg = config(tmp_path / 'without', [16])
    cfg.default_hooks.report.keep_best = None
    build(cfg).train()
    cfg = config(tmp_path / 'val', [16])
    cfg.default_hooks.checkpoint.save_best = None
    build(cfg).val()
    assert KeepEach.seen == [None]
    assert not list(tmp_path.glob('*/val_best'))


def test_a_resumed_training_goes_on_from_the_best(tmp_path):
    build(config(tmp_path, [10, 14])).train()
    before = content(tmp_path / 'val_best')
    build(config(tmp_path, [12, 12, 12], resume='auto')).train()
    assert len(KeepEach.seen) == 1
    assert content(tmp_path / 'val_best') == before
    build(config(tmp_path, [16, 16, 16, 16], resume='auto')).train()
    assert KeepEach.seen == [100, 100]  # epoch 3 is validated again: its checkpoint is of before that


@pytest.mark.parametrize('elsewhere', [False, True], ids=['work dir', 'new work dir'])
def test_the_best_is_that_of_the_checkpoint(tmp_path, elsewhere):
    """Resumed before the best epoch, whose network is no more: its folder goes, in favour of the best up to there."""
    cfg = config(tmp_path / 'a', [12, 10, 16])
    cfg.default_hooks.checkpoint.max_keep_ckpts = -1
    build(cfg).train()
    first, _, highest = KeepEach.seen
    assert highest == 100
    # Epoch 2 is validated again; what is worse than the first epoch is not kept.
    resumed = dict(resume=True, load_from=str(tmp_path / 'a/epoch_2.pth'))
    work_dir = tmp_path / 'b' if elsewhere else tmp_path / 'a'
    build(config(work_dir, [11, 14, 10, 0], **resumed)).train()
    before, *after = KeepEach.seen
    assert before is None
    assert first < after[0] == after[1] < highest


def test_a_damaged_folder_is_not_the_best(tmp_path):
    file = tmp_path / 'val_best/metrics.json'
    for text, goes in (('{"summary": {"mIoU": 50.5}}', False), ('{', True), ('{"summary": {}}', True), ('[]', True)):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        assert report._drop_other_best(tmp_path, 'mIoU', 50.5) == goes
        assert file.parent.exists() != goes


def test_a_new_training_begins_without_a_best(tmp_path):
    build(config(tmp_path, [16])).train()
    # Nothing is there to resume: a new training, too.
    for number, resume in enumerate((False, 'auto')):
        if resume:
            for path in tmp_path.glob('*.pth'):
                path.unlink()
        build(config(tmp_path, [10 - number], resume=resume)).train()
        assert 0 < KeepEach.seen[0] < 100


class Killed(BaseException):
    """The process ends at once."""


@pytest.mark.parametrize('step', range(6))
def test_a_kill_leaves_the_old_or_the_new_one(tmp_path, monkeypatch, step):
    """At each step of the replacement; what lies in the work dir then is what a resumed training begins with."""
    for name, text in (('val_best', 'old'), ('val', 'new')):
        for file in ('metrics.json', 'per_tile.csv', 'labels/a.png'):
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            score = 1.0 if text == 'old' else 2.0
            (tmp_path / name / file).write_text(json.dumps(dict(summary=dict(mIoU=score))))
    (tmp_path / '.val_best.next').mkdir()
    whole = {name: content(tmp_path / name) for name in ('val_best', 'val')}
    steps = iter(range(100))

    def stop_at(function):
        def stopping(*args, **kwargs):
            if next(steps) >= step:
                raise Killed
            return function(*args, **kwargs)

        return stopping

    monkeypatch.setattr(report.shutil, 'copytree', stop_at(report.shutil.copytree))
    monkeypatch.setattr(report.shutil, 'copy2', stop_at(report.shutil.copy2))
    monkeypatch.setattr(Path, 'rename', stop_at(Path.rename))
    if step < 5:
        with pytest.raises(Killed):
            report._replace_best(tmp_path, tmp_path / 'val')
    else:
        report._replace_best(tmp_path, tmp_path / 'val')
    monkeypatch.undo()
    assert not report._drop_other_best(tmp_path, 'mIoU', 2.0 if step == 5 else 1.0)
    assert content(tmp_path / 'val_best') == whole['val' if step == 5 else 'val_best']
    report._replace_best(tmp_path, tmp_path / 'val')
    assert content(tmp_path / 'val_best') == whole['val']
    assert leftovers(tmp_path) == []


def test_a_metric_with_a_prefix(tmp_path):
    cfg = config(tmp_path, [10], prefix='of')
    cfg.default_hooks.report.keep_best = 'of/mIoU'
    cfg.default_hooks.update(early_stopping=None)
    cfg.default_hooks.checkpoint.save_best = None
    cfg.param_scheduler = []
    build(cfg).train()
    assert (tmp_path / 'val_best/metrics.json').read_bytes() == (tmp_path / 'val/of/metrics.json').read_bytes()


def test_errors(tmp_path):
    with pytest.raises(ConfigError, match=r"keep_best='loss': one of mIoU, mF1"):
        ReportHook(keep_best='loss')
    cfg = config(tmp_path, [10])
    cfg.default_hooks.report.keep_best = 'mBF1'
    with pytest.raises(ConfigError, match=r"keep_best='mBF1': no SegmentationMetric of val_evaluator has this score"):
        build(cfg).train()
