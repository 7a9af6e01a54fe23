"""Attempts side by side: the table, what a work dir lacks, and what is noted of runs that are not what they seem."""

import json
import os
import shutil

import cv2
import pytest

from lale_mmseg.errors import ConfigError, DataError
from tests.attempts import TOOL, attempt, change, comparing, rows, write_split  # noqa: F401
from tests.support import run_tool


def test_the_table(compare, tmp_path):
    """Sorted by val: the better test of `low` does not lift it; epochs, times and sizes are those of the rows."""
    low = attempt(tmp_path / 'low', [50.0, 61.25, 60.0], test=1, reads=1)
    high = attempt(tmp_path / 'high', [70.5, 40.0, 30.0], test=3, reads=2)
    never = attempt(tmp_path / 'never', [20.0, 30.0, 65.0])
    said, content = compare(low, high, never, '--baseline', 'low')
    assert [row['label'] for row in content['attempts']] == ['high', 'never', 'low']
    table = rows((tmp_path / 'out' / 'attempts.md').read_text())
    assert table['attempt'] == [
        'start', 'VAL IoU', 'VAL F1', 'VAL OA', 'VAL gain over low', 'TEST IoU', 'TEST F1', 'TEST OA', 'test reads',
        'params M', 'trained M', 'epochs', 'best epoch', 's/epoch', 'memory MB',
    ]  # fmt: skip
    assert table['high'][:5] == ['random', '70.50', '78.50', '90.50', '+9.25']
    assert table['high'][8:] == ['2!', '2.50', '1.25', '3', '1', '20.0', '903']
    assert table['low'][4] == '+0.00'
    assert table['never'][5:9] == ['-', '-', '-', '-']
    summaries = {name: json.loads((tmp_path / name / 'test' / 'metrics.json').read_text()) for name in ('low', 'high')}
    for name, metrics in summaries.items():
        assert table[name][5] == f'{metrics["summary"]["mIoU"]:.2f}'
    assert float(table['low'][5]) > float(table['high'][5])
    assert table['low'][8] == '1'
    assert 'high: ! its held-out test was read 2 times' in said
    assert 'recipes agree' in said
    lines = [line.split() for line in said.splitlines()]
    assert ['high', 'random', '70.50', '78.50', '90.50', '+9.25'] in [line[:6] for line in lines]


@pytest.mark.parametrize(
    ('extra', 'start'),
    [
        ('', 'random'),
        ("model.update(encoder_weights='imagenet')", 'imagenet'),
        ('model.update(encoder_weights=None)', 'random'),
        ("model.update(backbone=dict(weights='sa1b'))", 'sa1b'),
        ("model.update(backbone=dict(weights='weights/sam.pth'))", 'file sam.pth'),
        ("model.update(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='b/a.pth')))", 'file a.pth'),
        ("load_from = 'runs/coco.pth'\nmodel.update(encoder_weights='imagenet')", 'load_from coco.pth'),
    ],
)
def test_what_a_training_started_from(compare, tmp_path, extra, start):
    _, content = compare(attempt(tmp_path / 'a', [50.0] * 3, extra=extra))
    assert content['attempts'][0]['start'] == start
    assert rows((tmp_path / 'out' / 'attempts.md').read_text())['a'][0] == start


def test_a_test_of_an_earlier_training_in_the_same_folder_is_left_out(compare, tmp_path):
    """By the name of the start, whatever the dates of files: they change with copies and time zones."""
    folder = attempt(tmp_path / 'a', [50.0] * 3, test=1, reads=1, starts=['roofs_20200101_120000', 'roofs_20200102_1'])
    metrics = folder / 'test' / 'metrics.json'
    run = dict(checkpoint='a.pth', epoch=1, iter=100, mode='whole', views='none')
    os.utime(metrics, (0, 0))
    for start in ('roofs_20200101_120000', 'roofs_20200102_1', None):  # that trained, that validated, not said
        change(metrics, run=dict(run, start=start))
        assert compare(folder)[1]['attempts'][0]['test'] is not None
    change(metrics, run=dict(run, start='roofs_20191231_120000'))
    said, content = compare(folder)
    assert content['attempts'][0]['test'] is None
    note = (
        'TEST is left out: test/metrics.json is of epoch 1 as roofs_20191231_120000 trained it, the row of that epoch '
        'is of roofs_20200101_120000, roofs_20200102_1, so it is of an earlier training'
    )
    assert note in content['attempts'][0]['notes']
    assert f'a: {note}' in said
    assert rows((tmp_path / 'out' / 'attempts.md').read_text())['a'][4:7] == ['-', '-', '-']
    assert 'no predictions.png' in compare(folder, '--pictures', 'test')[0]


