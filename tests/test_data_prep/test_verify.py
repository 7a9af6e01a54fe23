"""verify.py: every fault is planted in a clean set, and found once under its kind; clean sets have none."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from PIL import Image

from data_prep.core.checks import Expected, decode
from data_prep.verify import find_splits, load_palette, main, verify
from lale_mmseg.errors import DataError
from lale_mmseg.files import encode_png
from lale_mmseg.metainfo import Palette

SCRIPT = Path(__file__).resolve().parents[2] / 'data_prep' / 'verify.py'
CLASSES = 'index,name,r,g,b\n0,field,10,20,30\n1,house,200,0,0\n'
PALETTE = Palette(['field', 'house'], [(10, 20, 30), (200, 0, 0)])
EXPECTED = Expected(PALETTE)
SIZE = 32


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)


def mask(house_rows: int = 8) -> np.ndarray:
    labels = np.zeros((SIZE, SIZE), np.uint8)
    labels[:house_rows] = 1
    return PALETTE.encode(labels)


def put(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(pixels))


@pytest.fixture
def root(tmp_path):
    """A clean palette set: a0..a3 in train, b0 in val, c0 in test."""
    folder = tmp_path / 'set'
    for number, stem in enumerate(('a0', 'a1', 'a2', 'a3', 'b0', 'c0')):
        put(folder / 'images' / f'{stem}.png', picture(number))
        put(folder / 'masks' / f'{stem}.png', mask())
    (folder / 'classes.csv').write_text(CLASSES)
    for name, stems in (('train', 'a0 a1 a2 a3'), ('val', 'b0'), ('test', 'c0')):
        (folder / f'{name}.txt').write_text(stems.replace(' ', '\n') + '\n')
    return folder


def kinds(root: Path, **options) -> list[tuple[str, str]]:
    """(kind, split) of each fault."""
    return [(fault.kind, fault.split) for fault in verify(root, EXPECTED, workers=1, **options).faults]


def only_fault(root: Path, expected: Expected = EXPECTED):
    (fault,) = verify(root, expected, workers=1).faults
    return fault


def test_clean_set(root):
    report = verify(root, EXPECTED, workers=1)
    assert report.faults == []
    assert report.splits['train']['pairs'] == 4
    # 8 of 32 rows are houses.
    assert report.splits['train']['class_shares'] == dict(field=75.0, house=25.0)
    assert report.splits['test']['pixels'] == dict(field=768, house=256)


def test_processes_find_the_same(root):
    for number in range(20):
        put(root / 'images' / f'd{number}.png', picture(100 + number))
        put(root / 'masks' / f'd{number}.png', mask(number))
    (root / 'train.txt').write_text('\n'.join(f'd{number}' for number in range(20)))
    (root / 'masks' / 'd3.png').write_bytes(b'')
    assert verify(root, EXPECTED, workers=2).as_dict() == verify(root, EXPECTED, workers=1).as_dict()


@pytest.mark.parametrize('kind', ['images', 'masks'])
@pytest.mark.parametrize(('share', 'found'), [(0, 'empty file'), (0.6, 'unreadable')])
def test_damaged_file(root, kind, share, found):
    path = root / kind / 'a1.png'
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    fault = only_fault(root)
    assert (fault.kind, fault.split, fault.file) == (found, 'train', str(path))


@pytest.mark.parametrize('suffix', ['.jpg', '.tif', '.bmp', '.webp'])
def test_other_formats_whole_and_truncated(root, suffix):
    (root / 'images' / 'a1.png').unlink()
    path = root / 'images' / f'a1{suffix}'
    assert cv2.imwrite(str(path), picture(50))
    assert kinds(root) == []
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert kinds(root) == [('unreadable', 'train')]


def test_modes_of_masks(root):
    Image.fromarray(mask()).convert('P', palette=Image.Palette.ADAPTIVE, colors=2).save(root / 'masks' / 'a2.png')
    Image.fromarray(mask()).convert('RGBA').save(root / 'masks' / 'a3.png')
    assert kinds(root) == []
    Image.fromarray(np.ones((SIZE, SIZE), np.uint8)).save(root / 'masks' / 'a2.png')
    assert only_fault(root).kind == 'mask bands'


@pytest.mark.parametrize('folder', ['images', 'masks'])
@pytest.mark.parametrize('shape', [(SIZE, SIZE), (SIZE, SIZE, 3)])
def test_16_bits(root, folder, shape):
    path = root / folder / 'a2.png'
    assert cv2.imwrite(str(path), np.full(shape, 257, np.uint16))
    fault = only_fault(root)
    assert (fault.kind, fault.file) == ('bit depth', str(path))


def test_unknown_colour(root):
    pixels = mask()
    pixels[3, 5] = pixels[9, 9] = (1, 2, 3)
    put(root / 'masks' / 'c0.png', pixels)
    fault = only_fault(root)
    assert (fault.kind, fault.split, fault.file) == ('unknown colour', 'test', str(root / 'masks' / 'c0.png'))
    assert 'colour (1, 2, 3) at row 3, column 5' in fault.message
    for expected in (
        Expected(PALETTE, unknown='ignore'),
        Expected(load_palette(root, None, None, ignore_colors=[(1, 2, 3)])),
    ):
        report = verify(root, expected, workers=1)
        assert report.faults == []
        assert report.splits['test']['ignored_pixels'] == 2
        assert sum(report.splits['test']['pixels'].values()) == SIZE * SIZE - 2


def test_masks_of_one_band(root):
    for stem in ('a0', 'a1', 'a2', 'a3'):
        put(root / 'masks' / f'{stem}.png', (mask()[..., 0] > 50).astype(np.uint8))
    expected = Expected(load_palette(root, None, None))
    report = verify(root, expected, workers=1)
    assert report.faults == []
    assert (
        report.splits['train']['class_shares'] == report.splits['val']['class_shares'] == dict(field=75.0, house=25.0)
    )
    put(root / 'masks' / 'a2.png', mask())
    pixels = np.zeros((SIZE, SIZE), np.uint8)
    pixels[3, 5] = 2
    put(root / 'masks' / 'a3.png', pixels)
    faults = verify(root, expected, workers=1).faults
    assert [fault.kind for fault in faults] == ['mask bands', 'unknown value']
    assert 'a3.png: value 2 at row 3, column 5 is not a class' in faults[1].message


def test_an_image_of_one_bit_is_read_as_in_training(tmp_path):
    Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / 'a.png')
    assert np.array_equal(decode(tmp_path / 'a.png')[..., 0], cv2.imread(str(tmp_path / 'a.png'), cv2.IMREAD_UNCHANGED))


def stats(root: Path, **options) -> tuple[np.ndarray, np.ndarray, str]:
    """Mean, standard deviation and the whole note of verify.py --stats."""
    expected = Expected(PALETTE, moments=True, **options)
    (note,) = (note for note in verify(root, expected, workers=1).notes if 'data_preprocessor' in note)
    fields = eval(note.splitlines()[-1].partition('=')[2], dict(dict=dict))['data_preprocessor']
    return np.array(fields['mean']), np.array(fields['std']), note


def test_mean_and_standard_deviation_of_the_training_images(root):
    images = np.stack([picture(number) for number in range(4)]).reshape(-1, 3).astype(float)
    mean, std, note = stats(root)
    assert mean == pytest.approx(images.mean(0), rel=1e-5)
    assert std == pytest.approx(images.std(0), rel=1e-5)
    assert "4 images of split 'train'" in note
    assert note.endswith('bgr_to_rgb=True))')


def test_statistics_of_16_bits(root):
    images = np.random.default_rng(0).integers(0, 60000, (6, SIZE, SIZE, 4)).astype(np.uint16)
    for image, stem in zip(images, ('a0', 'a1', 'a2', 'a3', 'b0', 'c0'), strict=True):
        cv2.imwrite(str(root / 'images' / f'{stem}.png'), image[..., [2, 1, 0, 3]])
    mean, std, note = stats(root, bands=4, dtype='uint16')
    assert mean == pytest.approx(images[:4].mean((0, 1, 2)), rel=1e-5)
    assert std == pytest.approx(images[:4].std((0, 1, 2)), rel=1e-5)
    assert note.endswith('bgr_to_rgb=False))')


def test_image_in_two_splits(root):
    (root / 'test.txt').write_text('c0\na3\n')
    fault = only_fault(root)
    assert (fault.kind, fault.split) == ('in two splits', 'test')
    assert str(root / 'train.txt') in fault.message
    (root / 'test.txt').write_text('c0\n')
    # Stored in another format, hence with other bytes.
    (root / 'images' / 'c0.png').unlink()
    assert cv2.imwrite(str(root / 'images' / 'c0.bmp'), cv2.imread(str(root / 'images' / 'a1.png')))
    fault = only_fault(root)
    assert (fault.kind, fault.split) == ('same image in two splits', 'test')
    assert str(root / 'images' / 'a1.png') in fault.message


def write_tif(path: Path, values: np.ndarray) -> None:
    profile = dict(driver='GTiff', count=len(values), height=SIZE, width=SIZE, dtype=values.dtype)
    with rasterio.open(path, 'w', **profile) as file:
        file.write(values)


def test_bands_and_type_of_images(root):
    for number, stem in enumerate(('a0', 'a1', 'a2', 'a3', 'b0', 'c0')):
        (root / 'images' / f'{stem}.png').unlink()
        values = np.random.default_rng(number).random((4, SIZE, SIZE)).astype(np.float32)
        if stem == 'b0':
            values[2, 5, 6] = np.nan
        write_tif(root / 'images' / f'{stem}.tif', values if stem != 'c0' else values[:3])
    wanted = Expected(PALETTE, bands=4, dtype='float32')
    found = {(fault.kind, fault.split): fault.message for fault in verify(root, wanted, workers=1).faults}
    assert set(found) == {('not finite', 'val'), ('bands', 'test')}
    assert 'row 5, column 6' in found['not finite', 'val']
    assert {kind for kind, _ in kinds(root)} == {'bands', 'bit depth', 'not finite'}


def test_all_faults_are_found_in_one_run(root):
    (root / 'images' / 'a0.png').write_bytes(b'')
    (root / 'masks' / 'a1.png').unlink()
    put(root / 'masks' / 'a2.png', mask()[:-1])
    put(root / 'masks' / 'a3.png', mask() + 1)
    (root / 'val.txt').write_text('')
    assert sorted(kinds(root)) == [
        ('empty file', 'train'),
        ('empty split', 'val'),
        ('missing mask', 'train'),
        ('size', 'train'),
        ('unknown colour', 'train'),
    ]


@pytest.mark.parametrize('layout', ['{split}/{kind}', '{kind}/{split}'])
def test_folder_layouts(tmp_path, layout):
    for number, split in enumerate(('train', 'val', 'test')):
        put(tmp_path / layout.format(split=split, kind='images') / 'x.png', picture(number))
        put(tmp_path / layout.format(split=split, kind='masks') / 'x.png', mask())
    # Equal names in the folders of two splits are different files.
    assert kinds(tmp_path) == []
    extra = tmp_path / layout.format(split='train', kind='masks') / 'y.png'
    put(extra, mask())
    assert kinds(tmp_path) == [('mask without image', 'train')]


def test_aras_folders(tmp_path, put_pair):
    for number, split in enumerate(('train', 'val', 'test', 'synth')):
        put_pair(tmp_path / split, 'N38E032_000_000', number, label=number)
    put(tmp_path / 'train' / 'masks' / 'N38E032_000_000.png', np.zeros((4, 4, 3), np.uint8))
    palette = load_palette(tmp_path, None, None)
    report = verify(tmp_path, Expected(palette), workers=1)
    assert report.faults == []
    assert report.splits['train']['ignored_pixels'] == 16  # black is no data
    assert list(report.splits) == ['train', 'val', 'test', 'synth']
    assert report.splits['test']['class_shares']['grass'] == 100


def test_which_classes(root, tmp_path):
    assert load_palette(root, None, None).classes == ('field', 'house')
    assert load_palette(tmp_path, None, None).num_classes == 7
    with pytest.raises(DataError, match=r'classes\.csv is missing'):
        load_palette(tmp_path, 'palette', None)
    assert load_palette(root, 'aras400k', None).num_classes == 7
    assert load_palette(tmp_path, None, root / 'classes.csv').classes == ('field', 'house')


def test_no_split_found(tmp_path):
    with pytest.raises(DataError, match=r'no split found; looked for train, val, test and synth'):
        find_splits(tmp_path, None)
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'train-00000-of-00001.parquet').write_bytes(b'x')
    with pytest.raises(DataError, match=r'aras400k\.py parquet'):
        find_splits(tmp_path, None)
    with pytest.raises(DataError, match="no split 'fold1'"):
        find_splits(tmp_path, ['fold1'])


def test_status_output_and_json(root, tmp_path, capsys):
    common = [str(root), '--workers', '1']
    assert main(common) == 0
    assert 'no fault in 6 pairs' in capsys.readouterr().out
    for number in range(60):
        (root / 'masks' / f'a{number}.png').write_bytes(b'')
        put(root / 'images' / f'a{number}.png', picture(number))
    (root / 'train.txt').write_text('\n'.join(f'a{number}' for number in range(60)))
    put(root / 'masks' / 'c0.png', mask()[:-1])
    # a4 and a5 now hold the pictures of b0 and c0.
    assert main([*common, '--json', str(tmp_path / 'faults.json')]) == 1
    printed = capsys.readouterr().out
    assert 'faults: 60 empty file, 2 same image in two splits, 1 size' in printed
    assert '... and 47 more' in printed
    saved = json.loads((tmp_path / 'faults.json').read_text())
    assert len(saved['faults']) == 63
    assert saved['fault_counts'] == {'empty file': 60, 'same image in two splits': 2, 'size': 1}
    assert saved['faults'][0].keys() == {'kind', 'split', 'file', 'message'}


def test_bad_data_is_one_line_and_status_2(tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, tmp_path / 'nowhere'], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f'error: {tmp_path}/nowhere: no split found')
    assert done.stderr.count('\n') == 1
