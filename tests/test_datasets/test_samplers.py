import numpy as np
import pytest
from mmseg.registry import DATA_SAMPLERS

from lale_mmseg.datasets.samplers import BlockShuffleSampler, block_shuffle


@pytest.mark.parametrize(('count', 'block', 'window'), [(1000, 100, 4), (37, 10, 3), (5, 100, 16), (12, 1, 1)])
def test_every_sample_comes_once(count, block, window):
    assert sorted(block_shuffle(count, block, window, seed=0)) == list(range(count))


def test_samples_of_a_stretch_come_from_few_blocks_and_are_mixed():
    order = block_shuffle(1000, block=100, window=2, seed=0)
    for start in range(0, 1000, 200):
        assert len(set(order[start : start + 200] // 100)) == 2
    assert len(set(order[:20] // 100)) == 2
    assert (np.abs(np.diff(order[:200])) == 1).mean() < 0.1


def test_epochs_and_seeds_differ_and_repeat():
    sampler = BlockShuffleSampler(range(50), block=5, window=2, seed=1)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(BlockShuffleSampler(range(50), block=5, window=2, seed=2)) != first


def test_ranks_share_the_samples_and_round_up():
    samplers = [BlockShuffleSampler(range(11), block=3, window=2, seed=0) for _ in range(2)]
    for rank, sampler in enumerate(samplers):
        sampler.rank, sampler.world_size = rank, 2
        sampler.num_samples, sampler.total_size = 6, 12
    shares = [list(sampler) for sampler in samplers]
    assert [len(share) for share in shares] == [6, 6]
    assert set(shares[0]) | set(shares[1]) == set(range(11))


def test_is_chosen_by_config_and_checks_its_arguments():
    sampler = DATA_SAMPLERS.build(dict(type='BlockShuffleSampler', dataset=range(4), seed=0))
    assert sorted(sampler) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match='block=0'):
        BlockShuffleSampler(range(4), block=0)
