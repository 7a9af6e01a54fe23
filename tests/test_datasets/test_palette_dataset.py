import cv2
import numpy as np
import pytest
from mmseg.registry import DATASETS

from lale_mmseg.datasets.palette_dataset import binary_palette
from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.metainfo import Palette

PIPELINE = [dict(type='LoadBands'), dict(type='LoadPaletteMask'), dict(type='PackSegInputs')]
COLORS = np.array([(255, 0, 0), (0, 255, 0)], np.uint8)


@pytest.fixture
def root(tmp_path):
    """Three pairs of 6x8 pixels, two classes; mask i is class i % 2 except for its corner."""
    (tmp_path / 'images').mkdir()
    (tmp_path / 'masks').mkdir()
    (tmp_path / 'classes.csv').write_text('index,name,r,g,b\n0,road,255,0,0\n1,field,0,255,0\n')
    (tmp_path / 'train.txt').write_text('s0\ns1\ns2\n')
    for i in range(3):
        cv2.imwrite(str(tmp_path / f'images/s{i}.png'), np.full((6, 8, 3), (i, 10, 20), np.uint8))
        labels = np.full((6, 8), i % 2)
        labels[0, 0] = 1 - i % 2
        cv2.imwrite(str(tmp_path / f'masks/s{i}.png'), COLORS[labels][..., ::-1])
    return tmp_path


def build(root, **options):
    return DATASETS.build(
        {'type': 'PaletteDataset', 'data_root': str(root), 'split': 'train', 'pipeline': PIPELINE, **options}
    )


def labels_of(sample):
    return sample['data_samples'].gt_sem_seg.data[0]


def test_samples_have_the_form_of_mmsegmentation(root):
    dataset = build(root)
    assert len(dataset) == 3
    assert dataset.metainfo['classes'] == ('road', 'field')
    sample = dataset[1]
    assert sample['inputs'].shape == (3, 6, 8)
    assert sample['inputs'][:, 0, 0].tolist() == [1, 10, 20]  # BGR
    assert labels_of(sample).tolist() == [[0] + [1] * 7] + [[1] * 8] * 5
    assert sample['data_samples'].img_path == str(root / 'images/s1.png')


def test_unknown_colour_names_the_file_and_may_be_ignored(root):
    mask = cv2.imread(str(root / 'masks/s2.png'))
    mask[3, 4] = (7, 8, 9)
    cv2.imwrite(str(root / 'masks/s2.png'), mask)
    with pytest.raises(DataError, match=r's2\.png: colour \(9, 8, 7\) at row 3, column 4'):
        build(root)[2]
    assert labels_of(build(root, unknown='ignore')[2])[3, 4] == 255
    assert labels_of(build(root, ignore_colors=[(9, 8, 7)])[2])[3, 4] == 255


def png(array):
    return cv2.imencode('.png', array)[1].tobytes()


@pytest.mark.parametrize(
    ('file', 'content', 'message'),
    [
        ('masks/s1.png', png(np.zeros((6, 9, 3), np.uint8)), 'the mask has 6x9 pixels .* has 6x8'),
        ('masks/s1.png', b'', 'the file is empty'),
        ('images/s1.png', b'not an image', 'not a readable image'),
    ],
)
def test_bad_files_show_before_training_and_when_they_are_read(root, file, content, message):
    (root / file).write_bytes(content)
    for checks in (1000, 0):
        with pytest.raises(DataError, match=rf'{file}: {message}'):
            build(root, header_checks=checks)[1]


@pytest.mark.parametrize(
    ('file', 'content', 'message'),
    [
        ('images', png(np.eye(6, 8, dtype=np.uint8))[:40], 'not a readable image'),
        ('masks', png(np.zeros((6, 8), np.uint8)), r'expected an 8-bit RGB mask, found shape \(6, 8\)'),
        ('masks', png(np.zeros((6, 8, 3), np.uint16)), r'expected an 8-bit mask .* found 3 channel\(s\) of uint16'),
    ],
    ids=['truncated', 'indexes', '16 bits'],
)
def test_bad_pixels_show_when_they_are_read(root, file, content, message):
    (root / file / 's1.png').write_bytes(content)
    with pytest.raises(DataError, match=rf's1\.png: {message}'):
        build(root, header_checks=0)[1]


def test_missing_data_root_names_the_layout():
    with pytest.raises(DataError, match=r"data_root '/nowhere' does not exist: put images/, masks/, classes\.csv"):
        build('/nowhere')


