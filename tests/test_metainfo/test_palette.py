import subprocess
import sys

import numpy as np
import pytest

from lale_mmseg.errors import DataError
from lale_mmseg.metainfo import Palette, aras400k
from lale_mmseg.metainfo.palette import pack_rgb, unpack_color


@pytest.fixture
def palette() -> Palette:
    return Palette(('road', 'field'), [(255, 0, 0), (0, 10, 20)], ignore_colors=[(0, 0, 0)])


def test_packing_is_reversible_for_every_byte():
    values = np.arange(256, dtype=np.uint8)
    rgb = np.stack([values, values[::-1], np.roll(values, 7)], axis=-1)[None]
    packed = pack_rgb(rgb)
    assert [unpack_color(value) for value in packed[0]] == [tuple(map(int, color)) for color in rgb[0]]


def test_decodes_classes_and_ignored_colours(palette):
    rgb = np.array([[(255, 0, 0), (0, 10, 20)], [(0, 0, 0), (255, 0, 0)]], np.uint8)
    assert palette.decode(rgb).tolist() == [[0, 1], [255, 0]]
    assert palette.decode(rgb[::-1, ::-1]).tolist() == [[0, 255], [1, 0]]  # a view


def test_decoding_equals_comparing_colour_by_colour():
    palette = Palette(aras400k.CLASSES, aras400k.COLORS)
    labels = np.random.default_rng(0).integers(0, 7, (61, 47)).astype(np.uint8)
    rgb = palette.encode(labels)
    compared = np.full(labels.shape, 255, np.uint8)
    for index, color in enumerate(aras400k.COLORS):
        compared[np.all(rgb == color, axis=-1)] = index
    assert np.array_equal(palette.decode(rgb), compared)
    assert np.array_equal(compared, labels)


def test_unknown_colour_is_an_error_with_file_colour_and_first_pixel(palette):
    rgb = palette.encode(np.zeros((4, 5), np.uint8))
    rgb[2, 3] = (1, 2, 3)
    rgb[3, 0] = (9, 9, 9)
    with pytest.raises(DataError, match=r'a/b\.png: colour \(1, 2, 3\) at row 2, column 3 .*\(2 such pixels\)') as info:
        palette.decode(rgb, source='a/b.png')
    assert 'road (255, 0, 0), field (0, 10, 20)' in str(info.value)
    assert palette.decode(rgb, unknown='ignore')[2:].tolist() == [[0, 0, 0, 255, 0], [255, 0, 0, 0, 0]]
    with pytest.raises(DataError, match="unknown='skip'"):
        palette.decode(rgb, unknown='skip')


@pytest.mark.parametrize('channel', range(3))
def test_colours_that_differ_by_one_are_not_confused(palette, channel):
    rgb = np.array([[(255, 0, 0)]], np.uint8)
    rgb[..., channel] ^= 1
    with pytest.raises(DataError, match='not in the palette'):
        palette.decode(rgb)


@pytest.mark.parametrize('mask', [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.uint16)])
def test_grey_and_16_bit_masks_are_errors(palette, mask):
    with pytest.raises(DataError, match=f'expected an 8-bit RGB mask, found shape .*, type {mask.dtype}'):
        palette.decode(mask)


def test_reads_a_table_with_byte_order_mark_spaces_and_extra_columns(tmp_path):
    path = tmp_path / 'classes.csv'
    path.write_text('\ufeffindex, name, r, g, b, note\n0, road, 255, 0, 0, x\n1,field,0,10,20,y\n')
    assert Palette.from_csv(path).metainfo == dict(classes=('road', 'field'), palette=[[255, 0, 0], [0, 10, 20]])


