"""Reading images and RGB masks from files or from bytes, with errors that name the file."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import rasterio
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rasterio.io import MemoryFile

from ..errors import DataError
from ..metainfo import IGNORE_INDEX

_TIFF_SUFFIXES = ('.tif', '.tiff')
_TIFF_MAGIC = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')


def read_bytes(path: str | Path) -> bytes:
    """Content of a file.

    Raises:
        DataError: It is missing, empty or cannot be read.
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
        source: Its name, for errors.
        bands: Numbers of the bands to take, counting from 1, in the order wanted. Without it, a PNG, JPEG, WebP or BMP
            comes as three bands in BGR order, as mmsegmentation's transforms expect (grey is repeated, opacity left
            out), a TIFF of three 8-bit bands, too, and any other TIFF with all its bands in the file's order.

    Returns:
        (H, W, bands) array, uint8 as it is and any other type as float32.

    Raises:
        DataError: Not an image, a band that it does not have, values that are not finite, or a PNG of 16 bits without
            `bands`.
    """
    if content[:4] in _TIFF_MAGIC:
        return _decode_tiff(content, source, bands)
    image = _decode(content, source)
    image = image[..., None] if image.ndim == 2 else image
    if bands is None:
        if image.dtype != np.uint8:
            raise DataError(
                f'{source}: {image.shape[2]} band(s) of {image.dtype}; only 8-bit images have a display form. Name the '
                'bands to load their values: LoadBands with bands=[1, ...]'
            )
        return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else np.ascontiguousarray(image[..., :3])
    if image.shape[2] >= 3:
        image[..., :3] = image[..., 2::-1].copy()  # the file's order
    return _as_trainable(image[..., _band_indexes(bands, image.shape[2], source)], source)


def decode_rgb_mask(content: bytes, source: str) -> np.ndarray:
    """Decodes a mask of class colours.

    Returns:
        (H, W, 3) uint8 array in RGB order.

    Raises:
        DataError: Not an image, 16 bits, or one band (class indexes instead of colours).
    """
    if content[:4] in _TIFF_MAGIC:
        mask = _decode_tiff(content, source, None)
        mask = mask[..., ::-1] if mask.shape[2] == 3 else mask[..., :3] if mask.shape[2] == 4 else mask
    else:
        raw = _decode(content, source)
        mask = raw[..., None] if raw.ndim == 2 else raw[..., 2::-1]
    if mask.dtype != np.uint8 or mask.shape[2] != 3:
        raise DataError(
            f'{source}: an RGB mask of 8 bits a channel is due, found {mask.shape[2]} channel(s) of {mask.dtype}; '
            "for masks of class indexes use mmsegmentation's own datasets"
        )
    return np.ascontiguousarray(mask)


def decode_label_image(content: bytes, source: str) -> np.ndarray:
    """Decodes a mask of class indexes or of class colours.

    Returns:
        (H, W) uint8 array of indexes, or (H, W, 3) uint8 array of colours in RGB order. PNGs with a colour table are
        read as the colours that they show.

    Raises:
        DataError: Not an image, 16 bits, or two channels.
    """
    if content[:4] in _TIFF_MAGIC:
        mask = _decode_tiff(content, source, None)
        mask = mask[..., ::-1] if mask.shape[2] == 3 else mask
    else:
        raw = _decode(content, source)
        mask = raw[..., None] if raw.ndim == 2 else raw[..., [2, 1, 0, *range(3, raw.shape[2])]]
    if mask.dtype != np.uint8 or mask.shape[2] not in (1, 3, 4):
        raise DataError(
            f'{source}: a mask of 8 bits is due, of class indexes (one channel) or class colours (RGB), found '
            f'{mask.shape[2]} channel(s) of {mask.dtype}'
        )
    return mask[..., 0] if mask.shape[2] == 1 else np.ascontiguousarray(mask[..., :3])


def checked_indexes(values: np.ndarray, classes: Sequence[str], from_one: bool, source: str) -> np.ndarray:
    """Class indexes counted from 0, each of them checked.

    Args:
        values: (H, W) uint8 array as stored.
        classes: Names of the classes.
        from_one: Whether stored indexes count from 1 and 0 means ignored.
        source: Name of the mask, for errors.

    Returns:
        (H, W) uint8 array of class indexes and 255 for ignored pixels.

    Raises:
        DataError: A value is neither a class nor ignored; names the first such pixel.
    """
    first = 1 if from_one else 0
    counts = np.bincount(values.ravel(), minlength=256)
    counts[first : first + len(classes)] = 0
    counts[IGNORE_INDEX] = 0
    counts[:first] = 0
    if counts.any():
        stranger = int(counts.argmax())
        row, column = np.argwhere(values == stranger)[0]
        ignored = f'0 and {IGNORE_INDEX} are' if from_one else f'{IGNORE_INDEX} is'
        raise DataError(
            f'{source}: label {stranger} at row {row}, column {column} is not a class ({int(counts.sum())} pixels with '
            f'such labels); classes are {first} to {first + len(classes) - 1}, {ignored} ignored'
        )
    if not from_one:
        return values
    # 0 wraps around to 255, which is the ignore index; 255 stays.
    return np.where(values == IGNORE_INDEX, values, values - np.uint8(1))


def read_size(path: str | Path) -> tuple[int, int]:
    """(height, width) from the header of an image file, without decoding it.

    Raises:
        DataError: It is missing, empty or not an image.
    """
    if not Path(path).is_file() or Path(path).stat().st_size == 0:
        read_bytes(path)
    try:
        if Path(path).suffix.lower() not in _TIFF_SUFFIXES:
            try:
                with Image.open(path) as image:
                    return image.height, image.width
            except Image.DecompressionBombError:
                pass  # Pillow refuses scenes, which are no attack here; GDAL reads their headers below
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                return dataset.height, dataset.width
    except (OSError, RasterioIOError) as error:
        raise DataError(f'{path}: not a readable image ({error})') from None


def _decode(content: bytes, source: str) -> np.ndarray:
    """(H, W) or (H, W, bands) array of a PNG, JPEG, WebP or BMP file, colours as BGR or BGRA."""
    # The orientation tag would turn the image but not its mask.
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        raise DataError(f'{source}: cannot be decoded ({error.err or error}); GeoTIFF has no such limits') from None
    if image is None:
        raise DataError(f'{source}: not a readable image (truncated, or not an image at all)')
    return image


def _decode_tiff(content: bytes, source: str, bands: Sequence[int] | None) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', NotGeoreferencedWarning)
            with MemoryFile(content) as file, file.open() as dataset:
                if bands is not None:
                    _band_indexes(bands, dataset.count, source)
                image = dataset.read(list(bands) if bands is not None else None).transpose(1, 2, 0)
    except RasterioIOError as error:
        raise DataError(f'{source}: not a readable TIFF ({error})') from None
    if bands is None and image.shape[2] == 3 and image.dtype == np.uint8:
        image = image[..., ::-1]
    return _as_trainable(image, source)


def _band_indexes(bands: Sequence[int], count: int, source: str) -> list[int]:
    outside = [band for band in bands if not 1 <= band <= count]
    if outside:
        raise DataError(f'{source}: bands {outside} asked for, but it has bands 1 to {count}')
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
            'replace no-data values by a number'
        )
    return image
