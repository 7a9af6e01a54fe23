"""Reads images and masks from files or bytes; every error names the file."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ..errors import DataError

_TIFF_SUFFIXES = ('.tif', '.tiff')
_TIFF_MAGIC = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')


def read_bytes(path: str | Path) -> bytes:
    """Returns the content of a file.

    Raises:
        DataError: The file is missing, empty or cannot be read.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f'{path}: cannot be read ({error.strerror})') from None
    if not content:
        raise DataError(f'{path}: the file is empty (0 bytes)')
    return content


def decode_image(content: bytes, source: str, bands: Sequence[int] | None = None) -> np.ndarray:
    """Decodes an image.

    Args:
        content: Bytes of a PNG, JPEG, WebP, BMP or (Geo)TIFF file.
        source: Name of the file, for error messages.
        bands: Bands to return, counted from 1, in this order. By default PNG, JPEG, WebP and BMP files, and TIFF files
            with three bands, are returned as three bands in BGR order, as mmsegmentation's transforms expect
            (grey is repeated, alpha is dropped); any other TIFF is returned with all bands in file order.

    Returns:
        (H, W, bands) array: uint8 if the file is 8-bit, float32 otherwise.

    Raises:
        DataError: The content is not an image, lacks a requested band, has values that are not finite, or is a 16-bit
            PNG read without `bands`.
    """
    if content[:4] in _TIFF_MAGIC:
        return _decode_tiff(content, source, bands)
    image = _decode(content, source)
    if bands is None:
        if image.dtype != np.uint8:
            raise DataError(
                f'{source}: {image.shape[2]} band(s) of {image.dtype}, expected an 8-bit image. To read 16-bit values, '
                'list the bands: LoadBands with bands=[1, ...]'
            )
        return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else np.ascontiguousarray(image[..., :3])
    image = _to_rgb(image)  # bands are numbered in file order, OpenCV returns BGR
    return _as_trainable(image[..., _band_indexes(bands, image.shape[2], source)], source)


def decode_label_image(content: bytes, source: str) -> np.ndarray:
    """Decodes a mask of class indexes or of class colours.

    Returns:
        (H, W) uint8 array of indexes, or (H, W, 3) uint8 array of RGB colours. PNG files with a colour table are
        returned as colours.

    Raises:
        DataError: The content is not an image, has 16 bits per channel, or has two channels.
    """
    if content[:4] in _TIFF_MAGIC:
        mask = _decode_tiff(content, source, None)
        mask = mask if mask.shape[2] == 4 else _to_rgb(mask)  # a TIFF of four bands is in file order already
    else:
        mask = _to_rgb(_decode(content, source))
    if mask.dtype != np.uint8 or mask.shape[2] not in (1, 3, 4):
        kind = 'more than 8 bits' if mask.dtype == np.float32 else mask.dtype  # any other TIFF was converted
        raise DataError(
            f'{source}: expected an 8-bit mask of class indexes (one channel) or class colours (RGB), found '
            f'{mask.shape[2]} channel(s) of {kind}'
        )
    return mask[..., 0] if mask.shape[2] == 1 else np.ascontiguousarray(mask[..., :3])


def check_mask_size(mask: str | Path, mask_size: Sequence[int], image: str | Path, image_size: Sequence[int]) -> None:
    """Raises DataError unless a mask and its image have the same (height, width)."""
    if tuple(mask_size) != tuple(image_size):
        raise DataError(
            f'{mask}: the mask has {mask_size[0]}x{mask_size[1]} pixels (height x width), its image {image} has '
            f'{image_size[0]}x{image_size[1]}'
        )


def compare_headers(pairs: Sequence[tuple[Path, Path]], checks: int) -> None:
    """Compares image and mask sizes from the file headers, so that faults show before training starts.

    Args:
        pairs: (image, mask) paths.
        checks: Number of pairs to compare, evenly spaced.

    Raises:
        DataError: A file cannot be read, or a mask and its image differ in size.
    """
    for index in np.linspace(0, len(pairs) - 1, min(len(pairs), checks)).astype(int):
        image, mask = pairs[index]
        image_size = read_size(image)
        check_mask_size(mask, read_size(mask), image, image_size)


def read_size(path: str | Path) -> tuple[int, int]:
    """Returns (height, width) from the header of an image file, without decoding it.

    Raises:
        DataError: The file is missing, empty or not an image.
    """
    if not Path(path).is_file() or Path(path).stat().st_size == 0:
        read_bytes(path)  # raises the error that names the cause
    try:
        if Path(path).suffix.lower() not in _TIFF_SUFFIXES:
            try:
                with Image.open(path) as image:
                    return image.height, image.width
            except Image.DecompressionBombError:
                pass  # Pillow refuses large scenes as possible attacks; GDAL reads their headers
        with _raster(path) as dataset:
            return dataset.height, dataset.width
    except OSError as error:
        raise DataError(f'{path}: not a readable image ({error})') from None


def _decode(content: bytes, source: str) -> np.ndarray:
    """(H, W, bands) array of a PNG, JPEG, WebP or BMP file, colours as BGR or BGRA."""
    # The orientation tag would turn the image but not its mask.
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        # OpenCV limits the number of pixels.
        raise DataError(
            f'{source}: cannot be decoded ({error.err or error}); try GeoTIFF, which has no limit'
        ) from None
    if image is None:
        raise DataError(f'{source}: not a readable image (truncated, or not an image at all)')
    return image[..., None] if image.ndim == 2 else image


def _decode_tiff(content: bytes, source: str, bands: Sequence[int] | None) -> np.ndarray:
    try:
        with _raster(content) as dataset:
            if bands is not None:
                _band_indexes(bands, dataset.count, source)
            image = dataset.read(None if bands is None else list(bands)).transpose(1, 2, 0)
    except OSError as error:
        raise DataError(f'{source}: not a readable TIFF ({error})') from None
    if bands is None and image.shape[2] == 3:
        image = image[..., ::-1]
    return _as_trainable(image, source)


@contextmanager
def _raster(source: bytes | str | Path) -> Iterator[Any]:
    """Opens a raster from its file or bytes; rasterio is imported here, so that other images can do without it."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        if isinstance(source, bytes):
            with rasterio.MemoryFile(source) as file, file.open() as dataset:
                yield dataset
        else:
            with rasterio.open(source) as dataset:
                yield dataset


def _to_rgb(image: np.ndarray) -> np.ndarray:
    """Reverses the first three of three or more bands: BGR(A) to RGB(A)."""
    return image[..., [2, 1, 0, *range(3, image.shape[2])]] if image.shape[2] >= 3 else image


def _band_indexes(bands: Sequence[int], count: int, source: str) -> list[int]:
    outside = [band for band in bands if not 1 <= band <= count]
    if outside:
        raise DataError(f'{source}: bands {outside} requested, but the file has bands 1 to {count}')
    return [band - 1 for band in bands]


def _as_trainable(image: np.ndarray, source: str) -> np.ndarray:
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    image = np.ascontiguousarray(image, np.float32)
    finite = np.isfinite(image)
    if not finite.all():
        row, column, band = np.unravel_index(int(finite.argmin()), image.shape)
        raise DataError(
            f'{source}: value {image[row, column, band]} in band {band + 1} at row {row}, column {column}; '
            'replace no-data values with a number'
        )
    return image
