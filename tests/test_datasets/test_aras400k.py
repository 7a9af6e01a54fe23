import pickle

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from mmseg.registry import DATASETS

from data_prep.make_toy import make_toy
from lale_mmseg.datasets.aras400k import choose_fraction
from lale_mmseg.datasets.parquet import ParquetShards
from lale_mmseg.errors import DataError

PIPELINE = [dict(type='LoadBands'), dict(type='LoadPaletteMask'), dict(type='PackSegInputs')]
COLUMNS = ('image', 'conditioning_image')


@pytest.fixture(scope='module')
def both(tmp_path_factory):
    """The same toy set as folders and as parquet shards."""
    root = tmp_path_factory.mktemp('aras')
    make_toy(root / 'folders', dict(train=6, val=2, synth=4), size=32)
    make_toy(root / 'shards', dict(train=6, val=2, synth=4), size=32, folders=False, parquet=True, rows_per_shard=4)
    return root


def build(root, split='train', **options):
    return DATASETS.build(dict(type='ARAS400kDataset', data_root=str(root), split=split, pipeline=PIPELINE, **options))


def write_shard(path, *rows):
    """Writes a shard whose rows are (image bytes, mask bytes, stored name)."""
    kind = pa.struct([('bytes', pa.binary()), ('path', pa.string())])
    columns = zip(*(((image, name), (mask, name)) for image, mask, name in rows), strict=True)
    arrays = [pa.array([dict(bytes=content, path=name) for content, name in column], kind) for column in columns]
    pq.write_table(pa.table(dict(zip(COLUMNS, arrays, strict=True))), path)


def test_shards_hold_the_same_samples_as_folders(both):
    folders, shards = build(both / 'folders'), build(both / 'shards')
    assert len(folders) == len(shards) == 6
    assert len(list((both / 'shards').rglob('train*.parquet'))) == 2
    for first, second in zip(folders, shards, strict=True):
        assert torch.equal(first['inputs'], second['inputs'])
        assert torch.equal(first['data_samples'].gt_sem_seg.data, second['data_samples'].gt_sem_seg.data)
    names = [shards.get_data_info(i)['img_path'] for i in range(6)]
    assert len({name.rsplit('/', 1)[1] for name in names}) == 6


def test_classes_are_mapped_in_both_formats(both):
    class_map = dict(tree='vegetation', shrub='vegetation', grass='vegetation', barren=None)
    folders, shards = (build(both / name, class_map=class_map) for name in ('folders', 'shards'))
    assert folders.metainfo['classes'] == ('vegetation', 'crop', 'built-up', 'water')
    old, new = build(both / 'folders').class_pixels(), folders.class_pixels()
    assert new.tolist() == shards.class_pixels().tolist() == [old[:3].sum(), old[3], old[4], old[6]]


def test_shards_survive_pickling_and_other_processes(both):
    dataset = build(both / 'shards', split='val')
    before = dataset[0]['inputs']
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[0]['inputs'], before)
    loader = torch.utils.data.DataLoader(dataset, num_workers=2, collate_fn=lambda batch: batch)
    assert torch.equal(next(iter(loader))[0]['inputs'], before)


def test_stored_names_that_repeat_in_every_shard_are_replaced(tmp_path):
    for shard in range(2):
        write_shard(tmp_path / f'train-{shard}.parquet', (b'x', b'x', '0.png'), (b'y', b'y', '1.png'))
    shards = ParquetShards(sorted(tmp_path.glob('*.parquet')), COLUMNS)
    assert shards.names == ['train-0_000000', 'train-0_000001', 'train-1_000000', 'train-1_000001']


