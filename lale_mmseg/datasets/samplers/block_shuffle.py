"""A sampler whose order keeps reads local."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import numpy as np
from mmengine.dataset import DefaultSampler
from mmseg.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class BlockShuffleSampler(DefaultSampler):
    """Shuffles blocks of neighbouring samples, then the samples of several blocks together.

    A parquet shard can only be read by row group, so a fully random order reads a whole group for each sample. In this
    order the samples of a group follow closely, so that the cache of `ParquetShards` holds it, while a batch still
    draws from `window` places of the dataset. Every sample occurs once per epoch, in a different order each epoch.

    Args:
        dataset: See `mmengine.dataset.DefaultSampler`.
        block: Samples per block, usually the rows of a row group; at least 1.
        window: Number of blocks whose samples are shuffled together; at least 1.
        seed: See `mmengine.dataset.DefaultSampler`.
        round_up: See `mmengine.dataset.DefaultSampler`.
    """

    def __init__(
        self, dataset: Sized, block: int = 100, window: int = 16, seed: int | None = None, round_up: bool = True
    ) -> None:
        super().__init__(dataset, shuffle=True, seed=seed, round_up=round_up)
        self.block = block
        self.window = window

    def __iter__(self) -> Iterator[int]:
        """Yields the indexes of this rank."""
        order = block_shuffle(len(self.dataset), self.block, self.window, self.seed + self.epoch)
        if self.round_up:
            order = np.resize(order, self.total_size)  # repeats from the start
        return iter(order[self.rank : self.total_size : self.world_size].tolist())


def block_shuffle(count: int, block: int, window: int, seed: int) -> np.ndarray:
    """Returns a permutation of 0 .. count - 1 as described in `BlockShuffleSampler`."""
    rng = np.random.default_rng(seed)
    starts = rng.permutation(np.arange(0, count, block))
    parts = []
    for first in range(0, len(starts), window):
        samples = [np.arange(start, min(start + block, count)) for start in starts[first : first + window]]
        parts.append(rng.permutation(np.concatenate(samples)))
    return np.concatenate(parts)
