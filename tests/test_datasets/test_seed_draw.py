"""Augmentation through real data loaders depends only on seed, epoch and draw, whatever the workers do."""

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
    """Data loader as mmengine builds it for a run."""
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
def test_a_resumed_run_continues_like_the_uninterrupted_one(root, expected, workers):
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


def test_without_seeds_workers_repeat_their_augmentation(root):
    """The reason for SeedDraw: mmengine starts the workers of each epoch with the same seed."""
    (root / 'one.txt').write_text('s0\n')
    found = []
    for steps in (STEPS, [dict(type='SeedDraw'), *STEPS]):
        dataset = dict(type='PaletteDataset', data_root=str(root), split='one', pipeline=steps)
        first, second = run(loader(root, workers=1, dataset=dataset), range(2))
        found.append(first == second)
    assert found == [True, False]


def test_python_and_numpy_are_seeded():
    step = TRANSFORMS.build(dict(type='SeedDraw'))
    seen = []
    for seed in (4000000000, 7, 4000000000):
        step(dict(sample_idx=Draw(1, seed)))
        seen.append((random.random(), np.random.rand()))  # noqa: NPY002
    assert seen[0] == seen[2]
    assert all(first != second for first, second in zip(*seen[:2], strict=True))


def test_wrappers_keep_the_seed_or_are_named(root, monkeypatch):
    monkeypatch.setattr(PaletteDataset, 'get_cat_ids', lambda self, index: [index % 2], raising=False)
    inner = dict(type='PaletteDataset', data_root=str(root), split='train', pipeline=[dict(type='SeedDraw'), *STEPS])
    for wrapper in (
        dict(type='RepeatDataset', times=2, dataset=inner),
        dict(type='ConcatDataset', datasets=[inner, inner]),
    ):
        assert len(run(loader(root, dataset=wrapper), [0])[0]) == 6
    with pytest.raises(ConfigError, match=r'has no seed.*\(ClassBalancedDataset does'):
        next(iter(loader(root, dataset=dict(type='ClassBalancedDataset', oversample_thr=0.9, dataset=inner))))
    with pytest.raises(ConfigError, match=r'sample 0 has no seed\. Use ReplacementSampler'):
        next(iter(loader(root, sampler=dict(type='DefaultSampler', shuffle=False))))
