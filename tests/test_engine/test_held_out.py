"""A held-out split is read by a test alone, and every read is noted."""

import json

import pytest
from mmengine.logging import MMLogger

from lale_mmseg.datasets import held_out
from lale_mmseg.engine.ledger import LEDGER_NAME, read_ledger
from lale_mmseg.engine.splits import check_scoring, check_splits, held_out_splits
from lale_mmseg.errors import ConfigError
from tests.test_engine.tiny_run import TinyRoofs, build, tiny_config, train


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('trained')
    TinyRoofs.listed.clear()
    train(work_dir, 1)
    return work_dir, list(TinyRoofs.listed)


@pytest.fixture(autouse=True)
def _nothing_listed():
    TinyRoofs.listed.clear()


def metrics_of_test(work_dir, checkpoint, **changes):
    build(tiny_config(work_dir, load_from=str(checkpoint), **changes)).test()
    return json.loads((work_dir / 'test/metrics.json').read_text())


def test_training_never_lists_the_held_out_split(trained):
    work_dir, listed = trained
    assert set(listed) == {'train', 'val'}
    assert not (work_dir / LEDGER_NAME).exists()


def test_checks_and_class_weights_do_not_read_it(tmp_path):
    cfg = tiny_config(tmp_path)
    cfg.model.decode_head.loss_decode = [dict(type='CrossEntropyLoss', class_weight='data')]
    runner = build(cfg)
    check_splits(runner.cfg)
    check_scoring(runner.cfg, ('val', 'test'))
    assert TinyRoofs.listed == ['train pixels']
    assert held_out_splits(cfg) == ['inria test (few-shot)']


def test_every_test_is_noted_and_scores_say_its_number(trained, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, message, *_: warnings.append(message))
    checkpoint = trained[0] / 'epoch_1.pth'
    (trained[0] / LEDGER_NAME).unlink(missing_ok=True)
    assert metrics_of_test(tmp_path / 'a', checkpoint)['source']['test_read'] == 1
    assert not [message for message in warnings if 'READ AGAIN' in message]
    assert metrics_of_test(tmp_path / 'b', checkpoint)['source']['test_read'] == 2
    (message,) = [message for message in warnings if 'READ AGAIN' in message]
    assert 'same config' in message
    assert 'same weights' in message
    assert len(read_ledger(trained[0] / LEDGER_NAME)[0]) == 2
    assert len(read_ledger(tmp_path / 'b' / LEDGER_NAME)[0]) == 1
    assert not held_out._open


def test_the_line_is_there_before_the_split_is_read(trained, tmp_path, monkeypatch):
    def fails(self):
        assert len(read_ledger(tmp_path / LEDGER_NAME)[0]) == 1
        raise RuntimeError('on purpose')

    monkeypatch.setattr(TinyRoofs, 'load_data_list', fails)
    with pytest.raises(RuntimeError, match='on purpose'):
        metrics_of_test(tmp_path, trained[0] / 'epoch_1.pth')
    assert not held_out._open


def test_nothing_is_read_where_the_ledger_cannot_be_written(trained, tmp_path):
    (tmp_path / LEDGER_NAME).mkdir()
    with pytest.raises(ConfigError, match='cannot be written'):
        metrics_of_test(tmp_path, trained[0] / 'epoch_1.pth')
    assert TinyRoofs.listed == []


@pytest.mark.parametrize('phase', ['train', 'val'])
def test_it_is_neither_trained_on_nor_chosen_by(tmp_path, phase):
    cfg = tiny_config(tmp_path)
    # Inside a wrapper, too.
    inner = cfg[f'{phase}_dataloader'].dataset
    inner.split = 'test'
    cfg[f'{phase}_dataloader'].dataset = dict(type='RepeatDataset', dataset=inner, times=1)
    cfg.model.decode_head.loss_decode = [dict(type='CrossEntropyLoss', class_weight='data')]
    message = rf'{phase}_dataloader\.dataset\.dataset \(TinyRoofs\) is inria test \(few-shot\), which is held out'
    with pytest.raises(ConfigError, match=message):
        build(cfg).train()
    if phase == 'val':
        with pytest.raises(ConfigError, match=message):
            build(cfg).val()
    assert 'test' not in TinyRoofs.listed
    assert 'test pixels' not in TinyRoofs.listed


def test_a_loader_that_is_built_otherwise_meets_the_lock(tmp_path):
    runner = build(tiny_config(tmp_path))
    with pytest.raises(ConfigError, match=r"split 'test' is held out: it is read by tools/test\.py alone"):
        runner.test_dataloader  # noqa: B018
    assert TinyRoofs.listed == []


def test_it_is_tested_from_a_checkpoint_file(trained, tmp_path):
    with pytest.raises(ConfigError, match='is tested from a checkpoint file'):
        build(tiny_config(tmp_path)).test()
    with pytest.raises(ConfigError, match='is tested from a checkpoint file'):
        build(tiny_config(trained[0], resume=True)).test()
    runner = train(tmp_path, 1)
    runner._load_from = str(tmp_path / 'epoch_1.pth')
    with pytest.raises(ConfigError, match='in a process that does not train'):
        runner.test()
    assert 'test' not in TinyRoofs.listed
    assert not (tmp_path / LEDGER_NAME).exists()


def test_splits_that_are_not_held_out_are_not_noted(trained, tmp_path):
    cfg = tiny_config(tmp_path, load_from=str(trained[0] / 'epoch_1.pth'))
    cfg.test_dataloader.dataset.free = True
    build(cfg).test()
    assert not (tmp_path / LEDGER_NAME).exists()
    assert 'test_read' not in json.loads((tmp_path / 'test/metrics.json').read_text())['source']
