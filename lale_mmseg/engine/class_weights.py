"""Class weights of losses from the pixel counts of the training set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.config import Config

from ..errors import ConfigError
from .config import built_lazily, leaf_datasets

#: What a config writes for `class_weight` to have it computed.
FROM_DATA = 'data'


def fill_class_weights(cfg: Config) -> None:
    """Replaces `class_weight='data'` in the losses of the model by the weights of the training set, in place.

    The numbers, not the word, are what the run and its checkpoints then hold.

    Raises:
        ConfigError: The training set does not know its counts, or is a mixture.
        DataError: Its counts cannot be read.
    """
    losses = list(_losses(cfg.model, 'model'))
    if not losses:
        return
    datasets = list(leaf_datasets(cfg, 'train'))
    path, dataset = datasets[0] if len(datasets) == 1 else ('train_dataloader.dataset', {})
    counts = getattr(built_lazily(dataset), 'class_pixels', None) if dataset else None
    if counts is None:
        found = dataset.get('type', f'{len(datasets)} datasets')
        raise ConfigError(
            f"{losses[0][0]}.class_weight is 'data', but {path} ({found}) has no counts of classes; use None for the "
            'weights of each batch, or a list of numbers'
        )
    weights = frequency_weights(counts())
    for _, loss in losses:
        loss['class_weight'] = weights


def drop_class_weights(cfg: Config) -> None:
    """Replaces `class_weight='data'` by None, in place: losses that only take part in training can then be built."""
    for _, loss in _losses(cfg.model, 'model'):
        loss['class_weight'] = None


def frequency_weights(pixels: Sequence[int] | np.ndarray) -> list[float]:
    """1 + (1 - frequency) of each class that occurs, 1 for the others: rare classes weigh up to twice as much.

    Args:
        pixels: (C,) number of pixels of each class.

    Raises:
        ConfigError: No class has a pixel.
    """
    counts = np.asarray(pixels, np.int64)
    total = int(counts.sum())
    if total == 0:
        raise ConfigError('class weights: no pixel of any class is counted')
    return [float(round(2 - count / total, 6)) if count else 1.0 for count in counts.tolist()]


def _losses(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    """(path, config) of every part of the model with `class_weight='data'`."""
    if isinstance(node, Mapping):
        if node.get('class_weight') == FROM_DATA:
            yield where, node
        for name, value in node.items():
            yield from _losses(value, f'{where}.{name}')
    elif isinstance(node, (list, tuple)):
        for position, value in enumerate(node):
            yield from _losses(value, f'{where}.{position}')
