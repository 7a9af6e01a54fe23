"""ISPRSProtocolDataset: tiles by protocol, strict labels, errors that name files."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS

from lale_mmseg.datasets import ISPRSProtocolDataset
from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.evaluation import SegmentationMetric
from lale_mmseg.metainfo import isprs
from tests.support import REPO

PIPELINE = [dict(type='LoadBands'), dict(type='LoadLabels'), dict(type='PackSegInputs')]
SIDE = 8


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def label_of(number: int) -> np.ndarray:
    """Every class and the ignore index, turned by the tile's number."""
    return np.roll(np.resize([0, 1, 2, 3, 4, 5, 255], (SIDE, SIDE)).astype(np.uint8), number)


@pytest.fixture
def root(tmp_path):
    """Every Vaihingen tile as one window and one tile of 8x8."""
    counts = {}
    for number, tile in enumerate(isprs.TILES['vaihingen']):
        stem = isprs.tile_stem('vaihingen', tile)
        full = np.where(label_of(number) == 255, 0, label_of(number)).astype(np.uint8)
        for unit, name in (('windows', f'{stem}_0_0_{SIDE}_{SIDE}'), ('tiles', stem)):
            write(tmp_path / unit / 'images' / f'{name}.png', np.full((SIDE, SIDE, 3), number, np.uint8))
            write(tmp_path / unit / 'labels_full' / f'{name}.png', full)
            write(tmp_path / unit / 'labels_eroded' / f'{name}.png', label_of(number))
        counts[tile] = dict(full=[number, 1, 2, 3, 4, 5], eroded=[0, 1, 1, 1, 1, 1])
    (tmp_path / 'statistics.json').write_text(json.dumps(dict(classes=isprs.CLASSES, tiles=counts)))
    return tmp_path


def build(root, **options):
    init_default_scope('mmseg')
    config = dict(type='ISPRSProtocolDataset', data_root=str(root), benchmark='vaihingen', pipeline=PIPELINE)
    return DATASETS.build(config | options)


@pytest.mark.parametrize('protocol', ['geoseg', 'mmseg', 'rsp', 'boundary'])
@pytest.mark.parametrize('split', ['train', 'val', 'test'])
@pytest.mark.parametrize('clean', [False, True], ids=['published', 'clean'])
def test_a_split_holds_the_tiles_of_its_protocol(root, protocol, split, clean):
    dataset = build(root, protocol=protocol, split=split, clean=clean)
    found = [
        isprs.tile_of('vaihingen', Path(dataset.get_data_info(index)['img_path']).stem) for index in range(len(dataset))
    ]
    assert sorted(found) == sorted(getattr(dataset.protocol.split('vaihingen', clean), split))
    assert dataset.source_tiles == {f'vaihingen/{tile}' for tile in found}
    unit = 'windows' if split == 'train' else 'tiles'
    kind = 'eroded' if protocol == 'mmseg' or (protocol == 'geoseg' and split != 'train') else 'full'
    info = dataset.get_data_info(0)
    assert Path(info['img_path']).parent == root / unit / 'images'
    assert Path(info['seg_map_path']).parent == root / unit / f'labels_{kind}'


def test_labels_of_a_protocol_without_clutter(root):
    """Under protocol C, class 5 becomes 255 and there are five classes."""
    dataset = build(root, protocol='rsp', split='test')
    assert dataset.metainfo['classes'] == isprs.CLASSES[:5]
    label = dataset[0]['data_samples'].gt_sem_seg.data.numpy()[0]
    stored = cv2.imread(dataset.get_data_info(0)['seg_map_path'], cv2.IMREAD_UNCHANGED)
    assert (stored == 5).any()
    assert np.array_equal(label, np.where(stored == 5, 255, stored))
    six = build(root, protocol='boundary', split='test')
    assert six.metainfo['classes'] == isprs.CLASSES
    assert (six[0]['data_samples'].gt_sem_seg.data.numpy() == 5).any()


def test_rgb_labels_give_the_same_indexes(root):
    path = root / 'tiles' / 'labels_eroded' / 'area30.png'
    expected = build(root, split='val')[0]['data_samples'].gt_sem_seg.data.numpy()
    indexes = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    write(path, isprs.PALETTE.encode(indexes)[..., ::-1])
    assert np.array_equal(build(root, split='val')[0]['data_samples'].gt_sem_seg.data.numpy(), expected)


