"""Runs that are resumed go on as straight ones: learning rate on plateaus, early stopping, best checkpoint, rows."""

import shutil

import pandas as pd
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop
from mmseg.registry import HOOKS

from lale_mmseg.engine.hooks import LALEEarlyStopping
from lale_mmseg.engine.hooks.diagnostics import read_diagnostics
from lale_mmseg.errors import ConfigError
from tests.test_engine.tiny_run import build, tiny_config

#: mIoU after each epoch, from the first: nothing better than the second.
SCORES = [50.0, 60.0, 60.0, 40.0, 59.0, 60.0, 60.0, 60.0, 99.0]


@HOOKS.register_module(force=True)
class ScriptedScores(Hook):
    """Puts scores of a script in the place of those that were computed, before other hooks read them."""

    priority = 'VERY_HIGH'

    def __init__(self, scores):
        self.scores = scores

    def after_val_epoch(self, runner, metrics=None):
        metrics['mIoU'] = self.scores[runner.epoch - 1]


def config(work_dir, scores=SCORES, early_stopping=None, epochs=None, **changes):
    cfg = tiny_config(work_dir, epochs or len(scores), **changes)
    cfg.custom_hooks = [dict(type='ScriptedScores', scores=scores)]
    cfg.default_hooks.report = None
    cfg.default_hooks.checkpoint.max_keep_ckpts = -1
    cfg.default_hooks.early_stopping.update(dict(patience=6) | (early_stopping or {}))
    return cfg


def rows(work_dir):
    table = read_diagnostics(work_dir)
    return table.drop(columns=['memory_mb', 'step_time_s', 'data_time_s', 'epoch_time_s'])


@pytest.fixture(scope='module')
def straight(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('straight')
    build(config(work_dir)).train()
    return work_dir


def test_a_straight_run_reduces_and_stops(straight):
    # Patience 3: the fourth epoch without a better score is the sixth. Patience 6: the sixth such epoch is the eighth.
    assert list(rows(straight)['epoch']) == list(range(1, 9))
    assert list(rows(straight)['lr']) == [1e-3] * 6 + [5e-4] * 2
    assert (straight / 'best_mIoU_epoch_2.pth').is_file()


@pytest.mark.parametrize('epoch', [2, 5, 6, 8])
def test_a_resumed_run_ends_as_a_straight_one(straight, tmp_path, epoch):
    for name in (f'epoch_{epoch}.pth', 'diagnostics.csv'):
        shutil.copy(straight / name, tmp_path)
    cfg = config(tmp_path, resume='auto')
    build(cfg).train()
    pd.testing.assert_frame_equal(rows(tmp_path), rows(straight), check_like=True)
    checkpoints = [torch.load(path / 'epoch_8.pth', weights_only=True) for path in (straight, tmp_path)]
    for name in ('early_stopping', 'param_schedulers'):
        assert checkpoints[0][name] == checkpoints[1][name]
    states = [checkpoint['state_dict'] for checkpoint in checkpoints]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_run_that_was_killed_in_a_validation_does_it_when_it_is_resumed(straight, tmp_path):
    with pytest.raises(IndexError):
        build(config(tmp_path, SCORES[:1], epochs=9)).train()
    assert rows(tmp_path)['val/mIoU'].notna().tolist() == [True, False]
    assert (tmp_path / 'epoch_2.pth').is_file()
    build(config(tmp_path, resume='auto')).train()
    pd.testing.assert_frame_equal(rows(tmp_path), rows(straight), check_like=True)
    assert (tmp_path / 'best_mIoU_epoch_2.pth').is_file()


@HOOKS.register_module(force=True)
class Validated(Hook):
    """Notes what is validated: epochs, or iterations."""

    seen: list[int] = []

    def after_val_epoch(self, runner, metrics=None):
        self.seen.append(runner.iter if type(runner.train_loop) is IterBasedTrainLoop else runner.epoch)


def validated(cfg):
    Validated.seen.clear()
    cfg.custom_hooks = [dict(type='Validated')]
    build(cfg).train()
    return [*Validated.seen]


def test_the_interval_of_validations_is_that_of_the_epoch(tmp_path):
    def make(folder, **changes):
        cfg = config(tmp_path / folder, epochs=4, **changes)
        cfg.train_cfg.update(val_interval=4, dynamic_intervals=[(3, 1)])
        cfg.default_hooks.checkpoint.save_best = None
        return cfg

    assert validated(make('straight')) == [2, 3, 4]
    for epoch, expected in ((1, [2, 3, 4]), (2, [2, 3, 4]), (3, [3, 4]), (4, [4])):
        path = tmp_path / f'straight/epoch_{epoch}.pth'
        assert validated(make(str(epoch), resume=True, load_from=str(path))) == expected


def by_iterations(work_dir, **changes):
    cfg = config(work_dir, early_stopping=dict(patience=2, min_delta=100.0), **changes)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=20, val_interval=2, val_begin=4)
    cfg.default_hooks.update(diagnostics=None)
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=1, save_best=None)
    cfg.train_dataloader.sampler.type = 'InfiniteSampler'
    cfg.log_processor.by_epoch = False
    cfg.param_scheduler = []
    return cfg


