"""Pictures and curves of attempts: of which images, classes, validations and losses they are."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest

from lale_mmseg.engine.hooks.report import _keep
from tests.attempts import TOOL, VAL_TILES, attempt, change, comparing, image_of, shifted, truth_of, write_split  # noqa: F401
from tests.test_docs import load_script


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
    """The tables are there, and the picture of an earlier comparison is not."""
    a, b = (attempt(tmp_path / name, [50.0] * 3) for name in 'ab')
    assert 'predictions.png' in compare(a, b)[0].splitlines()[-1]
    label = truth_of('austin1')
    label[0, 0] ^= 1
    _keep(b / 'val', 'austin1', image_of(label), label, label)
    said, _ = compare(a, b)
    assert re.search(
        r'no predictions\.png: .*b/val/labels/austin1\.png: is another label than .*a/val/labels/austin1\.png', said
    )
    assert not (tmp_path / 'out' / 'predictions.png').exists()
    assert said.splitlines()[-1].startswith('written: ')
    assert 'predictions.png' not in said.splitlines()[-1]


def test_no_picture_of_more_than_two_classes(compare, tmp_path):
    a = attempt(tmp_path / 'a', [50.0] * 3)
    names = ['background', 'building', 'car']
    change(a / 'val' / 'metrics.json', classes=names, score_classes=names)
    said, _ = compare(a)
    assert 'no predictions.png: it shows one class against the rest, and there are more than two classes' in said


def test_names_are_those_of_the_scored_class(compare, tmp_path, monkeypatch):
    drawn = {}
    module = load_script(TOOL)
    monkeypatch.setattr(module, 'draw_predictions', lambda *words: drawn.update(title=words[-1]))
    monkeypatch.setattr(module, 'plot_convergence', lambda *words: drawn.update(score=words[-1]))
    a = attempt(tmp_path / 'a', [50.0] * 3)
    change(a / 'val' / 'metrics.json', classes=['background', 'car'], score_classes=['car'])
    compare(a)
    assert drawn['score'] == 'IoU of car'
    assert drawn['title'].endswith('\ncar: found yellow, false red, missed blue')
    change(a / 'val' / 'metrics.json', score_classes=['background', 'car'])
    compare(a)
    assert drawn['score'] == 'mIoU'


def test_training_losses_are_those_that_all_attempts_have(compare, tmp_path, monkeypatch):
    """Losses of body, edge and auxiliary heads are left out; without a name in common the totals are shown."""
    drawn = {}
    module = load_script(TOOL)
    monkeypatch.setattr(
        module,
        'plot_convergence',
        lambda curves, _, losses, _score: drawn.update({curve.label: curve.losses for curve in curves}, losses=losses),
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
