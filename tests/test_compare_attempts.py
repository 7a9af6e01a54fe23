"""Attempts side by side, from work dirs that the real parts of a training have written: rows, reports and pictures."""

import json
import os
import re
import shutil
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lale_mmseg.engine.hooks.diagnostics import write_row
from lale_mmseg.engine.hooks.report import _keep
from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.evaluation import TileSegmentationMetric
from lale_mmseg.metainfo import inria
from tests.support import REPO, run_tool
from tests.test_docs import load_script

TOOL = 'tools/analysis/compare_attempts.py'
CONFIG = """
model = dict(decode_head=dict(loss_decode=[dict(type='CrossEntropyLoss', loss_weight={bce})]))
augmentation = '{augmentation}'
train_dataloader = dict(
    batch_size=4, sampler=dict(type='ReplacementSampler', samples_per_epoch={samples}),
    dataset=dict(type='InriaDataset', protocol='few-shot', split='train', pipeline=[dict(type='LoadBands')]),
)
val_dataloader = dict(dataset=dict(type='InriaDataset', protocol='few-shot', split='val'))
val_evaluator = dict(type='TileSegmentationMetric', protocol='few-shot')
optim_wrapper = dict(optimizer=dict(type='AdamW', lr={lr}, weight_decay=1e-4))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs={max_epochs})
default_hooks = dict(stop=dict(type='LaleEarlyStopping', monitor='mIoU', patience=10), report=dict(type='ReportHook'))
randomness = dict(seed=42)
"""
VAL_TILES = ('austin1', 'austin6', 'austin11')
RECIPE = dict(bce=0.5, augmentation='medium', samples=400, lr=0.001, max_epochs=3)


