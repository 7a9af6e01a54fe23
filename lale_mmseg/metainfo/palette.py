"""Class tables, and the exact conversion between RGB masks and class indexes.

A mask is decoded through a table of 2**24 entries, so the cost does not grow with the number of classes, and colours
that belong to no class are found in the same pass instead of becoming class 0.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import lru_cache
from os import PathLike
from typing import Literal

import cv2
import numpy as np

from ..errors import DataError

#: Label of pixels that are ignored in training and evaluation.
IGNORE_INDEX = 255
#: Largest number of classes that 8-bit labels can hold beside IGNORE_INDEX and the "unknown" entry of the table.
MAX_CLASSES = 254

_UNKNOWN = 254
_CSV_FIELDS = ('index', 'name', 'r', 'g', 'b')

Color = tuple[int, int, int]


def pack_rgb(rgb: np.ndarray) -> np.ndarray:
    """Packs colours into integers r + 256 g + 65536 b.

    Args:
        rgb: (H, W, 3) uint8 array in RGB order.

    Returns:
        (H, W) int32 array.
    """
    # With a fourth byte each colour is one machine word; OpenCV adds it in one pass, then it is masked off.
    packed = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2RGBA).view('<i4')[..., 0]
    packed &= 0xFFFFFF
    return packed


def unpack_color(value: int) -> Color:
    """Returns the (r, g, b) of an integer made by `pack_rgb`."""
    return int(value) & 255, (int(value) >> 8) & 255, (int(value) >> 16) & 255


@lru_cache(maxsize=8)
def _lookup_table(colors: tuple[Color, ...], ignore_colors: tuple[Color, ...]) -> np.ndarray:
    table = np.full(1 << 24, _UNKNOWN, np.uint8)
    for red, green, blue in ignore_colors:
        table[red | green << 8 | blue << 16] = IGNORE_INDEX
    for index, (red, green, blue) in enumerate(colors):
        table[red | green << 8 | blue << 16] = index
    return table


class Palette:
    """Class names and colours of a dataset, in index order.

    Args:
        classes: Name of each class.
        colors: (r, g, b) of each class, 0 to 255, all different.
        ignore_colors: Colours of pixels that belong to no class by convention (for example black for "no data"); they
            become the ignore label without an error.

    Raises:
        DataError: Two classes share a colour or a name, a colour is out of range, or there are too many classes.
    """

    def __init__(
        self, classes: Sequence[str], colors: Sequence[Sequence[int]], ignore_colors: Sequence[Sequence[int]] = ()
    ) -> None:
        self.classes = tuple(classes)
        self.colors: tuple[Color, ...] = tuple(_as_color(color) for color in colors)
        self.ignore_colors: tuple[Color, ...] = tuple(_as_color(color) for color in ignore_colors)
        if len(self.classes) != len(self.colors):
            raise DataError(f'{len(self.classes)} class names but {len(self.colors)} colours')
        if not 1 <= len(self.classes) <= MAX_CLASSES:
            raise DataError(f'{len(self.classes)} classes; 8-bit labels hold from 1 to {MAX_CLASSES}')
        _require_unique(self.classes, self.classes, 'name')
        names = self.classes + ('(ignored)',) * len(self.ignore_colors)
        _require_unique(self.colors + self.ignore_colors, names, 'colour')

    @classmethod
    def from_csv(cls, path: str | PathLike[str], ignore_colors: Sequence[Sequence[int]] = ()) -> Palette:
        """Reads `classes.csv`: a header `index,name,r,g,b`, then one row per class with indexes 0, 1, 2, ... in order.

        Raises:
            DataError: The file is missing or malformed, rows are out of order, or two classes share a colour or name.
        """
        classes, colors = [], []
        for position, row in enumerate(_read_csv(path)):
            try:
                index, *color = (int(row[field]) for field in ('index', 'r', 'g', 'b'))
            except (TypeError, ValueError):
                found = list(row.values())
                raise DataError(f'{path}: index, r, g and b must be whole numbers, found {found}') from None
            if index != position:
                raise DataError(f'{path}: index {index}, expected {position}; rows must be in order 0, 1, 2, ...')
            classes.append(row['name'].strip())
            colors.append(color)
        try:
            return cls(classes, colors, ignore_colors)
        except DataError as error:
            raise DataError(f'{path}: {error}') from None

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def metainfo(self) -> dict:
        """`classes` and `palette` in the form that mmsegmentation's datasets use."""
        return dict(classes=self.classes, palette=[list(color) for color in self.colors])

    def decode(
        self, rgb: np.ndarray, unknown: Literal['error', 'ignore'] = 'error', source: str = 'mask'
    ) -> np.ndarray:
        """Converts an RGB mask to class indexes.

        Args:
            rgb: (H, W, 3) uint8 array in RGB order.
            unknown: How to treat a colour outside the palette: 'error', or 'ignore' to map it to IGNORE_INDEX.
            source: Name of the mask, for error messages.

        Returns:
            (H, W) uint8 array of class indexes and IGNORE_INDEX.

        Raises:
            DataError: The mask is not (H, W, 3) uint8, or has an unknown colour (the message gives its first pixel).
        """
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
            raise DataError(
                f'{source}: expected an 8-bit RGB mask, found shape {rgb.shape}, type {rgb.dtype}; for masks of class '
                'indexes see docs/add_a_dataset.md'
            )
        if unknown not in ('error', 'ignore'):
            raise DataError(f"unknown={unknown!r}: must be 'error' or 'ignore'")
        table = _lookup_table(self.colors, self.ignore_colors)
        packed = pack_rgb(rgb)
        labels = table.take(packed, mode='clip')
        is_unknown = labels == _UNKNOWN
        if is_unknown.any():
            if unknown == 'error':
                raise DataError(self._unknown_message(packed, is_unknown, source))
            labels[is_unknown] = IGNORE_INDEX
        return labels

    def encode(self, labels: np.ndarray, ignore_color: Color = (0, 0, 0)) -> np.ndarray:
        """Converts (H, W) class indexes to an (H, W, 3) uint8 RGB mask; any other label becomes `ignore_color`."""
        table = np.empty((256, 3), np.uint8)
        table[:] = ignore_color
        table[: self.num_classes] = self.colors
        return table[np.asarray(labels, np.uint8)]

    def _unknown_message(self, packed: np.ndarray, is_unknown: np.ndarray, source: str) -> str:
        row, column = np.unravel_index(int(is_unknown.argmax()), is_unknown.shape)
        color = unpack_color(packed[row, column])
        known = ', '.join(f'{name} {color}' for name, color in zip(self.classes, self.colors, strict=True))
        return (
            f'{source}: colour {color} at row {row}, column {column} is not in the palette '
            f'({int(is_unknown.sum())} such pixels); known: {known}. To ignore such pixels, set '
            "unknown='ignore' in the dataset's config (verify.py: --unknown ignore)"
        )


def _as_color(color: Sequence[int]) -> Color:
    if len(color) != 3 or any(not 0 <= int(value) <= 255 for value in color):
        raise DataError(f'colour {tuple(color)}: expected three values from 0 to 255')
    red, green, blue = (int(value) for value in color)
    return red, green, blue


def _require_unique(values: Sequence, names: Sequence[str], what: str) -> None:
    for second, value in enumerate(values):
        first = values.index(value)
        if first < second:
            raise DataError(
                f'class {first} ({names[first]!r}) and class {second} ({names[second]!r}) have the same {what} {value}'
            )


def _read_csv(path: str | PathLike[str]) -> list[dict[str, str]]:
    header = ','.join(_CSV_FIELDS)
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the header.
        with open(path, newline='', encoding='utf-8-sig') as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            rows = list(reader)
    except FileNotFoundError:
        raise DataError(f'{path} is missing; expected a table of classes with the header {header}') from None
    except UnicodeDecodeError as error:
        raise DataError(f'{path}: not a UTF-8 text file ({error})') from None
    if not set(_CSV_FIELDS) <= set(reader.fieldnames):
        raise DataError(f'{path}: the header is {reader.fieldnames}, expected {header}')
    return rows
