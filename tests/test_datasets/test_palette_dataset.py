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
    """Three pairs of 6x8 pixels, two classes; mask i is class i % 2 but for its corner."""
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
    return DATASETS.build(dict(type='PaletteDataset', data_root=str(root), split='train', pipeline=PIPELINE, **options))


def test_samples_are_as_mmsegmentation_packs_them(root):
    dataset = build(root)
    assert len(dataset) == 3
    assert dataset.metainfo['classes'] == ('road', 'field')
    sample = dataset[1]
    assert sample['inputs'].shape == (3, 6, 8)
    assert sample['inputs'][:, 0, 0].tolist() == [1, 10, 20]  # BGR, as mmsegmentation has it
    labels = sample['data_samples'].gt_sem_seg.data
    assert labels.shape == (1, 6, 8)
    assert labels[0, 0, 0] == 0
    assert (labels.sum(), sample['data_samples'].img_path) == (47, str(root / 'images/s1.png'))


def test_unknown_colour_names_the_file_and_may_be_ignored(root):
    mask = cv2.imread(str(root / 'masks/s2.png'))
    mask[3, 4] = (7, 8, 9)
    cv2.imwrite(str(root / 'masks/s2.png'), mask)
    with pytest.raises(DataError, match=r's2\.png: colour \(9, 8, 7\) at row 3, column 4'):
        build(root)[2]
    assert build(root, unknown='ignore')[2]['data_samples'].gt_sem_seg.data[0, 3, 4] == 255
    assert build(root, ignore_colors=[(9, 8, 7)])[2]['data_samples'].gt_sem_seg.data[0, 3, 4] == 255


def test_a_mask_of_another_size_shows_before_training_or_when_it_is_read(root):
    cv2.imwrite(str(root / 'masks/s1.png'), np.zeros((6, 9, 3), np.uint8) + COLORS[0][::-1])
    message = r's1\.png: the mask has 6x9 pixels .* has 6x8'
    with pytest.raises(DataError, match=message):
        build(root)
    with pytest.raises(DataError, match=message):
        build(root, header_checks=0)[1]


@pytest.mark.parametrize('content', [b'', b'not an image'])
@pytest.mark.parametrize('folder', ['images', 'masks'])
def test_unreadable_files_show_before_training_and_when_they_are_read(root, folder, content):
    (root / folder / 's1.png').write_bytes(content)
    with pytest.raises(DataError, match=rf'{folder}/s1\.png: (the file is empty|not a readable image)'):
        build(root)
    with pytest.raises(DataError, match=rf'{folder}/s1\.png: (the file is empty|not a readable image)'):
        build(root, header_checks=0)[1]


def test_a_truncated_image_names_the_file(root):
    whole = cv2.imencode('.png', np.random.default_rng(0).integers(0, 255, (6, 8, 3)).astype(np.uint8))[1].tobytes()
    (root / 'images/s1.png').write_bytes(whole[:40])
    with pytest.raises(DataError, match=r's1\.png: not a readable image'):
        build(root)[1]


@pytest.mark.parametrize('mask', [np.zeros((6, 8), np.uint8), np.zeros((6, 8, 3), np.uint16)])
def test_index_masks_and_16_bit_masks_are_errors(root, mask):
    cv2.imwrite(str(root / 'masks/s0.png'), mask)
    with pytest.raises(DataError, match=r's0\.png: an RGB mask of 8 bits a channel is due'):
        build(root)[0]


def test_missing_data_root_says_what_to_do():
    with pytest.raises(DataError, match=r"data_root '/nowhere' does not exist: put images/, masks/, classes\.csv"):
        build('/nowhere')


def test_missing_mask_and_empty_split(root):
    (root / 'masks/s1.png').unlink()
    with pytest.raises(DataError, match=r'no mask in .* for s1'):
        build(root)
    (root / 'train.txt').write_text('')
    with pytest.raises(DataError, match=r'train\.txt: the split is empty'):
        build(root)


def test_unknown_arguments_are_rejected(root):
    with pytest.raises(TypeError, match='splitt'):
        build(root, splitt='train')


def test_one_class_against_everything_else(root):
    """Three classes, an ignored colour and, where asked for, an unknown one; 'field' is class 1 of the table."""
    (root / 'classes.csv').write_text('index,name,r,g,b\n0,road,255,0,0\n1,field,0,255,0\n2,tree,0,0,255\n')
    colors = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9), (7, 7, 7)], np.uint8)
    table = np.array([[0, 1, 2, 3, 0, 1, 2, 3]] * 6)
    cv2.imwrite(str(root / 'masks/s0.png'), colors[table][..., ::-1])
    options = dict(binary_class='field', ignore_colors=[(9, 9, 9)])
    for flags in (dict(), dict(test_mode=True), dict(serialize_data=False)):
        dataset = build(root, **options, **flags)
        assert dataset.metainfo['classes'] == ('background', 'field')
        assert dataset.metainfo['palette'] == [[0, 0, 0], [0, 255, 0]]
        labels = dataset[0]['data_samples'].gt_sem_seg.data[0]
        assert labels.tolist() == [[0, 1, 0, 255, 0, 1, 0, 255]] * 6
    assert build(root, **{**options, 'binary_class': 'road'})[0]['data_samples'].gt_sem_seg.data[0, 0].tolist() == [
        *(1, 0, 0, 255),
        *(1, 0, 0, 255),
    ]
    table[2, 3] = 4
    cv2.imwrite(str(root / 'masks/s0.png'), colors[table][..., ::-1])
    with pytest.raises(DataError, match=r's0\.png: colour \(7, 7, 7\) at row 2, column 3 .* road .*field .*tree'):
        build(root, **options)[0]
    assert build(root, **options, unknown='ignore')[0]['data_samples'].gt_sem_seg.data[0, 2, 3] == 255


def test_index_masks_of_one_class_against_everything_else(root):
    cv2.imwrite(str(root / 'masks/s0.png'), np.array([[0, 1, 255, 1, 0, 0, 1, 1]] * 6, np.uint8))
    pipeline = [dict(type='LoadBands'), dict(type='LoadLabels'), dict(type='PackSegInputs')]
    config = dict(type='PaletteDataset', data_root=str(root), pipeline=pipeline, binary_class='road')
    labels = DATASETS.build(config)[0]['data_samples'].gt_sem_seg.data[0, 0]
    assert labels.tolist() == [1, 0, 255, 0, 1, 1, 0, 0]


def test_an_unknown_class_is_named_with_those_that_there_are(root):
    with pytest.raises(ConfigError, match=r"binary_class='roof': no class is called so; known are 'road', 'field'"):
        build(root, binary_class='roof', lazy_init=True)
    with pytest.raises(ConfigError, match=r"binary_class='background': everything else is called so"):
        binary_palette(Palette(['background', 'roof'], [(0, 0, 0), (9, 9, 9)]), 'background')


@pytest.mark.parametrize(
    ('color', 'background'), [((230, 25, 75), 0), ((0,) * 3, 255), ((64, 0, 0), 0), ((63,) * 3, 255)]
)
def test_everything_else_differs_from_the_class_in_colour(color, background):
    found = binary_palette(Palette(['tree', 'roof', 'x'], [(1, 1, 1), color, (255, 255, 255)]), 'roof')
    assert found.colors == ((background,) * 3, color)
