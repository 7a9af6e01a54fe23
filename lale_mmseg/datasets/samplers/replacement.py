"""Sampling with replacement, with a random seed for each draw."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from mmseg.registry import DATA_SAMPLERS
from torch.utils.data import Sampler


class Draw(int):
    """Sample index that carries the seed for the augmentation of this draw.

    Dataset wrappers compute the index within a dataset by subtraction (ConcatDataset) or modulo (RepeatDataset); both
    keep the seed.
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
    """Draws a fixed number of samples per epoch, uniformly with replacement, whatever the size of the dataset.

    Draw n of epoch e depends only on the seed, e and n: its index and its own seed are the same after a resume, and
    for any number of workers and ranks (ranks take turns). This requires `set_epoch`, which mmengine calls. The
    transform `SeedDraw` seeds the augmentation from the draw.

    Args:
        dataset: Dataset to draw from.
        samples_per_epoch: Number of draws of all ranks together, rounded up to a multiple of the number of ranks.
        seed: Seed of all draws, equal on all ranks; mmengine passes that of the run. Without one, a seed is drawn and
            shared among the ranks; a resumed run then draws different samples.
    """

    def __init__(self, dataset: Sized, samples_per_epoch: int = 400, seed: int | None = None) -> None:
        self.rank, self.world_size = get_dist_info()
        self.dataset = dataset
        self.samples_per_epoch = samples_per_epoch
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0

    def __iter__(self) -> Iterator[Draw]:
        """Yields the draws of this rank in the current epoch."""
        # Two generators, so that a longer epoch begins with the draws of a shorter one.
        index_rng, seed_rng = map(np.random.default_rng, np.random.SeedSequence((self.seed, self.epoch)).spawn(2))
        total = len(self) * self.world_size
        indexes = index_rng.integers(len(self.dataset), size=total)[self.rank :: self.world_size]
        seeds = seed_rng.integers(2**32, size=total)[self.rank :: self.world_size]
        return iter([Draw(index, seed) for index, seed in zip(indexes.tolist(), seeds.tolist(), strict=True)])

    def __len__(self) -> int:
        """Returns the number of draws of this rank per epoch."""
        return math.ceil(self.samples_per_epoch / self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch whose draws the next iteration yields, counted from 0."""
        self.epoch = epoch
