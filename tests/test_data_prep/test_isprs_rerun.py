"""Preparing ISPRS tiles again: errors leave what earlier runs finished, and what is the same is not made twice."""

import json
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio

import data_prep._isprs_compare as compare_module
import data_prep._isprs_tiles as tiles_module
from data_prep._files import Manifest
from data_prep._isprs_checks import verify_isprs
from data_prep._isprs_labels import MAX_COLORS, LabelStrips
from data_prep._isprs_plan import Request
from data_prep._isprs_record import Record
from data_prep.isprs import prepare
from lale_mmseg.errors import DataError, InputError
from lale_mmseg.metainfo import isprs
from tests.isprs_tiles import make_potsdam, write_tif

SIZE = (150, 140)
REQUEST = Request('potsdam', size=128, stride=64)
#: Trained on in this protocol, with full labels: windows alone.
WINDOWS = replace(REQUEST, protocols=('geoseg',), tiles=('2_11',))
FULL = 'Potsdam/5_Labels_all/top_potsdam_{}_label.tif'
ERODED = 'Potsdam/5_Labels_all_noBoundary/top_potsdam_{}_label_noBoundary.tif'
IMAGE = 'Potsdam/2_Ortho_RGB/top_potsdam_{}_RGB.tif'
pytestmark = pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    return make_potsdam(tmp_path_factory.mktemp('potsdam'), ['2_10', '2_11'], SIZE, zipped=False)


@pytest.fixture(scope='module')
def finished(made, tmp_path_factory):
    out = tmp_path_factory.mktemp('finished') / 'out'
    prepare(REQUEST, made, out, workers=1)
    return out


@pytest.fixture
def source(made, tmp_path):
    """Two Potsdam tiles in folders, to be spoilt."""
    return shutil.copytree(made, tmp_path / 'source')


def spoil(path: Path) -> None:
    """One pixel of a colour off the palette, in a file of the same size."""
    with rasterio.open(path) as file:
        values, profile = file.read(), file.profile
    values[:, 9, 9] = (252, 255, 0)
    write_tif(path, values, compress=profile.get('compress', 'none'))


