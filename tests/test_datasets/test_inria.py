"""InriaDataset: tiles by protocol, a held-out test, labels of 0 and 255."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from lale_mmseg.engine.splits import check_splits
from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.evaluation import SegmentationMetric
from lale_mmseg.metainfo import inria
from lale_mmseg.metainfo.protocols import find_protocol

PIPELINE = [dict(type='LoadBands'), dict(type='LoadBinaryLabels'), dict(type='PackSegInputs')]
SIDE = 8


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def mask_of(number: int) -> np.ndarray:
    """The first `number` pixels, row by row, are building."""
    return np.where(np.arange(SIDE**2) < number % 60 + 1, 255, 0).astype(np.uint8).reshape(SIDE, SIDE)


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    """Every tile as a window, a whole tile and, of Austin, a crop."""
    root, parts = tmp_path_factory.mktemp('inria'), {}
    for number, tile in enumerate(inria.TILES):
        names = [('windows', f'{tile}_0_0_{SIDE}_{SIDE}', '.png', '.png'), ('tiles', tile, '.tif', '.tif')]
        if tile.startswith('austin'):
            names.append(('crops', tile, '.jpg', '.png'))
        for top, name, image, mask in names:
            write(root / top / 'images' / f'{name}{image}', np.full((SIDE, SIDE, 3), number, np.uint8))
            write(root / top / 'masks' / f'{name}{mask}', mask_of(number))
        parts[tile] = dict(pixels=[1000, number])
    (root / 'manifest.json').write_text(json.dumps(dict(parts=parts)))
    return root


@pytest.fixture
def root(prepared, tmp_path):
    """A copy whose files may be changed."""
    return Path(shutil.copytree(prepared, tmp_path / 'inria'))


def build(root, **options):
    init_default_scope('mmseg')
    return DATASETS.build(dict(type='InriaDataset', data_root=str(root), pipeline=PIPELINE) | options)


def tiles_in(dataset) -> list[str]:
    stems = [Path(dataset.get_data_info(index)['img_path']).stem for index in range(len(dataset))]
    return [inria.tile_of(stem) for stem in stems]


@pytest.mark.parametrize(
    ('protocol', 'split', 'top'),
    [
        ('full', 'train', 'windows'),
        ('full', 'val', 'tiles'),
        ('few-shot', 'train', 'crops'),
        ('few-shot', 'val', 'crops'),
        ('few-shot', 'test', 'crops'),
    ],
)
def test_a_split_holds_the_tiles_of_its_protocol(prepared, protocol, split, top):
    dataset = build(prepared, protocol=protocol, split=split)
    due = getattr(find_protocol(protocol).split('inria'), split)
    assert sorted(tiles_in(dataset)) == sorted(due)
    assert dataset.source_tiles == {f'inria/{tile}' for tile in due}
    info = dataset.get_data_info(0)
    assert Path(info['img_path']).parent == prepared / top / 'images'
    assert Path(info['seg_map_path']).parent == prepared / top / 'masks'
    assert dataset.unit == top
    assert dataset.held_out == (split == 'test')


def test_labels_become_indexes(prepared):
    dataset = build(prepared, protocol='few-shot', split='val')
    for index, tile in enumerate(tiles_in(dataset)):
        label = dataset[index]['data_samples'].gt_sem_seg.data.numpy()[0]
        assert np.array_equal(label, mask_of(inria.TILES.index(tile)) // 255)


def test_the_test_of_the_full_protocol_is_not_published(prepared):
    message = r'labels are not published.*tools/analysis/inria_submission\.py'
    with pytest.raises(ConfigError, match=message):
        build(prepared, split='test', lazy_init=True)


def test_source_of_the_dataset(root):
    dataset = build(root, protocol='few-shot', split='val')
    meta = dataset.metainfo
    assert meta['classes'] == ('background', 'building')
    assert meta['palette'] == [list(color) for color in inria.COLORS]
    assert meta['source'] == dict(
        dataset='inria',
        protocol='few-shot',
        split='val',
        clean=False,
        labels='full',
        tiles=list(dataset.tiles),
        missing_tiles=[],
        published=None,
    )
    assert re.match(meta['tile_pattern'], 'vienna3_0_0_512_512')['city'] == 'vienna'
    (root / 'crops' / 'images' / 'austin6.jpg').unlink()
    source = build(root, protocol='few-shot', split='val', missing_tiles='skip').metainfo['source']
    assert (len(source['tiles']), source['missing_tiles']) == (5, ['austin6'])
    content = json.loads((root / 'manifest.json').read_text())
    (root / 'manifest.json').write_text(json.dumps({**content, 'notes': {'published': False}}))
    source = build(root, protocol='few-shot', split='val', missing_tiles='skip').metainfo['source']
    assert source['published'] is False


def test_scores_under_its_protocol_are_those_of_building(prepared):
    dataset = build(prepared, protocol='few-shot', split='val')
    metric = SegmentationMetric(protocol='few-shot')
    metric.dataset_meta = dataset.metainfo
    label = np.zeros((4, 4), np.uint8)
    label[:2] = 1
    pred = np.zeros((4, 4), np.uint8)
    pred[1:3] = 1
    sample = dataset[0]['data_samples'].to_dict()
    for name, values in (('gt_sem_seg', label), ('pred_sem_seg', pred)):
        sample[name] = dict(data=torch.from_numpy(values)[None])
    metric.process({}, [sample])
    scores = metric.evaluate(1)
    # 4 pixels of building found, 4 missed, 4 too many; 8 of 16 pixels are right.
    assert (scores['mIoU'], scores['mF1'], scores['OA']) == pytest.approx((100 * 4 / 12, 50, 50), abs=0.01)
    other = SegmentationMetric(protocol='full')
    other.dataset_meta = dataset.metainfo
    with pytest.raises(ConfigError, match="scored under 'full'"):
        other.process({}, [sample])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(protocol='geoseg'), r"'geoseg' \(A\) has no tiles of 'inria'"),
        (dict(protocol='Z'), "protocol 'Z' is not known"),
        (dict(split='all'), "split='all'"),
        (dict(unit='crops'), "unit='crops': must be one of None, 'windows', 'tiles'"),
        (dict(unit='tiles', protocol='few-shot'), "unit='tiles': protocol 'few-shot' has one crop per tile"),
        (dict(missing_tiles='ignore'), "missing_tiles='ignore': must be one of 'error', 'skip'"),
    ],
)
def test_unknown_options_are_errors(prepared, options, message):
    with pytest.raises(ConfigError, match=message):
        build(prepared, lazy_init=True, **options)


def test_an_unprepared_folder_is_an_error_with_the_command(tmp_path):
    with pytest.raises(DataError, match=r'crops/images: no such folder.*data_prep/inria\.py few-shot SOURCE OUT'):
        build(tmp_path, protocol='few-shot')
    with pytest.raises(DataError, match=r'does not exist: prepare it with "python data_prep/inria\.py full'):
        build(tmp_path / 'none')
    with pytest.raises(DataError, match='InriaDataset: data_root is not set'):
        DATASETS.build(dict(type='InriaDataset'))


def test_a_missing_tile_is_an_error_unless_it_is_to_be_skipped(root):
    (root / 'tiles' / 'images' / 'kitsap3.tif').unlink()
    with pytest.raises(DataError, match=r"no file of 1 of 25 tiles of split 'val' of inria.*: kitsap3; prepare"):
        build(root, split='val')
    assert len(build(root, split='val', missing_tiles='skip')) == 24


def test_an_image_without_mask_is_an_error(root):
    (root / 'crops' / 'masks' / 'austin2.png').unlink()
    with pytest.raises(DataError, match=r"crops/masks: no label for 1 of 24 images of crops/images.*'austin2'"):
        build(root, protocol='few-shot')


@pytest.mark.parametrize(
    ('pixels', 'message'),
    [
        (np.full((SIDE, SIDE), 254, np.uint8), r'value 254 at row 0, column 0 is not a class \(64 such pixels\)'),
        (np.zeros((SIDE, SIDE, 3), np.uint8), r'expected an 8-bit single-band mask, found shape \(8, 8, 3\)'),
        (np.zeros((SIDE, SIDE + 1), np.uint8), 'the mask has 8x9 pixels'),
    ],
    ids=['value', 'bands', 'size'],
)
def test_a_bad_mask_is_an_error_with_its_name(root, pixels, message):
    write(root / 'crops' / 'masks' / 'austin1.png', pixels)
    dataset = build(root, protocol='few-shot', split='val', header_checks=0)
    with pytest.raises(DataError, match=f'austin1.png: {message}'):
        dataset[tiles_in(dataset).index('austin1')]


def test_pixels_of_the_classes_are_those_of_the_training_tiles(root):
    numbers = [inria.TILES.index(tile) for tile in find_protocol('F').split('inria').train]
    assert build(root, protocol='few-shot', lazy_init=True).class_pixels().tolist() == [24000, sum(numbers)]
    content = json.loads((root / 'manifest.json').read_text())
    del content['parts']['austin2']
    (root / 'manifest.json').write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"has no pixel counts of 'austin2' for full labels, split 'train'"):
        build(root, protocol='few-shot', lazy_init=True).class_pixels()
    skipping = build(root, protocol='few-shot', missing_tiles='skip', lazy_init=True)
    assert skipping.class_pixels()[0] == 23000
    (root / 'manifest.json').unlink()
    with pytest.raises(DataError, match=r'manifest.json: cannot be read'):
        skipping.class_pixels()


@pytest.mark.parametrize(('indices', 'left'), [([3, 1], [3, 1]), (2, [0, 1]), (-2, [-2, -1])])
@pytest.mark.parametrize('lazy', [False, True])
def test_with_indices_its_tiles_are_those_of_the_samples(root, indices, left, lazy):
    """Windows of one tile follow each other in the list, so that the first two are of one tile."""
    for folder, suffix in (('images', '.png'), ('masks', '.png')):
        window = root / 'windows' / folder / f'austin10_0_0_{SIDE}_{SIDE}{suffix}'
        shutil.copy(window, window.with_name(f'austin10_0_{SIDE}_{SIDE}_{SIDE}{suffix}'))
    stems = sorted(path.stem for path in (root / 'windows' / 'images').iterdir())
    stems = [stem for stem in stems if inria.tile_of(stem) in find_protocol('full').split('inria').train]
    tiles = sorted({inria.tile_of(stems[index]) for index in left})
    assert len(tiles) == (1 if indices == 2 else 2)
    dataset = build(root, indices=indices, lazy_init=lazy)
    assert dataset.source_tiles == {f'inria/{tile}' for tile in tiles}
    numbers = [inria.TILES.index(tile) for tile in tiles]
    assert build(root, indices=indices, lazy_init=lazy).class_pixels().tolist() == [1000 * len(tiles), sum(numbers)]
    assert sorted(tiles_in(dataset)) == sorted(inria.tile_of(stems[index]) for index in left)
    assert dataset.metainfo['source']['missing_tiles'] == []


def test_without_indices_no_file_is_listed_for_its_tiles(tmp_path):
    (tmp_path / 'manifest.json').write_text(json.dumps(dict(parts={})))
    dataset = build(tmp_path, missing_tiles='skip', lazy_init=True)
    assert len(dataset.source_tiles) == 155
    assert dataset.class_pixels().tolist() == [0, 0]


def test_folds_inside_one_split_share_no_tile(prepared):
    init_default_scope('mmseg')

    def cfg(train, val):
        dataset = dict(type='InriaDataset', data_root=str(prepared), protocol='few-shot', split='train')
        return Config(
            dict(
                train_dataloader=dict(dataset=dataset | dict(indices=train)),
                val_dataloader=dict(dataset=dataset | dict(indices=val)),
            )
        )

    check_splits(cfg(20, -4))
    with pytest.raises(ConfigError, match='train_dataloader and val_dataloader share 1 tiles: inria/austin'):
        check_splits(cfg(21, -4))
