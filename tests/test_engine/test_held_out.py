"""A held-out split is tested on request only, and every read is recorded."""

import json
import multiprocessing
from pathlib import Path

import pytest
from mmengine.logging import MMLogger

from lale_mmseg.engine import held_out
from lale_mmseg.errors import CheckpointError, ConfigError
from tests.test_engine.tiny_run import TinyLoad, TinyRoofs, build, tiny_config, train


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('trained')
    TinyRoofs.listed.clear()
    train(work_dir, 1)
    return work_dir, list(TinyRoofs.listed)


@pytest.fixture
def warnings(monkeypatch):
    found = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, message, *_: found.append(message))
    return found


def config_of_test(work_dir, checkpoint, data_root, **changes):
    cfg = tiny_config(work_dir, load_from=str(checkpoint), allow_held_out=True, **changes)
    cfg.test_dataloader.dataset.data_root = str(data_root)
    return cfg


def read_ledger(data_root):
    path = data_root / 'test_ledger.jsonl'
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_training_lists_the_other_splits_only(trained):
    assert set(trained[1]) == {'train', 'val'}
    assert read_ledger(trained[0]) == []


@pytest.mark.parametrize('phase', ['train', 'val'])
def test_it_is_neither_trained_on_nor_selected_by(tmp_path, phase):
    cfg = tiny_config(tmp_path, allow_held_out=True)
    inner = cfg[f'{phase}_dataloader'].dataset
    inner.split = 'test'
    cfg[f'{phase}_dataloader'].dataset = dict(type='RepeatDataset', dataset=inner, times=1)
    cfg.model.decode_head.loss_decode = [dict(type='CrossEntropyLoss', class_weight='data')]
    TinyRoofs.listed.clear()
    message = rf'{phase}_dataloader\.dataset\.dataset is inria test \(few-shot\), which is held out'
    for method in ('train', 'val') if phase == 'val' else ('train',):
        with pytest.raises(ConfigError, match=message):
            getattr(build(cfg), method)()
    assert 'test' not in TinyRoofs.listed


def test_a_test_needs_the_flag(trained, tmp_path):
    cfg = tiny_config(tmp_path, load_from=str(trained[0] / 'epoch_1.pth'))
    with pytest.raises(ConfigError, match=r'pass --cfg-options allow_held_out=True'):
        build(cfg).test()
    assert read_ledger(tmp_path) == []


def test_every_read_is_recorded_and_a_second_one_warns(trained, tmp_path, warnings):
    data_root = tmp_path / 'data'
    data_root.mkdir()
    copy = tmp_path / 'copy.pth'
    copy.write_bytes((trained[0] / 'epoch_1.pth').read_bytes())
    for number, checkpoint in enumerate((trained[0] / 'epoch_1.pth', copy), 1):
        build(config_of_test(tmp_path / str(number), checkpoint, data_root)).test()
        assert json.loads((tmp_path / str(number) / 'test/run.json').read_text())['test_read'] == number
    first, second = read_ledger(data_root)
    assert (first['split'], first['read'], second['read']) == ('inria test (few-shot)', 1, 2)
    assert first['checkpoint'] == str(trained[0] / 'epoch_1.pth')
    assert first['config_hash'] == second['config_hash']
    (message,) = [message for message in warnings if 'READ AGAIN' in message]
    assert f'{first["date"]}: {first["config"]}, {first["checkpoint"]}' in message
    # Another training (its seed differs) reads for the first time.
    train(tmp_path / 'other', 1, randomness=dict(seed=5))
    build(config_of_test(tmp_path / '3', tmp_path / 'other/epoch_1.pth', data_root)).test()
    assert read_ledger(data_root)[-1]['read'] == 1


def test_the_line_is_written_before_the_first_image_is_read(trained, tmp_path, monkeypatch):
    def fails(self, results):
        assert len(read_ledger(tmp_path)) == 1
        raise RuntimeError('on purpose')

    monkeypatch.setattr(TinyLoad, '__call__', fails)
    with pytest.raises(RuntimeError, match='on purpose'):
        build(config_of_test(tmp_path, trained[0] / 'epoch_1.pth', tmp_path)).test()
    assert len(read_ledger(tmp_path)) == 1


def test_nothing_is_recorded_if_the_test_cannot_begin(trained, tmp_path):
    cfg = config_of_test(tmp_path / 'run', trained[0] / 'epoch_1.pth', tmp_path)
    cfg.model.decode_head.channels = 5
    with pytest.raises(CheckpointError, match='does not fit'):
        build(cfg).test()
    with pytest.raises(CheckpointError, match='tested from a local checkpoint file'):
        build(tiny_config(tmp_path, allow_held_out=True)).test()
    assert read_ledger(tmp_path) == []


def test_nothing_is_read_if_the_ledger_cannot_be_written(trained, tmp_path, monkeypatch):
    (tmp_path / 'test_ledger.jsonl').mkdir()
    monkeypatch.setattr(TinyLoad, '__call__', None)  # reading an image would fail
    with pytest.raises(ConfigError, match=r'test_ledger\.jsonl: cannot be written .*make the data root writable'):
        build(config_of_test(tmp_path / 'run', trained[0] / 'epoch_1.pth', tmp_path)).test()


def test_other_splits_need_neither_flag_nor_ledger(trained, tmp_path):
    cfg = tiny_config(tmp_path, load_from=str(trained[0] / 'epoch_1.pth'))
    cfg.test_dataloader.dataset.free = True
    build(cfg).test()
    assert read_ledger(tmp_path) == []
    assert json.loads((tmp_path / 'test/run.json').read_text())['test_read'] is None


def read_some(folder: Path) -> None:
    run = dict(config='a.py', config_hash='1', checkpoint='a.pth', checkpoint_sha256='2')
    for _ in range(5):
        held_out.note_read(config_of_test(folder, 'a.pth', folder), run)


def test_concurrent_reads_get_different_numbers(tmp_path):
    processes = [multiprocessing.get_context('fork').Process(target=read_some, args=(tmp_path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert [line['read'] for line in read_ledger(tmp_path)] == [*range(1, 21)]