@pytest.mark.parametrize(
    ('rows', 'message'),
    [
        ('1,a,1,1,1\n0,b,2,2,2\n', 'index 0 in row 2; indexes must ascend'),
        ('0,a,1,1,1\n256,b,2,2,2\n', 'index 256 in row 2; .* from 0 to 255'),
        ('0,a,1,1,1\n1,b,1,1,1\n', r"class 0 \('a'\) and class 1 \('b'\) have the same colour"),
        ('0,a,1,1,1\n1,a,2,2,2\n', 'have the same name'),
        ('0,a,300,1,1\n', 'expected three values from 0 to 255'),
        ('0,a,x,1,1\n', 'must be whole numbers'),
        ('0,a,1\n', 'must be whole numbers'),
        ('', '0 classes'),
    ],
)
def test_bad_tables_are_named(tmp_path, rows, message):
    path = tmp_path / 'classes.csv'
    path.write_text('index,name,r,g,b\n' + rows)
    with pytest.raises(DataError, match=rf'classes\.csv: .*{message}'):
        Palette.from_csv(path)


def table(tmp_path, text, **options) -> Palette:
    (tmp_path / 'classes.csv').write_text(text)
    return Palette.from_csv(tmp_path / 'classes.csv', **options)


def test_tables_without_colours_are_for_values_of_one_band(tmp_path):
    palette = table(tmp_path, 'index,name\n0,road\n2,field\n7,tree\n')
    assert palette.colors == ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    mask = np.array([[0, 2], [7, 255]], np.uint8)
    assert palette.decode(mask).tolist() == [[0, 1], [2, 255]]
    mask[1, 0] = 1
    with pytest.raises(
        DataError, match=r'a\.png: value 1 at row 1, column 0 is not a class \(1 such pixels\); known: road 0'
    ):
        palette.decode(mask, source='a.png')
    assert palette.decode(mask, unknown='ignore').tolist() == [[0, 1], [255, 255]]
    with pytest.raises(DataError, match=r'expected an 8-bit single-band mask, found shape \(2, 2, 3\)'):
        palette.decode(np.zeros((2, 2, 3), np.uint8))
    zero_ignored = table(tmp_path, 'index,name\n1,road\n2,field\n', ignore_colors=[(0, 0, 0)])
    assert zero_ignored.decode(np.array([[0, 1, 2, 255]], np.uint8)).tolist() == [[255, 0, 1, 255]]


@pytest.mark.parametrize('header', ['index,name\n0,a\n{},b\n', 'index,name,r,g,b\n0,a,0,0,0\n{},b,255,255,255\n'])
def test_two_classes_may_be_0_and_255(tmp_path, header):
    mask = np.array([[0, 255]], np.uint8)
    assert table(tmp_path, header.format(255)).decode(mask).tolist() == [[0, 1]]
    palette = table(tmp_path, header.format(1))
    assert palette.decode(np.array([[0, 1]], np.uint8)).tolist() == [[0, 1]]
    with pytest.raises(DataError, match=r"the value 255, .* If it is 'b', change its index there from 1 to 255; if it"):
        palette.decode(mask)


def test_two_classes_and_255_ignored(tmp_path):
    palette = table(tmp_path, 'index,name\n0,a\n1,b\n', ignore_colors=[(255, 255, 255)])
    assert palette.decode(np.array([[0, 1, 255]], np.uint8)).tolist() == [[0, 1, 255]]
    palette = table(tmp_path, 'index,name\n0,a\n1,b\n', ignore_colors=[(0, 0, 0)])
    with pytest.raises(DataError, match="value 0 is class 'a', but ignore_colors says to ignore it"):
        palette.decode(np.zeros((1, 1), np.uint8))


def test_missing_tables_and_headers_are_named(tmp_path):
    path = tmp_path / 'classes.csv'
    with pytest.raises(DataError, match=r'classes\.csv is missing; .* with the header index,name,r,g,b'):
        Palette.from_csv(path)
    path.write_text('index,name,red,green,blue\n0,a,1,1,1\n')
    with pytest.raises(DataError, match=r"classes\.csv: the header is \['index', .*, expected index,name,r,g,b"):
        Palette.from_csv(path)


def test_metainfo_needs_neither_torch_nor_mmseg():
    code = 'import sys, lale_mmseg.metainfo.layout; sys.exit(any(m in sys.modules for m in ("torch", "mmseg", "mmcv")))'
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
