"""Cutting tiles into windows, writing windows and whole tiles, and counting labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS

from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.files import atomic_path, save_png

#: Rows that are processed at a time where intermediate results are larger than the image.
ROWS = 256
#: Returns the uint8 pixels of some rows of a tile, (rows, W) or (rows, W, bands): those of an array or of a file.
Rows = Callable[[slice], np.ndarray]
_TIFF = dict(driver='GTiff', dtype='uint8', compress='deflate', predictor=2, interleave='pixel')


def starts(length: int, size: int, stride: int) -> list[int]:
    """First pixels of the windows along one side: every `stride`, and a last window that ends at the border.

    Args:
        length: Pixels of the side, at least `size`.
        size: Pixels of a window.
        stride: Step from one window to the next, at most `size`.
    """
    found = list(range(0, length - size + 1, stride))
    return found if found[-1] == length - size else [*found, length - size]


def check_stride(size: int, stride: int) -> None:
    """Raises ConfigError if windows would not cover the pixels between them."""
    if stride > size:
        raise ConfigError(f'--stride {stride} with --size {size}: expected at most {size}, or pixels would be skipped')


def windows(rows: Rows, shape: Sequence[int], stem: str, size: int, stride: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the name without suffix, `STEM_X0_Y0_X1_Y1`, and the pixels of each window, row by row.

    Args:
        rows: Pixels of the tile.
        shape: Height and width of the tile, maybe bands.
        stem: Name of the tile.
        size: Side of the windows.
        stride: Step from one window to the next.
    """
    for y in starts(shape[0], size, stride):
        strip = rows(slice(y, y + size))
        for x in starts(shape[1], size, stride):
            yield f'{stem}_{x}_{y}_{x + size}_{y + size}', strip[:, x : x + size]


def write_window(path: Path, pixels: np.ndarray) -> None:
    """Writes (H, W) or (H, W, bands) uint8 pixels as PNG, or four bands as GeoTIFF."""
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        write_tiff(path, pixels.__getitem__, pixels.shape)
    else:
        save_png(path, pixels)


def write_tiff(
    path: Path,
    rows: Rows,
    shape: Sequence[int],
    tiled: bool = False,
    crs: CRS | None = None,
    transform: Affine | None = None,
) -> None:
    """Writes pixels of a shape (H, W, bands) as lossless GeoTIFF, in rows or in blocks of 256x256 pixels."""
    height, width, bands = shape
    # Without `photometric` GDAL takes a fourth band, here near infrared, for opacity.
    profile = dict(_TIFF, count=bands, height=height, width=width, photometric='RGB', crs=crs, transform=transform)
    if tiled:
        profile |= dict(tiled=True, blockxsize=256, blockysize=256)
    with atomic_path(path) as temporary, rasterio.open(temporary, 'w', **profile) as target:
        for strip in strips(height):
            target.write(rows(strip).transpose(2, 0, 1), window=(strip, slice(0, width)))


def read_rows(raster: rasterio.DatasetReader, rows: slice) -> np.ndarray:
    """(rows, W, bands) pixels of a raster."""
    return raster.read(window=(rows, slice(0, raster.width))).transpose(1, 2, 0)


def read_pixels(raster: rasterio.DatasetReader) -> np.ndarray:
    """(H, W, bands) uint8 pixels of a raster."""
    pixels = np.empty((raster.height, raster.width, raster.count), np.uint8)
    # In strips, because GDAL has the bands first: transposing a whole tile would need its memory twice.
    for rows in strips(raster.height):
        pixels[rows] = read_rows(raster, rows)
    return pixels


def strips(height: int) -> Iterator[slice]:
    """Rows of an image, `ROWS` at a time."""
    for row in range(0, height, ROWS):
        yield slice(row, min(row + ROWS, height))


def decode_rgb(content: bytes, name: str) -> np.ndarray:
    """Decodes an image file into an (H, W, 3) uint8 array in RGB order.

    Raises:
        DataError: It is not a complete image of 8 bits and three bands.
    """
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    if pixels is None:
        raise DataError(f'{name}: not a readable image ({len(content)} bytes)')
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise DataError(f'{name}: expected RGB of 8 bits, found shape {pixels.shape}, type {pixels.dtype}')
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def count_values(labels: np.ndarray) -> np.ndarray:
    """(256,) int64 number of pixels of each value of (H, W) uint8 labels."""
    # In strips, because bincount converts each value to eight bytes.
    counts = (np.bincount(labels[rows].ravel(), minlength=256) for rows in strips(len(labels)))
    return sum(counts, np.zeros(256, int))
