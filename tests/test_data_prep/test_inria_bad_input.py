"""Faults in Inria archives: one clear message, and nothing of the tile is written."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio

from data_prep.core.report import run_main
from data_prep.datasets.inria.prepare import Request, prepare
from data_prep.inria import main
from lale_mmseg.errors import ConfigError, DataError, InputError
from tests.inria_tiles import make_inria, picture, roofs, write_tif

SIDE, CROP = 100, 40
TILES = ('austin1', 'austin2', 'austin6')


@pytest.fixture
def train(tmp_path) -> Path:
    """The folder train/ of three tiles, unpacked and without compression, as the archive has them."""
    return make_inria(tmp_path / 'source', TILES, SIDE, compress=None) / 'train'


def run(train: Path, protocol: str = 'few-shot', **options) -> Path:
    request = Request(protocol, **{'size': CROP, 'stride': CROP, 'cities': ('austin',), 'missing': 'skip', **options})
    out = train.parents[2] / 'out'
    prepare(request, train.parent, out, workers=2)
    return out


def fails(train: Path, message: str, error: type = DataError, **options) -> None:
    """The run ends with the message; finished tiles stay, of the others there is nothing."""
    with pytest.raises(error, match=message):
        run(train, **options)
    out = train.parents[2] / 'out'
    assert {path.name for path in train.parents[2].iterdir()} <= {'source', 'nudges.csv', 'out'}
    files = {path.stem for path in out.rglob('crops/*/*')}
    assert files == {path.stem for path in out.glob('markers/*.json')}


@pytest.mark.parametrize('value', [1, 254])
def test_a_label_that_is_neither_0_nor_255(train, value):
    labels = roofs('austin6', SIDE, 50)
    labels[61, 17] = labels[61, 90] = labels[99, 99] = value
    write_tif(train / 'gt' / 'austin6.tif', labels)
    fails(
        train,
        rf'^AerialImageDataset/train/gt/austin6\.tif|^train/gt/austin6\.tif: label {value} at row 61, column 17 \(3 '
        r'pixels with such labels\); expected 0 \(background\) and 255 \(building\)',
    )


def test_labels_of_another_size(train):
    write_tif(train / 'gt' / 'austin2.tif', roofs('austin2', 90, 45))
    fails(train, r'austin2\.tif: the labels have 90x90 pixels \(height x width\), the image .*austin2\.tif has 100x100')


def test_a_tile_that_is_smaller_than_a_window(train):
    fails(train, r'100x100 pixels \(height x width\) are less than a window of --size 101', size=101)


@pytest.mark.parametrize(('folder', 'bands', 'due'), [('images', 4, 3), ('images', 1, 3), ('gt', 3, 1)])
def test_other_bands(train, folder, bands, due):
    write_tif(train / folder / 'austin2.tif', np.zeros((SIDE, SIDE, bands), np.uint8))
    fails(train, rf'{folder}/austin2\.tif: has {bands} band\(s\), expected {due}')


@pytest.mark.parametrize('folder', ['images', 'gt'])
def test_another_depth(train, folder):
    shape = (SIDE, SIDE, 3) if folder == 'images' else (SIDE, SIDE)
    write_tif(train / folder / 'austin2.tif', np.zeros(shape, np.uint16))
    fails(train, rf'{folder}/austin2\.tif: has values of type uint16, expected 8 bits \(uint8\)')


@pytest.mark.parametrize('folder', ['images', 'gt'])
@pytest.mark.parametrize('kept', [0, 0.3, 0.97])
def test_a_file_that_is_cut_off(train, folder, kept):
    """Also where what is missing is not in the crop."""
    path = train / folder / 'austin6.tif'
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    fails(train, rf'{folder}/austin6\.tif: cannot be read \(.*\); the file is damaged or truncated')


def test_damage_inside_a_packed_file(train):
    path = train / 'images' / 'austin6.tif'
    write_tif(path, picture('austin6', roofs('austin6', SIDE, 50)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    path.write_bytes(content)
    fails(train, r'images/austin6\.tif: cannot be read')


def test_missing_tiles_are_named(train):
    message = (
        r'files of 33 of 36 tiles are missing: austin3, austin4, austin5, austin7, austin8, austin9, austin10, '
        r'austin11 and 25 more; unpack all parts of the archive, or continue without these tiles with --missing skip'
    )
    fails(train, message, missing='error')
    (train / 'gt' / 'austin2.tif').unlink()
    fails(train, r'files of 34 of 36 tiles are missing: austin2 \(no gt/austin2\.tif\), austin3', missing='error')


def test_a_number_that_no_tile_has(train):
    write_tif(train / 'images' / 'austin37.tif', np.zeros((SIDE, SIDE, 3), np.uint8))
    fails(train, r'train/images/austin37\.tif: austin has tiles 1 to 36, this is none of them')


def test_a_tile_that_is_there_twice(train):
    write_tif(train / 'more' / 'train' / 'gt' / 'austin1.tif', roofs('austin1', SIDE, 50))
    fails(train, r'gt/austin1\.tif and .*more/train/gt/austin1\.tif are both the mask of austin1; keep one')


@pytest.mark.parametrize('name', ['aerialimagelabeling.7z.001', 'aerialimagelabeling.7z', 'NEW2.zip.002'])
def test_parts_of_an_archive_have_to_be_unpacked(tmp_path, name):
    (tmp_path / 'source').mkdir()
    (tmp_path / 'source' / name).write_bytes(b'7z')
    (tmp_path / 'source' / 'aerialimagelabeling.7z.005').write_bytes(b'7z')
    for source in (tmp_path / 'source', tmp_path / 'source' / name):
        with pytest.raises(DataError, match=r'is a packed archive, or a part of one; unpack it first, for .*7z x') as e:
            prepare(Request('few-shot', CROP), source, tmp_path / 'out', workers=1)
        assert name.partition('.')[0] in str(e.value)
    assert not (tmp_path / 'out').exists()


def test_an_archive_without_tiles_need_not_be_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / 'other.zip', 'w') as zipped:
        zipped.writestr('read.me', 'nothing')
    for source in (tmp_path, tmp_path / 'other.zip'):
        with pytest.raises(DataError, match='no tile was found'):
            prepare(Request('few-shot', CROP), source, tmp_path / 'out', workers=1)


def test_a_zip_file_that_is_cut_off(tmp_path):
    (tmp_path / 'a.zip').write_bytes(b'PK\3\4half')
    for source in (tmp_path, tmp_path / 'a.zip'):
        with pytest.raises(DataError, match=r'a\.zip: not a complete zip archive'):
            prepare(Request('few-shot', CROP), source, tmp_path / 'out', workers=1)


def test_a_source_without_tiles(tmp_path):
    (tmp_path / 'source').mkdir()
    with pytest.raises(
        DataError, match=r'no tile was found; expected, for example, AerialImageDataset/train/images/austin1\.tif'
    ):
        prepare(Request('few-shot', CROP), tmp_path / 'source', tmp_path / 'out', workers=1)
    with pytest.raises(DataError, match=r'no such folder; expected one that holds AerialImageDataset'):
        prepare(Request('few-shot', CROP), tmp_path / 'none', tmp_path / 'out', workers=1)


def test_hidden_tiles_are_not_taken_for_labelled_ones(train):
    write_tif(train.parent / 'test' / 'images' / 'austin3.tif', np.zeros((SIDE, SIDE, 3), np.uint8))
    write_tif(train.parent / 'test' / 'gt' / 'austin3.tif', np.zeros((SIDE, SIDE), np.uint8))
    out = run(train)
    assert {path.stem for path in (out / 'crops' / 'images').iterdir()} == set(TILES)


@pytest.mark.parametrize(('x', 'message'), [(61, 'austin2: x=61: expected 0 to 60, for a window of 40'), (-1, 'x=-1')])
def test_a_nudge_out_of_the_tile(train, tmp_path, x, message):
    table = tmp_path / 'nudges.csv'
    table.write_text(f'tile,x,y\naustin1,60,60\naustin2,{x},0\n')
    fails(train, message, nudges=table)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(protocol='full', stride=0), '--stride 0 with --size 40: expected a stride from 1 to 40'),
        (dict(protocol='full', stride=41), '--stride 41 with --size 40'),
        (dict(protocol='full', cities=('paris',)), '--cities paris: cities with labels are austin, chicago'),
        (dict(protocol='full', cities=('sfo',)), '--cities sfo'),
        (dict(protocol='few-shot', size=3), '--size 3: expected at least 4 pixels'),
        (dict(protocol='few-shot', min_share=5), '--min-share 5: expected a share from 0 to 1'),
        (dict(protocol='few-shot', quality=0), '--quality 0: expected 1 to 100'),
    ],
)
def test_arguments_out_of_range(options, message):
    with pytest.raises(ConfigError, match=message):
        Request(**{'size': CROP, 'stride': 10, **options})


def test_the_output_of_another_protocol_is_left_alone(train):
    out = run(train)
    before = sorted(out.rglob('*'))
    with pytest.raises(InputError, match='holds inria-few-shot data, this run makes inria-full'):
        prepare(Request('full', CROP, CROP, ('austin',), missing='skip'), train.parent, out, workers=1)
    assert sorted(out.rglob('*')) == before


def test_another_source_makes_the_tile_again(train):
    out = run(train)
    write_tif(train / 'gt' / 'austin1.tif', np.full((SIDE, SIDE), 255, np.uint8))
    request = Request('few-shot', CROP, missing='skip')
    assert prepare(request, train.parent, out, workers=1)[1] == 1
    with rasterio.open(out / 'crops' / 'masks' / 'austin1.png') as file:
        assert file.read().min() == 255


def test_the_command_line_ends_with_one_line(train, tmp_path, capsys):
    assert run_main(lambda: main(['few-shot', str(train), str(tmp_path / 'out')])) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith('error: ')
    assert printed.err.count('\n') == 1
    assert 'are missing' in printed.err