def test_black_is_no_class_of_full_labels(root):
    path = root / 'tiles' / 'labels_full' / 'area11.png'
    write(path, np.zeros((SIDE, SIDE, 3), np.uint8))
    with pytest.raises(DataError, match=r'area11.png: colour \(0, 0, 0\) at row 0, column 0'):
        build(root, protocol='boundary', split='test')[0]


def test_masks_of_mmsegmentation_count_from_one(root):
    for path in (root / 'tiles' / 'labels_eroded').iterdir():
        values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        write(root / 'ann_dir' / path.name, np.where(values == 255, 0, values + 1).astype(np.uint8))
    plain = build(root, split='test')
    other = build(root, split='test', label_dir='ann_dir', reduce_zero_label=True)
    for index in range(len(plain)):
        labels = [each[index]['data_samples'].gt_sem_seg.data.numpy() for each in (plain, other)]
        assert np.array_equal(*labels)


@pytest.mark.parametrize(
    ('pixels', 'message'),
    [
        (
            np.full((SIDE, SIDE), 6, np.uint8),
            r'value 6 at row 0, column 0 is not a class \(64 such pixels.*car 4, clutter 5, ignored 255',
        ),
        (np.full((SIDE, SIDE), 257, np.uint16), r'expected an 8-bit mask.*uint16'),
        (np.zeros((SIDE, SIDE + 1), np.uint8), r'the mask has 8x9 pixels \(height x width\), its image .* has 8x8'),
    ],
    ids=['unknown', '16 bits', 'size'],
)
def test_a_bad_label_is_an_error_with_its_name(root, pixels, message):
    write(root / 'tiles' / 'labels_eroded' / 'area30.png', pixels)
    with pytest.raises(DataError, match=f'area30.png: {message}'):
        build(root, split='val')[0]


def test_a_label_of_another_size_is_found_in_loading_too(root):
    write(root / 'tiles' / 'labels_eroded' / 'area30.png', np.zeros((SIDE, SIDE + 1), np.uint8))
    with pytest.raises(DataError, match=r'area30.png: the mask has 8x9 pixels'):
        build(root, split='val', header_checks=0)[0]


def test_a_missing_tile_is_an_error_unless_it_is_to_be_skipped(root):
    (root / 'tiles' / 'images' / 'area33.png').unlink()
    with pytest.raises(DataError, match=r"no file of 1 of 17 tiles of split 'test' of vaihingen.*: 33; prepare"):
        build(root, split='test')
    assert len(build(root, split='test', missing_tiles='skip')) == 16


def test_a_split_without_any_tile_is_an_error_in_any_case(root):
    (root / 'tiles' / 'images' / 'area30.png').unlink()
    with pytest.raises(DataError, match='no file of 1 of 1 tiles'):
        build(root, split='val', missing_tiles='skip')


def test_an_image_without_label_is_an_error(root):
    (root / 'tiles' / 'labels_eroded' / 'area33.png').unlink()
    with pytest.raises(DataError, match=r"labels_eroded: no label for 1 of 17 images.*'area33'"):
        build(root, split='test')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(benchmark='berlin'), "benchmark='berlin': must be one of 'potsdam', 'vaihingen'"),
        (dict(split='all'), "split='all'"),
        (dict(unit='crops'), "unit='crops'"),
        (dict(missing_tiles='ignore'), "missing_tiles='ignore': must be one of 'error', 'skip'"),
        (dict(unknown='keep'), "unknown='keep'"),
        (dict(protocol='Z'), "protocol 'Z' is not known"),
        (dict(protocol='E'), r"'full' \(E\) has no tiles of 'vaihingen'"),
        (dict(protocol='D', benchmark='potsdam'), "has no tiles of 'potsdam'"),
    ],
)
def test_unknown_options_are_errors(root, options, message):
    with pytest.raises(ConfigError, match=message):
        build(root, **options)


def test_an_unprepared_folder_is_an_error_with_the_command(tmp_path):
    with pytest.raises(DataError, match=r'labels_full: no such folder|images: no such folder.*data_prep/isprs.py'):
        build(tmp_path)
    with pytest.raises(DataError, match=r'data_prep/isprs\.py vaihingen'):
        build(tmp_path / 'none')


def test_pixels_of_the_classes_are_those_of_the_training_tiles(root):
    dataset = build(root, protocol='boundary', lazy_init=True)
    numbers = [number for number, tile in enumerate(isprs.TILES['vaihingen']) if tile in dataset.tiles]
    assert dataset.class_pixels().tolist() == [sum(numbers), 28, 56, 84, 112, 140]
    assert build(root, protocol='rsp', lazy_init=True).class_pixels().shape == (5,)
    assert build(root, protocol='mmseg', lazy_init=True).class_pixels().tolist() == [0, 16, 16, 16, 16, 16]


