"""Class tables, and the exact conversion between masks of colours or stored values and class indexes.

An RGB mask is decoded through a table of 2**24 entries, so the cost does not grow with the number of classes, and
colours that belong to no class are found in the same pass instead of becoming class 0.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from copy import copy
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
_INDEX_FIELDS = _CSV_FIELDS[:2]

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


def decode_values(
    mask: np.ndarray,
    labels: Mapping[int, int],
    classes: Sequence[str],
    unknown: Literal['error', 'ignore'] = 'error',
    source: str = 'mask',
) -> np.ndarray:
    """Converts a mask of one band to class indexes.

    Args:
        mask: (H, W) uint8 array as stored.
        labels: Class index of each stored value, or IGNORE_INDEX.
        classes: Class names, for error messages.
        unknown: How to treat a value that `labels` lacks: 'error', or 'ignore' to map it to IGNORE_INDEX.
        source: Name of the mask, for error messages.

    Returns:
        (H, W) uint8 array of class indexes and IGNORE_INDEX.

    Raises:
        DataError: The mask has an unknown value; the message gives its first pixel.
    """
    table = np.full(256, _UNKNOWN, np.uint8)
    table[list(labels)] = list(labels.values())
    decoded = cv2.LUT(mask, table)
    is_unknown = decoded == _UNKNOWN
    if is_unknown.any():
        if unknown == 'error':
            row, column = np.unravel_index(int(is_unknown.argmax()), is_unknown.shape)
            known = ', '.join(
                f'{"ignored" if label == IGNORE_INDEX else classes[label]} {value}'
                for value, label in sorted(labels.items())
            )
            raise DataError(
                f'{source}: value {mask[row, column]} at row {row}, column {column} is not a class '
                f'({int(is_unknown.sum())} such pixels); known: {known}'
            )
        decoded[is_unknown] = IGNORE_INDEX
    return decoded


def class_color(index: int) -> Color:
    """Colour of a class that has none of its own: those of PASCAL VOC, which differ for all 256 indexes."""
    red, green, blue = (
        sum((index >> 3 * bit + channel & 1) << 7 - bit for bit in range(3 - channel // 2)) for channel in range(3)
    )
    return red, green, blue


class Palette:
    """Class names of a dataset in index order, and how masks store them: as colours, as values of one band, or either.

    Args:
        classes: Name of each class.
        colors: (r, g, b) of each class, 0 to 255, all different.
        ignore_colors: Colours of pixels that belong to no class by convention (for example black for "no data"); they
            become the ignore label without an error.
        values: Value of each class in masks of one band, 0 to 255; None if masks of one band are an error.
        ignore_values: Values of ignored pixels in masks of one band.
        rgb: Whether masks may be RGB; otherwise they are an error, and `colors` are for pictures.

    Raises:
        DataError: Two classes share a colour or a name, a colour is out of range, or there are too many classes.
    """

    def __init__(
        self,
        classes: Sequence[str],
        colors: Sequence[Sequence[int]],
        ignore_colors: Sequence[Sequence[int]] = (),
        values: Sequence[int] | None = None,
        ignore_values: Sequence[int] = (),
        rgb: bool = True,
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
        self.values = None if values is None else tuple(values)
        self.ignore_values = tuple(ignore_values)
        self.rgb = rgb

    @classmethod
    def from_csv(cls, path: str | PathLike[str], ignore_colors: Sequence[Sequence[int]] = ()) -> Palette:
        """Reads `classes.csv`: a header `index,name,r,g,b`, then one row per class in ascending order of `index`.

        The index is the value of the class in masks of one band. With the header `index,name` masks have one band only,
        and classes are shown in the colours of PASCAL VOC. In masks of one band, grey `ignore_colors` are ignored
        values, and 255 is ignored, too, unless it is a class. With the two classes 0 and 1 it is an error,
        because masks of buildings often have 255 for a class.

        Raises:
            DataError: The file is missing or malformed, rows are out of order, or two classes share a colour or name.
        """
        classes: list[str] = []
        colors: list[Sequence[int]] = []
        values: list[int] = []
        rows, fields = _read_csv(path)
        for position, row in enumerate(rows):
            try:
                index, *color = (int(row[field]) for field in fields if field != 'name')
            except (TypeError, ValueError):
                found = list(row.values())
                raise DataError(f'{path}: index, r, g and b must be whole numbers, found {found}') from None
            if not (values[-1] if values else -1) < index <= 255:
                raise DataError(
                    f'{path}: index {index} in row {position + 1}; indexes must ascend and be from 0 to 255'
                )
            classes.append(row['name'].strip())
            colors.append(color or class_color(position))
            values.append(index)
        ignored = {red for red, green, blue in ignore_colors if red == green == blue}
        if values != [0, 1] and 255 not in values:
            ignored.add(IGNORE_INDEX)
        rgb = fields == _CSV_FIELDS
        try:
            # Colours that are only for pictures may be those of ignored pixels.
            return cls(classes, colors, ignore_colors if rgb else (), values, sorted(ignored), rgb)
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

    def of_form(self, single_band: bool) -> Palette:
        """The palette for masks of one form, where both are possible: masks of the other form are then errors.

        One file whose form differs, such as a black RGB mask that a program stored as grey, would otherwise be read by
        other rules than the rest.
        """
        palette = copy(self)
        if palette.rgb and palette.values is not None:
            palette.rgb = not single_band
            palette.values = palette.values if single_band else None
        return palette

    def decode(
        self, mask: np.ndarray, unknown: Literal['error', 'ignore'] = 'error', source: str = 'mask'
    ) -> np.ndarray:
        """Converts a mask to class indexes.

        Args:
            mask: (H, W, 3) uint8 array in RGB order, or (H, W) uint8 array of the values in masks of one band.
            unknown: How to treat a colour or value outside the palette: 'error', or 'ignore' to map it to IGNORE_INDEX.
            source: Name of the mask, for error messages.

        Returns:
            (H, W) uint8 array of class indexes and IGNORE_INDEX.

        Raises:
            DataError: The mask has another form or type, or an unknown colour or value (the message gives its first
                pixel).
        """
        forms = [*(['RGB'] if self.rgb else []), *(['single-band'] if self.values is not None else [])]
        form = 'single-band' if mask.ndim == 2 else 'RGB' if mask.ndim == 3 and mask.shape[2] == 3 else None
        if form not in forms or mask.dtype != np.uint8:
            raise DataError(
                f'{source}: expected an 8-bit {" or ".join(forms)} mask, found shape {mask.shape}, type {mask.dtype}; '
                'classes.csv and the first mask of a split determine the form of all, and a PNG with a colour table '
                'counts as RGB (docs/own_data.md)'
            )
        if unknown not in ('error', 'ignore'):
            raise DataError(f"unknown={unknown!r}: must be 'error' or 'ignore'")
        if form == 'single-band':
            return decode_values(mask, self._labels_of_values(mask, source), self.classes, unknown, source)
        table = _lookup_table(self.colors, self.ignore_colors)
        packed = pack_rgb(mask)
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

    def _labels_of_values(self, mask: np.ndarray, source: str) -> dict[int, int]:
        """Class index of each value of a mask of one band."""
        assert self.values is not None
        labels = {value: label for label, value in enumerate(self.values)}
        both = sorted(labels.keys() & set(self.ignore_values))
        if both:
            name = self.classes[labels[both[0]]]
            raise DataError(f'{source}: value {both[0]} is class {name!r}, but ignore_colors says to ignore it')
        if self.values == (0, 1) and 255 not in self.ignore_values and (mask == 255).any():
            raise DataError(
                f'{source}: has the value 255, which classes.csv does not list. If it is {self.classes[1]!r}, change '
                'its index there from 1 to 255; if it is ignored, set ignore_colors=[(255, 255, 255)] in the config of '
                'the dataset (verify.py: --ignore-colors 255,255,255)'
            )
        return labels | dict.fromkeys(self.ignore_values, IGNORE_INDEX)

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


def _read_csv(path: str | PathLike[str]) -> tuple[list[dict[str, str]], tuple[str, ...]]:
    """Rows of a table of classes, and its fields: with colours, or without."""
    header = ','.join(_CSV_FIELDS)
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the header.
        with open(path, newline='', encoding='utf-8-sig') as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            fields = [name.strip().lower() for name in reader.fieldnames or ()]
            reader.fieldnames = fields
            rows = list(reader)
    except FileNotFoundError:
        raise DataError(f'{path} is missing; expected a table of classes with the header {header}') from None
    except UnicodeDecodeError as error:
        raise DataError(f'{path}: not a UTF-8 text file ({error})') from None
    if sorted(fields) == sorted(_INDEX_FIELDS):
        return rows, _INDEX_FIELDS
    if not set(_CSV_FIELDS) <= set(fields):
        raise DataError(f'{path}: the header is {fields}, expected {header}, or index,name for masks of indexes')
    return rows, _CSV_FIELDS