def test_a_run_by_iterations_ends_where_a_straight_one_does(tmp_path):
    """Resumed before a validation, where none is due, before the first one, and where the last one ended the run."""
    assert validated(by_iterations(tmp_path / 'straight')) == [4, 6, 8]
    for start, expected in ((6, [6, 8]), (5, [6, 8]), (2, [4, 6, 8]), (8, [8])):
        path = tmp_path / f'straight/iter_{start}.pth'
        assert validated(by_iterations(tmp_path / str(start), resume=True, load_from=str(path))) == expected


def test_what_was_validated_is_not_validated_again(tmp_path):
    cfg = by_iterations(tmp_path)
    cfg.default_hooks.checkpoint.save_best = 'mIoU'
    validated(cfg)
    best = torch.load(next(tmp_path.glob('best_mIoU_iter_*.pth')), weights_only=True)
    assert best['meta']['validated'] is True


def test_epochs_before_the_beginning_do_not_count(tmp_path):
    scores = [90.0, 10.0, 10.0, 20.0, 20.0, 20.0, 99.0]
    build(config(tmp_path, scores, dict(patience=2, begin=3))).train()
    # The best that counts is 20 of the fourth; two epochs later it ends.
    assert list(rows(tmp_path)['epoch']) == list(range(1, 7))


class Loop:
    stop_training = False


class Runner:
    """As much of a runner as the hook reads."""

    def __init__(self):
        self._train_loop = self.train_loop = Loop()
        self.epoch = 1
        self.logger = self

    def info(self, message):
        self.printed = message


@pytest.mark.parametrize(
    ('options', 'scores', 'stops'),
    [
        (dict(patience=2), [0.0, 0.0, 0.0], [False, False, True]),
        (dict(patience=2), [1.0, 0.0, 1.5], [False, False, False]),
        (dict(patience=2, min_delta=1.0), [1.0, 1.5, 2.0], [False, False, True]),
        (dict(patience=2, rule='less', min_delta=1.0), [9.0, 8.5, 8.0], [False, False, True]),
        (dict(patience=9), [1.0, float('nan')], [False, True]),
        (dict(patience=9), [-float('inf')], [True]),
        (dict(patience=9, stopping_threshold=5.0), [5.0, 5.1], [False, True]),
        (dict(patience=2, stopping_threshold=90.0), [0.0, 0.0, 0.0], [False, False, True]),
        (dict(patience=9, stopping_threshold=5.0, min_delta=1.0), [4.5, 5.5], [False, True]),
    ],
)
def test_what_counts_as_better(options, scores, stops):
    hook = LALEEarlyStopping(monitor='mIoU', **options)
    runner = Runner()
    for score, stop in zip(scores, stops, strict=True):
        hook.after_val_epoch(runner, dict(mIoU=score))
        assert runner.train_loop.stop_training == stop


def test_a_score_that_is_not_there_is_an_error():
    with pytest.raises(RuntimeError, match='mIoU'):
        LALEEarlyStopping(monitor='mIoU').after_val_epoch(Runner(), dict(mF1=1.0))


def test_begin_counts_epochs(tmp_path):
    cfg = config(tmp_path, early_stopping=dict(begin=2))
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=1)
    cfg.default_hooks.diagnostics = None
    cfg.param_scheduler = []
    with pytest.raises(ConfigError, match=r'begin=2 counts epochs, but train_cfg\.type is IterBasedTrainLoop'):
        build(cfg).train()
