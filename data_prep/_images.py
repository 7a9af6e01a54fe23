"""Image files: reading them whole or not at all, and counting labels."""

from __future__ import annotations

import cv2
import numpy as np

from lale_mmseg.errors import DataError

_ROWS = 256


def encode_png(rgb: np.ndarray) -> bytes:
    """PNG file of an (H, W, 3) uint8 RGB array."""
    done, data = cv2.imencode('.png', cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    if not done:
        raise DataError(f'an array of shape {rgb.shape} and type {rgb.dtype} cannot be written as PNG')
    return data.tobytes()


def decode_rgb(data: bytes, source: str) -> np.ndarray:
    """Decodes an image file of 8 bits.

    Args:
        data: Content of the file.
        source: Its name for error messages.

    Returns:
        (H, W, 3) uint8 array in RGB order.

    Raises:
        DataError: The content is not a whole image of 8 bits and three bands.
    """
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if pixels is None:
        raise DataError(f'{source}: not a readable image ({len(data)} bytes)')
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise DataError(f'{source}: RGB of 8 bits is due, found shape {pixels.shape}, type {pixels.dtype}')
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def count_classes(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """(num_classes,) int64 number of pixels of each class; other labels are not counted."""
    return count_values(labels)[:num_classes]


def count_values(labels: np.ndarray) -> np.ndarray:
    """(256,) int64 number of pixels of each value of (H, W) uint8 labels."""
    # A few rows at a time: bincount makes eight bytes of every value.
    strips = range(0, len(labels), _ROWS)
    return sum((np.bincount(labels[row : row + _ROWS].ravel(), minlength=256) for row in strips), np.zeros(256, int))
