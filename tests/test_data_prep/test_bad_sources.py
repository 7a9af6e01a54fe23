"""Faults in sources of ISPRS and Inria: one clear message, and nothing half-written."""

import os
import re
import shutil
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio

from data_prep.datasets.inria import prepare as inria_prepare
from data_prep.datasets.isprs.prepare import prepare
from data_prep.datasets.isprs.request import Request
from data_prep.datasets.isprs.verify import verify_isprs
from data_prep.inria import main as inria_main
from data_prep.isprs import main as isprs_main
from lale_mmseg.errors import ConfigError, DataError
from tests.inria_tiles import make_inria, roofs
from tests.inria_tiles import write_tif as write_geotiff
from tests.isprs_tiles import make_potsdam, tile_labels, write_labels, write_tif, zip_folder

SIZE = (150, 140)
REQUEST = Request('potsdam', size=128, stride=64)
VAIHINGEN = Request('vaihingen', size=128, stride=64, bands='irrg')
LABEL = 'Potsdam/5_Labels_all/top_potsdam_2_11_label.tif'
ERODED = 'Potsdam/5_Labels_all_noBoundary/top_potsdam_2_11_label_noBoundary.tif'
IMAGE = 'Potsdam/2_Ortho_RGB/top_potsdam_2_11_RGB.tif'
pytestmark = pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    return make_potsdam(tmp_path_factory.mktemp('potsdam'), ['2_10', '2_11'], SIZE, zipped=False)


@pytest.fixture
def source(made, tmp_path):
    """Two Potsdam tiles in folders, to be spoilt."""
    return shutil.copytree(made, tmp_path / 'source')


def fails(request: Request, source: Path, message: str) -> None:
    """The run ends with the message; the labels have no files, and nothing is left beside the output."""
    before = {path.name for path in source.parent.iterdir()} - {'out'}
    out = source.parent / 'out'
    with pytest.raises(DataError, match=message):
        prepare(request, source, out, workers=1)
    assert {path.name for path in source.parent.iterdir()} - {'out'} == before
    assert not [path for path in out.rglob('*2_11_*.png') if 'labels_full' in path.parts]


def paint(path: Path, color: tuple[int, int, int], *pixels: tuple[int, int], **options: str) -> None:
    """Paints pixels (row, column) of a label file."""
    with rasterio.open(path) as file:
        values = file.read()
    for row, column in pixels:
        values[:, row, column] = color
    write_tif(path, values, **options)