def test_reads_are_those_of_the_attempt(compare, tmp_path):
    """The work dir was another attempt's before."""
    folder = attempt(tmp_path / 'a', [50.0] * 3, test=1)
    entry = dict(split='inria test (few-shot)', config_hash='old', checkpoint_digest='1')
    lines = [dict(entry, read=1), dict(entry, read=2), dict(entry, config_hash='new', checkpoint_digest='2', read=1)]
    (folder / 'test_ledger.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    run = dict(checkpoint='a.pth', epoch=1, iter=100, mode='whole', views='none')
    for digest, count in (('2', 1), ('1', 2)):
        change(folder / 'test' / 'metrics.json', run=dict(run, digest=digest))
        assert compare(folder)[1]['attempts'][0]['test_reads'] == count


@pytest.mark.parametrize(
    ('run', 'note'),
    [
        (dict(epoch=60, iter=6000), 'is of epoch 60, the training has 3'),
        (dict(epoch=2, iter=777), 'is of iteration 777 at epoch 2, the training has 200 there'),
        (dict(epoch=2, iter=200), None),
    ],
)
def test_a_test_of_an_epoch_that_the_training_has_not_is_left_out(compare, tmp_path, run, note):
    folder = attempt(tmp_path / 'a', [50.0, 60.0, 55.0], test=1, reads=1)
    change(folder / 'test' / 'metrics.json', run=dict(checkpoint='a.pth', mode='whole', views='none', **run))
    row = compare(folder)[1]['attempts'][0]
    assert (row['test'] is None) == (note is not None)
    if note is not None:
        assert row['notes'] == [f'TEST is left out: test/metrics.json {note}, so it is of an earlier training']


@pytest.mark.parametrize(
    ('fault', 'message'),
    [
        (lambda a: shutil.rmtree(a), 'a: no such work dir'),
        (lambda a: (a / 'roofs.py').unlink(), r'a/\*\.py: no copy of the config'),
        (lambda a: (a / 'other.py').write_text(''), r'2 configs \(other\.py, roofs\.py\) and no log of a training'),
        (lambda a: (a / 'roofs.py').write_text('model = ('), r'roofs\.py: not a usable config'),
        (lambda a: (a / 'diagnostics.jsonl').unlink(), r'a/diagnostics\.jsonl: no such file'),
        (lambda a: (a / 'diagnostics.jsonl').write_text(''), r'diagnostics\.jsonl: has no epoch yet'),
        (
            lambda a: (a / 'diagnostics.jsonl').write_text('{"epoch": 1, "val": {}}\n'),
            r'diagnostics\.jsonl: none of its 1 epochs was validated',
        ),
        (lambda a: (a / 'test' / 'metrics.json').write_text('{}'), r'test/metrics\.json: not the scores of a test'),
    ],
)
def test_what_a_work_dir_lacks_is_named(compare, tmp_path, fault, message):
    folder = attempt(tmp_path / 'a', [50.0] * 3, test=2)
    fault(folder)
    with pytest.raises(DataError, match=message):
        compare(folder)
    assert not (tmp_path / 'out').exists()


def test_labels_and_baseline(compare, tmp_path):
    a, b = attempt(tmp_path / '1' / 'run', [50.0] * 3), attempt(tmp_path / '2' / 'run', [60.0] * 3)
    with pytest.raises(ConfigError, match="two attempts are called 'run'; name them with --labels"):
        compare(a, b)
    with pytest.raises(ConfigError, match='--labels: 1 labels for 2 work dirs'):
        compare(a, b, '--labels', 'one')
    with pytest.raises(ConfigError, match='--baseline three: no such attempt; there are one, two'):
        compare(a, b, '--labels', 'one', 'two', '--baseline', 'three')
    assert [row['label'] for row in compare(a, b, '--labels', 'one', 'two')[1]['attempts']] == ['two', 'one']


def test_notes_on_runs_that_are_not_what_they_seem(compare, tmp_path):
    a = attempt(tmp_path / 'a', [50.0, 60.0, 55.0], max_epochs=60)
    b = attempt(tmp_path / 'b', [60.0] + [50.0] * 10, max_epochs=60)  # stopped early
    write_split(a / 'test', ('austin1',), 0, 'val')
    c = attempt(tmp_path / 'c', [50.0] * 3, test=1)  # a test without a ledger
    said, content = compare(a, b, c)
    notes = {row['label']: row['notes'] for row in content['attempts']}
    assert notes['a'][0].startswith('unfinished: 3 of 60 epochs')
    assert notes['a'][1] == "test/metrics.json is of split 'val', so it is no test"
    assert notes['b'] == []
    assert rows((tmp_path / 'out' / 'attempts.md').read_text())['c'][7] == '?'
    assert 'a: unfinished' in said


FROZEN = """
default_hooks['stop'].update(begin=20)
"""


@pytest.mark.parametrize(
    ('scores', 'finished'),
    [
        # Best at 3, killed at 15 or at 29: twelve epochs without a gain, and then nine that count.
        ([50.0, 51.0, 60.0] + [40.0] * 12, False),
        ([50.0, 51.0, 60.0] + [40.0] * 26, False),
        # The first that counts, 21, is the best of those that count: ten without a gain end at 31.
        ([50.0, 51.0, 60.0] + [40.0] * 27, False),
        ([50.0, 51.0, 60.0] + [40.0] * 28, True),
        # A gain at the last one: not due.
        ([50.0, 51.0, 60.0] + [40.0] * 27 + [45.0], False),
        ([40.0] * 60, True),
    ],
)
def test_epochs_with_a_frozen_encoder_do_not_count_for_the_early_stop(compare, tmp_path, scores, finished):
    _, content = compare(attempt(tmp_path / 'a', scores, max_epochs=60, extra=FROZEN))
    notes = content['attempts'][0]['notes']
    assert [note.split(':')[0] for note in notes] == ([] if finished else ['unfinished'])


def test_a_run_without_early_stopping_ends_at_its_last_epoch(compare, tmp_path):
    folder = attempt(tmp_path / 'a', [60.0] + [40.0] * 30, max_epochs=60, extra="default_hooks.pop('stop')\n")
    _, content = compare(folder)
    assert content['attempts'][0]['notes'] == ['unfinished: 31 of 60 epochs, and it was not due to stop early']


@pytest.mark.parametrize(
    ('run', 'notes'),
    [
        (dict(epoch=2, iter=200, mode='whole', views='none'), []),
        (dict(epoch=3, iter=300, mode='whole', views='none'), ['TEST is of epoch 3, VAL of epoch 2']),
        (dict(epoch=None, iter=300, mode='whole', views='none'), ['TEST is of iteration 300, VAL of iteration 200']),
        (
            dict(epoch=None, iter=None, mode='whole', views='none'),
            ['TEST is of weights.pth, whose epoch is not known; VAL of epoch 2'],
        ),
        (dict(epoch=2, iter=200, mode='whole', views='d4'), ['TEST with d4 views']),
        (
            dict(epoch=2, iter=200, mode='whole', views='d4, scales 0.75 1'),
            ['TEST averaged over d4, scales 0.75 1'],
        ),
        (dict(epoch=2, iter=200, mode='slide', views='none'), ['TEST in slide mode, VAL in whole mode']),
        (None, ['TEST: its metrics.json does not say of which checkpoint it is']),
    ],
)
def test_a_test_of_another_checkpoint_or_another_way_is_named(compare, tmp_path, run, notes):
    folder = attempt(tmp_path / 'a', [50.0, 60.0, 55.0], test=1, reads=1)
    path = folder / 'test' / 'metrics.json'
    content = json.loads(path.read_text())
    content.pop('run', None)
    if run is not None:
        content['run'] = dict(checkpoint='weights.pth', digest='0' * 64, **run)
    path.write_text(json.dumps(content))
    said, result = compare(folder)
    (row,) = result['attempts']
    assert row['notes'] == notes
    assert row['test_run'] == content.get('run')
    assert all(f'a: {note}' in said for note in notes)


def test_a_test_with_the_views_of_the_validation_is_not_named(compare, tmp_path):
    views = "model.update(test_cfg=dict(mode='slide', views='d4'))"
    folder = attempt(tmp_path / 'a', [50.0, 60.0], max_epochs=2, test=1, reads=1, extra=views)
    path = folder / 'test' / 'metrics.json'
    for used, notes in (('d4', []), ('none', ['TEST without views, VAL with d4 views'])):
        run = dict(checkpoint='a.pth', epoch=2, iter=200, digest=None, mode='slide', views=used)
        path.write_text(json.dumps({**json.loads(path.read_text()), 'run': run}))
        assert compare(folder)[1]['attempts'][0]['notes'] == notes


@pytest.mark.slow
def test_in_a_process_of_its_own(tmp_path):
    folder = attempt(tmp_path / 'a', [50.0, 60.0, 70.0])
    done = run_tool('python', TOOL, folder, '--out', tmp_path / 'out')
    assert 'convergence.png' in done.stdout
    assert min(cv2.imread(str(tmp_path / 'out' / 'convergence.png')).shape[:2]) > 300
    assert min(cv2.imread(str(tmp_path / 'out' / 'predictions.png')).shape[:2]) > 300
    failed = run_tool('python', TOOL, tmp_path / 'nothing', '--out', tmp_path / 'out', check=False)
    assert (failed.returncode, failed.stderr) == (2, f'error: {tmp_path / "nothing"}: no such work dir\n')
