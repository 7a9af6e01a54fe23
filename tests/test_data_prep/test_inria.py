"""Preparing Inria tiles: windows, whole tiles, crops, what is found where, continuing, the picture of all crops."""

import json
import shutil
from collections import Counter
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio

import data_prep.datasets.inria.prepare as module
from data_prep.datasets.inria.crops import unpublished
from data_prep.datasets.inria.overview import FRAMES, GAP, SIDE, TEXT, thumbnail
from data_prep.datasets.inria.prepare import Request, encode_jpeg, prepare
from data_prep.inria import main
from lale_mmseg.metainfo import inria
from lale_mmseg.metainfo.protocols import find_protocol
from tests.inria_tiles import make_inria, picture, roofs
from tests.isprs_tiles import zip_folder

TILE, CROP = 150, 64
#: (TILE - CROP) / 2
CENTRE = 43
CORNER = np.zeros((TILE, TILE), np.uint8)
CORNER[:20, 130:] = 255
FEW = np.zeros((TILE, TILE), np.uint8)
FEW[140:144, 3:7] = 255
#: Tiles of Austin that are no plain grid of roofs.
LABELS = dict(austin3=CORNER, austin5=np.zeros((TILE, TILE), np.uint8), austin33=FEW)


def few(**options) -> Request:
    return Request('few-shot', **{'size': CROP, **options})


def full(**options) -> Request:
    return Request('full', **{'size': CROP, 'stride': 50, 'cities': ('austin', 'tyrol-w'), **options})


def labels_of(tile: str) -> np.ndarray:
    return LABELS[tile] if tile in LABELS else roofs(tile, TILE, 30)


def files(out: Path) -> dict[str, bytes]:
    """Content of images and masks; markers and manifest depend on the modification times of the sources."""
    paths = [path for path in sorted(out.rglob('*.*')) if path.is_file() and path.suffix in ('.png', '.jpg', '.tif')]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def stamps(out: Path) -> dict[str, int]:
    return {name: (out / name).stat().st_mtime_ns for name in files(out)}


def manifest(out: Path) -> dict[str, dict]:
    return json.loads((out / 'manifest.json').read_text())['parts']


