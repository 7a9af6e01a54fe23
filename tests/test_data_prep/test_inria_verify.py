"""verify.py on prepared Inria tiles: clean ones pass, and every planted fault is found."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.datasets.inria.prepare import Request, prepare
from data_prep.verify import main
from lale_mmseg.datasets import InriaDataset
from lale_mmseg.engine.held_out import LEDGER_NAME
from lale_mmseg.errors import DataError
from lale_mmseg.metainfo import inria
from tests.inria_tiles import make_inria

SIDE, CROP = 60, 32


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    return make_inria(tmp_path_factory.mktemp('inria'), side=SIDE)


@pytest.fixture(scope='module')
def both(source, tmp_path_factory):
    """Prepared folders by protocol; Austin alone."""
    folder = tmp_path_factory.mktemp('prepared')
    for protocol in ('full', 'few-shot'):
        prepare(Request(protocol, CROP, CROP, ('austin',)), source, folder / protocol, workers=1)
    return folder


@pytest.fixture
def root(both, tmp_path):
    return Path(shutil.copytree(both, tmp_path / 'copy'))


def report(root: Path, *options: str) -> tuple[int, dict]:
    path = root.parent / 'report.json'
    status = main([str(root), '--workers', '1', '--json', str(path), *options])
    return status, json.loads(path.read_text())


def faults(root: Path) -> list[tuple[str, str]]:
    status, found = report(root)
    assert status == (1 if found['faults'] else 0)
    return [(fault['kind'], Path(fault['file']).name) for fault in found['faults']]


@pytest.mark.parametrize(
    ('protocol', 'pairs'),
    [
        ('full', {'train windows': 31 * 4, 'val tiles': 5}),
        ('few-shot', {'train crops': 24, 'val crops': 6, 'test crops': 6}),
    ],
)
def test_clean_data(both, protocol, pairs, capsys):
    status, found = report(both / protocol)
    assert (status, found['faults'], found['classes']) == (0, [], list(inria.CLASSES))
    assert {split: entry['pairs'] for split, entry in found['splits'].items()} == pairs
    parts = json.loads((both / protocol / 'manifest.json').read_text())['parts']
    split = 'val tiles' if protocol == 'full' else 'test crops'
    tiles = [f'austin{number}' for number in (range(1, 6) if protocol == 'full' else range(31, 37))]
    due = np.sum([parts[tile]['pixels'] for tile in tiles], axis=0)
    assert list(found['splits'][split]['pixels'].values()) == due.tolist()
    printed = capsys.readouterr().out
    assert 'no fault in' in printed
    assert f'{100 * due[1] / due.sum():.2f}' in printed


def test_values(root):
    for path, value in (
        (root / 'few-shot' / 'crops' / 'masks' / 'austin7.png', 1),
        (root / 'full' / 'windows' / 'masks' / 'austin9_28_28_60_60.png', 254),
    ):
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        mask[5, 6] = value
        cv2.imwrite(str(path), mask)
        found = report(path.parents[2])[1]['faults']
        assert [fault['kind'] for fault in found] == ['unknown value']
        message = f'value {value} at row 5, column 6 is not a class (1 such pixels); known: background 0, building 255'
        assert (found[0]['file'], found[0]['message']) == (str(path), f'{path.name}: {message}')


def test_missing_damaged_and_extra_files(root):
    full = root / 'full'
    (full / 'windows' / 'images' / 'austin6_0_0_32_32.png').unlink()
    (full / 'tiles' / 'masks' / 'austin5.tif').unlink()
    (full / 'windows' / 'masks' / 'austin7_0_0_32_32.png').write_bytes(b'')
    shutil.copy(
        full / 'windows' / 'masks' / 'austin8_0_0_32_32.png', full / 'windows' / 'masks' / 'austin1_0_0_32_32.png'
    )
    (full / 'windows' / 'masks' / '.austin8_0_0_32_32.png.9.ab.tmp').write_bytes(b'')
    assert sorted(faults(full)) == [
        ('empty file', 'austin7_0_0_32_32.png'),
        ('missing image', 'austin6_0_0_32_32.png'),
        ('missing mask', 'austin5.tif'),
        ('stray file', 'austin1_0_0_32_32.png'),
    ]
    (root / 'few-shot' / 'overview.png').unlink()
    assert faults(root / 'few-shot') == [('missing overview', 'overview.png')]


def test_missing_and_unfinished_tiles(source, tmp_path):
    part = Path(shutil.copytree(source, tmp_path / 'source'))
    (part / 'train' / 'gt' / 'austin31.tif').unlink()
    prepare(Request('full', CROP, cities=('austin',), missing='skip'), part, tmp_path / 'full', workers=1)
    assert '1 tiles of split' in report(tmp_path / 'full')[1]['notes'][0]
    out = tmp_path / 'out'
    prepare(Request('few-shot', CROP, missing='skip'), part, out, workers=1)
    (out / 'markers' / 'austin4.json').unlink()
    found = report(out)[1]
    assert [fault['kind'] for fault in found['faults']] == ['stray file', 'stray file', 'manifest']
    assert '2 of 36 tiles are missing (1 of train, 1 of test)' in found['notes'][0]
    prepare(Request('few-shot', CROP), source, out, workers=1)
    assert report(out)[0] == 0


def test_shares_of_windows_and_of_tiles(both):
    """The note on class weights has the share that they come from."""
    found = report(both / 'full')[1]
    once = InriaDataset(str(both / 'full'), missing_tiles='skip', lazy_init=True).class_pixels()
    share = f'{100 * once[1] / once.sum():.2f} %'
    assert f'{found["splits"]["train windows"]["class_shares"]["building"]:.2f} %' != share
    assert found['notes'][-1] == (
        "'train windows' counts a pixel once for each window that has it; class_weight='data' and inria.py count each "
        f'pixel of the 31 tiles once: building {share}'
    )


@pytest.mark.parametrize('below', ['.', '..'])
def test_the_archive_as_it_is_shipped(source, below, tmp_path):
    with pytest.raises(DataError, match=r'AerialImageDataset: is the unprepared Inria archive; prepare it first'):
        main([str(source / below)])
    # Options that name what is checked are followed.
    with pytest.raises(DataError, match=r'holds no prepared Inria tiles; prepare them with data_prep/inria'):
        main([str(source / below), '--dataset', 'inria'])
    (tmp_path / 'train').mkdir()
    with pytest.raises(DataError, match='no split found'):
        main([str(tmp_path)])


def test_a_ledger_of_tests_is_no_fault_and_stays(source, root):
    """Tests of the held-out split note themselves in the data folder."""
    out = root / 'few-shot'
    (out / LEDGER_NAME).write_text('{"read": 1}\n')
    assert report(out)[1]['faults'] == []
    prepare(Request('few-shot', CROP), source, out, overwrite=True, workers=1)
    assert (out / LEDGER_NAME).read_text() == '{"read": 1}\n'
    assert report(out)[1]['faults'] == []