def test_one_class_against_all_others(root):
    """Three classes, an ignored colour and, at the end, an unknown one; 'field' is class 1 of the table."""
    (root / 'classes.csv').write_text('index,name,r,g,b\n0,road,255,0,0\n1,field,0,255,0\n2,tree,0,0,255\n')
    colors = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9), (7, 7, 7)], np.uint8)
    table = np.array([[0, 1, 2, 3, 0, 1, 2, 3]] * 6)
    cv2.imwrite(str(root / 'masks/s0.png'), colors[table][..., ::-1])
    options = dict(binary_class='field', ignore_colors=[(9, 9, 9)])
    for test_mode in (False, True):
        dataset = build(root, **options, test_mode=test_mode)
        assert dataset.metainfo['classes'] == ('background', 'field')
        assert dataset.metainfo['palette'] == [[0, 0, 0], [0, 255, 0]]
        assert labels_of(dataset[0]).tolist() == [[0, 1, 0, 255, 0, 1, 0, 255]] * 6
    table[2, 3] = 4
    cv2.imwrite(str(root / 'masks/s0.png'), colors[table][..., ::-1])
    with pytest.raises(DataError, match=r's0\.png: colour \(7, 7, 7\) at row 2, column 3 .* road .*field .*tree'):
        build(root, **options)[0]
    assert labels_of(build(root, **options, unknown='ignore')[0])[2, 3] == 255


def test_one_class_of_index_masks(root):
    cv2.imwrite(str(root / 'masks/s0.png'), np.array([[0, 1, 255, 1, 0, 0, 1, 1]] * 6, np.uint8))
    pipeline = [dict(type='LoadBands'), dict(type='LoadLabels'), dict(type='PackSegInputs')]
    dataset = build(root, pipeline=pipeline, binary_class='road')
    assert labels_of(dataset[0])[0].tolist() == [1, 0, 255, 0, 1, 1, 0, 0]


def test_masks_of_one_band_hold_the_indexes_of_the_table(root):
    labels = np.array([[0, 1, 0, 1, 0, 0, 1, 1]] * 6, np.uint8)
    cv2.imwrite(str(root / 'masks/s0.png'), labels)
    dataset = build(root)
    assert labels_of(dataset[0]).tolist() == labels.tolist()
    # The first mask of the split determines the form of all: a grey file among RGB ones may be a picture of colours.
    with pytest.raises(DataError, match=r's2\.png: expected an 8-bit single-band mask, found shape \(6, 8, 3\)'):
        dataset[2]


def test_classes_are_merged_renamed_and_left_out(root):
    (root / 'classes.csv').write_text(
        'index,name,r,g,b\n0,road,255,0,0\n1,field,0,255,0\n2,tree,0,0,255\n3,car,9,9,9\n'
    )
    colors = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)], np.uint8)
    cv2.imwrite(str(root / 'masks/s0.png'), colors[[[0, 1, 2, 3, 0, 1, 2, 3]] * 6][..., ::-1])
    options = dict(class_map=dict(road=None, field='green', tree='green'), indices=1)
    dataset = build(root, **options)
    assert dataset.metainfo['classes'] == ('green', 'car')
    assert dataset.metainfo['palette'] == [[0, 255, 0], [9, 9, 9]]
    assert labels_of(dataset[0])[0].tolist() == [255, 0, 0, 1, 255, 0, 0, 1]
    assert build(root, **options, lazy_init=True).class_pixels().tolist() == [24, 12]
    dataset = build(root, **options, binary_class='car')
    assert dataset.metainfo['classes'] == ('background', 'car')
    assert labels_of(dataset[0])[0].tolist() == [255, 0, 0, 1, 255, 0, 0, 1]


@pytest.mark.parametrize(
    ('class_map', 'message'),
    [
        (dict(raod='street'), "class_map: no class 'raod'; the classes are road, field"),
        (dict(road=255), 'class_map.road is 255; expected a class name, or None'),
        (dict(road=None, field=None), 'class_map ignores every class'),
    ],
)
def test_class_maps_that_cannot_be(root, class_map, message):
    with pytest.raises(ConfigError, match=message):
        build(root, class_map=class_map)


@pytest.mark.parametrize('name', ['roof', 'background'])
def test_a_binary_class_must_be_in_the_table(name):
    palette = Palette(['background', 'road'], [(0, 0, 0), (9, 9, 9)])
    with pytest.raises(ConfigError, match=rf"binary_class='{name}': no such class .* use 'road'"):
        binary_palette(palette, name)


@pytest.mark.parametrize(('color', 'background'), [((230, 25, 75), 0), ((64, 0, 0), 0), ((63,) * 3, 255)])
def test_the_background_differs_from_the_class_in_brightness(color, background):
    found = binary_palette(Palette(['tree', 'roof', 'x'], [(1, 1, 1), color, (255, 255, 255)]), 'roof')
    assert found.colors == ((background,) * 3, color)
