"""Whether a mask fits its image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import DataError
from .image_io import read_size


def check_mask_size(mask: str | Path, mask_size: Sequence[int], image: str | Path, image_size: Sequence[int]) -> None:
    """Raises DataError unless a mask has the size (height, width) of its image; names both files."""
    if tuple(mask_size) != tuple(image_size):
        raise DataError(
            f'{mask}: the mask has {mask_size[0]}x{mask_size[1]} pixels (height x width), its image {image} has '
            f'{image_size[0]}x{image_size[1]}'
        )


def compare_headers(pairs: Sequence[tuple[Path, Path]], checks: int) -> None:
    """Compares the sizes in the headers of images and masks.

    Args:
        pairs: Image and mask each.
        checks: How many of them, evenly spread, are compared.

    Raises:
        DataError: A file cannot be read, or a mask has another size than its image.
    """
    count = min(len(pairs), checks)
    for index in np.linspace(0, len(pairs) - 1, count).astype(int) if count else ():
        image, mask = pairs[index]
        image_size = read_size(image)
        check_mask_size(mask, read_size(mask), image, image_size)
