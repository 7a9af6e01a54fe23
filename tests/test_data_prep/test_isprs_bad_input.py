"""Faults in ISPRS sources and commands: one clear message, and nothing half-written."""

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from data_prep.datasets.isprs.prepare import prepare
from data_prep.datasets.isprs.request import Request
from data_prep.datasets.isprs.verify import verify_isprs
from data_prep.isprs import main
from lale_mmseg.errors import ConfigError, DataError
from tests.isprs_tiles import make_potsdam, tile_labels, write_labels, write_tif, zip_folder
from tests.support import REPO

SIZE = (150, 140)
REQUEST = Request('potsdam', size=128, stride=64)
ONE = replace(REQUEST, tiles=('2_11',))
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


def fails(request: Request, source: Path, message: str, workers: int = 1) -> None:
    """The run ends with the message; the tile has no files, and nothing is left beside the output."""
    before = {path.name for path in source.parent.iterdir()} - {'out'}
    out = source.parent / 'out'
    with pytest.raises((DataError, ConfigError), match=message):
        prepare(request, source, out, workers=workers)
    assert {path.name for path in source.parent.iterdir()} - {'out'} == before
    assert not [path for path in out.rglob('*2_11_*.png') if 'labels_full' in path.parts]


def spoil(path: Path, color: tuple[int, int, int], pixels: list[tuple[int, int]], options: dict | None = None) -> None:
    """Paints pixels (row, column) of a label file."""
    with rasterio.open(path) as file:
        values = file.read()
    for row, column in pixels:
        values[:, row, column] = color
    write_tif(path, values, **(options or {}))


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        (IMAGE, r'missing tile 2_11: image \(top_potsdam_2_11_RGB\.tif\)\. Found 1 image files, 2 full label files'),
        (LABEL, r'missing tile 2_11: full labels \(top_potsdam_2_11_label\.tif\)'),
        (ERODED, r'missing tile 2_11: eroded labels \(top_potsdam_2_11_label_noBoundary\.tif\)'),
    ],
)
def test_missing_file_of_a_tile(source, name, message):
    (source / name).unlink()
    fails(Request('potsdam', size=128, stride=64, labels=('full', 'eroded')), source, message)


def test_missing_tiles_of_the_choice(source, tmp_path):
    wanted = Request('potsdam', size=128, stride=64, tiles=('2_10', '7_13'))
    fails(wanted, source, r'missing tile 7_13: labels .*, tile 7_13: image \(top_potsdam_7_13_RGB\.tif\)')
    wanted = Request('potsdam', size=128, stride=64, protocols=('geoseg',))
    # 34 tiles of protocol A lack image and label; it does not use 7_10, and 2_10 is whole.
    fails(wanted, source, r'protocol geoseg.*missing tile 2_12: image .* and \d+ more\. Found 2 image files')
    fails(VAIHINGEN, source, r'no tile of vaihingen was found; looked for files such as top/top_mosaic_09cm_area1\.tif')
    fails(REQUEST, tmp_path / 'nowhere', 'nowhere: no such folder')


def test_labels_of_another_size(source):
    write_labels(source / LABEL, tile_labels('2_11', 149, 140))
    fails(REQUEST, source, r'tile 2_11: .*top_potsdam_2_11_label\.tif has 140x149 pixels .*RGB\.tif has 140x150')


@pytest.mark.parametrize(('name', 'bands', 'due'), [(IMAGE, 4, 3), (LABEL, 1, 3)])
def test_wrong_bands(source, name, bands, due):
    write_tif(source / name, np.zeros((bands, *SIZE[::-1]), np.uint8))
    fails(REQUEST, source, rf'{Path(name).name}: has {bands} band\(s\), expected {due}')


@pytest.mark.parametrize('name', [IMAGE, LABEL])
def test_sixteen_bits(source, name):
    write_tif(source / name, np.zeros((3, *SIZE[::-1]), np.uint16))
    fails(REQUEST, source, r'2_11.* has values of type uint16, expected 8 bits \(uint8\)')


def test_tile_smaller_than_a_window(source):
    fails(Request('potsdam', size=141, stride=64), source, r'tile 2_10: 140x150 pixels .* --size 141; use at most 140')


@pytest.mark.parametrize('share', [0.0, 0.5])
@pytest.mark.parametrize('name', [IMAGE, LABEL])
def test_file_that_was_cut_off(source, name, share):
    path = source / name
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    fails(REQUEST, source, rf'{path.name}: cannot be read')


