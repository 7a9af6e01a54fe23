import copy
import pickle

import numpy as np
import pytest
from mmseg.registry import DATA_SAMPLERS

from lale_mmseg.datasets.samplers import BlockShuffleSampler, Draw, ReplacementSampler, block_shuffle


@pytest.mark.parametrize(('count', 'block', 'window'), [(1000, 100, 4), (37, 10, 3), (5, 100, 16), (12, 1, 1)])
def test_block_shuffle_contains_every_sample_once(count, block, window):
    assert sorted(block_shuffle(count, block, window, seed=0)) == list(range(count))


def test_block_shuffle_mixes_the_samples_of_a_few_blocks():
    order = block_shuffle(1000, block=100, window=2, seed=0)
    for start in range(0, 1000, 200):
        assert len(set(order[start : start + 200] // 100)) == 2
    assert len(set(order[:20] // 100)) == 2
    assert (np.abs(np.diff(order[:200])) == 1).mean() < 0.1


def test_block_shuffle_depends_on_epoch_and_seed():
    sampler = DATA_SAMPLERS.build(dict(type='BlockShuffleSampler', dataset=range(50), block=5, window=2, seed=1))
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(BlockShuffleSampler(range(50), block=5, window=2, seed=2)) != first


def test_block_shuffle_shares_the_samples_among_ranks():
    samplers = [BlockShuffleSampler(range(11), block=3, window=2, seed=0) for _ in range(2)]
    for rank, sampler in enumerate(samplers):
        sampler.rank, sampler.world_size = rank, 2
        sampler.num_samples, sampler.total_size = 6, 12
    shares = [list(sampler) for sampler in samplers]
    assert [len(share) for share in shares] == [6, 6]
    assert set(shares[0]) | set(shares[1]) == set(range(11))


def draws(count=10, epoch=0, rank=0, world_size=1, **options):
    """(index, seed) of the draws of one rank from `count` samples."""
    sampler = ReplacementSampler(range(count), **{'seed': 3, **options})
    sampler.rank, sampler.world_size = rank, world_size
    sampler.set_epoch(epoch)
    assert len(sampler) == len(list(sampler))
    return [(int(draw), draw.seed) for draw in sampler]


def test_draws_are_uniform_and_repeat_samples():
    indexes = np.array([index for index, _ in draws(count=10, samples_per_epoch=10000)])
    assert np.all(np.abs(np.bincount(indexes, minlength=10) - 1000) < 150)  # five standard deviations of 30
    assert draws(count=1, samples_per_epoch=5)[4][0] == 0
    assert len(DATA_SAMPLERS.build(dict(type='ReplacementSampler', dataset=range(4)))) == 400


def test_every_draw_has_its_own_seed():
    seeds = {seed for epoch in range(5) for _, seed in draws(epoch=epoch)}
    assert len(seeds) == 2000
    assert all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)
    assert max(seeds) > 2**31


def test_draws_depend_on_seed_and_epoch_alone():
    epochs = [draws(samples_per_epoch=20, epoch=epoch) for epoch in range(4)]
    assert draws(samples_per_epoch=20, epoch=3) == epochs[3]
    assert draws(samples_per_epoch=40, epoch=3)[:20] == epochs[3]
    for other in (epochs[2], draws(samples_per_epoch=20, epoch=3, seed=4)):
        assert [index for index, _ in other] != [index for index, _ in epochs[3]]
    # With the sum of seed and epoch, the next epoch of one run would be that of another.
    assert draws(samples_per_epoch=20, epoch=2, seed=4) != epochs[3]


@pytest.mark.parametrize(('world_size', 'each'), [(2, 200), (3, 134)])
def test_ranks_take_turns_in_the_draws_of_a_single_process(world_size, each):
    shares = [draws(rank=rank, world_size=world_size) for rank in range(world_size)]
    assert [len(share) for share in shares] == [each] * world_size
    together = [draw for turn in zip(*shares, strict=True) for draw in turn]
    assert together[:400] == draws()
    assert len({seed for _, seed in together}) == each * world_size


@pytest.mark.parametrize('copied', [copy.deepcopy, *(lambda x, n=n: pickle.loads(pickle.dumps(x, n)) for n in (2, 5))])
def test_draws_are_indexes_that_keep_their_seed_when_copied(copied):
    draw = copied(Draw(7, 99))
    assert (draw, draw.seed, type(draw)) == (7, 99, Draw)
    assert list(range(10))[draw] == np.arange(10)[draw] == 7
