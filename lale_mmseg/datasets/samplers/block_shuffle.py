"""An order of samples that keeps reading local."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import numpy as np
from mmengine.dataset import DefaultSampler
from mmseg.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class BlockShuffleSampler(DefaultSampler):
    """Shuffles blocks of neighbouring samples, then the samples of several blocks together.

    A parquet shard can be read by row group only, so a fully random order reads a whole group for each sample. In
    this order each group is asked for in one stretch, which the cache of `ParquetShards` covers, while a batch still
    draws from `window` places of the data set. Every sample comes once an epoch, in another order each epoch.

    Args:
        dataset: As of `DefaultSampler`.
        block: Samples of a block; the rows of a row group.
        window: Blocks whose samples are shuffled together.
        seed: As of `DefaultSampler`.
        round_up: As of `DefaultSampler`.

    Raises:
        ValueError: `block` or `window` is below 1.
    """

    def __init__(
        self, dataset: Sized, block: int = 100, window: int = 16, seed: int | None = None, round_up: bool = True
    ) -> None:
        if block < 1 or window < 1:
            raise ValueError(f'block={block}, window={window}: both must be 1 or more')
        super().__init__(dataset, shuffle=True, seed=seed, round_up=round_up)
        self.block = block
        self.window = window

    def __iter__(self) -> Iterator[int]:
        """Indexes of this rank."""
        order = block_shuffle(len(self.dataset), self.block, self.window, self.seed + self.epoch)
        if self.round_up:
            order = np.resize(order, self.total_size)  # repeats from the start
        return iter(order[self.rank : self.total_size : self.world_size].tolist())


def block_shuffle(count: int, block: int, window: int, seed: int) -> np.ndarray:
    """A permutation of 0 .. count - 1, by the rule of `BlockShuffleSampler`."""
    rng = np.random.default_rng(seed)
    starts = rng.permutation(np.arange(0, count, block))
    parts = []
    for first in range(0, len(starts), window):
        samples = [np.arange(start, min(start + block, count)) for start in starts[first : first + window]]
        parts.append(rng.permutation(np.concatenate(samples)))
    return np.concatenate(parts)
