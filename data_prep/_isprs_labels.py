"""Colours of ISPRS labels into classes, a strip of rows at a time; no colour is guessed in silence."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from data_prep._images import count_classes
from data_prep._isprs_source import ERODED, FULL, describe_kind
from lale_mmseg.errors import DataError
from lale_mmseg.metainfo import IGNORE_INDEX, Palette, isprs
from lale_mmseg.metainfo.palette import pack_rgb, unpack_color


@dataclass
class OffPalette:
    """A colour that is no class: its first pixel, how often it occurs, its nearest label and the distance to that."""

    row: int
    column: int
    count: int
    label: int
    distance: float


@dataclass
class LabelStrips:
    """Decodes the labels of one tile strip by strip, from top to bottom, and counts.

    Attributes:
        kind: 'full' or 'eroded'.
        palette: Colours of that kind.
        max_distance: Take colours off the palette as the nearest class within this distance; None: none is taken.
        pixels: (classes,) pixels of each class so far, those of colours off the palette included.
        ignored: Boundary pixels so far.
        off: Colours off the palette so far.
    """

    kind: str
    palette: Palette
    max_distance: float | None
    pixels: np.ndarray = field(init=False)
    ignored: int = 0
    off: dict[tuple[int, int, int], OffPalette] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pixels = np.zeros(self.palette.num_classes, np.int64)

    def decode(self, rgb: np.ndarray, first_row: int) -> np.ndarray:
        """(H, W) uint8 labels of the rows from `first_row` on; colours that cannot be taken are ignored and noted."""
        labels = self.palette.decode(rgb, 'ignore')
        self._settle_strangers(rgb, labels, first_row)
        self.pixels += count_classes(labels, self.palette.num_classes)
        self.ignored += int((labels == IGNORE_INDEX).sum())
        return labels

    @property
    def snapped(self) -> int:
        """Pixels whose colour was taken as the nearest one."""
        return sum(off.count for off in self.off.values())

    def require_known(self, tile: str, file: str) -> None:
        """Raises DataError if there were colours that cannot be taken."""
        limit = -1.0 if self.max_distance is None else self.max_distance
        strange = {color: off for color, off in self.off.items() if off.distance > limit}
        if not strange:
            return
        color, first = min(strange.items(), key=lambda item: (item[1].row, item[1].column))
        known = ', '.join(f'{name} {color}' for name, color in zip(isprs.CLASSES, isprs.COLORS, strict=True))
        nearest = f'{self._name(first.label)} at a distance of {first.distance:.1f}'
        total = sum(off.count for off in strange.values())
        where = f'tile {tile}, {describe_kind(self.kind)}, {file}'
        if self.kind == FULL and color == isprs.BOUNDARY_COLOR:
            advice = 'Black is the boundary of eroded labels: is this file among the wrong ones?'
        elif self.max_distance is None:
            advice = 'A few such pixels are in the published labels: --tolerant takes the nearest class and counts them'
        else:
            advice = f'Colours are taken as a class up to a distance of {self.max_distance:g} (--max-distance)'
        raise DataError(
            f'{where}: colour {color} at row {first.row}, column {first.column} is not in the palette '
            f'({first.count:,} such pixels; {total:,} pixels of {len(strange):,} colours in the file); nearest is '
            f'{nearest}; known: {known}{", boundary (0, 0, 0)" if self.kind == ERODED else ""}. {advice}'
        )

    def as_dict(self) -> dict:
        """Counts for the manifest."""
        return dict(
            pixels=[int(count) for count in self.pixels],
            ignored=self.ignored,
            snapped=self.snapped,
            snapped_colors=len(self.off),
            largest_distance=round(max((off.distance for off in self.off.values()), default=0.0), 2),
        )

    def _settle_strangers(self, rgb: np.ndarray, labels: np.ndarray, first_row: int) -> None:
        """Notes the colours off the palette, and gives their pixels the nearest label where that is near enough."""
        rows, columns = np.nonzero(labels == IGNORE_INDEX)
        if not len(rows):
            return
        packed = pack_rgb(rgb[rows, columns][None])[0]
        agreed = [red | green << 8 | blue << 16 for red, green, blue in self.palette.ignore_colors]
        strange = ~np.isin(packed, agreed)
        if not strange.any():
            return
        rows, columns, packed = rows[strange], columns[strange], packed[strange]
        values, first, inverse, counts = np.unique(packed, return_index=True, return_inverse=True, return_counts=True)
        nearest = np.full(len(values), IGNORE_INDEX, np.uint8)
        for index, value in enumerate(values):
            color = unpack_color(int(value))
            off = self.off.get(color)
            if off is None:
                place = int(first[index])
                off = OffPalette(first_row + int(rows[place]), int(columns[place]), 0, *self._nearest(color))
                self.off[color] = off
            off.count += int(counts[index])
            if self.max_distance is not None and off.distance <= self.max_distance:
                nearest[index] = off.label
        labels[rows, columns] = nearest[inverse]

    def _nearest(self, color: tuple[int, int, int]) -> tuple[int, float]:
        """Label of the nearest colour, and the Euclidean distance to it."""
        known = np.array([*self.palette.colors, *self.palette.ignore_colors], float)
        distances = np.sqrt(((known - color) ** 2).sum(1))
        index = int(distances.argmin())
        return index if index < self.palette.num_classes else IGNORE_INDEX, float(distances[index])

    def _name(self, label: int) -> str:
        return 'boundary' if label == IGNORE_INDEX else self.palette.classes[label]
