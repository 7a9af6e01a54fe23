"""The four ISPRS protocols on one hand-made tile, through SegmentationMetric and through compare_protocols.

The tile of 8x8 pixels (I impervious surface, B building, L low vegetation, T tree, C car, X clutter; . ignored):

    full labels    eroded labels   prediction     wrong (full)
    IIIIBBBB       III.BBBB        IIIIBBBB
    IIIIBBBB       III.BBBB        IIIBBBBB       row 1: I -> B, ignored when eroded
    IIIIBBBB       III.BBBB        IIIIBBBX       row 2: B -> X
    LLLLBBBB       ........        LLLLLBBB       row 3: B -> L, ignored when eroded
    LLLLTTTT       LLLL.TTT        LLLLTTTT
    LLLLTTTT       LLLL.TTT        TLLLTTTT       row 5: L -> T
    LLCCTTXX       LLCC.TXX        LLCITXXT       row 6: C -> I, T -> X, X -> T
    LLCCTTXX       LLCC.TXX        LLCCTTIX       row 7: X -> I

    full           I   B   L   T   C   X   sum    eroded         I   B   L   T   C   X   sum
    I             11   1                    12    I              9                         9
    B                 14   1           1    16    B                 11               1    12
    L                     15   1            16    L                     11   1            12
    T                         11       1    12    T                          7       1     8
    C              1               3         4    C              1               3         4
    X              1           1       2     4    X              1           1       2     4
    sum           13  15  16  13   3   4    64    sum           11  11  11   9   3   4    49

A geoseg: eroded, all six classes counted, means over the first five.
    IoU: I 9/(9+11-9) = 9/11, B 11/(12+11-11) = 11/12, L 11/12, T 7/(8+9-7) = 7/10, C 3/4; OA 43/49
B mmseg: the same matrix, means over six with X 2/(4+4-2) = 1/3; OA 43/49
C rsp: full, row X left out: columns I 12, B 15, L 16, T 12, C 3, X 2, sum 60
    IoU: I 11/(12+12-11) = 11/13, B 14/(16+15-14) = 14/17, L 15/(16+16-15) = 15/17, T 11/(12+12-11) = 11/13, C 3/4
    OA 54/60
D boundary: full, row X and column X left out: rows B 15, T 11, sum 58; 2 of 60 pixels dropped
    IoU: I 11/13, B 14/(15+15-14) = 14/16, L 15/17, T 11/(11+12-11) = 11/12, C 3/4; OA 54/58
"""

import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.evaluation import SegmentationMetric
from lale_mmseg.files import save_png
from lale_mmseg.metainfo import isprs
from lale_mmseg.metainfo.protocols import find_protocol
from tests.runs import run_in_process
from tests.support import run_tool

LETTERS = 'IBLTCX'
IOU = {
    'A': [9 / 11, 11 / 12, 11 / 12, 7 / 10, 3 / 4, 1 / 3],
    'B': [9 / 11, 11 / 12, 11 / 12, 7 / 10, 3 / 4, 1 / 3],
    'C': [11 / 13, 14 / 17, 15 / 17, 11 / 13, 3 / 4, None],
    'D': [11 / 13, 14 / 16, 15 / 17, 11 / 12, 3 / 4, None],
}
OA = {'A': 43 / 49, 'B': 43 / 49, 'C': 54 / 60, 'D': 54 / 58}
FULL_MATRIX = [
    [11, 1, 0, 0, 0, 0],
    [0, 14, 1, 0, 0, 1],
    [0, 0, 15, 1, 0, 0],
    [0, 0, 0, 11, 0, 1],
    [1, 0, 0, 0, 3, 0],
    [1, 0, 0, 1, 0, 2],
]
TOOL = 'tools/analysis/compare_protocols.py'


def maps_of(text: str) -> dict[str, np.ndarray]:
    """The three maps drawn in a text, by their heading."""
    lines = [line.split() for line in text.splitlines()]
    rows = [words for words in lines if len(words) >= 3 and all(re.fullmatch('[IBLTCX.]{8}', w) for w in words[:3])]
    assert len(rows) == 8
    values = {**{letter: index for index, letter in enumerate(LETTERS)}, '.': 255}
    stacked = np.array([[[values[letter] for letter in word] for word in words[:3]] for words in rows], np.uint8)
    return dict(zip(('full', 'eroded', 'prediction'), stacked.transpose(1, 0, 2), strict=True))


