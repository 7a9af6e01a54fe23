"""Augmentation through real data loaders: a function of seed, epoch and draw, whatever the workers do."""

import random

import cv2
import numpy as np
import pytest
from mmengine.runner import Runner
from mmseg.registry import TRANSFORMS

from lale_mmseg.datasets import PaletteDataset
from lale_mmseg.datasets.samplers import Draw
from lale_mmseg.errors import ConfigError

STEPS = [
    dict(type='LoadBands'),
    dict(type='LoadPaletteMask'),
    dict(type='RandomCrop', crop_size=(8, 8)),
    dict(type='SeededAlbu', transforms='medium'),
    dict(type='PackSegInputs'),
]


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Three random pairs of 12x12 pixels."""
    root = tmp_path_factory.mktemp('draws')
    rng = np.random.default_rng(0)
    for folder in ('images', 'masks'):
        (root / folder).mkdir()
    (root / 'classes.csv').write_text('index,name,r,g,b\n0,ground,0,0,0\n1,building,255,255,255\n')
    (root / 'train.txt').write_text('s0\ns1\ns2\n')
    for i in range(3):
        cv2.imwrite(str(root / f'images/s{i}.png'), rng.integers(0, 256, (12, 12, 3)).astype(np.uint8))
        mask = rng.integers(0, 2, (12, 12, 1)).astype(np.uint8) * 255
        cv2.imwrite(str(root / f'masks/s{i}.png'), mask.repeat(3, axis=2))
    return root


def loader(root, workers=0, persistent=False, seed=5, steps=(dict(type='SeedDraw'), *STEPS), rank=None, **options):
    """As mmengine builds it for a run."""
    sampler = dict(type='ReplacementSampler', samples_per_epoch=6)
    dataset = dict(type='PaletteDataset', data_root=str(root), split='train', pipeline=list(steps))
    config = dict(batch_size=2, num_workers=workers, persistent_workers=persistent, dataset=dataset, sampler=sampler)
    built = Runner.build_dataloader({**config, **options}, seed=seed)
    if rank is not None:
        built.sampler.rank, built.sampler.world_size = rank, 2
    return built


def run(loader, epochs):
    """Bytes of each augmented pair of each epoch."""
    found = []
    for epoch in epochs:
        loader.sampler.set_epoch(epoch)
        batches = [(batch['inputs'], batch['data_samples']) for batch in loader]
        found.append(
            [
                (image.numpy().tobytes(), sample.gt_sem_seg.data.numpy().tobytes())
                for images, samples in batches
                for image, sample in zip(images, samples, strict=True)
            ]
        )
    return found


@pytest.fixture
def expected(root):
    """Three epochs of an uninterrupted run without workers."""
    return run(loader(root), range(3))


@pytest.mark.parametrize(('workers', 'persistent'), [(1, False), (2, False), (2, True)])
def test_workers_change_nothing(root, expected, workers, persistent):
    assert run(loader(root, workers, persistent), range(3)) == expected


@pytest.mark.parametrize('workers', [0, 2])
def test_a_resumed_run_goes_on_as_the_uninterrupted_one(root, expected, workers):
    np.random.seed(1234)  # noqa: NPY002 (whatever the new process has drawn before)
    assert run(loader(root, workers), [2]) == expected[2:]


def test_epochs_ranks_and_seeds_differ(root, expected):
    pairs = [pair for epoch in expected for pair in epoch]
    assert len(set(pairs)) == len(pairs) == 18
    other_seed = run(loader(root, seed=6), [0])[0]
    assert not set(other_seed) & set(pairs)
    shares = [run(loader(root, rank=rank), [0])[0] for rank in range(2)]
    assert [len(share) for share in shares] == [3, 3]
    assert {pair for share in shares for pair in share} == set(expected[0])


def test_without_it_workers_repeat_their_augmentation(root):
    """What SeedDraw is for: mmengine starts the workers of each epoch with the same seed."""
    (root / 'one.txt').write_text('s0\n')
    found = []
    for steps in (STEPS, [dict(type='SeedDraw'), *STEPS]):
        dataset = dict(type='PaletteDataset', data_root=str(root), split='one', pipeline=steps)
        first, second = run(loader(root, workers=1, dataset=dataset), range(2))
        found.append(first == second)
    assert found == [True, False]


def test_both_generators_are_seeded():
    step = TRANSFORMS.build(dict(type='SeedDraw'))
    seen = []
    for seed in (4000000000, 7, 4000000000):
        results = dict(sample_idx=Draw(1, seed), img_path='x')
        assert step(results) == dict(sample_idx=1, img_path='x')
        seen.append((random.random(), np.random.rand()))  # noqa: NPY002
    assert seen[0] == seen[2]
    assert seen[0][0] != seen[1][0]
    assert seen[0][1] != seen[1][1]


def test_a_wrapper_that_looks_indexes_up_is_named(root, monkeypatch):
    monkeypatch.setattr(PaletteDataset, 'get_cat_ids', lambda self, index: [index % 2], raising=False)
    inner = dict(type='PaletteDataset', data_root=str(root), split='train', pipeline=[dict(type='SeedDraw'), *STEPS])
    for wrapper in (dict(type='RepeatDataset', times=2), dict(type='ConcatDataset', datasets=[inner])):
        options = dict(wrapper) if 'datasets' in wrapper else dict(wrapper, dataset=inner)
        assert len(next(iter(loader(root, dataset=options)))['inputs']) == 2
    with pytest.raises(ConfigError, match=r'comes without a seed.*a wrapper .* \(ClassBalancedDataset does'):
        next(iter(loader(root, dataset=dict(type='ClassBalancedDataset', oversample_thr=0.9, dataset=inner))))


def test_samples_without_a_seed_are_refused(root):
    with pytest.raises(ConfigError, match=r"sample 0 comes without a seed: .*'ReplacementSampler'"):
        next(iter(loader(root, sampler=dict(type='DefaultSampler', shuffle=False))))
    with pytest.raises(ConfigError, match='sample None comes without a seed'):
        TRANSFORMS.build(dict(type='SeedDraw'))(dict(img_path='x'))
