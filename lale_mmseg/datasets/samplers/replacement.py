"""Draws with replacement, each with a random seed of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from mmseg.registry import DATA_SAMPLERS
from torch.utils.data import Sampler

from ...errors import ConfigError


class Draw(int):
    """Index of a sample, and the seed of what happens at random to this draw of it.

    Wrappers of datasets reach their own by a difference (ConcatDataset) or a remainder (RepeatDataset): the seed goes
    along.
    """

    seed: int

    def __new__(cls, index: int, seed: int) -> Draw:
        draw = super().__new__(cls, index)
        draw.seed = seed
        return draw

    def __getnewargs__(self) -> tuple[int, int]:  # type: ignore[override]  # that of int has no seed
        return int(self), self.seed

    def __sub__(self, other: int) -> Draw:
        return Draw(int(self) - other, self.seed)

    def __mod__(self, other: int) -> Draw:
        return Draw(int(self) % other, self.seed)


@DATA_SAMPLERS.register_module()
class ReplacementSampler(Sampler):
    """Draws samples uniformly with replacement, so many an epoch, whatever the size of the data set.

    Draw number n of epoch e is a function of the seed, e and n alone: index and seed of the draw are the same after a
    resume, for any number of workers, and for any number of ranks, which take turns. For that, epochs must be told by
    `set_epoch`, as mmengine does. The transform `SeedDraw` makes the augmentation follow the seed of the draw.

    Args:
        dataset: What to draw from.
        samples_per_epoch: Draws of all ranks together, rounded up so that all ranks have equally many.
        seed: Seed of all draws, equal on all ranks. mmengine gives that of the run. Without any, one is drawn and
            shared among the ranks; a resumed run then draws others.

    Raises:
        ConfigError: `samples_per_epoch` is under 1, `seed` is negative, or the data set is empty.
    """

    def __init__(self, dataset: Sized, samples_per_epoch: int = 400, seed: int | None = None) -> None:
        if samples_per_epoch < 1:
            raise ConfigError(f'ReplacementSampler: samples_per_epoch={samples_per_epoch}: must be 1 or more')
        if seed is not None and seed < 0:
            raise ConfigError(f'ReplacementSampler: seed={seed}: must be 0 or more')
        if len(dataset) == 0:
            raise ConfigError('ReplacementSampler: the data set is empty, so that nothing can be drawn')
        self.rank, self.world_size = get_dist_info()
        self.dataset = dataset
        self.samples_per_epoch = samples_per_epoch
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0

    def __iter__(self) -> Iterator[Draw]:
        """Draws of this rank in the current epoch."""
        # Two generators: a longer epoch begins with the draws of a shorter one.
        children = np.random.SeedSequence((self.seed, self.epoch)).spawn(2)
        of_indexes, of_seeds = (np.random.default_rng(child) for child in children)
        total = len(self) * self.world_size
        indexes = of_indexes.integers(len(self.dataset), size=total)[self.rank :: self.world_size]
        seeds = of_seeds.integers(2**32, size=total)[self.rank :: self.world_size]
        return iter([Draw(index, seed) for index, seed in zip(indexes.tolist(), seeds.tolist(), strict=True)])

    def __len__(self) -> int:
        """Draws of this rank in an epoch."""
        return math.ceil(self.samples_per_epoch / self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose draws the next iteration yields, counting from 0."""
        self.epoch = epoch