def test_pixels_are_those_of_the_samples_that_are_left(root):
    dataset = build(root, protocol='boundary', indices=[2, 0], lazy_init=True)
    tiles = [dataset.tile_of(Path(dataset.get_data_info(index)['img_path']).stem) for index in range(2)]
    numbers = [isprs.TILES['vaihingen'].index(tile) for tile in tiles]
    assert len(set(tiles)) == 2
    assert build(root, protocol='boundary', indices=[2, 0], lazy_init=True).class_pixels().tolist() == [
        sum(numbers), 2, 4, 6, 8, 10
    ]  # fmt: skip


def test_missing_statistics_are_an_error(root):
    content = json.loads((root / 'statistics.json').read_text())
    del content['tiles']['3']
    (root / 'statistics.json').write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"statistics.json: has no pixel counts of '3' for full labels"):
        build(root, lazy_init=True).class_pixels()
    (root / 'statistics.json').unlink()
    with pytest.raises(DataError, match=r'statistics.json: cannot be read'):
        build(root, lazy_init=True).class_pixels()


def test_source_of_the_dataset(root):
    assert build(root, protocol='B', split='val', clean=True).metainfo['source'] == dict(
        dataset='vaihingen', protocol='mmseg', split='val', clean=True, labels='eroded', tiles=['30'], missing_tiles=[]
    )
    (root / 'tiles' / 'images' / 'area33.png').unlink()
    source = build(root, split='test', missing_tiles='skip').metainfo['source']
    assert (len(source['tiles']), source['missing_tiles']) == (16, ['33'])


def test_files_of_one_name_in_two_folders_are_an_error(root):
    write(root / 'tiles' / 'images' / 'more' / 'area30.png', np.zeros((SIDE, SIDE, 3), np.uint8))
    with pytest.raises(DataError, match=r'area30.png and .*area30.png have the same name'):
        build(root, split='val')


@pytest.mark.parametrize('benchmark', ['potsdam', 'vaihingen'])
@pytest.mark.parametrize('protocol', ['B', 'C'])
def test_real_crops_load_and_evaluate(benchmark, protocol, tmp_path):
    """A crop of 512x512 pixels of each in the layout of mmsegmentation, labels counting from 1, by a sliding window."""
    folder = REPO.parent / 'shared' / 'data' / 'tiles' / benchmark
    if not folder.is_dir():
        pytest.skip('the real crops are not here')
    options = dict(image_dir='img_dir', label_dir='ann_dir', reduce_zero_label=True, missing_tiles='skip')
    dataset = build(folder, benchmark=benchmark, protocol=protocol, **options)
    assert len(dataset) == 1
    sample = dataset[0]
    label = sample['data_samples'].gt_sem_seg.data.numpy()
    assert sample['inputs'].shape == (3, 512, 512)
    assert set(np.unique(label)) == {0, 1, 2, 3, 4, 255}
    cfg = Config.fromfile(REPO / 'configs/_base_/models/lale_tiles.py')
    cfg.model.decode_head.num_classes = len(dataset.metainfo['classes'])
    cfg.model.test_cfg.update(crop_size=(256, 256), stride=(256, 256))
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).eval()
    other = SegmentationMetric(protocol='D')
    other.dataset_meta = dataset.metainfo
    with pytest.raises(ConfigError, match="scored under 'boundary'"):
        other.process({}, [sample['data_samples'].to_dict()])
    metric = SegmentationMetric(protocol=protocol, output_dir=str(tmp_path))
    metric.dataset_meta = dataset.metainfo
    results = model.test_step(dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']]))
    metric.process({}, [result.to_dict() for result in results])
    scores = metric.evaluate(1)
    saved = json.loads((tmp_path / 'metrics.json').read_text())
    assert saved['protocol']['letter'] == protocol
    assert saved['source']['dataset'] == benchmark
    assert len(saved['source']['tiles']) == 1
    assert saved['source']['missing_tiles']
    assert saved['num_pixels'] == (label != 255).sum()
    predicted = results[0].pred_sem_seg.data.numpy()
    assert scores['OA'] == pytest.approx(100 * (predicted == label)[label != 255].mean())


def test_the_class_is_documented():
    for index, name in enumerate(isprs.CLASSES):
        assert f'{index} {name}' in ISPRSProtocolDataset.__doc__
