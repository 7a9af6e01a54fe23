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


def write(path, text):
    path.write_text(text)
    return path


def test_packing_is_reversible_for_every_byte():
    values = np.arange(256, dtype=np.uint8)
    rgb = np.stack([values, values[::-1], np.roll(values, 7)], axis=-1)[None]
    packed = pack_rgb(rgb)
    assert [unpack_color(value) for value in packed[0]] == [tuple(map(int, color)) for color in rgb[0]]


def test_decodes_classes_and_ignored_colours(palette):
    rgb = np.array([[(255, 0, 0), (0, 10, 20)], [(0, 0, 0), (255, 0, 0)]], np.uint8)
    assert palette.decode(rgb).tolist() == [[0, 1], [255, 0]]


def test_decoding_equals_comparing_colour_by_colour():
    palette = Palette(aras400k.CLASSES, aras400k.COLORS)
    labels = np.random.default_rng(0).integers(0, 7, (61, 47)).astype(np.uint8)
    rgb = palette.encode(labels)
    compared = np.full(labels.shape, 255, np.uint8)
    for index, color in enumerate(aras400k.COLORS):
        compared[np.all(rgb == color, axis=-1)] = index
    assert np.array_equal(palette.decode(rgb), compared)
    assert np.array_equal(compared, labels)


def test_a_cropped_view_decodes_like_a_copy(palette):
    rgb = palette.encode(np.random.default_rng(1).integers(0, 2, (20, 30)))
    view = rgb[3:17:2, ::-1]
    assert np.array_equal(palette.decode(view), palette.decode(view.copy()))


def test_unknown_colour_is_an_error_with_file_colour_and_first_pixel(palette):
    rgb = palette.encode(np.zeros((4, 5), np.uint8))
    rgb[2, 3] = (1, 2, 3)
    rgb[3, 0] = (9, 9, 9)
    with pytest.raises(DataError, match=r'a/b\.png: colour \(1, 2, 3\) at row 2, column 3 .*\(2 such pixels\)') as info:
        palette.decode(rgb, source='a/b.png')
    assert 'road (255, 0, 0), field (0, 10, 20)' in str(info.value)


def test_channels_that_differ_by_one_are_not_confused(palette):
    for change in [(1, 0, 0), (0, 1, 0), (0, 0, 1)]:
        rgb = np.array([[(254, 0, 0)]], np.uint8) + np.array(change, np.uint8)
        if change == (1, 0, 0):
            assert palette.decode(rgb).tolist() == [[0]]
        else:
            with pytest.raises(DataError):
                palette.decode(rgb)


def test_unknown_colour_is_ignored_on_request(palette):
    rgb = np.array([[(255, 0, 0), (1, 2, 3)]], np.uint8)
    assert palette.decode(rgb, unknown='ignore').tolist() == [[0, 255]]
    with pytest.raises(DataError, match="unknown='skip'"):
        palette.decode(rgb, unknown='skip')


def test_grey_and_16_bit_masks_are_errors(palette):
    with pytest.raises(DataError, match='an RGB mask of 8 bits'):
        palette.decode(np.zeros((4, 4), np.uint8))
    with pytest.raises(DataError, match='type uint16'):
        palette.decode(np.zeros((4, 4, 3), np.uint16))


def test_reads_a_table_with_byte_order_mark_spaces_and_extra_columns(tmp_path):
    path = write(
        tmp_path / 'classes.csv', '\ufeffindex, name, r, g, b, note\n0, road, 255, 0, 0, x\n1,field,0,10,20,y\n'
    )
    assert Palette.from_csv(path).metainfo == dict(classes=('road', 'field'), palette=[[255, 0, 0], [0, 10, 20]])


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('index,name,r,g,b\n1,a,1,1,1\n0,b,2,2,2\n', 'line 2: index 1 where 0 is due'),
        ('index,name,r,g,b\n0,a,1,1,1\n2,b,2,2,2\n', 'line 3: index 2 where 1 is due'),
        ('index,name,r,g,b\n0,a,1,1,1\n1,b,1,1,1\n', r"class 0 \('a'\) and class 1 \('b'\) have the same colour"),
        ('index,name,r,g,b\n0,a,1,1,1\n1,a,2,2,2\n', 'have the same name'),
        ('index,name,r,g,b\n0,a,300,1,1\n', 'three values from 0 to 255'),
        ('index,name,r,g,b\n0,a,x,1,1\n', 'must be whole numbers'),
        ('index,name,r,g,b\n0,a,1\n', 'must be whole numbers'),
        ('index,name,red,green,blue\n0,a,1,1,1\n', r"it lacks \['r', 'g', 'b'\]"),
        ('index,name,r,g,b\n', 'no class below the header'),
    ],
)
def test_bad_tables_are_named(tmp_path, text, message):
    path = write(tmp_path / 'classes.csv', text)
    with pytest.raises(DataError, match=message) as info:
        Palette.from_csv(path)
    assert str(path) in str(info.value)


def test_missing_table_says_what_is_due(tmp_path):
    with pytest.raises(
        DataError, match=r'classes\.csv is missing: a table of classes with the header index,name,r,g,b'
    ):
        Palette.from_csv(tmp_path / 'classes.csv')


def test_the_room_needs_neither_torch_nor_mmseg():
    code = 'import sys, lale_mmseg.metainfo.layout; sys.exit(any(m in sys.modules for m in ("torch", "mmseg", "mmcv")))'
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
