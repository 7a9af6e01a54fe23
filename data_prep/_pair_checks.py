"""Everything that can be wrong with one image and its mask, found by decoding both."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import rasterio
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from data_prep._images import count_classes, count_values
from lale_mmseg.errors import DataError
from lale_mmseg.metainfo import IGNORE_INDEX, Palette
from lale_mmseg.metainfo.inria import LABEL_VALUES

_TIFF_SUFFIXES = ('.tif', '.tiff')
_PNG_MAGIC = b'\x89PNG\r\n\x1a\n'
_PNG_DEPTH_AT = 24


@dataclass(frozen=True)
class Item:
    """A pair to check; `image` or `mask` is None where the file is missing, `size` (height, width) if any is fine."""

    split: str
    stem: str
    image: Path | None
    mask: Path | None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: a short kind, the split, the file, and what was found and is due."""

    kind: str
    split: str
    file: str
    message: str


@dataclass(frozen=True)
class Expected:
    """What images and masks must be.

    Attributes:
        palette: Classes and their colours.
        unknown: What unknown colours mean.
        bands: Bands of the images.
        dtype: Data type of the images.
        masks: Masks hold 'rgb' colours, 'index' class indexes of 8 bits, with 255 for the colours that `palette`
            ignores, or 'binary' values 0 and 255 of two classes.
    """

    palette: Palette
    unknown: Literal['error', 'ignore'] = 'error'
    bands: int = 3
    dtype: str = 'uint8'
    masks: Literal['rgb', 'index', 'binary'] = 'rgb'


@dataclass
class PairReport:
    """What was found in a pair: its faults, pixels of each class, and a digest of the image's pixels."""

    item: Item
    pixels: np.ndarray
    ignored: int = 0
    digest: bytes | None = None
    faults: list[Fault] = field(default_factory=list)

    def add(self, kind: str, path: Path, message: str) -> None:
        """Notes a fault."""
        self.faults.append(Fault(kind, self.item.split, str(path), message))


