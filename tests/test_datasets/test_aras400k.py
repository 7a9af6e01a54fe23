import pickle

import numpy as np
import pytest
import torch
from mmseg.registry import DATASETS

from data_prep.make_toy import make_toy
from lale_mmseg.datasets.aras400k import choose_fraction
from lale_mmseg.datasets.parquet import ParquetShards
from lale_mmseg.errors import DataError

PIPELINE = [dict(type='LoadBands'), dict(type='LoadPaletteMask'), dict(type='PackSegInputs')]


@pytest.fixture(scope='module')
def both(tmp_path_factory):
    """The same toy set as folders and as parquet shards."""
    root = tmp_path_factory.mktemp('aras')
    make_toy(root / 'folders', dict(train=6, val=2, synth=4), size=32)
    make_toy(root / 'shards', dict(train=6, val=2, synth=4), size=32, folders=False, parquet=True, rows_per_shard=4)
    return root


def build(root, split='train', **options):
    return DATASETS.build(dict(type='ARAS400kDataset', data_root=str(root), split=split, pipeline=PIPELINE, **options))


def test_shards_hold_the_same_samples_as_folders(both):
    folders, shards = build(both / 'folders'), build(both / 'shards')
    assert len(folders) == len(shards) == 6
    assert len(list((both / 'shards').rglob('train*.parquet'))) == 2
    for first, second in zip(folders, shards, strict=True):
        assert torch.equal(first['inputs'], second['inputs'])
        assert torch.equal(first['data_samples'].gt_sem_seg.data, second['data_samples'].gt_sem_seg.data)


def test_names_in_shards_are_different_and_usable_as_file_names(both):
    names = [build(both / 'shards').get_data_info(i)['img_path'] for i in range(6)]
    assert len({name.rsplit('/', 1)[1] for name in names}) == 6


def test_shards_survive_pickling_and_other_processes(both):
    dataset = build(both / 'shards', split='val')
    before = dataset[0]['inputs']
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[0]['inputs'], before)
    loader = torch.utils.data.DataLoader(dataset, num_workers=2, collate_fn=lambda batch: batch)
    assert torch.equal(next(iter(loader))[0]['inputs'], before)


def test_names_that_start_anew_in_every_shard_are_made_different(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.struct([('bytes', pa.binary()), ('path', pa.string())])
    rows = pa.array([dict(bytes=b'x', path='0.png'), dict(bytes=b'y', path='1.png')], kind)
    for shard in range(2):
        pq.write_table(pa.table({'image': rows, 'conditioning_image': rows}), tmp_path / f'train-{shard}.parquet')
    shards = ParquetShards(sorted(tmp_path.glob('*.parquet')), ('image', 'conditioning_image'))
    assert shards.names == ['train-0_000000', 'train-0_000001', 'train-1_000000', 'train-1_000001']


def test_cache_of_row_groups_is_bounded(both):
    paths = sorted((both / 'shards').rglob('train*.parquet'))
    shards = ParquetShards(paths, ('image', 'conditioning_image'), cache_bytes=1)
    rows = [shards[i] for i in (0, 5, 0, 3)]
    assert rows[0] == rows[2]
    assert len(shards._cache) == 1
    assert rows[0][0][:4] == b'\x89PNG'


def test_parts_combine_in_any_proportion(both):
    root = both / 'folders'
    counts = {
        (1.0, 0.0): (6, 0), (1.0, 1.0): (6, 4), (0.5, 0.25): (3, 1), (0.0, 1.0): (0, 4), (2.5, 0.0): (15, 0)
    }  # fmt: skip
    for (real, synthetic), expected in counts.items():
        paths = [info['img_path'] for info in build(root, parts=dict(real=real, synthetic=synthetic)).load_data_list()]
        found = sum('/train/' in path for path in paths), sum('/synth/' in path for path in paths)
        assert found == expected, (real, synthetic)


def test_a_smaller_fraction_is_contained_in_a_larger_one_and_seeds_differ():
    small, large = choose_fraction(100, 0.2, seed=3), choose_fraction(100, 0.5, seed=3)
    assert (len(small), len(large)) == (20, 50)
    assert set(small) < set(large)
    assert set(choose_fraction(100, 0.2, seed=4)) != set(small)
    assert choose_fraction(100, 0.2, seed=3) == small


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(parts=dict(real=1.0, fake=1.0)), "unknown part 'fake'; known are 'real' and 'synthetic'"),
        (dict(parts=dict(real=-1.0)), 'fractions must be 0 or more'),
        (dict(parts=dict(real=0.0)), 'selects no pair'),
        (dict(split='val', parts=dict(real=1.0, synthetic=1.0)), "synthetic pairs join split train only, not 'val'"),
        (dict(split='test'), r"no split 'test'.*data_prep/aras400k\.py archives"),
        (dict(split='test', storage='parquet'), r'no test\*\.parquet in it or in data/'),
        (dict(storage='zip'), "storage='zip'"),
    ],
)
def test_bad_choices_are_named(both, options, message):
    with pytest.raises(DataError, match=message):
        build(both / 'folders', **options)


def test_missing_data_root_names_the_command_that_makes_it():
    with pytest.raises(DataError, match=r'data_prep/aras400k\.py archives .* or try "python data_prep/make_toy\.py'):
        build('/nowhere/aras400k')


def test_no_data_pixels_are_ignored(both, tmp_path):
    import cv2

    make_toy(tmp_path, dict(train=1), size=32)
    mask = next((tmp_path / 'train/masks').glob('*.png'))
    pixels = cv2.imread(str(mask))
    pixels[5, 6] = 0
    cv2.imwrite(str(mask), pixels)
    labels = build(tmp_path)[0]['data_samples'].gt_sem_seg.data
    assert labels[0, 5, 6] == 255
    assert int((labels == 255).sum()) == 1


def test_a_shard_without_the_columns_is_named(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({'image': pa.array(np.zeros(2))}), tmp_path / 'train-0.parquet')
    with pytest.raises(DataError, match=r"train-0\.parquet: no column 'conditioning_image'; it has image"):
        build(tmp_path)
    (tmp_path / 'train-0.parquet').write_bytes(b'PAR1 cut off')
    with pytest.raises(DataError, match=r'train-0\.parquet: not a readable parquet file'):
        build(tmp_path)


def test_unknown_colour_in_a_shard_names_shard_and_row(both, tmp_path):
    import cv2
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = cv2.imencode('.png', np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    mask = cv2.imencode('.png', np.full((4, 4, 3), 77, np.uint8))[1].tobytes()
    kind = pa.struct([('bytes', pa.binary()), ('path', pa.string())])
    columns = {
        name: pa.array([dict(bytes=content, path=None)], kind)
        for name, content in (('image', image), ('conditioning_image', mask))
    }
    pq.write_table(pa.table(columns), tmp_path / 'train-0.parquet')
    with pytest.raises(DataError, match=r'train-0\.parquet, row 0, column conditioning_image: colour \(77, 77, 77\)'):
        build(tmp_path)[0]