def truncate(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def zeros(bands: int, dtype: type = np.uint8):
    return lambda path: write_tif(path, np.zeros((bands, *SIZE[::-1]), dtype))


@pytest.mark.parametrize(
    ('name', 'spoil', 'message'),
    [
        (LABEL, Path.unlink, r'missing tile 2_11: full labels \(top_potsdam_2_11_label\.tif\)'),
        (IMAGE, zeros(4), r'_RGB\.tif: has 4 band\(s\) of type uint8, expected 3 of 8 bits \(uint8\)'),
        (LABEL, zeros(3, np.uint16), r'_label\.tif: has 3 band\(s\) of type uint16'),
        (LABEL, partial(truncate, share=0.5), r'_label\.tif: cannot be read \(.*\); the file is damaged or truncated'),
        (
            LABEL,
            lambda path: write_labels(path, tile_labels('2_11', 149, 140)),
            r'_label\.tif: has 140x149 pixels .*_RGB\.tif has 140x150',
        ),
    ],
)
def test_isprs_file(source, name, spoil, message):
    spoil(source / name)
    fails(replace(REQUEST, labels=('full', 'eroded')), source, message)


@pytest.mark.parametrize(
    ('request_', 'message'),
    [
        # 34 tiles of protocol A lack image and label; it does not use 7_10, and 2_10 is whole.
        (
            replace(REQUEST, protocols=('geoseg',)),
            r'protocol geoseg.*missing tile 2_12: image .* and \d+ more\. Found 2 image files',
        ),
        (VAIHINGEN, r'no tile of vaihingen was found; looked for files such as top/top_mosaic_09cm_area1\.tif'),
        (replace(REQUEST, size=141), r'140x150 pixels .* --size 141; use at most 140'),
    ],
)
def test_isprs_source_without_requested_files(source, request_, message):
    fails(request_, source, message)


def test_truncated_archive(source):
    labels = source / 'Potsdam' / '5_Labels_all'
    archive = zip_folder(labels, labels.with_suffix('.zip'), keep_top=False)
    shutil.rmtree(labels)
    truncate(archive, 0.99)
    zip_folder(source / 'Potsdam', source / 'Potsdam.zip')
    shutil.rmtree(source / 'Potsdam')
    fails(REQUEST, source, r'Potsdam\.zip/Potsdam/5_Labels_all\.zip: cannot be read')
    truncate(source / 'Potsdam.zip', 0.99)
    fails(REQUEST, source, r'Potsdam\.zip: cannot be read')


def test_damaged_member_of_an_archive(source):
    images = source / 'Potsdam' / '2_Ortho_RGB'
    archive = zip_folder(images, images.with_suffix('.zip'))
    shutil.rmtree(images)
    with zipfile.ZipFile(archive) as zipped:
        info = zipped.getinfo('2_Ortho_RGB/top_potsdam_2_11_RGB.tif')
    data = bytearray(archive.read_bytes())
    data[info.header_offset + info.compress_size - 50] ^= 0xFF
    archive.write_bytes(data)
    out = source.parent / 'out'
    with pytest.raises(DataError, match=r'2_Ortho_RGB\.zip/2_Ortho_RGB/top_potsdam_2_11_RGB\.tif: cannot be read'):
        prepare(REQUEST, source, out, workers=2)
    # Labels are made first; of the damaged image nothing remains.
    assert not list(out.rglob('windows/images/2_11_*'))
    assert not list(source.parent.glob('.*'))


def test_unneeded_archives_are_not_opened(source):
    for name in ('1_DSM.zip', '1_DSM_normalisation.zip', '3_Ortho_IRRG.zip', '4_Ortho_RGBIR.zip'):
        (source / 'Potsdam' / name).write_bytes(b'no archive')
    assert len(prepare(REQUEST, source, source.parent / 'out', workers=1)) == 12


def test_ambiguous_files(source, tmp_path):
    write_tif(tmp_path / 'mine' / 'top_mosaic_09cm_area1.tif', np.zeros((3, *SIZE[::-1]), np.uint8))
    fails(VAIHINGEN, tmp_path / 'mine', r'mine/top_mosaic_09cm_area1\.tif: image or labels\? .*into a folder top/')
    again = source / 'again' / 'top_potsdam_2_11_label.tif'
    again.parent.mkdir()
    shutil.copy(source / LABEL, again)
    os.utime(again, (1, 1))
    assert len(prepare(REQUEST, source, tmp_path / 'equal', workers=1)) == 12
    paint(again, (255, 0, 0), (3, 4), compress='lzw')
    fails(REQUEST, source, r'tile 2_11: .*label\.tif and .*label\.tif differ, but both are its full labels')


@pytest.mark.parametrize(
    ('color', 'pixels', 'limit', 'message'),
    [
        (
            (252, 255, 0),
            [(70, 20), (71, 3), (139, 149)],
            None,
            r'tile 2_11, full labels, .*top_potsdam_2_11_label\.tif: colour \(252, 255, 0\) at row 70, column 20 is '
            r'not in the palette \(3 such pixels so far\); nearest is car at a distance of 3\.0; .*--tolerant',
        ),
        (
            (255, 36, 49),
            [(2, 3)],
            60.0,
            r'colour \(255, 36, 49\) at row 2, column 3 .*clutter at a distance of 60\.8.*up to .* 60',
        ),
        ((0, 0, 0), [(2, 3)], 60.0, r'colour \(0, 0, 0\) .*Black is the boundary of eroded labels'),
    ],
)
def test_colour_outside_the_palette(source, color, pixels, limit, message):
    paint(source / LABEL, color, *pixels)
    fails(replace(REQUEST, tiles=('2_11',), max_distance=limit), source, message)


def test_first_pixel_of_the_first_strip_is_reported(tmp_path):
    source = make_potsdam(tmp_path / 'source', ['2_11'], (150, 600), zipped=False)
    paint(source / LABEL, (9, 9, 255), (590, 1))
    paint(source / LABEL, (250, 255, 255), (400, 20), (300, 30))
    fails(REQUEST, source, r'colour \(250, 255, 255\) at row 300, column 30 .*\(2 such pixels so far\)')


def test_tolerant_maps_to_the_nearest_class_and_counts(source, tmp_path, capsys):
    expected = tile_labels('2_11', *SIZE)
    paint(source / LABEL, (252, 255, 0), (70, 20), (71, 3))  # car, at 3
    paint(source / LABEL, (255, 36, 48), (0, 0))  # clutter, at 60
    paint(source / ERODED, (10, 0, 0), (5, 5))  # boundary
    command = ['potsdam', str(source), str(tmp_path / 'out'), '--size', '128', '--stride', '64', '--workers', '1']
    assert isprs_main([*command, '--tolerant']) == 0
    printed = capsys.readouterr().out
    assert '2_11, full labels: 3 pixels of 2 colours outside the palette were mapped to the nearest class' in printed
    assert '(largest distance 60)' in printed
    assert '2_11, eroded labels: 1 pixels' in printed
    expected[70, 20] = expected[71, 3] = 4
    expected[0, 0] = 5
    for kind, place, value in (('full', ..., expected), ('eroded', (5, 5), 255)):
        with rasterio.open(tmp_path / 'out' / 'tiles' / f'labels_{kind}' / '2_11.png') as file:
            np.testing.assert_array_equal(file.read(1)[place], value)


def test_finished_units_outlive_an_error(source, tmp_path):
    labels = (source / LABEL).read_bytes()
    paint(source / LABEL, (1, 2, 3), (9, 9))
    with pytest.raises(DataError, match='tile 2_11'):
        prepare(REQUEST, source, tmp_path / 'out', workers=1)
    left = {path.name[:4] for path in (tmp_path / 'out' / 'windows').rglob('*.png')}
    assert left == {'2_10'}
    (source / LABEL).write_bytes(labels)
    prepare(REQUEST, source, tmp_path / 'out', workers=1)
    assert verify_isprs(tmp_path / 'out', workers=1).faults == []


@pytest.mark.parametrize(
    ('main', 'options', 'message'),
    [
        (isprs_main, 'potsdam --size 128 --stride 129', '--stride 129 with --size 128: expected at most 128'),
        (isprs_main, 'potsdam --protocol geoseg --labels full', '--labels full: protocols geoseg need eroded and full'),
        (isprs_main, 'potsdam --protocol geoseg --tiles 7_10', '--tiles 7_10: not used by --protocol geoseg'),
        (isprs_main, 'potsdam --stride 0', 'argument --stride: 0: expected 1 to inf'),
        (inria_main, 'few-shot --min-share 5', 'argument --min-share: 5: expected 0 to 1'),
    ],
)
def test_invalid_options(tmp_path, capsys, main, options, message):
    command, *rest = options.split()
    with pytest.raises((ConfigError, SystemExit)) as caught:
        main([command, str(tmp_path), str(tmp_path / 'out'), *rest])
    text = str(caught.value) if caught.type is ConfigError else capsys.readouterr().err
    assert re.search(message, text)
    assert not (tmp_path / 'out').exists()


SIDE, CROP = 100, 40
TILES = ('austin1', 'austin2', 'austin6')


@pytest.fixture
def train(tmp_path) -> Path:
    """The folder train/ of three Inria tiles, unpacked and without compression, as the archive has them."""
    return make_inria(tmp_path / 'source', TILES, SIDE, compress=None) / 'train'


def run(train: Path, source: Path | None = None, **options) -> Path:
    request = inria_prepare.Request('few-shot', **{'size': CROP, 'missing': 'skip', **options})
    out = train.parents[2] / 'out'
    inria_prepare.prepare(request, source or train.parent, out, workers=2)
    return out


def inria_fails(train: Path, message: str, **options) -> None:
    """The run ends with the message; finished tiles stay, others leave no files."""
    with pytest.raises(DataError, match=message):
        run(train, **options)
    out = train.parents[2] / 'out'
    assert not list(out.parent.glob('.*'))
    assert {path.stem for path in out.rglob('crops/*/*')} == {path.stem for path in out.glob('markers/*.json')}


def blank(*shape: int):
    return lambda path: write_geotiff(path, np.zeros(shape, np.uint8))


def put_value(path: Path) -> None:
    labels = roofs(path.stem, SIDE, 50)
    labels[61, 17] = labels[61, 90] = labels[99, 99] = 254
    write_geotiff(path, labels)


@pytest.mark.parametrize(
    ('name', 'spoil', 'message'),
    [
        (
            'gt/austin6.tif',
            put_value,
            r'train/gt/austin6\.tif: value 254 at row 61, column 17 is not a class \(3 such pixels\); '
            r'known: background 0, building 255',
        ),
        ('gt/austin2.tif', blank(SIDE, SIDE, 3), r'gt/austin2\.tif: has 3 band\(s\) .* expected 1'),
        # Also where the damage is outside the crop.
        ('images/austin6.tif', partial(truncate, share=0.97), r'images/austin6\.tif: cannot be read'),
        ('images/austin37.tif', blank(SIDE, SIDE, 3), r'austin37\.tif: austin has tiles 1 to 36; no such tile'),
        ('more/train/gt/austin1.tif', blank(SIDE, SIDE), r'gt/austin1\.tif are both the mask of austin1; keep one'),
    ],
)
def test_inria_file(train, name, spoil, message):
    spoil(train / name)
    inria_fails(train, message)


def test_inria_source_without_requested_files(train, tmp_path):
    (train / 'gt' / 'austin2.tif').unlink()
    message = (
        r'files of 34 of 36 tiles are missing: austin2 \(no gt/austin2\.tif\), austin3, .* and 26 more; unpack all '
        r'parts of the archive, or continue without these tiles with --missing skip'
    )
    inria_fails(train, message, missing='error')
    inria_fails(train, r'less than a window of --size 101', size=101)
    table = tmp_path / 'nudges.csv'
    table.write_text('tile,x,y\naustin1,60,61\n')
    inria_fails(train, 'austin1: x=60, y=61: expected x from 0 to 60 and y from 0 to 60', nudges=table)


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('aerialimagelabeling.7z.001', r'7z\.001: is a packed archive, or a part of one; unpack it first, .*7z x'),
        ('a.zip', r'a\.zip: cannot be read'),
        ('read.me', r'no tile was found; expected, for example, AerialImageDataset/train/images/austin1\.tif'),
    ],
)
def test_inria_source_without_tiles(train, tmp_path, name, message):
    (tmp_path / 'packed').mkdir()
    (tmp_path / 'packed' / name).write_bytes(b'PK\3\4half')
    for source in (tmp_path / 'packed', tmp_path / 'packed' / name):
        inria_fails(train, message, source=source)


def test_hidden_inria_tiles_are_not_taken_for_labelled_ones(train):
    write_geotiff(train.parent / 'test' / 'images' / 'austin3.tif', np.zeros((SIDE, SIDE, 3), np.uint8))
    write_geotiff(train.parent / 'test' / 'gt' / 'austin3.tif', np.zeros((SIDE, SIDE), np.uint8))
    assert {path.stem for path in (run(train) / 'crops' / 'images').iterdir()} == set(TILES)
