"""Preparing ISPRS tiles: what is found where, windows, labels, whole tiles, counts, continuing."""

import json
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio

import data_prep.datasets.isprs.prepare as module
from data_prep.core.prepared import Prepared, read_markers
from data_prep.core.sources import scratch_beside
from data_prep.core.tiles import starts
from data_prep.datasets.isprs.prepare import prepare
from data_prep.datasets.isprs.request import Request
from data_prep.isprs import main
from lale_mmseg.errors import InputError
from lale_mmseg.metainfo import isprs
from tests.isprs_tiles import erode, make_potsdam, make_vaihingen, tile_image, tile_labels, write_tif
from tests.support import REPO

SIZE = (300, 260)
SMALL = dict(size=128, stride=100)
pytestmark = pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')


def potsdam(**options) -> Request:
    return Request('potsdam', **{**SMALL, **options})


def files(out: Path) -> dict[str, bytes]:
    """Content of the data files; markers and manifest depend on the modification times of the sources."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for top in ('windows', 'tiles', 'statistics.json')
        for path in [out / top, *sorted((out / top).rglob('*'))]
        if path.is_file()
    }


def read_png(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """Two Potsdam tiles of 300x260 pixels with every choice of bands, in archives inside an archive."""
    folder = tmp_path_factory.mktemp('potsdam')
    return make_potsdam(folder, ['2_10', '2_13'], SIZE, bands=('rgb', 'irrg', 'rgbir'))


@pytest.fixture(scope='module')
def prepared(source, tmp_path_factory):
    out = tmp_path_factory.mktemp('prepared') / 'potsdam'
    prepare(potsdam(), source, out, workers=1)
    return out


@pytest.mark.parametrize(
    ('length', 'size', 'stride', 'expected'),
    [
        (6000, 512, 256, [*range(0, 5377, 256), 5488]),
        (6000, 512, 512, [*range(0, 5121, 512), 5488]),
        (1024, 512, 256, [0, 256, 512]),
        (300, 128, 100, [0, 100, 172]),
        (300, 300, 1, [0]),
        (301, 300, 300, [0, 1]),
    ],
)
def test_starts(length, size, stride, expected):
    assert starts(length, size, stride) == expected


def test_windows_hold_their_part_of_the_tile(prepared):
    labels = tile_labels('2_10', *SIZE)
    image = tile_image('2_10', labels)
    names = sorted(path.name for path in (prepared / 'windows' / 'images').glob('2_10_*'))
    # 300 pixels: 0, 100, 172; 260 pixels: 0, 100, 132.
    assert names == sorted(f'2_10_{x}_{y}_{x + 128}_{y + 128}.png' for x in (0, 100, 172) for y in (0, 100, 132))
    for name in names:
        x0, y0, x1, y1 = (int(word) for word in Path(name).stem.split('_')[2:])
        found = read_png(prepared / 'windows' / 'images' / name)
        np.testing.assert_array_equal(found[..., ::-1], image[:, y0:y1, x0:x1].transpose(1, 2, 0))
        for kind, due in (('full', labels), ('eroded', erode(labels))):
            found = read_png(prepared / 'windows' / f'labels_{kind}' / name)
            assert found.dtype == np.uint8
            np.testing.assert_array_equal(found, due[y0:y1, x0:x1])


def test_whole_tiles_keep_their_place_on_the_map(prepared):
    labels = tile_labels('2_13', *SIZE)
    with rasterio.open(prepared / 'tiles' / 'images' / '2_13.tif') as file:
        np.testing.assert_array_equal(file.read(), tile_image('2_13', labels))
        assert file.crs.to_epsg() == 32633
        assert (file.transform.a, file.transform.c, file.transform.f) == (0.05, 366676, 5807000)
        assert (file.is_tiled, file.compression.name) == (True, 'deflate')
    np.testing.assert_array_equal(read_png(prepared / 'tiles' / 'labels_full' / '2_13.png'), labels)
    np.testing.assert_array_equal(read_png(prepared / 'tiles' / 'labels_eroded' / '2_13.png'), erode(labels))


def test_statistics_and_manifest(prepared, source):
    labels = {tile: tile_labels(tile, *SIZE) for tile in ('2_10', '2_13')}
    saved = json.loads((prepared / 'statistics.json').read_text())
    assert saved['classes'] == list(isprs.CLASSES)
    assert list(saved['tiles']) == ['2_10', '2_13']
    for tile, due in labels.items():
        assert saved['tiles'][tile]['full'] == [int((due == index).sum()) for index in range(6)]
        assert saved['tiles'][tile]['eroded'] == [int((erode(due) == index).sum()) for index in range(6)]
    parts = json.loads((prepared / 'manifest.json').read_text())['parts']
    entry = parts['2_10-windows-labels_eroded']
    assert entry['settings'] == dict(masks='index', size=128, stride=100)
    assert entry['size'] == [260, 300]
    assert entry['ignored'] == int((erode(labels['2_10']) == 255).sum())
    with zipfile.ZipFile(source / 'Potsdam.zip') as outer:
        inner = zipfile.ZipFile(outer.open('Potsdam/5_Labels_all.zip'))
        assert parts['2_10-tiles-labels_full']['sha256'] == sha256(inner.read('top_potsdam_2_10_label.tif')).hexdigest()


def test_every_way_of_packing_and_threads_give_the_same(prepared, tmp_path):
    for zipped, nested in ((False, False), (True, False)):
        source = make_potsdam(tmp_path / f'{zipped}', ['2_10', '2_13'], SIZE, zipped=zipped, nested=nested)
        prepare(potsdam(), source, tmp_path / f'out{zipped}', workers=3)
        assert files(tmp_path / f'out{zipped}') == files(prepared)


def test_bands(source, tmp_path):
    labels = tile_labels('2_10', *SIZE)
    image = tile_image('2_10', labels, 4)
    prepare(potsdam(bands='irrg', tiles=('2_10',)), source, tmp_path / 'irrg', workers=1)
    found = read_png(tmp_path / 'irrg' / 'windows' / 'images' / '2_10_172_132_300_260.png')
    np.testing.assert_array_equal(found[..., ::-1], image[[2, 0, 1], 132:, 172:].transpose(1, 2, 0))
    prepare(potsdam(bands='rgbir', tiles=('2_10',)), source, tmp_path / 'rgbir', workers=1)
    for path, due in (
        ('windows/images/2_10_172_132_300_260.tif', image[:, 132:, 172:]),
        ('tiles/images/2_10.tif', image),
    ):
        with rasterio.open(tmp_path / 'rgbir' / path) as file:
            np.testing.assert_array_equal(file.read(), due)
            assert 'alpha' not in {color.name for color in file.colorinterp}


def test_colour_masks(source, tmp_path):
    prepare(potsdam(masks='rgb', tiles=('2_10',)), source, tmp_path / 'out', workers=1)
    labels = erode(tile_labels('2_10', *SIZE))
    for path, due in (('windows', labels[:128, :128]), ('tiles', labels)):
        (file,) = (tmp_path / 'out' / path / 'labels_eroded').glob('2_10_0_0_*' if path == 'windows' else '*')
        np.testing.assert_array_equal(isprs.PALETTE.decode(read_png(file)[..., ::-1]), due)


def test_vaihingen_images_and_labels_of_equal_names(tmp_path):
    sizes = {'1': (200, 190), '30': (180, 210)}
    request = Request('vaihingen', size=128, stride=64, bands='irrg')
    outs = []
    for zipped in (True, False):
        source = make_vaihingen(tmp_path / f'source{zipped}', sizes, zipped=zipped, participants=['1'])
        outs.append(tmp_path / f'out{zipped}')
        prepare(request, source, outs[-1], workers=1)
    assert files(outs[0]) == files(outs[1])
    labels = tile_labels('30', *sizes['30'])
    with rasterio.open(outs[0] / 'tiles' / 'images' / 'area30.tif') as file:
        np.testing.assert_array_equal(file.read(), tile_image('30', labels))
        assert (file.transform.a, file.crs) == (0.09, None)  # from the world file beside it
    np.testing.assert_array_equal(read_png(outs[0] / 'tiles' / 'labels_full' / 'area30.png'), labels)
    np.testing.assert_array_equal(read_png(outs[0] / 'tiles' / 'labels_eroded' / 'area30.png'), erode(labels))
    assert (outs[0] / 'windows' / 'images' / 'area30_52_82_180_210.png').exists()
    saved = json.loads((outs[0] / 'statistics.json').read_text())
    assert list(saved['tiles']) == ['1', '30']


def test_complete_labels_go_before_those_of_participants(tmp_path):
    source = make_vaihingen(tmp_path / 'source', {'1': (200, 190)}, zipped=False)
    partial = source / 'ISPRS_semantic_labeling_Vaihingen' / 'gts_for_participants'
    write_tif(partial / 'top_mosaic_09cm_area1.tif', np.full((3, 190, 200), 255, np.uint8))
    prepare(Request('vaihingen', size=128, stride=64, bands='irrg'), source, tmp_path / 'out', workers=1)
    found = read_png(tmp_path / 'out' / 'tiles' / 'labels_full' / 'area1.png')
    np.testing.assert_array_equal(found, tile_labels('1', 200, 190))


def test_protocol_takes_windows_to_train_and_whole_tiles_to_test(tmp_path):
    sizes = dict.fromkeys(isprs.TILES['vaihingen'], (140, 130))
    source = make_vaihingen(tmp_path / 'source', sizes, zipped=False)
    request = Request('vaihingen', size=128, stride=64, bands='irrg', protocols=('A',))
    prepare(request, source, tmp_path / 'out', workers=1)
    split = isprs.PROTOCOLS[0].split('vaihingen')
    windows = {path.name.split('_')[0] for path in (tmp_path / 'out' / 'windows' / 'images').iterdir()}
    whole = {path.stem for path in (tmp_path / 'out' / 'tiles' / 'labels_eroded').iterdir()}
    assert windows == {f'area{tile}' for tile in split.train}
    assert whole == {f'area{tile}' for tile in (*split.val, *split.test)}
    # Another protocol adds what it needs, and keeps what is there.
    before = files(tmp_path / 'out')
    other = Request('vaihingen', size=128, stride=64, bands='irrg', protocols=('mmseg',), tiles=('30', '4'))
    prepare(other, source, tmp_path / 'out', workers=1)
    after = files(tmp_path / 'out')
    assert before.items() <= after.items()
    assert sorted(set(after) - set(before)) == sorted(
        f'windows/{kind}/area30_{x}_{y}_{x + 128}_{y + 128}.png'
        for kind in ('images', 'labels_eroded', 'labels_full')
        for x in (0, 12)
        for y in (0, 2)
    )


def test_finished_output_is_recognised(prepared, source, tmp_path, monkeypatch):
    out = tmp_path / 'out'
    shutil.copytree(prepared, out)
    monkeypatch.setattr(module, 'find_files', lambda *_: pytest.fail('the archives were read again'))
    assert len(prepare(potsdam(), source, out, workers=1)) == 12


def test_interrupted_run_is_continued(prepared, source, tmp_path, monkeypatch):
    out, write, written = tmp_path / 'out', module.write_window, []

    def stop_later(path, pixels):
        if len(written) == 30:
            raise KeyboardInterrupt
        written.append(path)
        write(path, pixels)

    monkeypatch.setattr(module, 'write_window', stop_later)
    with pytest.raises(KeyboardInterrupt):
        prepare(potsdam(), source, out, workers=1)
    finished = {
        out / folder / name: (out / folder / name).stat().st_mtime_ns
        for marker in read_markers(out).values()
        for folder, names in marker['files'].items()
        for name in names
    }
    # 9 windows and a whole tile of each of three files of 2_10; nothing of the unfinished unit remains.
    assert len(finished) == 30
    assert {path for top in ('windows', 'tiles') for path in (out / top).rglob('*.*')} == set(finished)
    # What a killed process leaves: files without a marker, a temporary file, and copies out of archives.
    for name in ('2_13_0_0_128_128.png', '2_13_7_7_135_135.png', '.2_13_0_0_128_128.png.77.ab.tmp'):
        (out / 'windows' / 'labels_full' / name).write_bytes(b'half')
    (tmp_path / '.out.unpacked').mkdir()
    monkeypatch.undo()
    prepare(potsdam(), source, out, workers=1)
    assert files(out) == files(prepared)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert {path.name for path in tmp_path.iterdir()} == {'out'}


def test_a_second_process_is_refused_and_keeps_the_unpacked_archives(source, tmp_path):
    out = tmp_path / 'out'
    with Prepared(out, 'isprs-potsdam').locked(), scratch_beside(out) as scratch:
        scratch.mkdir()
        with pytest.raises(InputError, match='another process is preparing this folder'):
            prepare(potsdam(), source, out, workers=1)
        assert scratch.is_dir()


def test_earlier_settings_are_not_taken_for_finished(prepared, source, tmp_path):
    """Back to the first settings after a run with others: its windows were replaced."""
    out = tmp_path / 'potsdam'
    for request in (potsdam(), potsdam(size=64, masks='rgb'), potsdam()):
        prepare(request, source, out, workers=1)
    assert files(out) == files(prepared)


def test_other_settings_and_other_files_make_a_tile_again(prepared, source, tmp_path):
    out = tmp_path / 'out'
    shutil.copytree(prepared, out)
    prepare(potsdam(stride=128), source, out, workers=1)
    names = {path.name for path in (out / 'windows' / 'images').glob('2_10*')}
    assert names == {f'2_10_{x}_{y}_{x + 128}_{y + 128}.png' for x in (0, 128, 172) for y in (0, 128, 132)}
    with pytest.raises(InputError, match=r'2_10-\S+ was made with --stride 128, this run has --stride 100'):
        prepare(potsdam(tiles=('2_13',)), source, out, workers=1)
    other = make_potsdam(tmp_path / 'other', ['2_10', '2_13'], (280, 260), zipped=False)
    prepare(potsdam(), other, out, workers=1)
    assert read_png(out / 'tiles' / 'labels_full' / '2_13.png').shape == (260, 280)


def test_command_line(source, tmp_path, capsys):
    command = ['potsdam', str(source), str(tmp_path / 'out'), '--size', '128', '--stride', '100', '--workers', '1']
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert '2 of 38 tiles, 18 windows' in printed
    assert 'eroded labels' in printed
    assert 'not prepared: 2_11' in printed


def start(source: Path, out: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, REPO / 'data_prep' / 'isprs.py', 'potsdam', source, out, *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def peak_memory(process: subprocess.Popen) -> int:
    """Bytes that a process held at most; it works with threads, so this is all."""
    peak = 0
    while process.poll() is None:
        try:
            status = Path(f'/proc/{process.pid}/status').read_text()
        except OSError:
            break
        peak = max([peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith('VmHWM'))])
        children = Path(f'/proc/{process.pid}/task/{process.pid}/children')
        assert not (children.exists() and children.read_text().strip()), 'memory of other processes is not counted'
        time.sleep(0.05)
    return peak * 1024


@pytest.mark.slow
def test_true_size(tmp_path):
    """529 windows of a tile of 6000x6000, in under 1 GB, killed in the middle and continued."""
    source = make_potsdam(tmp_path / 'source', ['2_10'])
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    process = start(source, whole)
    peak = peak_memory(process)
    assert process.wait() == 0, process.stderr.read()
    assert 50e6 < peak < 1e9
    names = [path.stem for path in (whole / 'windows' / 'images').iterdir()]
    assert len(names) == 529

    process = start(source, killed)
    deadline = time.monotonic() + 300
    while len(list((killed / 'windows' / 'images').glob('[!.]*'))) < 150 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process = start(source, killed)
    assert process.wait() == 0, process.stderr.read()
    assert files(killed) == files(whole)
    assert {path.name for path in tmp_path.iterdir()} == {'source', 'whole', 'killed'}