def data(out: Path, start: str = '') -> dict[str, bytes]:
    """Content of the files of the tiles whose names begin so, hidden ones included."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob('*'))
        if path.is_file() and path.suffix != '.json' and path.name.lstrip('.').startswith(start)
    }


def stamps(out: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in out.rglob('*.*') if path.suffix != '.json'}


def parts(out: Path) -> dict:
    return json.loads((out / 'manifest.json').read_text())['parts']


def break_after(monkeypatch, count: int, error: BaseException) -> None:
    """Writing a window fails after some."""
    write, written = tiles_module.write_bytes, []

    def breaks(path, content):
        if len(written) == count:
            raise error
        written.append(path)
        write(path, content)

    monkeypatch.setattr(tiles_module, 'write_bytes', breaks)


@pytest.mark.parametrize('workers', [1, 2])
def test_a_bad_colour_in_another_tile_leaves_the_windows_of_an_earlier_run(source, tmp_path, workers):
    out = tmp_path / 'out'
    prepare(replace(WINDOWS, protocols=('mmseg',)), source, out, workers=1)
    before, entry = data(out), parts(out)['2_11']
    assert len(before) == 3 * 4
    spoil(source / FULL.format('2_10'))
    with pytest.raises(DataError, match='tile 2_10, full labels'):
        prepare(REQUEST, source, out, workers=workers)
    assert before.items() <= data(out).items()
    assert not data(out, '2_10')
    if workers == 1:
        assert data(out) == before
        assert parts(out) == {'2_11': entry}
    assert verify_isprs(out, workers=1).faults == []


def test_a_damaged_copy_of_a_finished_tile_changes_nothing(source, tmp_path):
    out = tmp_path / 'out'
    prepare(WINDOWS, source, out, workers=1)
    before, entry = data(out), parts(out)
    image = source / IMAGE.format('2_11')
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2] + b'x' * (len(content) - len(content) // 2))
    message = r'has tile 2_11 made with other content of its image file top_potsdam_2_11_RGB\.tif; choose'
    with pytest.raises(InputError, match=message):
        prepare(REQUEST, source, out, workers=1)
    assert data(out) == before
    assert parts(out) == entry


@pytest.mark.parametrize('error', [DataError('torn'), OSError('no space left'), MemoryError('full'), cv2.error('bad')])
def test_a_tile_that_fails_while_it_gets_more_is_as_before(source, tmp_path, monkeypatch, error):
    out = tmp_path / 'out'
    (source / ERODED.format('2_11')).rename(tmp_path / 'eroded.tif')
    prepare(WINDOWS, source, out, workers=1)
    before, entry = data(out), parts(out)
    (tmp_path / 'eroded.tif').rename(source / ERODED.format('2_11'))
    break_after(monkeypatch, 2, error)
    with pytest.raises((type(error), DataError), match=str(error) or None):
        prepare(replace(REQUEST, tiles=('2_11',)), source, out, workers=1)
    assert data(out) == before
    assert parts(out) == entry
    assert verify_isprs(out, workers=1).faults == []
    assert {path.name for path in tmp_path.iterdir()} == {'source', 'out'}


def test_an_error_that_leaves_nothing_does_not_block_the_next_run(source, tmp_path, monkeypatch):
    out = tmp_path / 'out'
    prepare(WINDOWS, source, out, workers=1)
    break_after(monkeypatch, 7, MemoryError())
    with pytest.raises(MemoryError):
        prepare(replace(WINDOWS, stride=100), source, out, overwrite=True, workers=1)
    assert not out.exists()
    out.mkdir()
    (out / 'notes.txt').write_text('mine')
    with pytest.raises(MemoryError):
        prepare(REQUEST, source, out, overwrite=True, workers=1)
    assert [path.name for path in out.rglob('*')] == ['notes.txt']
    (out / 'notes.txt').unlink()
    monkeypatch.undo()
    assert len(prepare(REQUEST, source, out, workers=1)) == 2
    assert verify_isprs(out, workers=1).faults == []


@pytest.mark.parametrize('workers', [1, 2])
@pytest.mark.parametrize('stride', [64, 100])
def test_overwrite_with_a_bad_colour_in_one_tile_keeps_all_others(source, finished, tmp_path, stride, workers):
    out = shutil.copytree(finished, tmp_path / 'out')
    spoil(source / FULL.format('2_11'))
    with pytest.raises(DataError, match='tile 2_11, full labels'):
        prepare(replace(REQUEST, stride=stride), source, out, overwrite=True, workers=workers)
    assert data(out, '2_11') == data(finished, '2_11')
    assert verify_isprs(out, workers=1).faults == []
    assert set(parts(out)) == {'2_10', '2_11'}
    assert all(entry['complete'] for entry in parts(out).values())
    if workers == 1:
        assert parts(out)['2_10']['source']['stride'] == stride
    if parts(out)['2_10']['source']['stride'] == 100:
        # What was asked for before is not taken for done.
        with pytest.raises(InputError, match=r'tile 2_10 made with --stride 100 \(now --stride 64\)'):
            prepare(replace(REQUEST, tiles=('2_10',)), source, out, workers=1)


def test_a_finished_tile_that_is_being_replaced_is_not_stopped_by_the_error_of_another(
    finished, made, tmp_path, monkeypatch
):
    out = shutil.copytree(finished, tmp_path / 'out')
    write, failed, begun = tiles_module._write_window, threading.Event(), threading.Event()

    def write_window(path, values):
        if path.name.startswith('2_11'):
            assert begun.wait(30)
            failed.set()
            raise MemoryError
        begun.set()
        assert failed.wait(30)
        write(path, values)

    monkeypatch.setattr(tiles_module, '_write_window', write_window)
    with pytest.raises(MemoryError):
        prepare(replace(REQUEST, stride=100), made, out, overwrite=True, workers=2)
    assert {stem: entry['complete'] for stem, entry in parts(out).items()} == {'2_10': True}
    assert parts(out)['2_10']['source']['stride'] == 100
    assert verify_isprs(out, workers=1).faults == []


def test_old_files_are_not_taken_for_new_ones_after_a_kill_while_they_go(source, finished, tmp_path, monkeypatch):
    out = shutil.copytree(finished, tmp_path / 'out')
    shutil.copy(source / FULL.format('2_10'), source / FULL.format('2_11'))

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Record, '_remove', killed)
    wanted = replace(REQUEST, tiles=('2_11',))
    with pytest.raises(KeyboardInterrupt):
        prepare(wanted, source, out, overwrite=True, workers=1)
    monkeypatch.undo()
    with pytest.raises(InputError, match='no tile 2_11; remove its files'):
        prepare(wanted, source, out, workers=1)
    prepare(wanted, source, out, overwrite=True, workers=1)
    assert verify_isprs(out, workers=1).faults == []
    folder = out / 'tiles' / 'labels_full'
    assert (folder / '2_11.png').read_bytes() == (folder / '2_10.png').read_bytes()


@pytest.mark.parametrize('error', [MemoryError('no memory'), cv2.error('bad image'), RuntimeError('bug')])
def test_any_error_of_a_tile_stops_the_others_and_is_shown(source, tmp_path, monkeypatch, error):
    write, failed = tiles_module._write_window, threading.Event()

    def write_window(path, values):
        if path.name.startswith('2_11'):
            failed.set()
            raise error
        assert failed.wait(30)
        write(path, values)

    monkeypatch.setattr(tiles_module, '_write_window', write_window)
    with pytest.raises(type(error), match=str(error)):
        prepare(REQUEST, source, tmp_path / 'out', workers=2)
    assert {path.name for path in tmp_path.iterdir()} <= {'source', 'out'}
    assert not data(tmp_path / 'out', '2_11')
    if (tmp_path / 'out').exists():
        assert verify_isprs(tmp_path / 'out', workers=1).faults == []


def test_leftovers_go_wherever_a_run_was_killed(source, finished, tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    (out / '.manifest.json.77.part').write_bytes(b'half')
    prepare(replace(REQUEST, tiles=('2_10',)), source, out, workers=1)
    (out / 'windows' / 'images' / '.2_11_0_0_128_128.png.77.part').write_bytes(b'half')
    prepare(REQUEST, source, out, workers=1)
    assert data(out) == data(finished)
    assert {path.name for path in out.iterdir()} == {'windows', 'tiles', 'manifest.json', 'statistics.json'}
    assert verify_isprs(out, workers=1).faults == []


def test_the_output_is_listed_once(source, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, 'glob', lambda *_: pytest.fail('a folder was searched for each tile'))
    monkeypatch.setattr(Manifest, '_owned', lambda *_: pytest.fail('a folder was searched for each tile'))
    looked, walk = [], Path.rglob
    monkeypatch.setattr(Path, 'rglob', lambda path, pattern: looked.append(path) or walk(path, pattern))
    prepare(REQUEST, source, tmp_path / 'out', workers=1)
    prepare(replace(REQUEST, stride=100), source, tmp_path / 'out', overwrite=True, workers=1)
    assert looked == [tmp_path / 'out'] * 2


def test_a_killed_extension_is_noted_and_continued(source, finished, tmp_path, monkeypatch):
    out = tmp_path / 'out'
    (source / ERODED.format('2_11')).rename(tmp_path / 'eroded.tif')
    prepare(WINDOWS, source, out, workers=1)
    (tmp_path / 'eroded.tif').rename(source / ERODED.format('2_11'))
    break_after(monkeypatch, 2, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        prepare(replace(REQUEST, tiles=('2_11',)), source, out, workers=1)
    monkeypatch.undo()
    assert parts(out)['2_11']['complete']
    (fault,) = verify_isprs(out, workers=1).faults
    assert (fault.kind, 'tile 2_11 is not finished' in fault.message) == ('unfinished tile', True)
    before = stamps(out)
    # Asked for less, what was begun is finished all the same.
    prepare(WINDOWS, source, out, workers=1)
    assert stamps(out).items() >= before.items()
    assert data(out) == data(finished, '2_11')
    assert verify_isprs(out, workers=1).faults == []


def test_another_label_file_after_a_killed_extension(source, tmp_path, monkeypatch):
    """Windows of the first file, which the killed run had cut, are not mixed with those of the second."""
    out, eroded = tmp_path / 'out', source / ERODED.format('2_11')
    good = eroded.read_bytes()
    eroded.unlink()
    prepare(WINDOWS, source, out, workers=1)
    with rasterio.open(source / FULL.format('2_11')) as file:
        write_tif(eroded, file.read())
    break_after(monkeypatch, 2, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        prepare(replace(REQUEST, tiles=('2_11',)), source, out, workers=1)
    monkeypatch.undo()
    eroded.write_bytes(good)
    prepare(WINDOWS, source, out, workers=1)
    prepare(WINDOWS, source, tmp_path / 'due', workers=1)
    assert data(out) == data(tmp_path / 'due')
    assert verify_isprs(out, workers=1).faults == []


def test_labels_that_come_later_are_added_alone(source, finished, tmp_path, monkeypatch):
    out, eroded = tmp_path / 'out', source / 'Potsdam' / '5_Labels_all_noBoundary'
    eroded.rename(tmp_path / 'later')
    prepare(REQUEST, source, out, workers=1)
    before = stamps(out)
    (tmp_path / 'later').rename(eroded)
    fetch, fetched = tiles_module._fetch, []
    monkeypatch.setattr(tiles_module, '_fetch', lambda file, copy: fetched.append(file.name) or fetch(file, copy))
    prepare(REQUEST, source, out, workers=1)
    assert len(fetched) == 2
    assert all(name.endswith('_noBoundary.tif') for name in fetched)
    assert stamps(out).items() >= before.items()
    assert data(out) == data(finished)
    assert [list(entry['labels']) for entry in parts(out).values()] == [['full', 'eroded']] * 2
    assert (out / 'statistics.json').read_bytes() == (finished / 'statistics.json').read_bytes()
    assert verify_isprs(out, workers=1).faults == []


def test_labels_that_are_gone_stay_until_more_of_them_are_needed(source, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / 'out')
    shutil.rmtree(source / 'Potsdam' / '5_Labels_all_noBoundary')
    prepare(REQUEST, source, out, workers=1)
    assert data(out) == data(finished)
    (out / 'windows' / 'labels_eroded' / '2_10_0_0_128_128.png').unlink()
    message = r'tile 2_10 has eroded labels, and 1 more files of them .*2_10_label_noBoundary\.tif is not in the source'
    with pytest.raises(DataError, match=message):
        prepare(REQUEST, source, out, workers=1)
    prepare(REQUEST, source, out, overwrite=True, workers=1)
    assert not [name for name in data(out) if 'eroded' in name]
    assert verify_isprs(out, workers=1).faults == []


def test_a_copy_of_the_source_is_the_same_source(source, finished, tmp_path, monkeypatch):
    out = shutil.copytree(finished, tmp_path / 'out')
    before = stamps(out)
    for path in source.rglob('*.tif'):
        os.utime(path, (1, 1))
    prepare(REQUEST, source, out, workers=1)
    assert stamps(out) == before
    # The new times are on record: nothing is read again.
    monkeypatch.setattr(compare_module, 'sha256_of', lambda *_: pytest.fail('a file was read again'))
    prepare(replace(REQUEST, tiles=('2_10',)), source, out, workers=1)


def test_a_copy_of_an_archive_and_its_content_are_the_same_source(made, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / 'out')
    zipped = make_potsdam(tmp_path / 'zipped', ['2_10', '2_11'], SIZE)
    before = stamps(out)
    prepare(REQUEST, zipped, out, workers=1)
    assert stamps(out) == before


def test_only_what_differs_is_said(source, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / 'out')
    label = source / FULL.format('2_11')
    with rasterio.open(label) as file:
        values = file.read()
    values[:, :3, :3] = 255
    write_tif(label, values, compress='none')
    size = label.stat().st_size
    before = parts(out)['2_11']['source']['files']['full'][1]
    with pytest.raises(InputError) as caught:
        prepare(REQUEST, source, out, workers=1)
    assert str(caught.value) == (
        f'{out}: has tile 2_11 made with another full labels file: {label.name} of {before:,} bytes (now {label.name} '
        f'of {size:,} bytes); choose another folder, or --overwrite to make what differs again'
    )
    image = source / IMAGE.format('2_10')
    image.write_bytes(image.read_bytes()[:-1] + b'x')
    with pytest.raises(InputError, match=r'tile 2_10 made with other content of its image file .*RGB\.tif;'):
        prepare(replace(REQUEST, tiles=('2_10',)), source, out, workers=1)
    assert data(out) == data(finished)


def test_files_that_are_not_on_record_are_named(source, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / 'out')
    manifest = json.loads((out / 'manifest.json').read_text())
    del manifest['parts']['2_11']
    (out / 'manifest.json').write_text(json.dumps(manifest))
    with pytest.raises(
        InputError, match=r'2_11_0_0_128_128\.png is there, but manifest\.json has no tile 2_11; remove'
    ):
        prepare(REQUEST, source, out, workers=1)
    prepare(REQUEST, source, out, overwrite=True, workers=1)
    assert data(out) == data(finished)


def test_tolerant_goes_on_with_tiles_that_have_no_such_colour(source, tmp_path):
    out = tmp_path / 'out'
    spoil(source / FULL.format('2_11'))
    with pytest.raises(DataError, match='--tolerant takes the nearest class'):
        prepare(REQUEST, source, out, workers=1)
    before = stamps(out)
    assert before
    prepare(replace(REQUEST, max_distance=60.0), source, out, workers=1)
    assert stamps(out).items() >= before.items()
    with pytest.raises(InputError, match=r'tile 2_11 made with --tolerant --max-distance 60 \(now no --tolerant\);'):
        prepare(REQUEST, source, out, workers=1)
    prepare(replace(REQUEST, max_distance=30.0), source, out, workers=1)
    assert verify_isprs(out, workers=1).faults == []


def test_lost_statistics_are_written_again(source, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / 'out')
    (out / 'statistics.json').write_text('{}')
    prepare(REQUEST, source, out, workers=1)
    assert (out / 'statistics.json').read_bytes() == (finished / 'statistics.json').read_bytes()


def photo(rows: int, columns: int) -> np.ndarray:
    """(rows, columns, 3) with a colour of its own for each pixel."""
    values = np.arange(rows * columns).reshape(rows, columns) + 70_000
    return np.stack([values & 255, values >> 8 & 255, values >> 16 & 255], -1).astype(np.uint8)


@pytest.mark.parametrize('distance', [None, 60.0])
def test_a_photo_in_place_of_labels_is_known_by_its_colours(distance):
    strips = LabelStrips('full', isprs.FULL_PALETTE, distance, 'tile 2_10, full labels, a.tif', 400)
    message = r'a\.tif: these are not labels: 20,000 different colours off the palette in the first 100 of 400 rows; an'
    with pytest.raises(DataError, match=message):
        strips.decode(photo(100, 200), 0)
    assert not strips.off


def test_colours_are_counted_over_all_rows():
    strips = LabelStrips('full', isprs.FULL_PALETTE, 127.0, 'a.tif', 300)
    near = 200 + np.stack(np.meshgrid(range(30), range(30), range(15)), -1).reshape(1, -1, 3)
    assert near.shape[1] > MAX_COLORS
    half = near[:, : near.shape[1] // 2].astype(np.uint8)
    strips.decode(half, 0)
    assert (len(strips.off), strips.pixels[0]) == (near.shape[1] // 2, near.shape[1] // 2)
    strips.decode(half, 1)
    assert strips.snapped == 2 * (near.shape[1] // 2)
    with pytest.raises(DataError, match=r'these are not labels: 13,500 .* first 3 of 300 rows'):
        strips.decode(near.astype(np.uint8), 2)


def test_reading_ends_with_the_first_strip_that_has_such_a_colour(tmp_path, monkeypatch):
    source = make_potsdam(tmp_path / 'source', ['2_11'], (150, 600), zipped=False)
    spoil(source / FULL.format('2_11'))
    decode, rows = LabelStrips.decode, []
    monkeypatch.setattr(LabelStrips, 'decode', lambda self, rgb, row: rows.append(row) or decode(self, rgb, row))
    with pytest.raises(DataError, match=r'\(1 such pixels; 1 pixels of 1 colours in the first 256 of 600 rows\)'):
        prepare(replace(REQUEST, tiles=('2_11',)), source, tmp_path / 'out', workers=1)
    assert rows == [0]


@pytest.mark.parametrize('overwrite', [False, True])
def test_a_folder_holds_tiles_of_one_setting(source, tmp_path, overwrite):
    out = tmp_path / 'out'
    prepare(replace(REQUEST, tiles=('2_11',)), source, out, workers=1)
    before = data(out)
    other = replace(REQUEST, stride=32, masks='rgb', tiles=('2_10',))
    message = (
        r'out: has tile 2_11 made with --stride 64 \(now --stride 32\) and --masks index \(now --masks rgb\), which '
        'this run does not make again, and a folder holds tiles of one setting'
    )
    with pytest.raises(DataError, match=message):
        prepare(other, source, out, overwrite, workers=1)
    assert data(out) == before
    prepare(replace(other, tiles=None), source, out, overwrite=True, workers=1)
    assert {entry['source']['masks'] for entry in parts(out).values()} == {'rgb'}
