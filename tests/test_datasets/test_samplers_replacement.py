import copy
import pickle

import numpy as np
import pytest
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmseg.registry import DATA_SAMPLERS

from lale_mmseg.datasets.samplers import Draw, ReplacementSampler
from lale_mmseg.errors import ConfigError


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
    assert len(draws()) == 400
    assert max(draws(count=1, samples_per_epoch=5))[0] == 0


def test_every_draw_has_a_seed_of_its_own():
    seeds = {seed for epoch in range(5) for _, seed in draws(epoch=epoch)}
    assert len(seeds) == 2000
    assert all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)
    assert max(seeds) > 2**31


def test_epochs_and_seeds_differ_and_a_resumed_run_draws_what_the_uninterrupted_one_would():
    running = ReplacementSampler(range(10), samples_per_epoch=20, seed=3)
    epochs = []
    for epoch in range(4):
        running.set_epoch(epoch)
        epochs.append([(int(draw), draw.seed) for draw in running])
    for parts in zip(*epochs[:2], strict=True):
        assert parts[0][1] != parts[1][1]
    assert draws(samples_per_epoch=20, epoch=3) == epochs[3]
    assert draws(samples_per_epoch=20, epoch=3, seed=4) != epochs[3]
    # A sum of seed and epoch would make the next epoch of one run that of another.
    assert draws(samples_per_epoch=20, epoch=2, seed=4) != epochs[3]
    assert [index for index, _ in epochs[0]] != [index for index, _ in epochs[1]]


@pytest.mark.parametrize(('world_size', 'each'), [(2, 200), (3, 134)])
def test_ranks_take_turns_in_the_draws_of_a_single_process(world_size, each):
    alone = draws()
    shares = [draws(rank=rank, world_size=world_size) for rank in range(world_size)]
    assert [len(share) for share in shares] == [each] * world_size
    together = [draw for turn in zip(*shares, strict=True) for draw in turn]
    assert together[:400] == alone
    assert len({seed for _, seed in together}) == each * world_size


@pytest.mark.parametrize('copied', [copy.deepcopy, *(lambda x, n=n: pickle.loads(pickle.dumps(x, n)) for n in (2, 5))])
def test_draws_are_indexes_that_keep_their_seed_when_copied(copied):
    draw = copied(Draw(7, 99))
    assert (draw, draw.seed, type(draw)) == (7, 99, Draw)
    assert list(range(10))[draw] == np.arange(10)[draw] == 7


class Numbers(list):
    metainfo = dict(classes=('a',))

    def full_init(self):
        pass

    def __getitem__(self, index):
        return super().__getitem__(index), index


def test_wrappers_of_datasets_hand_the_seed_on():
    joined = ConcatDataset.__new__(ConcatDataset)
    joined.datasets, joined.cumulative_sizes, joined._fully_initialized = [Numbers('ab'), Numbers('cde')], [2, 5], True
    repeated = RepeatDataset.__new__(RepeatDataset)
    repeated.dataset, repeated._ori_len, repeated.times, repeated._fully_initialized = joined, 5, 2, True
    for index, letter in [(0, 'a'), (3, 'd'), (8, 'd'), (9, 'e')]:
        found, own = repeated[Draw(index, 99)]
        assert (found, own.seed) == (letter, 99)


def test_is_chosen_by_config_and_checks_its_arguments():
    sampler = DATA_SAMPLERS.build(dict(type='ReplacementSampler', dataset=range(4)))
    assert len(sampler) == 400
    assert sampler.seed >= 0
    for options, message in [
        (dict(samples_per_epoch=0), 'samples_per_epoch=0: must be 1 or more'),
        (dict(seed=-1), 'seed=-1: must be 0 or more'),
        (dict(dataset=[]), 'the data set is empty'),
    ]:
        with pytest.raises(ConfigError, match=message):
            ReplacementSampler(**{'dataset': range(4), **options})