@pytest.mark.parametrize('share', [0.0, 0.99])
@pytest.mark.parametrize('nested', [False, True])
def test_archive_that_was_cut_off(source, share, nested):
    labels = source / 'Potsdam' / '5_Labels_all'
    archive = zip_folder(labels, labels.with_suffix('.zip'), keep_top=False)
    shutil.rmtree(labels)
    archive.write_bytes(archive.read_bytes()[: int(share * archive.stat().st_size)])
    if nested:
        zip_folder(source / 'Potsdam', source / 'Potsdam.zip')
        shutil.rmtree(source / 'Potsdam')
    where = r'Potsdam\.zip/Potsdam' if nested else 'Potsdam'
    fails(REQUEST, source, rf'{where}/5_Labels_all\.zip: not a complete zip archive')
    # The archive around it.
    if nested:
        path = source / 'Potsdam.zip'
        path.write_bytes(path.read_bytes()[:-30])
        fails(REQUEST, source, r'Potsdam\.zip: not a complete zip archive')


@pytest.mark.parametrize('workers', [1, 2])
def test_damaged_member_of_an_archive(source, workers):
    images = source / 'Potsdam' / '2_Ortho_RGB'
    archive = zip_folder(images, images.with_suffix('.zip'))
    shutil.rmtree(images)
    with zipfile.ZipFile(archive) as zipped:
        info = zipped.getinfo('2_Ortho_RGB/top_potsdam_2_11_RGB.tif')
    data = bytearray(archive.read_bytes())
    data[info.header_offset + info.compress_size - 50] ^= 0xFF
    archive.write_bytes(data)
    before = {path.name for path in source.parent.iterdir()}
    with pytest.raises(DataError, match=r'2_Ortho_RGB\.zip/2_Ortho_RGB/top_potsdam_2_11_RGB\.tif: cannot be read'):
        prepare(REQUEST, source, source.parent / 'out', workers=workers)
    left = source.parent / 'out'
    # Labels are made first, so of the damaged image there is nothing.
    assert not list(left.rglob('windows/images/2_11_*'))
    assert {path.name for path in source.parent.iterdir()} - before <= {'out'}


def test_surface_models_and_other_bands_are_not_opened(source):
    for name in ('1_DSM.zip', '1_DSM_normalisation.zip', '3_Ortho_IRRG.zip', '4_Ortho_RGBIR.zip'):
        (source / 'Potsdam' / name).write_bytes(b'no archive')
    assert len(prepare(REQUEST, source, source.parent / 'out', workers=1)) == 12


def test_image_or_labels_is_never_guessed(tmp_path):
    write_tif(tmp_path / 'source' / 'mine' / 'top_mosaic_09cm_area1.tif', np.zeros((3, *SIZE[::-1]), np.uint8))
    fails(VAIHINGEN, tmp_path / 'source', r'mine/top_mosaic_09cm_area1\.tif: image or labels\? .*into a folder top/')


def test_files_that_differ(source):
    again = source / 'again' / 'top_potsdam_2_11_label.tif'
    again.parent.mkdir()
    shutil.copy(source / LABEL, again)
    os.utime(again, (1, 1))
    assert len(prepare(REQUEST, source, source.parent / 'out', workers=1)) == 12
    shutil.rmtree(source.parent / 'out')
    spoil(again, (255, 0, 0), [(3, 4)], dict(compress='lzw'))
    fails(REQUEST, source, r'tile 2_11: .*label\.tif and .*label\.tif differ, but both are its full labels')


def test_colour_off_the_palette(source):
    spoil(source / LABEL, (252, 255, 0), [(70, 20), (71, 3), (139, 149)])
    spoil(source / ERODED, (0, 0, 9), [(7, 8)])
    fails(
        ONE,
        source,
        r'tile 2_11, full labels, .*top_potsdam_2_11_label\.tif: colour \(252, 255, 0\) at row 70, column 20 is not in '
        r'the palette \(3 such pixels so far\); nearest is car at a distance of 3\.0; '
        r'known: impervious_surface .*--tolerant',
    )


def test_the_first_pixel_counts_across_strips(tmp_path):
    source = make_potsdam(tmp_path / 'source', ['2_11'], (150, 600), zipped=False)
    spoil(source / LABEL, (9, 9, 255), [(590, 1)])
    spoil(source / LABEL, (250, 255, 255), [(400, 20), (300, 30)])
    where = r'colour \(250, 255, 255\) at row 300, column 30 '
    fails(ONE, source, rf'{where}.*\(2 such pixels so far\)')