MAPS = maps_of(__doc__)


def means(letter: str) -> tuple[float, float]:
    """mIoU and mF1 in percent; F1 = 2 IoU / (1 + IoU)."""
    ious = np.array(IOU[letter][: 6 if letter == 'B' else 5])
    return 100 * ious.mean(), 100 * (2 * ious / (1 + ious)).mean()


def metric_of(label: np.ndarray, pred: np.ndarray, classes=isprs.CLASSES, **settings) -> SegmentationMetric:
    """A metric that has evaluated one image; `result` is its result, `saved` the content of metrics.json."""
    folder = tempfile.TemporaryDirectory()
    metric = SegmentationMetric(output_dir=folder.name, **settings)
    metric.dataset_meta = dict(classes=classes, palette=isprs.COLORS[: len(classes)])
    data = {name: dict(data=torch.from_numpy(m)[None]) for name, m in (('gt_sem_seg', label), ('pred_sem_seg', pred))}
    metric.process(None, [dict(img_path='2_13.tif', **data)])
    metric.result = metric.evaluate(1)
    metric.saved = json.loads(Path(folder.name, 'metrics.json').read_text())
    return metric


def make_root(root, tile='area2', kinds=('full', 'eroded'), rgb=False):
    """A data root and a folder of predictions with the tile of the docstring."""
    encode = isprs.PALETTE.encode if rgb else lambda label: label
    for kind in kinds:
        save_png(root / 'data' / 'tiles' / f'labels_{kind}' / f'{tile}.png', encode(MAPS[kind]))
    save_png(root / 'pred' / f'{tile}.png', encode(MAPS['prediction']))
    return root


def table_rows(text: str) -> list[list[str]]:
    """Words of the four rows of the printed table."""
    return [line.split() for line in text.splitlines() if line[:2] in ('A ', 'B ', 'C ', 'D ')][:4]


@pytest.mark.parametrize('letter', 'ABCD')
def test_metric_by_hand(letter):
    protocol = find_protocol(letter)
    metric = metric_of(MAPS[protocol.test_labels], MAPS['prediction'], protocol=letter)
    result = metric.result
    assert (result['mIoU'], result['mF1']) == pytest.approx(means(letter))
    assert result['OA'] == pytest.approx(100 * OA[letter])
    for name, iou in zip(isprs.CLASSES, IOU[letter], strict=True):
        assert result.get(f'IoU/{name}') == (None if iou is None else pytest.approx(100 * iou))
    assert result.get('dropped') == (pytest.approx(100 * 2 / 60) if letter == 'D' else None)
    assert tuple(metric.saved['score_classes']) == protocol.averaged


def test_kappa_is_over_what_is_counted():
    """D: rows 12 15 16 11 4, columns 12 15 16 12 3 of 58 pixels, 54 right."""
    by_chance = 12 * 12 + 15 * 15 + 16 * 16 + 11 * 12 + 4 * 3
    kappa = (58 * 54 - by_chance) / (58 * 58 - by_chance)
    assert metric_of(MAPS['full'], MAPS['prediction'], protocol='D').result['kappa'] == pytest.approx(100 * kappa)


def test_networks_of_five_outputs_under_c():
    """The dataset itself ignores clutter; predictions of clutter cannot be, here they are building."""
    label, pred = MAPS['full'].copy(), MAPS['prediction'].copy()
    label[label == 5], pred[pred == 5] = 255, 1
    metric = metric_of(label, pred, classes=isprs.CLASSES[:5], protocol='C')
    # Of the two pixels predicted X, B is right now, T is wrong as before: B 15/(16+17-15), T 11/(12+12-11).
    assert metric.result['IoU/building'] == pytest.approx(100 * 15 / 18)
    assert metric.result['OA'] == pytest.approx(100 * 55 / 60)
    assert metric.saved['protocol']['left_out_labels'] == ['clutter']


