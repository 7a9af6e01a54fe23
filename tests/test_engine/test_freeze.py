"""A backbone that is frozen at first, alone and with an average of the weights, resumed and on two processes."""

import os
import shutil
import socket

import pytest
import torch
import torch.multiprocessing as multiprocessing
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope

import lale_mmseg.register  # noqa: F401
from lale_mmseg.engine.hooks.diagnostics import read_diagnostics
from lale_mmseg.errors import ConfigError
from tests.support import REPO
from tests.test_engine.tiny_run import build, tiny_config


def config(work_dir, epochs=4, frozen=2, **changes):
    cfg = tiny_config(work_dir, epochs, **changes)
    cfg.default_hooks.frozen_backbone = dict(type='FreezeBackboneHook', epochs=frozen)
    cfg.default_hooks.report = None
    cfg.default_hooks.checkpoint.max_keep_ckpts = -1
    # So much that a parameter which is decayed alone is seen to move.
    cfg.optim_wrapper.optimizer.update(weight_decay=10.0, lr=0.01)
    return cfg


def state(path, part='backbone'):
    entries = torch.load(path, weights_only=True)['state_dict']
    return {name: value for name, value in entries.items() if name.startswith(part)}


def equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope='module')
def straight(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('straight')
    build(config(work_dir)).train()
    return work_dir


def test_weights_and_statistics_stay_until_the_release(straight):
    epochs = [state(straight / f'epoch_{epoch}.pth') for epoch in (1, 2, 3)]
    assert set(epochs[0]) >= {'backbone.norm.running_mean', 'backbone.norm.num_batches_tracked', 'backbone.conv.weight'}
    assert epochs[1]['backbone.norm.num_batches_tracked'] == 0
    assert equal(epochs[0], epochs[1])
    assert epochs[2]['backbone.norm.num_batches_tracked'] == 2
    assert not any(torch.equal(epochs[1][name], epochs[2][name]) for name in epochs[0])
    heads = [state(straight / f'epoch_{epoch}.pth', 'decode_head.conv_seg') for epoch in (1, 2)]
    assert not equal(*heads)


def test_rows_show_the_phases(straight):
    rows = read_diagnostics(straight)
    frozen = 3 * 8 * 9 + 8 + 16  # convolution and norm
    assert list(546 - rows['trainable_parameters']) == [frozen, frozen, 0, 0]
    assert list(rows['lr']) == [0.01] * 4


@pytest.mark.parametrize('epoch', [1, 2, 3])
def test_a_resumed_run_is_in_the_phase_of_its_epoch(straight, tmp_path, epoch):
    shutil.copy(straight / f'epoch_{epoch}.pth', tmp_path)
    build(config(tmp_path, resume='auto')).train()
    assert equal(state(straight / 'epoch_4.pth', ''), state(tmp_path / 'epoch_4.pth', ''))


def test_learning_rates_may_fall_at_the_release_once(tmp_path):
    cfg = config(tmp_path)
    cfg.default_hooks.frozen_backbone.lr_mult = 0.1
    build(cfg).train()
    other = tmp_path / 'resumed'
    other.mkdir()
    shutil.copy(tmp_path / 'epoch_3.pth', other)
    cfg = config(other, resume='auto')
    cfg.default_hooks.frozen_backbone.lr_mult = 0.1
    build(cfg).train()
    for folder, expected in ((tmp_path, [0.01, 0.01, 0.001, 0.001]), (other, [0.001])):
        assert list(read_diagnostics(folder)['lr'])[-len(expected) :] == pytest.approx(expected)


@pytest.mark.parametrize('iteration', [2, 3])
def test_learning_rates_fall_once_in_runs_resumed_around_the_release(tmp_path, iteration):
    """Epochs have two iterations; the release is before the third."""

    def make(folder, **changes):
        cfg = config(tmp_path / folder, 3, 1, **changes)
        cfg.default_hooks.frozen_backbone.lr_mult = 0.1
        cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=1)
        return build(cfg)

    make('straight').train()
    start = tmp_path / f'straight/iter_{iteration}.pth'
    assert torch.load(start, weights_only=True)['meta']['epoch'] == iteration - 2
    runner = make('resumed', resume=True, load_from=str(start))
    runner.train()
    assert runner.optim_wrapper.get_lr()['lr'] == pytest.approx([0.001])


def test_what_was_frozen_before_stays_so(tmp_path):
    runner = build(config(tmp_path, 2, 1))
    runner.model.backbone.conv.bias.requires_grad_(False)
    runner.train()
    found = {name: parameter.requires_grad for name, parameter in runner.model.backbone.named_parameters()}
    assert found == {'conv.weight': True, 'conv.bias': False, 'norm.weight': True, 'norm.bias': True}


def test_a_part_may_be_smaller_than_the_backbone(tmp_path):
    cfg = config(tmp_path, 2, 1)
    cfg.default_hooks.frozen_backbone.part = 'backbone.norm'
    build(cfg).train()
    first = state(tmp_path / 'epoch_1.pth')
    assert first['backbone.norm.num_batches_tracked'] == 0
    assert torch.equal(first['backbone.norm.weight'], torch.ones(8))


