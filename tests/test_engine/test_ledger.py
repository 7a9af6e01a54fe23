"""The ledger of held-out tests: every read is in it, and a second one does not go unnoticed."""

import hashlib
import json
import multiprocessing
import time

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger

from lale_mmseg.engine import ledger
from lale_mmseg.engine.ledger import LEDGER_NAME, HeldOutRead, config_hash, file_digest, note_test, read_ledger
from lale_mmseg.errors import CheckpointError, ConfigError


def attempt(tmp_path, name='run'):
    run = tmp_path / name
    run.mkdir(exist_ok=True)
    checkpoint = run / 'best.pth'
    checkpoint.write_bytes(b'weights')
    (tmp_path / 'mine.py').touch()
    return Config(dict(model=dict(type='A'), work_dir=str(run)), filename=str(tmp_path / 'mine.py')), checkpoint, run


@pytest.fixture
def warnings(monkeypatch):
    messages = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'warning', messages.append)
    return messages


def test_a_line_says_what_was_read(tmp_path, warnings):
    cfg, checkpoint, run = attempt(tmp_path)
    assert note_test(cfg, str(checkpoint), run, ['inria test (few-shot)']) == HeldOutRead(
        1, hashlib.sha256(b'weights').hexdigest()
    )
    (entry,), damaged = read_ledger(run / LEDGER_NAME)
    assert damaged == 0
    assert entry.pop('date').endswith('+00:00')
    assert entry == dict(
        config='mine.py',
        config_hash=config_hash(cfg),
        checkpoint=str(checkpoint),
        checkpoint_digest=hashlib.sha256(b'weights').hexdigest(),
        split='inria test (few-shot)',
        read=1,
    )
    assert warnings == []


def test_a_second_read_names_the_first(tmp_path, warnings):
    cfg, checkpoint, run = attempt(tmp_path)
    note_test(cfg, str(checkpoint), run, ['a'])
    (first,), _ = read_ledger(run / LEDGER_NAME)
    checkpoint.write_bytes(b'other weights')
    assert note_test(cfg, str(checkpoint), run, ['a']).number == 2
    (message,) = warnings
    for part in ('this is read 2 of a', first['date'], 'mine.py (same config)', f'{checkpoint} (OTHER weights)'):
        assert part in message
    cfg.model.type = 'B'
    # The first read shares neither config nor weights with this one.
    assert note_test(cfg, str(checkpoint), run, ['a']).number == 2
    assert warnings[1].count('OTHER config') == 1
    assert warnings[1].count('same weights') == 1


def test_another_work_dir_does_not_hide_a_read(tmp_path, warnings):
    cfg, checkpoint, run = attempt(tmp_path)
    others = [tmp_path / name for name in ('first', 'second', 'third')]
    assert [note_test(cfg, str(checkpoint), other, ['a']).number for other in others] == [1, 2, 3]
    assert [entry['read'] for entry in read_ledger(run / LEDGER_NAME)[0]] == [1, 2, 3]
    assert [entry['read'] for entry in read_ledger(others[1] / LEDGER_NAME)[0]] == [2]
    # Read 2 stands in both ledgers that count now, once.
    assert note_test(cfg, str(checkpoint), others[1], ['a']).number == 4


def test_a_torn_line_neither_breaks_nor_swallows_the_next(tmp_path, warnings):
    cfg, checkpoint, run = attempt(tmp_path)
    note_test(cfg, str(checkpoint), run, ['a'])
    with open(run / LEDGER_NAME, 'a') as file:
        file.write('{"date": "2026')
    assert note_test(cfg, str(checkpoint), run, ['a']).number == 2
    entries, damaged = read_ledger(run / LEDGER_NAME)
    assert ([entry['read'] for entry in entries], damaged) == ([1, 2], 1)
    assert 'damaged line' in warnings[0]


