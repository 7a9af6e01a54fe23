"""Tiles that weights were trained on follow them from checkpoint to checkpoint, and runs warn where they are scored."""

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.logging import MMLogger

from lale_mmseg.engine.seen_tiles import (
    merged,
    report_seen_before_training,
    report_seen_tiles,
    seen_by_checkpoint,
    tiles_of_dataset,
)
from tests.test_engine import tiny_run
from tests.test_engine.tiny_run import TinyRoofs, build, tiny_config


@pytest.fixture
def warnings(monkeypatch):
    messages = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, message, *_: messages.append(message))
    return messages


def seen_in(path):
    return torch.load(path, weights_only=True)['meta']['seen_tiles']


def train(monkeypatch, work_dir, tiles, **changes):
    """One epoch on these tiles; the tiles of val and test are those of `tiny_run`, unless they are among `tiles`."""
    with monkeypatch.context() as patch:
        patch.setitem(tiny_run.TILES, 'train', tuple(tiles))
        patch.setitem(tiny_run.TILES, 'val', changes.pop('val', tiny_run.TILES['val']))
        patch.setitem(tiny_run.TILES, 'test', changes.pop('test', tiny_run.TILES['test']))
        cfg = tiny_config(work_dir, changes.pop('epochs', 1), **changes)
        build(cfg).train()
    return work_dir / f'epoch_{cfg.train_cfg.max_epochs}.pth'


def leakage(messages):
    return [message for message in messages if message.startswith('LEAKAGE')]


def test_tiles_add_up_over_starts_and_resumes(tmp_path, monkeypatch, warnings):
    first = train(monkeypatch, tmp_path / 'a', ('austin7', 'austin2'))
    assert seen_in(first) == dict(inria=['austin2', 'austin7'])
    second = train(monkeypatch, tmp_path / 'b', ('austin8',), load_from=str(first))
    assert seen_in(second) == dict(inria=['austin2', 'austin7', 'austin8'])
    # What a start has seen stays known when its run is resumed.
    third = train(monkeypatch, tmp_path / 'b', ('austin8',), resume='auto', epochs=2)
    assert seen_in(third) == dict(inria=['austin2', 'austin7', 'austin8'])
    assert seen_in(next((tmp_path / 'b').glob('best_*.pth'))) == dict(inria=['austin2', 'austin7', 'austin8'])
    assert leakage(warnings) == []


def test_a_start_from_weights_that_have_seen_evaluated_tiles_is_told(tmp_path, monkeypatch, warnings):
    first = train(monkeypatch, tmp_path / 'a', ('austin1', 'austin31'), val=('austin2',), test=('austin3',))
    second = train(monkeypatch, tmp_path / 'b', ('austin8',), val=('austin9',), test=('austin3',), load_from=str(first))
    assert leakage(warnings) == []
    # Two starts later, with the held-out split not opened.
    TinyRoofs.listed.clear()
    third = train(monkeypatch, tmp_path / 'c', ('austin2',), load_from=str(second))
    of_val, of_test = leakage(warnings)
    assert 'trained on 1 tiles of val_dataloader: inria/austin1;' in of_val
    assert 'trained on 1 tiles of test_dataloader: inria/austin31;' in of_test
    assert 'test' not in TinyRoofs.listed
    warnings.clear()
    build(tiny_config(tmp_path / 'test', load_from=str(third))).test()
    (message,) = [message for message in warnings if 'tested tiles were' in message]
    assert message.startswith(
        '1 of 2 tested tiles were training tiles of this checkpoint, or of one that it was started'
    )
    assert 'austin31' in message


def test_a_part_brings_its_tiles_along(tmp_path, monkeypatch, warnings):
    first = train(monkeypatch, tmp_path / 'a', ('austin1',), val=('austin2',), test=('austin3',))

    init_cfg = dict(type='Pretrained', checkpoint=str(first), prefix='backbone')
    monkeypatch.setattr(tiny_run.TinyBackbone, 'init_cfg', init_cfg, raising=False)
    second = train(monkeypatch, tmp_path / 'b', ('austin8',))
    assert seen_in(second) == dict(inria=['austin1', 'austin8'])
    assert len(leakage(warnings)) == 1


def test_older_checkpoints_name_their_last_training():
    source = dict(city='inria', tiles=['austin2'])
    assert seen_by_checkpoint(dict(meta=dict(dataset_meta=dict(source=source)))) == dict(inria=['austin2'])
    seen = dict(inria=('austin9',), potsdam=('2_10',))
    both = dict(meta=dict(dataset_meta=dict(source=source), seen_tiles=seen))
    assert seen_by_checkpoint(both) == dict(inria=['austin2', 'austin9'], potsdam=['2_10'])
    for nothing in ({}, dict(meta=None), dict(meta=dict(dataset_meta=None)), dict(meta=dict(dataset_meta=dict()))):
        assert seen_by_checkpoint(nothing) == {}


def test_wrapped_datasets_and_cities():
    roofs = [TinyRoofs(split=split) for split in ('train', 'val')]
    assert tiles_of_dataset(RepeatDataset(roofs[0], 2)) == dict(inria=['austin2', 'austin3'])
    wrapped = ConcatDataset(roofs, ignore_keys='source')
    assert tiles_of_dataset(wrapped) == dict(inria=['austin1', 'austin2', 'austin3', 'austin6'])
    assert tiles_of_dataset(object()) == {}
    assert merged(dict(b=['2', '1']), dict(a=['1']), dict(b=['3', '1'])) == dict(a=['1'], b=['1', '2', '3'])


def test_only_tiles_of_the_same_city_are_the_same(warnings):
    seen = dict(vaihingen=['11', '15', '1'])
    report_seen_tiles(seen, dict(vaihingen=['11', '15', '28']))
    report_seen_tiles(seen, dict(vaihingen=['30']))
    report_seen_tiles(seen, dict(potsdam=['11']))
    report_seen_tiles({}, dict(vaihingen=['11']))
    (message,) = warnings
    assert message.startswith('2 of 3 tested tiles were training tiles of this checkpoint')
    assert ': 11, 15;' in message


def test_a_config_without_tiles_is_left_alone(warnings):
    report_seen_before_training(dict(inria=['austin1']), Config(dict()))
    assert warnings == []
