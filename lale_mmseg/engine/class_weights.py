"""Class weights of losses from pixel counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import DataError


def frequency_weights(pixels: Sequence[int] | np.ndarray) -> list[float]:
    """1 + (1 - frequency) for each class that occurs, 1 for the others: rare classes weigh up to twice as much.

    Args:
        pixels: (C,) number of pixels of each class.

    Raises:
        DataError: No class has a pixel.
    """
    counts = np.asarray(pixels, np.int64)
    total = int(counts.sum())
    if total == 0:
        raise DataError('class weights: the training set has no labelled pixel')
    return [float(round(2 - count / total, 6)) if count else 1.0 for count in counts.tolist()]