def test_a_ledger_that_cannot_be_written_is_an_error(tmp_path):
    cfg, checkpoint, run = attempt(tmp_path)
    (run / LEDGER_NAME).mkdir()
    with pytest.raises(
        ConfigError, match=r'test_ledger\.jsonl: the ledger of held-out tests cannot be written .*a is not'
    ):
        note_test(cfg, str(checkpoint), run, ['a'])


def test_a_checkpoint_has_to_be_a_file(tmp_path):
    cfg, _, run = attempt(tmp_path)
    with pytest.raises(CheckpointError, match=r'https:.*no such file'):
        note_test(cfg, 'https://example.org/a.pth', run, ['a'])
    assert not (run / LEDGER_NAME).exists()


@pytest.fixture
def infos(monkeypatch):
    messages = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'info', messages.append)
    return messages


def test_a_copy_of_the_checkpoint_is_known_from_the_data(tmp_path, warnings):
    cfg, checkpoint, run = attempt(tmp_path)
    data = tmp_path / 'data'
    data.mkdir()
    assert note_test(cfg, str(checkpoint), run, ['a'], [data]).number == 1
    copy = tmp_path / 'elsewhere' / 'copy.pth'
    copy.parent.mkdir()
    copy.write_bytes(checkpoint.read_bytes())
    cfg.model.type = 'other settings'
    assert note_test(cfg, str(copy), tmp_path / 'new', ['a'], [data]).number == 2
    assert 'HELD-OUT TEST READ AGAIN: this is read 2 of a' in warnings[0]
    assert 'OTHER config' in warnings[0]
    assert 'same weights' in warnings[0]
    assert [entry['read'] for entry in read_ledger(data / LEDGER_NAME)[0]] == [1, 2]
    # Each line counts once, though it stands in three ledgers.
    assert note_test(cfg, str(copy), tmp_path / 'new', ['a'], [data, str(data)]).number == 3
    # The same config with other weights, as of another seed, is the same attempt.
    checkpoint.write_bytes(b'other weights')
    assert note_test(cfg, str(checkpoint), tmp_path / 'third', ['a'], [data]).number == 3


def test_other_attempts_are_counted_and_no_fault(tmp_path, warnings, infos):
    data = tmp_path / 'data'
    data.mkdir()

    def read(name, weights, split='a'):
        cfg, checkpoint, run = attempt(tmp_path, name)
        checkpoint.write_bytes(weights)
        cfg.model.type = name
        return note_test(cfg, str(checkpoint), run, [split], [data]).number

    assert read('one', b'1') == 1
    assert read('two', b'2') == 1
    assert read('two', b'3') == 2  # of the same attempt as before
    assert read('other split', b'4', split='b') == 1
    assert (len(warnings), len([text for text in infos if 'other attempt' in text])) == (1, 2)
    infos.clear()
    assert read('three', b'5') == 1
    assert infos[0] == '3 read(s) of a by other attempts stand in the ledgers'
    assert infos[1].startswith('first read of a by this attempt')
    assert len(warnings) == 1


def test_checkpoints_of_several_attempts_in_one_folder_are_no_second_read(tmp_path, warnings):
    for number in range(3):
        cfg, _, _ = attempt(tmp_path)
        cfg.model.depth = number
        checkpoint = tmp_path / f'{number}.pth'
        checkpoint.write_bytes(bytes([number]))
        assert note_test(cfg, str(checkpoint), tmp_path / f'run{number}', ['a']).number == 1
    assert note_test(cfg, str(checkpoint), tmp_path / 'run0', ['b']).number == 1  # another split
    assert warnings == []
    assert note_test(cfg, str(checkpoint), tmp_path / 'run0', ['a, b']).number == 3


def test_data_that_cannot_be_written_are_read_all_the_same(tmp_path, warnings, infos):
    cfg, checkpoint, run = attempt(tmp_path)
    (tmp_path / 'data' / LEDGER_NAME).mkdir(parents=True)
    assert note_test(cfg, str(checkpoint), run, ['a'], [tmp_path / 'data']).number == 1
    (message,) = [text for text in infos if 'cannot be written' in text]
    assert message.startswith(f'{tmp_path / "data" / LEDGER_NAME} cannot be written (Is a directory)')
    assert warnings == []