class _Unusable(Exception):
    """A file that cannot be decoded: kind of the fault and message."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def check_pair(job: tuple[Item, Expected]) -> PairReport:
    """Decodes an image and its mask and reports all that is wrong with them; raises nothing about their content."""
    item, expected = job
    report = PairReport(item, np.zeros(expected.palette.num_classes, np.int64))
    sizes = []
    for path, check in ((item.image, _check_image), (item.mask, _check_mask)):
        if path is not None:
            try:
                size = check(path, expected, report)
                sizes.append(size)
                if item.size not in (None, size):
                    due = 'x'.join(map(str, item.size or ()))
                    report.add('size', path, f'{size[0]}x{size[1]} pixels (height x width), {due} are due')
            except _Unusable as error:
                report.add(error.kind, path, str(error))
    if item.size is None and len(sizes) == 2 and sizes[0] != sizes[1]:
        assert item.mask is not None
        report.add(
            'size',
            item.mask,
            f'the mask has {sizes[1][0]}x{sizes[1][1]} pixels (height x width), its image {sizes[0][0]}x{sizes[0][1]}',
        )
    return report


def _check_image(path: Path, expected: Expected, report: PairReport) -> tuple[int, int]:
    pixels = _decode(path)
    # Readers turn grey, palette and alpha images of the common 8-bit formats into three bands; not so GeoTIFFs.
    converted = path.suffix.lower() not in _TIFF_SUFFIXES and expected.bands == 3
    if pixels.shape[2] != expected.bands and not converted:
        report.add('bands', path, f'{pixels.shape[2]} bands, {expected.bands} are due (see --bands)')
    if pixels.dtype != np.dtype(expected.dtype):
        report.add('bit depth', path, f'values of type {pixels.dtype}, {expected.dtype} is due (see --dtype)')
    if pixels.dtype.kind == 'f' and not np.isfinite(pixels).all():
        row, column, _ = np.argwhere(~np.isfinite(pixels))[0]
        report.add('not finite', path, f'a value at row {row}, column {column} is not finite; write a number there')
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    report.digest = digest.digest()
    return pixels.shape[:2]


def _check_mask(path: Path, expected: Expected, report: PairReport) -> tuple[int, int]:
    pixels = _decode(path)
    height, width, bands = pixels.shape
    if pixels.dtype != np.uint8:
        report.add('bit depth', path, f'a mask of 8 bits a channel is due, found values of type {pixels.dtype}')
    elif expected.masks != 'rgb' and bands != 1:
        report.add('index mask', path, f'a mask of one band is due, found {bands} bands')
    elif expected.masks == 'index':
        _check_indexes(path, pixels, expected.palette, report)
    elif expected.masks == 'binary':
        _check_binary(path, pixels[..., 0], report)
    elif bands not in (3, 4):
        report.add(
            'index mask',
            path,
            f'a mask of class colours (RGB) is due, found {bands} band(s), values such as class indexes',
        )
    else:
        rgb = np.ascontiguousarray(pixels[..., :3])
        try:
            labels = expected.palette.decode(rgb, expected.unknown, source=path.name)
        except DataError as error:
            report.add('unknown colour', path, str(error))
            labels = expected.palette.decode(rgb, 'ignore')
        report.pixels = count_classes(labels, expected.palette.num_classes)
        report.ignored = int((labels == IGNORE_INDEX).sum())
    return height, width


def _check_indexes(path: Path, pixels: np.ndarray, palette: Palette, report: PairReport) -> None:
    labels = pixels[..., 0]
    counts = count_values(labels)
    strange = counts.copy()
    strange[: palette.num_classes] = 0
    if palette.ignore_colors:
        strange[IGNORE_INDEX] = 0
    if strange.any():
        value = int(strange.argmax())
        row, column = np.argwhere(labels == value)[0]
        known = f'0 to {palette.num_classes - 1}{f" or {IGNORE_INDEX}" if palette.ignore_colors else ""}'
        report.add(
            'unknown value',
            path,
            f'value {value} at row {row}, column {column} is no class ({int(counts[value]):,} such pixels; '
            f'{int(strange.sum()):,} with such values); {known} are due',
        )
    report.pixels = counts[: palette.num_classes]
    report.ignored = int(counts[IGNORE_INDEX])


def _check_binary(path: Path, labels: np.ndarray, report: PairReport) -> None:
    counts = count_values(labels)
    strange = counts.copy()
    strange[list(LABEL_VALUES)] = 0
    if strange.any():
        value = int(strange.argmax())
        row, column = np.argwhere(labels == value)[0]
        report.add(
            'unknown value',
            path,
            f'value {value} at row {row}, column {column} ({int(strange.sum()):,} pixels with such values); '
            f'{LABEL_VALUES[0]} and {LABEL_VALUES[1]} are due',
        )
    report.pixels = counts[list(LABEL_VALUES)]


def _decode(path: Path) -> np.ndarray:
    """(H, W, bands) array of a whole image file; raises _Unusable."""
    try:
        if path.stat().st_size == 0:
            raise _Unusable('empty file', 'has 0 bytes')
        return _decode_tiff(path) if path.suffix.lower() in _TIFF_SUFFIXES else _decode_common(path)
    except _Unusable:
        raise
    # Damaged files make Pillow's decoders raise many kinds of errors, SyntaxError and struct.error among them.
    except Exception as error:
        raise _Unusable('unreadable', f'cannot be decoded ({type(error).__name__}: {error})') from None


def _decode_common(path: Path) -> np.ndarray:
    with path.open('rb') as file:
        header = file.read(_PNG_DEPTH_AT + 1)
    with warnings.catch_warnings():
        # Whole orthophotos are larger than what Pillow takes for an attack.
        warnings.simplefilter('ignore', Image.DecompressionBombWarning)
        with Image.open(path) as image:
            image.load()
            if image.mode == 'P':
                pixels = np.asarray(image.convert('RGB'))
            else:
                pixels = np.asarray(image)
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    if header.startswith(_PNG_MAGIC) and header[_PNG_DEPTH_AT] == 16:
        # Pillow gives colour PNGs of 16 bits as 8 bits; only the kind of fault matters here.
        pixels = pixels.astype(np.uint16)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _decode_tiff(path: Path) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                return dataset.read().transpose(1, 2, 0)
    except RasterioError as error:
        raise _Unusable('unreadable', f'cannot be decoded ({error})') from None