def test_class_whose_pixels_are_all_dropped_scores_zero():
    """Cars predicted as clutter alone are not counted under D, but a network that misses them is not spared."""
    pred = MAPS['prediction'].copy()
    pred[MAPS['full'] == 4] = 5
    pred[6, 6] = pred[7, 6] = 5
    metric = metric_of(MAPS['full'], pred, protocol='D')
    assert metric.result['IoU/car'] == 0
    assert metric.saved['absent'] == []
    assert metric.result['mIoU'] == pytest.approx(np.mean([metric.result[f'IoU/{name}'] for name in isprs.CLASSES[:5]]))


def test_protocols_that_cannot_be():
    with pytest.raises(ConfigError, match=r"protocol='A' and score_classes=\['car'\].*set one of the two"):
        SegmentationMetric(protocol='A', score_classes=['car'])
    with pytest.raises(ConfigError, match=r"'boundary' \(D\) scores the classes .*, but the dataset has"):
        metric_of(MAPS['full'] % 5, MAPS['prediction'] % 5, classes=isprs.CLASSES[:5], protocol='D')
    with pytest.raises(ConfigError, match=r'protocol=.geoseg.: the protocol tests on eroded labels'):
        SegmentationMetric(protocol='geoseg', boundary_tolerance=3)
    with pytest.raises(DataError, match=r"protocol 'boundary' excludes all 64 labelled pixels"):
        metric_of(np.full((8, 8), 5, np.uint8), MAPS['prediction'], protocol='D')


@pytest.fixture
def compare(tmp_path, monkeypatch, capsys):
    """Runs the tool in this process on `tmp_path`; returns what it prints."""

    def run(*options, dataset='vaihingen') -> str:
        run_in_process(TOOL, monkeypatch, tmp_path / 'pred', tmp_path / 'data', '--dataset', dataset, *options)
        return capsys.readouterr().out

    return run


@pytest.fixture(scope='module')
def compared(tmp_path_factory):
    """The tool run on the docstring's tile: its folder, output and JSON."""
    root = make_root(tmp_path_factory.mktemp('compare'))
    options = ['--dataset', 'vaihingen', '--boundary-tolerance', 1, '--out', root / 'out']
    done = run_tool('python', TOOL, root / 'pred', root / 'data', *options)
    return root, done.stdout, json.loads((root / 'out' / 'protocols.json').read_text())


@pytest.mark.parametrize('letter', 'ABCD')
def test_rows_are_those_of_the_metric(compared, letter):
    protocol, row = find_protocol(letter), compared[2]['protocols'][letter]
    full = protocol.test_labels == 'full'
    options = dict(boundary_tolerance=1) if full else {}
    metric = metric_of(MAPS[protocol.test_labels], MAPS['prediction'], protocol=letter, **options)
    for name in ('protocol', 'matrix', 'summary', 'per_class', 'dropped', 'boundary'):
        assert row[name] == metric.saved[name]
    assert ({'mBF1', 'mBIoU'} <= set(row['summary'])) == full
    assert not full or row['matrix'] == FULL_MATRIX


def test_tiles_of_each_protocol(compared):
    rows, text = compared[2]['protocols'], compared[1]
    assert [rows[letter]['test_tiles'] for letter in 'ABCD'] == [1, 1, 1, 0]
    assert rows['D']['training_tiles'] == ['2']
    assert rows['A']['training_tiles'] == []
    assert rows['A']['missing_test_tiles'] == [t for t in find_protocol('A').splits['vaihingen'].test if t != '2']
    assert 'D boundary: its training tiles are among the scored ones: 2' in text
    assert 'B mmseg: not all of its test tiles; missing 4 6 8' in text
    assert '0 of 5' in text


def test_table_and_files(compared):
    root, text, _ = compared
    for words, letter in zip(table_rows(text), 'ABCD', strict=True):
        numbers = [word for word in words if re.fullmatch(r'[\d.]+|-', word)]
        assert numbers[-6:] == ['-' if iou is None else f'{100 * iou:.2f}' for iou in IOU[letter]]
        assert f'{means(letter)[0]:.2f}' in numbers
    assert sorted(path.name for path in (root / 'out').iterdir()) == ['protocols.json', 'protocols.png']