def test_a_checkpoint_in_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch, infos):
    cfg, checkpoint, run = attempt(tmp_path)
    monkeypatch.setattr(ledger.os, 'access', lambda path, mode: False)
    assert note_test(cfg, str(checkpoint), tmp_path / 'new', ['a']).number == 1
    assert infos[0] == f'{run}, where the checkpoint is, cannot be written: this read is not noted there'
    assert not (run / LEDGER_NAME).exists()


LOADER = dict(num_workers=4, batch_size=2, dataset=dict(type='D', data_root='/a', indices=[1]))
RECIPE = dict(
    model=dict(type='A', depths=(1, 2), test_cfg=dict(mode='whole')), train_dataloader=LOADER, train_cfg=dict(epochs=2)
)


@pytest.mark.parametrize(
    'change',
    [
        dict(work_dir='/a', load_from='/b', resume=True, launcher='pytorch', data_root='/c'),
        dict(test_evaluator=dict(pred_dir='out'), default_hooks=dict(report=dict(overlay_dir='show'))),
        dict(model=dict(type='TTA', module=RECIPE['model'])),
        dict(model=RECIPE['model'] | dict(test_cfg=dict(mode='slide', views='d4'))),
        dict(model=dict(test_cfg=dict(), depths=[1, 2], type='A')),
        dict(train_dataloader=LOADER | dict(num_workers=0, persistent_workers=True, pin_memory=True)),
        dict(train_dataloader=LOADER | dict(dataset=dict(type='D', data_root='/b', cache_cfg=dict(), indices=[1]))),
    ],
)
def test_the_hash_does_not_know_how_an_attempt_is_tested(change):
    assert config_hash(Config(RECIPE | change)) == config_hash(Config(RECIPE))


@pytest.mark.parametrize(
    'change',
    [
        dict(model=RECIPE['model'] | dict(depths=(1, 3))),
        dict(model=dict(type='TTA', module=RECIPE['model'] | dict(depths=(1, 3)))),
        dict(train_dataloader=LOADER | dict(batch_size=4)),
        dict(train_dataloader=LOADER | dict(dataset=dict(type='D', indices=[1, 2]))),
        *[
            {name: dict(value=1)}
            for name in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'randomness', 'custom_hooks')
        ],
        dict(augmentation='heavy'),
        dict(binary_class='roof'),
    ],
)
def test_the_hash_knows_network_and_training(change):
    assert config_hash(Config(RECIPE | change)) != config_hash(Config(RECIPE))


def test_a_config_without_a_network_has_a_hash():
    """That of a runner which was built from parts."""
    assert len(config_hash(Config(dict(train_cfg=dict(epochs=2))))) == 64


def test_a_digest_is_read_in_pieces(tmp_path):
    content = bytes(range(256)) * 5000  # more than one piece of 2**20
    (tmp_path / 'a').write_bytes(content)
    assert file_digest(tmp_path / 'a') == hashlib.sha256(content).hexdigest()


def note_some(folder, number):
    cfg, checkpoint, _ = attempt(folder)
    for _ in range(5):
        # Two work dirs, whose names sort before and after that of the checkpoint's folder.
        note_test(cfg, str(checkpoint), folder / ('a' if number % 2 else 'z'), ['a'])


def test_processes_at_once_get_numbers_of_their_own(tmp_path, monkeypatch):
    read = ledger._earlier

    def slowly(*args):
        found = read(*args)
        time.sleep(0.02)  # time enough for another process to write, if it could
        return found

    monkeypatch.setattr(ledger, '_earlier', slowly)
    context = multiprocessing.get_context('fork')
    processes = [context.Process(target=note_some, args=(tmp_path, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    lines = (tmp_path / 'run' / LEDGER_NAME).read_text().splitlines()
    assert sorted(json.loads(line)['read'] for line in lines) == list(range(1, 21))