def test_cache_of_row_groups_is_bounded(both, monkeypatch):
    paths = sorted((both / 'shards').rglob('train*.parquet'))
    read, groups = pq.ParquetFile.read_row_group, []
    monkeypatch.setattr(pq.ParquetFile, 'read_row_group', lambda *a, **kw: groups.append(a[1]) or read(*a, **kw))
    for cache_bytes, reads in ((1, 4), (2**20, 2)):
        shards = ParquetShards(paths, COLUMNS, cache_bytes=cache_bytes)
        rows = [shards[i] for i in (0, 5, 0, 5)]
        assert len(groups) == reads
        assert rows[0] == rows[2] != rows[1]
        assert rows[0][0][:4] == b'\x89PNG'
        groups.clear()


@pytest.mark.parametrize(
    ('real', 'synthetic', 'expected'),
    [(1.0, 1.0, (6, 4)), (0.5, 0.25, (3, 1)), (0.0, 1.0, (0, 4)), (2.5, 0.0, (15, 0))],
)
def test_parts_combine_in_any_proportion(both, real, synthetic, expected):
    dataset = build(both / 'folders', parts=dict(real=real, synthetic=synthetic))
    paths = [info['img_path'] for info in dataset.load_data_list()]
    assert tuple(sum(f'/{folder}/' in path for path in paths) for folder in ('train', 'synth')) == expected


def test_a_smaller_fraction_is_contained_in_a_larger_one_and_seeds_differ():
    small, large = choose_fraction(100, 0.2, seed=3), choose_fraction(100, 0.5, seed=3)
    assert (len(small), len(large)) == (20, 50)
    assert set(small) < set(large)
    assert choose_fraction(100, 0.2, seed=4) != small == choose_fraction(100, 0.2, seed=3)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(parts=dict(real=1.0, fake=1.0)), "unknown part 'fake'; use 'real' and 'synthetic'"),
        (dict(parts=dict(real=0.0)), 'selects no pair'),
        (dict(split='val', parts=dict(real=1.0, synthetic=1.0)), "synthetic pairs are for split 'train' only"),
        (dict(split='test'), r"no split 'test'.*data_prep/aras400k\.py archives"),
        (dict(split='test', storage='parquet'), r'no test\*\.parquet in it or in data/'),
        (dict(data_root='/nowhere'), r'data_prep/aras400k\.py archives .* or try "python data_prep/make_toy\.py'),
    ],
)
def test_bad_choices_are_named(both, options, message):
    with pytest.raises(DataError, match=message):
        build(**{'root': options.pop('data_root', both / 'folders'), **options})


def test_no_data_pixels_are_ignored(tmp_path):
    make_toy(tmp_path, dict(train=1), size=32)
    mask = next((tmp_path / 'train/masks').glob('*.png'))
    pixels = cv2.imread(str(mask))
    pixels[5, 6] = 0
    cv2.imwrite(str(mask), pixels)
    labels = build(tmp_path)[0]['data_samples'].gt_sem_seg.data
    assert np.argwhere(labels[0].numpy() == 255).tolist() == [[5, 6]]


def test_a_shard_without_the_columns_is_named(tmp_path):
    pq.write_table(pa.table({'image': pa.array(np.zeros(2))}), tmp_path / 'train-0.parquet')
    with pytest.raises(DataError, match=r"train-0\.parquet: column 'image' is double, expected a struct of bytes"):
        build(tmp_path)
    pq.write_table(pa.table({'label': pa.array(np.zeros(2))}), tmp_path / 'train-0.parquet')
    with pytest.raises(DataError, match=r"train-0\.parquet: no column 'image'; it has label"):
        build(tmp_path)
    (tmp_path / 'train-0.parquet').write_bytes(b'PAR1 cut off')
    with pytest.raises(DataError, match=r'train-0\.parquet: not a readable parquet file'):
        build(tmp_path)


def test_unknown_colour_in_a_shard_names_shard_and_row(tmp_path):
    image, mask = (cv2.imencode('.png', np.full((4, 4, 3), v, np.uint8))[1].tobytes() for v in (0, 77))
    write_shard(tmp_path / 'train-0.parquet', (image, mask, None))
    with pytest.raises(DataError, match=r'train-0\.parquet, row 0, column conditioning_image: colour \(77, 77, 77\)'):
        build(tmp_path)[0]
