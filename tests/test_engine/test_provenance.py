"""Checkpoints hold their training config's hash and their training tiles; a test describes what it tested."""

import hashlib
import json

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from lale_mmseg.engine.provenance import config_hash
from tests.test_engine import tiny_run
from tests.test_engine.tiny_run import build, tiny_config

LOADER = dict(batch_size=2, num_workers=4, dataset=dict(type='D', data_root='/a', indices=[1]))
RECIPE = dict(
    model=dict(type='A', depths=(1, 2), test_cfg=dict(mode='whole')),
    train_dataloader=LOADER,
    optim_wrapper=dict(value=0),
    randomness=dict(seed=0),
)


@pytest.mark.parametrize(
    'change',
    [
        dict(work_dir='/a', load_from='/b', resume=True, launcher='pytorch', data_root='/c'),
        dict(test_evaluator=dict(pred_dir='out'), default_hooks=dict(report=dict(overlay_dir='show'))),
        dict(model=RECIPE['model'] | dict(test_cfg=dict(mode='slide', views='d4'))),
        dict(model=dict(test_cfg=dict(), depths=[1, 2], type='A')),
        dict(train_dataloader=LOADER | dict(num_workers=0, dataset=LOADER['dataset'] | dict(data_root='/b'))),
    ],
)
def test_the_hash_ignores_machine_and_prediction(change):
    assert config_hash(Config(RECIPE | change)) == config_hash(Config(RECIPE))


@pytest.mark.parametrize(
    'change',
    [
        dict(model=RECIPE['model'] | dict(depths=(1, 3))),
        dict(train_dataloader=LOADER | dict(batch_size=4)),
        *[{name: dict(value=1)} for name in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'randomness')],
        dict(augmentation='heavy'),
        dict(binary_class='roof'),
        dict(default_hooks=dict(ema=dict(type='EMAHook'))),
        dict(default_hooks=dict(frozen_backbone=dict(type='FreezeBackboneHook', epochs=20))),
    ],
)
def test_the_hash_depends_on_network_and_training(change):
    assert config_hash(Config(RECIPE | change)) != config_hash(Config(RECIPE))


def meta_of(path):
    return torch.load(path, weights_only=True)['meta']


def train(monkeypatch, work_dir, tiles, **changes):
    """One epoch on these tiles; `val` and `test` in `changes` replace those of `tiny_run`."""
    with monkeypatch.context() as patch:
        for split in ('val', 'test'):
            patch.setitem(tiny_run.TILES, split, changes.pop(split, tiny_run.TILES[split]))
        patch.setitem(tiny_run.TILES, 'train', tiles)
        cfg = tiny_config(work_dir, changes.pop('epochs', 1), **changes)
        build(cfg).train()
    return work_dir / f'epoch_{cfg.train_cfg.max_epochs}.pth'


@pytest.fixture
def leakage(monkeypatch):
    """Warnings of evaluated training tiles."""
    found = []
    monkeypatch.setattr(
        MMLogger, 'warning', lambda self, message, *_: found.append(message) if 'LEAKAGE' in message else None
    )
    return found


def test_seen_tiles_accumulate_over_starts_and_resumes(tmp_path, monkeypatch, leakage):
    first = train(monkeypatch, tmp_path / 'a', ('austin7', 'austin2'))
    assert meta_of(first)['seen_tiles'] == ['inria/austin2', 'inria/austin7']
    second = train(monkeypatch, tmp_path / 'b', ('austin8',), load_from=str(first))
    third = train(monkeypatch, tmp_path / 'b', ('austin8',), resume='auto', epochs=2)
    for path in (second, third):
        assert meta_of(path)['seen_tiles'] == ['inria/austin2', 'inria/austin7', 'inria/austin8']
    assert leakage == []


def test_evaluated_training_tiles_are_reported(tmp_path, monkeypatch, leakage):
    first = train(monkeypatch, tmp_path / 'a', ('austin1', 'austin31'), val=('austin2',), test=('austin3',))
    assert leakage == []
    init_cfg = dict(type='Pretrained', checkpoint=str(first), prefix='backbone')
    with monkeypatch.context() as patch:
        patch.setattr(tiny_run.TinyBackbone, 'init_cfg', init_cfg, raising=False)
        second = train(monkeypatch, tmp_path / 'b', ('austin8',))
    of_val, of_test = leakage
    assert '1 tiles of val_dataloader were training tiles of the loaded weights' in of_val
    assert 'inria/austin31' in of_test
    leakage.clear()
    build(tiny_config(tmp_path / 'test', load_from=str(second), allow_held_out=True)).test()
    assert len(leakage) == 1
    assert '1 tiles of test_dataloader' in leakage[0]


def test_a_resumed_training_keeps_the_hash_of_its_first_start(tmp_path):
    """Command line overrides are part of the training config alone, which a test does not know."""
    hashes = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        build(tiny_config(folder, epochs=1, randomness=dict(seed=seed))).train()
        build(tiny_config(folder, epochs=2, resume=True, randomness=dict(seed=7))).train()
        found = {meta_of(folder / f'epoch_{epoch}.pth')['config_hash'] for epoch in (1, 2)}
        assert len(found) == 1
        hashes += found
    assert hashes[0] != hashes[1]


def test_a_test_describes_what_it_tested(tmp_path):
    build(tiny_config(tmp_path / 'train', epochs=1)).train()
    checkpoint = tmp_path / 'train/epoch_1.pth'
    build(tiny_config(tmp_path / 'a', load_from=str(checkpoint), allow_held_out=True)).test()
    assert json.loads((tmp_path / 'a/test/run.json').read_text()) == dict(
        checkpoint=str(checkpoint),
        checkpoint_sha256=hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        epoch=1,
        iter=2,
        config='schedule_plateau_60e.py',
        config_hash=meta_of(checkpoint)['config_hash'],
        split='test',
        prediction=dict(
            mode='whole',
            crop_size=[1024, 1024],
            stride=None,
            views='none',
            scales=[1.0],
            max_pixels=4_000_000,
            blend='mean',
        ),
        test_read=1,
    )


def test_a_test_after_training_names_no_checkpoint(tmp_path):
    cfg = tiny_config(tmp_path, epochs=1)
    cfg.test_dataloader.dataset.free = True
    runner = build(cfg)
    runner.train()
    runner.test()
    run = json.loads((tmp_path / 'test/run.json').read_text())
    assert (run['checkpoint'], run['epoch'], run['iter'], run['checkpoint_sha256']) == (None, 1, 2, None)
