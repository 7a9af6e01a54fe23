"""verify.py on prepared ISPRS data: every fault is planted in a clean set, and found once under its kind."""

import json
import shutil
from pathlib import Path

import cv2
import pytest

from data_prep.datasets.isprs.prepare import prepare
from data_prep.datasets.isprs.request import Request
from data_prep.datasets.isprs.verify import verify_isprs
from data_prep.verify import main
from lale_mmseg.errors import ConfigError, DataError
from tests.isprs_tiles import make_potsdam

WINDOW = '2_10_0_0_128_128.png'
pytestmark = pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    return make_potsdam(tmp_path_factory.mktemp('potsdam'), ['2_10'], (200, 160), bands=('rgb', 'rgbir'))


@pytest.fixture(scope='module')
def prepared(source, tmp_path_factory):
    out = tmp_path_factory.mktemp('prepared') / 'out'
    prepare(Request('potsdam', size=128, stride=64), source, out, workers=1)
    return out


@pytest.fixture
def root(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / 'root')


def only_fault(root: Path):
    (fault,) = verify_isprs(root, workers=1).faults
    return fault


def repaint(path: Path, value, row: int, column: int) -> None:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    pixels[row, column] = value
    assert cv2.imwrite(str(path), pixels)


@pytest.mark.parametrize('options', [{}, dict(masks='rgb'), dict(bands='rgbir'), dict(labels=('eroded',))])
def test_clean_sets(source, tmp_path, options):
    prepare(Request('potsdam', size=128, stride=64, **options), source, tmp_path / 'out', workers=1)
    report = verify_isprs(tmp_path / 'out', workers=1)
    assert report.faults == []
    kinds = options.get('labels', ('full', 'eroded'))
    # 200 pixels: 0, 64, 72; 160 pixels: 0, 32.
    assert {split: entry['pairs'] for split, entry in report.splits.items()} == {
        f'{top} {kind}': count for top, count in (('windows', 6), ('tiles', 1)) for kind in kinds
    }
    saved = json.loads((tmp_path / 'out' / 'statistics.json').read_text())['tiles']['2_10']
    for kind in kinds:
        assert list(report.splits[f'tiles {kind}']['pixels'].values()) == saved[kind]
        ignored = report.splits[f'tiles {kind}']['ignored_pixels']
        assert (ignored > 0) == (kind == 'eroded')
        assert ignored + sum(saved[kind]) == 200 * 160


@pytest.mark.parametrize(('folder', 'value'), [('labels_full', 6), ('labels_full', 255), ('labels_eroded', 254)])
def test_value_that_is_no_class(root, folder, value):
    repaint(root / 'windows' / folder / WINDOW, value, 9, 7)
    fault = only_fault(root)
    assert (fault.kind, fault.file) == ('unknown value', str(root / 'windows' / folder / WINDOW))
    assert f'value {value} at row 9, column 7 is not a class (1 such pixels)' in fault.message
    assert ('clutter 5, ignored 255' in fault.message) == (folder == 'labels_eroded')


def test_counts_differ_from_the_marker(root):
    path = root / 'tiles' / 'labels_eroded' / '2_10.png'
    value = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[0, 0]
    repaint(path, (value + 1) % 6, 0, 0)
    fault = only_fault(root)
    assert (fault.kind, fault.split, fault.file) == ('counts', 'tiles eroded', str(path))


def test_statistics_differ_from_the_markers(root):
    path = root / 'statistics.json'
    saved = json.loads(path.read_text())
    saved['tiles']['2_10']['full'][0] += 1
    path.write_text(json.dumps(saved))
    assert only_fault(root).kind == 'statistics'
    path.unlink()
    assert only_fault(root).kind == 'statistics'


def test_unfinished_tile(root):
    (root / 'markers' / '2_10-windows-images.json').unlink()
    faults = verify_isprs(root, workers=1).faults
    assert {fault.kind for fault in faults} == {'unfinished tile', 'stray file'}


def test_command(root, tmp_path, capsys):
    assert main([str(root), '--workers', '1']) == 0
    printed = capsys.readouterr().out
    assert 'no fault in 14 pairs' in printed
    assert 'windows eroded' in printed
    repaint(root / 'windows' / 'labels_full' / WINDOW, 77, 9, 7)
    assert main([str(root), '--workers', '1', '--json', str(tmp_path / 'faults.json')]) == 1
    assert 'faults: 1 unknown value' in capsys.readouterr().out
    assert json.loads((tmp_path / 'faults.json').read_text())['fault_counts'] == {'unknown value': 1}
    with pytest.raises(ConfigError, match=r'--image-dir: not valid for .*, which was prepared by isprs\.py'):
        main([str(root), '--image-dir', 'pictures'])
    with pytest.raises(DataError, match=r'holds no prepared ISPRS data'):
        main([str(tmp_path), '--dataset', 'isprs'])