def test_black_in_full_labels_hints_at_eroded_ones(source):
    shutil.copy(source / ERODED, source / LABEL)
    for options in (None, 60.0):
        wanted = replace(ONE, max_distance=options)
        fails(wanted, source, r'colour \(0, 0, 0\) .*Black is the boundary of eroded labels')


def test_tolerant_takes_the_nearest_class_and_counts(source, tmp_path, capsys):
    before = tile_labels('2_11', *SIZE)
    spoil(source / LABEL, (252, 255, 0), [(70, 20), (71, 3)])  # car, at 3
    spoil(source / LABEL, (255, 36, 48), [(0, 0)])  # clutter, at 60
    spoil(source / ERODED, (10, 0, 0), [(5, 5)])  # boundary
    command = ['potsdam', str(source), str(tmp_path / 'out'), '--size', '128', '--stride', '64', '--workers', '1']
    assert main([*command, '--tolerant']) == 0
    printed = capsys.readouterr().out
    assert '2_11, full labels: 3 pixels of 2 colours outside the palette were mapped to the nearest class' in printed
    assert '(largest distance 60)' in printed
    assert '2_11, eroded labels: 1 pixels' in printed
    with rasterio.open(tmp_path / 'out' / 'tiles' / 'labels_full' / '2_11.png') as file:
        found = file.read(1)
    before[70, 20] = before[71, 3] = 4
    before[0, 0] = 5
    np.testing.assert_array_equal(found, before)
    with rasterio.open(tmp_path / 'out' / 'tiles' / 'labels_eroded' / '2_11.png') as file:
        assert file.read(1)[5, 5] == 255


def test_tolerant_has_an_end(source):
    spoil(source / LABEL, (255, 36, 49), [(2, 3)])
    wanted = replace(ONE, max_distance=60.0)
    fails(wanted, source, r'colour \(255, 36, 49\) at row 2, column 3 .*clutter at a distance of 60\.8.*up to .* 60')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--stride', '129'], '--stride 129 with --size 128: expected a stride from 1 to 128'),
        (['--stride', '0'], '--stride 0 with --size 128'),
        (['--protocol', 'geosex'], r"protocol 'geosex' is not known; known: A 'geoseg' .*B 'mmseg' .*D 'boundary'"),
        (['--protocol', 'boundary'], r"protocol 'boundary' \(D\) has no tiles of 'potsdam'; .* vaihingen"),
        (['--protocol', 'geoseg', '--labels', 'full'], '--labels full: protocols geoseg need eroded and full'),
        (['--protocol', 'geoseg', '--tiles', '7_10'], '--tiles 7_10: not used by --protocol geoseg'),
        (['--tiles', '2_9'], '--tiles 2_9: potsdam has no such tile; it has 2_10 2_11'),
        (['--max-distance', '5'], '--max-distance 5: only valid with --tolerant'),
        (['--tolerant', '--max-distance', '128'], '--max-distance 128: expected more than 0 and at most 127'),
        (['--workers', '0'], '--workers 0: expected at least 1'),
    ],
)
def test_commands_that_cannot_be_carried_out(source, tmp_path, options, message):
    command = ['potsdam', str(source), str(tmp_path / 'out'), '--size', '128', '--stride', '64', *options]
    with pytest.raises(ConfigError, match=message):
        main(command)
    assert not (tmp_path / 'out').exists()


def test_the_command_says_it_in_one_line(source, tmp_path):
    command = [sys.executable, REPO / 'data_prep' / 'isprs.py', 'potsdam', source, tmp_path / 'out', '--size', '500']
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith('error: tile 2_10: 140x150 pixels')
    assert not (tmp_path / 'out').exists()


def test_what_is_finished_outlives_an_error(source, tmp_path):
    labels = (source / LABEL).read_bytes()
    spoil(source / LABEL, (1, 2, 3), [(9, 9)])
    with pytest.raises(DataError, match='tile 2_11'):
        prepare(REQUEST, source, tmp_path / 'out', workers=1)
    left = {path.name[:4] for path in (tmp_path / 'out' / 'windows').rglob('*.png')}
    assert left == {'2_10'}
    (source / LABEL).write_bytes(labels)
    prepare(REQUEST, source, tmp_path / 'out', workers=1)
    assert verify_isprs(tmp_path / 'out', workers=1).faults == []