def test_colours_and_published_names_give_the_same(tmp_path, compare, compared):
    make_root(tmp_path, rgb=True)
    Image.open(tmp_path / 'pred' / 'area2.png').save(tmp_path / 'pred' / 'top_mosaic_09cm_area2.tif')
    (tmp_path / 'pred' / 'area2.png').unlink()
    text = compare('--boundary-tolerance', 1)
    assert table_rows(text) == table_rows(compared[1])


def test_results_of_predict_are_taken_as_they_are(tmp_path, compare):
    """Beside the PNG it writes an overlay and, of georeferenced tiles, a TIFF with the same classes."""
    make_root(tmp_path, tile='2_13')
    expected = compare(dataset='potsdam')
    save_png(tmp_path / 'pred' / '2_13_overlay.png', np.zeros((8, 8, 3), np.uint8))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / 'pred' / '2_13.tif')  # would score otherwise
    assert compare(dataset='potsdam') == expected
    (tmp_path / 'pred' / '2_13.png').unlink()
    Image.fromarray(MAPS['prediction']).save(tmp_path / 'pred' / '2_13.tif')
    assert compare(dataset='potsdam') == expected


def test_potsdam_has_d_as_a_rule_only(tmp_path, compare):
    make_root(tmp_path, tile='2_13')
    (tmp_path / 'pred' / '2_13.png').rename(tmp_path / 'pred' / 'top_potsdam_2_13_label.png')
    text = compare('--no-boundary', '--tiles', '2_13', dataset='potsdam')
    assert 'rule only, the protocol defines no tiles of potsdam' in text
    assert '1 of 14' in text
    assert 'mBF1' not in text


def test_a_missing_kind_of_labels_leaves_its_protocols_out(tmp_path, compare):
    make_root(tmp_path, kinds=('full',))
    text = compare('--out', tmp_path / 'out')
    assert 'A: not scored, no eroded labels' in text
    saved = json.loads((tmp_path / 'out' / 'protocols.json').read_text())
    assert list(saved['protocols']) == ['C', 'D']
    assert list(saved['not_scored']) == ['A', 'B']


def without_labels(root):
    (root / 'data' / 'tiles').rename(root / 'data' / 'elsewhere')


def other_size(root):
    save_png(root / 'pred' / 'area2.png', MAPS['prediction'][:7])


def rename(name):
    def change(root):
        (root / 'pred' / 'area2.png').rename(root / 'pred' / name)

    return change


def two_of_one_tile(root):
    save_png(root / 'pred' / 'top_mosaic_09cm_area2.png', MAPS['prediction'])


def eroded_for_full(root):
    save_png(root / 'data' / 'tiles' / 'labels_full' / 'area2.png', isprs.PALETTE.encode(MAPS['eroded']))


def second_tile_without_eroded_label(root):
    save_png(root / 'pred' / 'area4.png', MAPS['prediction'])
    save_png(root / 'data' / 'tiles' / 'labels_full' / 'area4.png', MAPS['full'])


@pytest.mark.parametrize(
    ('change', 'options', 'message'),
    [
        (without_labels, (), r'no labels of these tiles in tiles/labels_full or tiles/labels_eroded'),
        (other_size, (), r'area2\.png: \(height, width\) is \(7, 8\), that of its label .*area2\.png \(8, 8\)'),
        (rename('2_13.png'), (), r'2_13\.png: expected the name of a whole vaihingen tile, such as area1\.png'),
        (eroded_for_full, (), r'labels_full/area2\.png: colour \(0, 0, 0\) .* is not in the palette'),
        (two_of_one_tile, (), r'area2\.png and top_mosaic_09cm_area2\.png are both of tile 2'),
        (second_tile_without_eroded_label, (), r'labels_eroded: no label of tile 4; choose tiles with --tiles'),
        (rename('area2_overlay.png'), (), r'pred: no predictions'),
        (None, ('--tiles', '2', '4'), r'--tiles 4: no such predictions; there are 2'),
    ],
)
def test_bad_input_is_named(change, options, message, tmp_path, compare):
    make_root(tmp_path)
    if change:
        change(tmp_path)
    with pytest.raises((ConfigError, DataError), match=message):
        compare('--out', tmp_path / 'out', *options)
    assert not (tmp_path / 'out').exists()
