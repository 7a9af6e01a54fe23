"""All ranks evaluate the network of rank 0, whose buffers a checkpoint holds."""

import json
import os
import socket

import pytest
import torch
import torch.multiprocessing as multiprocessing
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmseg.registry import HOOKS

import lale_mmseg.register  # noqa: F401
from lale_mmseg.engine.hooks import buffers
from tests.test_engine.tiny_run import build, tiny_config


@HOOKS.register_module(force=True)
class SeenStatistics(Hook):
    """Notes the running means with which a validation begins, and with which training goes on."""

    seen: list[list[float]] = []

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx == 0:
            self._note(runner)

    def after_val(self, runner):
        self._note(runner)

    def _note(self, runner):
        network = getattr(runner.model, 'module', runner.model)
        self.seen.append(network.backbone.norm.running_mean.tolist())


def config(work_dir, update_buffers, **changes):
    SeenStatistics.seen.clear()
    cfg = tiny_config(work_dir, 1, **changes)
    cfg.default_hooks.ema = dict(type='EMAHook', momentum=0.1, update_buffers=update_buffers)
    cfg.default_hooks.report = None
    cfg.custom_hooks = [dict(type='SeenStatistics')]
    return cfg


@pytest.mark.parametrize('update_buffers', [False, True])
def test_what_an_average_puts_in_is_broadcast(tmp_path, monkeypatch, update_buffers):
    monkeypatch.setattr(buffers, 'broadcast', lambda buffer, src: buffer.fill_(7))
    build(config(tmp_path, update_buffers)).train()
    evaluated, trained = SeenStatistics.seen
    assert evaluated == [7.0] * 8
    assert (trained == evaluated) is not update_buffers


def worker(rank, port, folder):
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE='2')
    os.environ['LOCAL_RANK'] = str(rank)
    torch.set_num_threads(1)
    init_default_scope('mmseg')
    cfg = config(folder, True, launcher='pytorch')
    cfg.train_dataloader.batch_size = 1
    build(cfg).train()
    with open(os.path.join(folder, f'{get_rank()}.json'), 'w') as file:
        json.dump(SeenStatistics.seen, file)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_evaluate_one_network(tmp_path, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(worker, (port, str(tmp_path)), nprocs=2)
    first, second = (json.loads((tmp_path / f'{rank}.json').read_text()) for rank in range(2))
    assert first[0] == second[0]
    assert first[1] != second[1]
    saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)['state_dict']['backbone.norm.running_mean']
    assert saved.tolist() == first[0]