def truth_of(name: str, side: int = 64) -> np.ndarray:
    """Roofs: rectangles on a plain."""
    rng = np.random.default_rng(sum(map(ord, name)))
    label = np.zeros((side, side), np.uint8)
    for _ in range(5):
        top, left = rng.integers(0, side * 3 // 4, 2)
        label[top : top + side // 5, left : left + side // 4] = 1
    return label


def image_of(label: np.ndarray) -> np.ndarray:
    """Grey roofs on green ground with some noise, RGB."""
    noise = np.random.default_rng(0).integers(0, 40, (*label.shape, 1))
    return (np.where(label[..., None] == 1, (150, 140, 135), (70, 110, 60)) + noise).astype(np.uint8)


def shifted(label: np.ndarray, by: int) -> np.ndarray:
    return np.roll(label, by, axis=(0, 1))


def write_split(folder: Path, tiles, by: int, split: str = 'val', side: int = 64) -> dict:
    """Scores and pictures as an evaluation leaves them, of predictions that are off by some pixels."""
    metric = TileSegmentationMetric(protocol='few-shot', output_dir=str(folder))
    source = dict(city='inria', protocol='few-shot', split=split, clean=False, labels='full')
    source.update(tiles=list(tiles), missing_tiles=[])
    colors = [list(color) for color in inria.COLORS]
    metric.dataset_meta = dict(classes=inria.CLASSES, palette=colors, source=source, tile_pattern=inria.TILE_PATTERN)
    for tile in tiles:
        label = truth_of(tile, side)
        pred = shifted(label, by)
        sample = {
            key: dict(data=torch.from_numpy(values)[None])
            for key, values in (('gt_sem_seg', label), ('pred_sem_seg', pred))
        }
        metric.process(None, [dict(img_path=f'{tile}.jpg', **sample)])
        _keep(folder, tile, image_of(label), label, pred)
    return metric.evaluate(len(tiles))


def attempt(
    folder: Path,
    scores,
    by=2,
    tiles=('austin1', 'austin6', 'austin11'),
    test=None,
    reads=0,
    side=64,
    extra='',
    **recipe,
):
    """A work dir of a training with these validation IoUs by epoch, and of a test if `test` says how far it is off."""
    folder.mkdir(parents=True)
    (folder / 'roofs.py').write_text(CONFIG.format(**{**RECIPE, **recipe}) + extra)
    for epoch, score in enumerate(scores, 1):
        row = dict(epoch=epoch, iter=100 * epoch, lr=0.001, lr_backbone=None, train=dict(loss=1 / epoch))
        row.update(val=dict(mIoU=score, mF1=score + 8, OA=score + 20), tiles={}, worst_tile=None)
        row.update(
            memory_mb=900.0 + epoch, memory_kind='gpu', step_time_s=0.1, data_time_s=0.0, epoch_time_s=10.0 * epoch
        )
        row.update(epoch_time_s=10.0 * epoch, parameters=2_500_000, trainable_parameters=1_250_000)
        write_row(folder, row)
    write_split(folder / 'val', tiles, by, side=side)
    if test is not None:
        write_split(folder / 'test', ('austin31', 'austin32'), test, 'test', side)
    for read in range(1, reads + 1):
        with (folder / 'test_ledger.jsonl').open('a') as file:
            file.write(json.dumps(dict(date=f'day {read}', split='inria test (few-shot)', read=read)) + '\n')
    return folder


@pytest.fixture(name='compare')
def comparing(tmp_path, monkeypatch, capsys):
    """Runs the tool in this process; returns what it printed and attempts.json."""
    monkeypatch.syspath_prepend(str(REPO / 'tools'))
    monkeypatch.syspath_prepend(str(REPO / 'tools' / 'analysis'))
    module = load_script(TOOL)

    def run(*words):
        monkeypatch.setattr('sys.argv', [TOOL, *map(str, words), '--out', str(tmp_path / 'out')])
        module.main()
        return capsys.readouterr().out, json.loads((tmp_path / 'out' / 'attempts.json').read_text())

    return run


def rows(text: str) -> dict[str, list[str]]:
    """Cells by the first cell of the Markdown table."""
    table = [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines() if line[:2] == '| ']
    return {line[0]: line[1:] for line in table}


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


def test_published_figures_are_attributed(compare, tmp_path):
    tiles = ('austin1', 'austin6', 'austin11', 'austin16', 'austin21', 'austin26')
    said, content = compare(attempt(tmp_path / 'a', [50.0, 51.0, 52.0], tiles=tiles, side=1024), '--published')
    table = rows((tmp_path / 'out' / 'attempts.md').read_text())
    assert table['[published] DeepLabV3+, ResNet-34 (ImageNet)'][:9] == [
        '-',
        '77.2',
        '-',
        '-',
        '80.2',
        '89.0',
        '-',
        '-',
        '-',
    ]
    assert '[published]: figures of the authors of few-shot roofs under their recipe, not measured here' in said
    assert len(content['published']) == 5
    assert len(content['attempts']) == 1
    assert '[published] U-Net from scratch' in said


def test_published_figures_stand_beside_scores_of_their_data_only(compare, tmp_path):
    few = attempt(tmp_path / 'few', [50.0] * 3, side=1024)
    small = attempt(tmp_path / 'small', [50.0] * 3, tiles=[f'austin{number}' for number in range(1, 7)])
    other = attempt(tmp_path / 'other', [50.0] * 3)
    change(other / 'val' / 'metrics.json', source=None)
    for folder, found in (
        (few, 'was validated on 3 images of 3145728 pixels'),
        (small, 'was validated on 6 images of 24576 pixels'),
        (other, 'was validated on InriaDataset, protocol none'),
    ):
        with pytest.raises(ConfigError, match=f'--published: {folder.name} .* {found}.*; 6 crops of 1024x1024 pixels'):
            compare(folder, '--published')
    assert not (tmp_path / 'out').exists()


def change(path: Path, **fields) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_other_labels_under_one_path_are_said_first(compare, tmp_path, monkeypatch):
    monkeypatch.setattr(load_script(TOOL), 'rows_of', lambda *_: [])
    a, b = attempt(tmp_path / 'a', [50.0] * 3), attempt(tmp_path / 'b', [60.0] * 3, lr=0.5)
    said, content = compare(a, b)
    assert (content['comparable'], content['data_differences']) == (True, [])
    assert 'NOT COMPARABLE' not in said
    path = b / 'val' / 'per_tile.csv'
    table = [line.split(',') for line in path.read_text().splitlines()]
    place = table[0].index('label_pixels')
    line = next(line for line in table if line[0] == 'austin6')
    before, line[place] = line[place], '7'
    path.write_text('\n'.join(map(','.join, table)) + '\n')
    said, content = compare(a, b)
    expected = (
        f'validation data differ: building in the labels of austin6: 7 of 4096 pixels (b); {before} of 4096 pixels (a)'
    )
    assert content['data_differences'] == [expected]
    assert content['comparable'] is False
    assert said.splitlines()[0].startswith('NOT COMPARABLE: the scores are of different data')
    assert said.splitlines()[1] == expected
    assert (tmp_path / 'out' / 'attempts.md').read_text().splitlines()[2].startswith('**NOT COMPARABLE')
    # The same recipes otherwise: the data are not among what agrees.
    (b / 'roofs.py').write_text((a / 'roofs.py').read_text())
    agreed = next(line for line in compare(a, b)[0].splitlines() if line.startswith('recipes agree in'))
    assert 'optimizer' in agreed
    assert 'data, protocol and split' not in agreed


@pytest.mark.parametrize(
    ('fields', 'line'),
    [
        (dict(source=dict(city='inria', protocol='full')), 'protocol: full (b); few-shot (a)'),
        (dict(source=dict(city='potsdam', protocol='few-shot')), 'data set: potsdam (b); inria (a)'),
        (dict(classes=['background', 'roof']), 'classes: background, roof (b); background, building (a)'),
        (dict(num_pixels=1), 'num_pixels: 1 (b); 12288 (a)'),
    ],
)
def test_other_data_are_not_ranked_silently(compare, tmp_path, fields, line):
    a, b = attempt(tmp_path / 'a', [50.0] * 3), attempt(tmp_path / 'b', [60.0] * 3)
    change(b / 'val' / 'metrics.json', **fields)
    assert compare(a, b)[1]['data_differences'] == [f'validation data differ: {line}']


def test_other_images_and_other_tests_are_not_ranked_silently(compare, tmp_path):
    a = attempt(tmp_path / 'a', [50.0] * 3, test=1, reads=1)
    b = attempt(tmp_path / 'b', [60.0] * 3, tiles=('austin6', 'austin11', 'austin16'), test=1, reads=1)
    change(b / 'test' / 'metrics.json', num_images=5)
    assert compare(a, b)[1]['data_differences'] == [
        'validation data differ: images: austin11 austin16 austin6 (b); austin1 austin11 austin6 (a)',
        'test data differ: num_images: 5 (b); 2 (a)',
    ]


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


def log_of(folder: Path, name: str, epoch: int, resume: bool = False) -> None:
    log = folder / name / 'vis_data'
    log.mkdir(parents=True)
    (log / 'config.py').write_text((folder / 'roofs.py').read_text() + f'resume = {resume}\n')
    (log / 'scalars.json').write_text(json.dumps({'train/loss': 0.5, 'epoch': epoch, 'iter': 1, 'step': 1}) + '\n')


def test_a_test_of_an_earlier_training_in_the_same_folder_is_left_out(compare, tmp_path):
    folder = attempt(tmp_path / 'a', [50.0] * 3, test=1, reads=1)
    log_of(folder, '20200101_120000', epoch=1)
    noon = time.mktime((2020, 1, 1, 12, 0, 0, 0, 0, -1))
    metrics = folder / 'test' / 'metrics.json'
    os.utime(metrics, (noon + 3600,) * 2)
    assert compare(folder)[1]['attempts'][0]['test'] is not None
    # Trainings that go on from a checkpoint are the same training.
    log_of(folder, '20200102_120000', epoch=2)
    log_of(folder, '20200103_120000', epoch=1, resume=True)
    assert compare(folder)[1]['attempts'][0]['test'] is not None
    log_of(folder, '20200104_120000', epoch=1)
    said, content = compare(folder)
    assert content['attempts'][0]['test'] is None
    note = (
        'TEST is left out: test/metrics.json is of 2020-01-01 13:00:00, the training began at 2020-01-04 12:00:00, so '
        'it is of an earlier training'
    )
    assert note in content['attempts'][0]['notes']
    assert f'a: {note}' in said
    assert rows((tmp_path / 'out' / 'attempts.md').read_text())['a'][4:7] == ['-', '-', '-']
    assert 'no predictions.png' in compare(folder, '--pictures', 'test')[0]


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


def test_pictures_of_the_best_validation_and_images_with_buildings(compare, tmp_path, monkeypatch):
    drawn = {}
    module = load_script(TOOL)
    monkeypatch.setattr(
        module, 'draw_predictions', lambda rows, _labels, _path, title: drawn.update(rows=rows, title=title)
    )
    a, b = attempt(tmp_path / 'a', [50.0] * 3, by=1), attempt(tmp_path / 'b', [60.0] * 3, by=4)
    compare(a, b)
    assert drawn['title'].startswith('last validation of each attempt\n')
    write_split(a / 'val_best', VAL_TILES, 0)
    compare(a, b)
    assert drawn['title'].startswith('last validation of b; best validation of a\n')
    assert drawn['rows'][0].scores['a'] == 100
    nothing = np.zeros((64, 64), np.uint8)
    for folder in (a / 'val_best', b / 'val'):
        _keep(folder, 'austin1', image_of(nothing), nothing, truth_of('austin6'))
        table = (folder / 'per_tile.csv').read_text().splitlines()
        (folder / 'per_tile.csv').write_text('\n'.join(line for line in table if 'austin1,' not in line) + '\n')
    module.data_lines = lambda *_: []
    compare(a, b)
    assert [row.name for row in drawn['rows']] == ['austin6', 'austin11', 'austin1']
    assert drawn['rows'][2].scores == dict(a=None, b=None)


def test_false_and_missed_buildings_have_colours_of_their_own(compare):
    from _attempt_pictures import painted

    image = np.full((1, 5, 3), 250, np.uint8)  # a bright roof
    shown = painted(image, np.array([[1, 1, 0, 0, 1]]), np.array([[1, 0, 1, 0, 255]]))[0].astype(int)
    red, green, blue = shown.T
    assert min(red[0], green[0]) > blue[0] + 100  # found
    assert red[1] > max(green[1], blue[1]) + 100  # false
    assert blue[2] > max(red[2], green[2]) + 100  # missed
    assert (shown[3:] == 250).all()  # background, and what is not counted


def test_pictures(compare, tmp_path, monkeypatch):
    """Attempts that share one image of two: it comes first, and the IoU of each is that of per_tile.csv."""
    drawn = {}
    module = load_script(TOOL)
    monkeypatch.setattr(module, 'draw_predictions', lambda rows, labels, *_: drawn.update(rows=rows, labels=labels))
    a = attempt(tmp_path / 'a', [50.0] * 3, by=1, tiles=('austin6', 'austin11'))
    b = attempt(tmp_path / 'b', [60.0] * 3, by=4, tiles=('austin11', 'austin1'))
    c = attempt(tmp_path / 'c', [10.0] * 3)
    shutil.rmtree(c / 'val' / 'predictions')
    said, _ = compare(a, b, c)
    assert 'c: no pictures in' in said
    assert drawn['labels'] == ['b', 'a', 'c']
    assert [(row.name, sorted(row.predictions)) for row in drawn['rows']] == [
        ('austin11', ['a', 'b']), ('austin1', ['b']), ('austin6', ['a']),
    ]  # fmt: skip
    label = truth_of('austin11')
    for name, by in (('a', 1), ('b', 4)):
        pred = shifted(label, by)
        iou = 100 * (pred & label).sum() / (pred | label).sum()
        assert drawn['rows'][0].scores[name] == pytest.approx(iou)
    # From the pixels, where there is no table: the same, as the picture is the whole image.
    expected = drawn['rows'][0].scores
    for folder in (a, b):
        (folder / 'val' / 'per_tile.csv').unlink()
    compare(a, b, c)
    assert drawn['rows'][0].scores == pytest.approx(expected)
    compare(a, b, '--rows', 1)
    assert len(drawn['rows']) == 1


def test_no_pictures_and_pictures_of_the_test(compare, tmp_path):
    a = attempt(tmp_path / 'a', [50.0] * 3, test=2, reads=1)
    said, _ = compare(a)
    picture = tmp_path / 'out' / 'predictions.png'
    val = cv2.imread(str(picture))
    compare(a, '--pictures', 'test')
    assert val.shape != cv2.imread(str(picture)).shape  # two rows in the place of three
    shutil.rmtree(a / 'val' / 'images')
    said, _ = compare(a)
    assert 'no predictions.png: none of the work dirs has images, labels and predictions in val/' in said
    assert not picture.exists()


def test_labels_that_do_not_agree_are_no_picture(compare, tmp_path):
    a, b = (attempt(tmp_path / name, [50.0] * 3) for name in 'ab')
    label = truth_of('austin1')
    label[0, 0] ^= 1
    _keep(b / 'val', 'austin1', image_of(label), label, label)
    with pytest.raises(
        DataError, match=r'b/val/labels/austin1\.png: is another label than .*a/val/labels/austin1\.png'
    ):
        compare(a, b)


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


def test_training_losses_are_those_that_all_attempts_have(compare, tmp_path, monkeypatch):
    """Losses of body, edge and auxiliary heads are left out; without a name in common the totals are shown."""
    drawn = {}
    module = load_script(TOOL)
    monkeypatch.setattr(
        module,
        'plot_convergence',
        lambda curves, _, losses: drawn.update({curve.label: curve.losses for curve in curves}, losses=losses),
    )
    names = {
        'plain': {'decode.loss_bce': 0.25, 'decode.loss_dice': 0.5, 'loss': 0.75, 'decode.acc_seg': 90.0},
        'edges': {
            'decode.loss_bce': 0.5, 'decode.loss_dice': 0.125, 'decode.loss_body': 2.0, 'decode.loss_edge': 4.0,
            'aux.loss_bce': 8.0, 'loss': 14.625,
        },
        'other': {'decode.loss_ce': 0.75, 'loss': 0.75},
    }  # fmt: skip
    folders = []
    for name, train in names.items():
        folders.append(attempt(tmp_path / name, [50.0, 60.0]))
        path = folders[-1] / 'diagnostics.jsonl'
        lines = [{**json.loads(line), 'train': train} for line in path.read_text().splitlines()]
        path.write_text('\n'.join(map(json.dumps, lines)) + '\n')
    compare(*folders[:2])
    assert drawn['losses'] == 'loss_bce + loss_dice'
    assert (drawn['plain'], drawn['edges']) == ({1: 0.75, 2: 0.75}, {1: 0.625, 2: 0.625})
    compare(*folders)
    assert drawn['losses'] == 'all of each attempt'
    assert (drawn['edges'], drawn['other']) == ({1: 14.625, 2: 14.625}, {1: 0.75, 2: 0.75})


def test_the_axis_says_which_losses(tmp_path, monkeypatch):
    from lale_mmseg.evaluation import attempt_plots

    figures = []
    monkeypatch.setattr(attempt_plots, 'save_figure', lambda figure, _: figures.append(figure))
    curve = attempt_plots.Curve('a', scores={1: 50.0}, losses={1: 0.5})
    attempt_plots.plot_convergence([curve], tmp_path / 'a.png', 'loss_bce + loss_dice')
    assert figures[0].axes[1].get_ylabel() == 'Training loss (loss_bce + loss_dice)'


def test_published_figures_are_the_same_everywhere(compare):
    """The tool, the page of the protocol and the page of the configs."""
    from _attempt_tables import PUBLISHED

    page = (REPO / 'docs' / 'few_shot.md').read_text()
    table = re.findall(r'^\| (\d) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$', page, re.MULTILINE)
    assert [tuple(map(float, row)) for row in table] == [
        (number, *scores) for number, (_, *scores) in enumerate(PUBLISHED, 1)
    ]
    page = (REPO / 'configs' / 'buildings' / 'README.md').read_text().split('## Published results')[1]
    table = re.findall(r'^\| (\d) \| .+ \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$', page, re.MULTILINE)
    assert [(int(number), *(round(100 * float(score), 4) for score in scores)) for number, *scores in table] == [
        (number, test_iou, test_f1, val_iou) for number, (_, val_iou, test_iou, test_f1) in enumerate(PUBLISHED, 1)
    ]


@pytest.mark.slow
def test_in_a_process_of_its_own(tmp_path):
    folder = attempt(tmp_path / 'a', [50.0, 60.0, 70.0])
    done = run_tool('python', TOOL, folder, '--out', tmp_path / 'out')
    assert 'convergence.png' in done.stdout
    assert min(cv2.imread(str(tmp_path / 'out' / 'convergence.png')).shape[:2]) > 300
    assert min(cv2.imread(str(tmp_path / 'out' / 'predictions.png')).shape[:2]) > 300
    failed = run_tool('python', TOOL, tmp_path / 'nothing', '--out', tmp_path / 'out', check=False)
    assert (failed.returncode, failed.stderr) == (2, f'error: {tmp_path / "nothing"}: no such work dir\n')