@pytest.mark.parametrize(
    ('named', 'score'),
    [('plateau_60e', 'mIoU'), ('roofs_60e', 'mean_tile_IoU'), ('roofs_60e_freeze_20e', 'mean_tile_IoU')],
)
def test_the_schedule_counts_no_frozen_epoch(tmp_path, monkeypatch, named, score):
    """With a score that never rises, the first one that counts is the best one."""
    monkeypatch.setattr(Evaluator, 'evaluate', lambda self, size: {score: 50.0})
    cfg = tiny_config(tmp_path, 60)
    schedule = Config.fromfile(REPO / f'configs/_base_/schedules/schedule_{named}.py')
    cfg.param_scheduler = schedule.param_scheduler
    for name in ('frozen_backbone', 'early_stopping'):
        cfg.default_hooks[name] = schedule.default_hooks.get(name)
    cfg.default_hooks.update(report=None, checkpoint=None)
    build(cfg).train()
    rates = list(read_diagnostics(tmp_path)['lr'])
    first = 21 if 'freeze' in named else 1
    # The 4th epoch in a row without a rise is the last one at the full rate; the 10th is the last one at all.
    assert rates == [1e-3] * (first + 4) + [5e-4] * 4 + [2.5e-4] * 2
    assert len(rates) == first + 10


def test_what_cannot_be_frozen_is_an_error(tmp_path):
    cfg = config(tmp_path)
    cfg.default_hooks.frozen_backbone.part = 'encoder'
    message = r"no part 'encoder'; its parts are data_preprocessor, backbone, decode_head"
    with pytest.raises(ConfigError, match=message):
        build(cfg).train()
    cfg = config(tmp_path)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=1)
    cfg.default_hooks.diagnostics = None
    cfg.param_scheduler = []
    with pytest.raises(ConfigError, match='FreezeBackboneHook counts epochs'):
        build(cfg).train()


def ema(work_dir, epochs=4, **changes):
    cfg = config(work_dir, epochs, **changes)
    cfg.default_hooks.ema = dict(type='EMAHook', momentum=0.3)
    return cfg


def test_an_average_of_weights_is_resumed_saved_and_tested(tmp_path):
    straight, resumed = tmp_path / 'straight', tmp_path / 'resumed'
    build(ema(straight)).train()
    checkpoint = torch.load(straight / 'epoch_4.pth', weights_only=True)
    name = 'decode_head.conv_seg.weight'
    # What is tested and exported is the average; the weights that are trained on stand beside it.
    assert not torch.equal(checkpoint['state_dict'][name], checkpoint['ema_state_dict'][f'module.{name}'])
    frozen = torch.load(straight / 'epoch_2.pth', weights_only=True)
    assert torch.equal(
        frozen['state_dict']['backbone.conv.weight'], frozen['ema_state_dict']['module.backbone.conv.weight']
    )

    resumed.mkdir()
    shutil.copy(straight / 'epoch_3.pth', resumed)
    build(ema(resumed, resume='auto')).train()
    again = torch.load(resumed / 'epoch_4.pth', weights_only=True)
    for key in ('state_dict', 'ema_state_dict'):
        assert equal(checkpoint[key], again[key])

    last = read_diagnostics(straight).iloc[-1]
    for make in (ema, config):  # with the hook and without
        cfg = make(tmp_path / make.__name__, load_from=str(straight / 'epoch_4.pth'))
        cfg.test_dataloader.dataset.split = 'val'
        scores = build(cfg).test()
        for name in ('mIoU', 'OA', 'mean_tile_IoU'):
            assert scores[name] == pytest.approx(last[f'val/{name}'], rel=1e-12)


def test_an_average_takes_weights_of_any_prefix(straight, tmp_path):
    """A test swaps the average in, so random weights would be seen."""
    weights = state(straight / 'epoch_4.pth', '')
    torch.save(dict(state_dict={f'module.{name}': value for name, value in weights.items()}), tmp_path / 'prefixed.pth')
    scores = []
    for make, source in ((config, straight / 'epoch_4.pth'), (ema, tmp_path / 'prefixed.pth')):
        cfg = make(tmp_path / make.__name__, load_from=str(source))
        cfg.test_dataloader.dataset.split = 'val'
        scores.append(build(cfg).test()['mIoU'])
    assert scores[0] == scores[1] > 20


def worker(rank, port, folder):
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE='2')
    os.environ['LOCAL_RANK'] = str(rank)
    torch.set_num_threads(1)
    init_default_scope('mmseg')
    build(config(folder, 2, 1, launcher='pytorch', find_unused_parameters=True)).train()
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_go_through_the_release(tmp_path, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(worker, (port, str(tmp_path)), nprocs=2)
    first, second = (state(tmp_path / f'epoch_{epoch}.pth') for epoch in (1, 2))
    assert first['backbone.norm.num_batches_tracked'] == 0
    assert not torch.equal(first['backbone.conv.weight'], second['backbone.conv.weight'])
    assert list(read_diagnostics(tmp_path)['epoch']) == [1, 2]