def read_png(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """All tiles of Austin and Western Tyrol with 150x150 pixels, and one of a hidden city."""
    folder = tmp_path_factory.mktemp('inria')
    tiles = inria.tiles_of('austin') + inria.tiles_of('tyrol-w')
    return make_inria(folder, tiles, TILE, {tile: labels_of(tile) for tile in tiles}, hidden=['sfo1']).parent


@pytest.fixture(scope='module')
def crops(source, tmp_path_factory):
    out = tmp_path_factory.mktemp('prepared') / 'crops'
    prepare(few(), source, out, workers=1)
    return out


@pytest.fixture(scope='module')
def windows(source, tmp_path_factory):
    out = tmp_path_factory.mktemp('prepared') / 'full'
    prepare(full(), source, out, workers=1)
    return out


def test_windows_hold_their_part_of_the_tile(windows):
    labels = labels_of('tyrol-w6')
    names = sorted(path.stem for path in (windows / 'windows' / 'images').glob('tyrol-w6_*'))
    # 150 pixels in steps of 50, and a last window that ends at the border.
    assert names == sorted(f'tyrol-w6_{x}_{y}_{x + 64}_{y + 64}' for x in (0, 50, 86) for y in (0, 50, 86))
    for kind, due in (('images', picture('tyrol-w6', labels)[..., ::-1]), ('masks', labels)):
        found = read_png(windows / 'windows' / kind / 'tyrol-w6_86_50_150_114.png')
        np.testing.assert_array_equal(found, due[50:114, 86:150])


def test_whole_tiles_are_the_files_of_the_archive(windows, source):
    for kind, folder in (('images', 'images'), ('masks', 'gt')):
        shipped = source / 'AerialImageDataset' / 'train' / folder / 'austin2.tif'
        assert (windows / 'tiles' / kind / 'austin2.tif').read_bytes() == shipped.read_bytes()
    with rasterio.open(windows / 'tiles' / 'images' / 'austin2.tif') as file:
        assert (file.crs.to_epsg(), file.transform.a) == (32614, 0.3)


def test_training_tiles_are_cut_and_validation_tiles_are_whole(windows):
    split = find_protocol('full').split('inria')
    cut = {inria.tile_of(path.stem) for path in (windows / 'windows' / 'masks').iterdir()}
    whole = {path.stem for path in (windows / 'tiles' / 'masks').iterdir()}
    asked = inria.tiles_of('austin') + inria.tiles_of('tyrol-w')
    assert cut == set(split.train) & set(asked)
    assert whole == set(split.val) & set(asked)
    counts = Counter(name.rpartition('/')[0] for name in files(windows))
    assert counts == {'windows/images': 62 * 9, 'windows/masks': 62 * 9, 'tiles/images': 10, 'tiles/masks': 10}


def test_manifest_of_windows(windows, source):
    entry = manifest(windows)['austin6']
    labels = labels_of('austin6')
    assert entry['pixels'] == [int((labels == 0).sum()), int((labels == 255).sum())]
    assert entry['tile_size'] == [TILE, TILE]
    shipped = source / 'AerialImageDataset' / 'train' / 'gt' / 'austin6.tif'
    assert entry['sha256']['mask'] == sha256(shipped.read_bytes()).hexdigest()
    assert entry['settings'] == dict(size=CROP, stride=50)
    assert list(manifest(windows)) == [*inria.tiles_of('austin'), *inria.tiles_of('tyrol-w')]


def test_crops_hold_their_window(crops):
    """The image as JPEG, the mask exactly."""
    for tile, entry in manifest(crops).items():
        x, y = entry['x'], entry['y']
        window = np.s_[y : y + CROP, x : x + CROP]
        pixels = picture(tile, labels_of(tile))[window]
        assert (crops / 'crops' / 'images' / f'{tile}.jpg').read_bytes() == encode_jpeg(pixels, 90)
        mask = read_png(crops / 'crops' / 'masks' / f'{tile}.png')
        assert mask.tobytes() == labels_of(tile)[window].tobytes()
        assert entry['pixels'] == [int((mask == 0).sum()), int((mask == 255).sum())]
        assert entry['share'] == pytest.approx((mask == 255).mean(), abs=1e-6)


def test_jpeg_keeps_colours_at_full_resolution():
    """One red and one green column: with colours at half resolution both would be brown."""
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, ::2, 0] = image[:, 1::2, 1] = 200
    found = cv2.imdecode(np.frombuffer(encode_jpeg(image, 90), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(found.astype(int) - image).max() < 40
    assert len(encode_jpeg(image, 30)) < len(encode_jpeg(image, 90))


def test_why_each_window_was_taken(crops):
    found = manifest(crops)
    assert {tile: entry['reason'] for tile, entry in found.items() if entry['reason'] != 'centre'} == dict(
        austin3='moved', austin5='none', austin33='best'
    )
    centred = {(entry['x'], entry['y']) for entry in found.values() if entry['reason'] in ('centre', 'none')}
    assert centred == {(CENTRE, CENTRE)}
    # 205 pixels are 5 %. Of the 20 x 20 in the corner, 13 x 17 are in the window 36 to the right and 40 up, and 17 x 13
    # in the one 40 to the right and 36 up: as near, but lower.
    assert [found['austin3'][name] for name in ('x', 'y')] == [CENTRE + 36, CENTRE - 40]
    assert (found['austin33']['share'], found['austin5']['share']) == (round(16 / CROP**2, 6), 0)


def test_the_picture_shows_every_crop(crops):
    overview = read_png(crops / 'overview.png')[..., ::-1]
    split = find_protocol('few-shot').split('inria')
    for number, tile in enumerate([*split.train, *split.val, *split.test]):
        left, top = GAP + number % 6 * (SIDE + GAP), 2 * GAP + 30 + number // 6 * (SIDE + TEXT + GAP)
        shown = overview[top : top + SIDE, left : left + SIDE]
        np.testing.assert_array_equal(shown, thumbnail(crops, tile))
        assert (
            tuple(overview[top - 2, left + 9]) == FRAMES[next(name for name in FRAMES if tile in getattr(split, name))]
        )
        # A crop without buildings has no outline.
        assert (np.abs(shown.astype(int) - (255, 40, 200)).sum(2) < 120).any() == (tile != 'austin5')


@pytest.fixture(scope='module')
def places(source, tmp_path_factory):
    """Ways to pass the data: folders of any depth, archives, links."""
    folder, root = tmp_path_factory.mktemp('places'), source / 'AerialImageDataset'
    for name in ('zipped', 'top', 'linked'):
        (folder / name).mkdir()
    zip_folder(root, folder / 'zipped' / 'NEW2-AerialImageDataset.zip')
    # As `cd train && zip -r ../train.zip .` makes it.
    zip_folder(root / 'train', folder / 'top' / 'train.zip', keep_top=False)
    for name in ('AerialImageDataset', 'again'):
        (folder / 'linked' / name).symlink_to(root)
    (folder / 'linked' / 'up').symlink_to(folder / 'linked')  # leads back
    (folder / 'linked' / '0_quick').symlink_to(root / 'train' / 'images')  # its name is not `images`
    return folder


@pytest.mark.parametrize(
    'place', ['zipped', 'zipped/NEW2-AerialImageDataset.zip', 'top', 'top/train.zip', 'linked', 'again', 'again/train']
)
def test_every_way_of_packing_and_threads_give_the_same(crops, places, tmp_path, place):
    place = place.replace('again', 'linked/again')
    prepare(few(), places / place, tmp_path / 'out', workers=3)
    assert files(tmp_path / 'out') == files(crops)


def test_a_finished_output_is_recognised(crops, source, monkeypatch):
    monkeypatch.setattr(module, 'read_mask', lambda *_: pytest.fail('a tile was read again'))
    before = stamps(crops)
    made, count = prepare(few(), source, crops, workers=1)
    assert (len(made), count) == (36, 0)
    assert stamps(crops) == before


def test_lost_files_are_made_again_and_others_kept(crops, windows, source, tmp_path):
    for prepared, request, lost in (
        (crops, few(), ['crops/masks/austin3.png', 'overview.png']),
        (windows, full(), ['windows/images/austin9_50_86_114_150.png']),
    ):
        out = Path(shutil.copytree(prepared, tmp_path / prepared.name))
        for name in lost:
            (out / name).unlink()
        before = {name: stamp for name, stamp in stamps(out).items() if 'austin3' not in name and 'austin9' not in name}
        prepare(request, source, out, workers=1)
        assert files(out) == files(prepared)
        assert before.items() <= stamps(out).items()


def test_nudges_go_before_the_rule(crops, source, tmp_path):
    table = tmp_path / 'nudges.csv'
    table.write_text('tile,x,y\naustin3,86,0\naustin7,1,2\n')
    out = tmp_path / 'out'
    made, _ = prepare(few(nudges=table), source, out, workers=1)
    changed = {name for name, content in files(out).items() if content != files(crops)[name]}
    crops_of = {f'{folder}/austin{tile}' for tile in (3, 7) for folder in ('crops/images', 'crops/masks')}
    assert {name.rpartition('.')[0] for name in changed} == {*crops_of, 'overview'}
    assert [made['austin7'][name] for name in ('x', 'y', 'reason')] == [1, 2, 'nudged']
    np.testing.assert_array_equal(read_png(out / 'crops' / 'masks' / 'austin3.png'), CORNER[:64, 86:])
    # Without the table, the two tiles are made again.
    assert prepare(few(), source, out, workers=1)[1] == 2
    assert files(out) == files(crops)


def test_missing_tiles_may_be_skipped(source, tmp_path, capsys):
    part = make_inria(tmp_path, ['austin1', 'austin2', 'austin31'], TILE)
    (part / 'train' / 'gt' / 'austin2.tif').unlink()
    assert list(prepare(few(missing='skip'), part, tmp_path / 'out', workers=1)[0]) == ['austin1', 'austin31']
    command = ['few-shot', str(part), str(tmp_path / 'out'), '--size', '64', '--missing', 'skip', '--workers', '1']
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert (
        'not prepared: austin2, austin3, austin4, austin5, austin6, austin7, austin8, austin9 and 26 more\n' in printed
    )
    assert '0 tiles prepared, 2 were already finished\n' in printed


def test_departures_from_the_published_protocol():
    settings = Request('few-shot', 1024).settings
    markers = {
        tile: dict(settings=settings, tile_size=[5000, 5000], reason='centre') for tile in inria.tiles_of('austin')
    }
    assert unpublished(markers) is None
    changed = settings | dict(size=256, quality=80, min_share=0.1)
    markers = {tile: dict(settings=changed, tile_size=[1100, 1100], reason='centre') for tile in markers}
    markers['austin7']['reason'] = 'nudged'
    for tile in ('austin2', 'austin3', 'austin31'):
        del markers[tile]
    departures = unpublished(markers)
    for words in (
        'not the published few-shot protocol: ',
        'crops of 256 (published: 1024)',
        'JPEG quality 80 (published: 90)',
        'a share of building of 0.1 (published: 0.05)',
        'windows chosen by hand in austin7',
        'tiles of 1100x1100 (published: 5000x5000)',
        '3 of 36 tiles are missing (2 of train, 1 of test)',
    ):
        assert words in departures


def test_command_line(source, tmp_path, capsys):
    common = [str(source), '--size', '64', '--workers', '1']
    assert main(['few-shot', str(source), str(tmp_path / 'few'), *common[1:]]) == 0
    printed = capsys.readouterr()
    for text in ('train, 24 tiles', 'val, 6 tiles', 'test, 6 tiles', 'best: no window has 5 %', 'none: no building in'):
        assert text in printed.out
    assert 'warning: no building in austin5' in printed.err
    note = 'not the published few-shot protocol: crops of 64 (published: 1024); tiles of 150x150 (published: 5000x5000)'
    assert f'note: {note}\n' in printed.out
    assert json.loads((tmp_path / 'few' / 'manifest.json').read_text())['notes'] == dict(published=False)
    assert main(['full', str(source), str(tmp_path / 'full'), *common[1:], '--stride', '50', '--cities', 'austin']) == 0
    assert 'train, 31 tiles' in capsys.readouterr().out
