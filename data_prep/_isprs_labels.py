"""Colours of ISPRS labels into classes, a strip of rows at a time; no colour is guessed in silence."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from data_prep._images import count_classes
from data_prep._isprs_source import ERODED, FULL
from lale_mmseg.errors import DataError
from lale_mmseg.metainfo import IGNORE_INDEX, Palette, isprs
from lale_mmseg.metainfo.palette import pack_rgb, unpack_color

#: Different colours off the palette that a label file may have; published labels have a handful.
MAX_COLORS = 10_000


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
        source: Tile and file, for messages.
        height: Rows of the tile.
        pixels: (classes,) pixels of each class so far, those of colours off the palette included.
        ignored: Boundary pixels so far.
        off: Colours off the palette so far, by what `pack_rgb` makes of them.
    """

    kind: str
    palette: Palette
    max_distance: float | None
    source: str
    height: int
    pixels: np.ndarray = field(init=False)
    ignored: int = 0
    off: dict[int, OffPalette] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pixels = np.zeros(self.palette.num_classes, np.int64)

    def decode(self, rgb: np.ndarray, first_row: int) -> np.ndarray:
        """(H, W) uint8 labels of the rows from `first_row` on.

        Raises:
            DataError: There are colours that cannot be taken: rows below them need not be read.
        """
        labels = self.palette.decode(rgb, 'ignore')
        self._settle_strangers(rgb, labels, first_row)
        self._require_known(first_row + len(rgb))
        self.pixels += count_classes(labels, self.palette.num_classes)
        self.ignored += int((labels == IGNORE_INDEX).sum())
        return labels

    @property
    def snapped(self) -> int:
        """Pixels whose colour was taken as the nearest one."""
        return sum(off.count for off in self.off.values())

    def as_dict(self) -> dict:
        """Counts for the manifest."""
        return dict(
            pixels=[int(count) for count in self.pixels],
            ignored=self.ignored,
            snapped=self.snapped,
            snapped_colors=len(self.off),
            largest_distance=round(max((off.distance for off in self.off.values()), default=0.0), 2),
        )

    def _require_known(self, rows: int) -> None:
        """Raises DataError if there were colours that cannot be taken in the `rows` rows read so far."""
        limit = -1.0 if self.max_distance is None else self.max_distance
        strange = {value: off for value, off in self.off.items() if off.distance > limit}
        if not strange:
            return
        value, first = min(strange.items(), key=lambda item: (item[1].row, item[1].column))
        color = unpack_color(value)
        known = ', '.join(f'{name} {color}' for name, color in zip(isprs.CLASSES, isprs.COLORS, strict=True))
        nearest = f'{self._name(first.label)} at a distance of {first.distance:.1f}'
        total = sum(off.count for off in strange.values())
        if self.kind == FULL and color == isprs.BOUNDARY_COLOR:
            advice = 'Black is the boundary of eroded labels: is this file among the wrong ones?'
        elif self.max_distance is None:
            advice = 'A few such pixels are in the published labels: --tolerant takes the nearest class and counts them'
        else:
            advice = f'Colours are taken as a class up to a distance of {self.max_distance:g} (--max-distance)'
        boundary = ', boundary (0, 0, 0)' if self.kind == ERODED else ''
        raise DataError(
            f'{self.source}: colour {color} at row {first.row}, column {first.column} is not in the palette '
            f'({first.count:,} such pixels; {total:,} pixels of {len(strange):,} colours in {self._read(rows)}); '
            f'nearest is {nearest}; known: {known}{boundary}. {advice}'
        )

    def _read(self, rows: int) -> str:
        return f'the first {rows:,} of {self.height:,} rows' if rows < self.height else 'the file'

    def _settle_strangers(self, rgb: np.ndarray, labels: np.ndarray, first_row: int) -> None:
        """Notes the colours off the palette, and gives their pixels the nearest label where that is near enough."""
        packed = pack_rgb(rgb)  # (H, W)
        agreed = [red | green << 8 | blue << 16 for red, green, blue in self.palette.ignore_colors]
        strange = labels == IGNORE_INDEX
        for value in agreed:
            strange &= packed != value
        packed = packed[strange]
        if not len(packed):
            return
        different = np.union1d(packed, np.fromiter(self.off, np.int32, len(self.off)))
        if len(different) > MAX_COLORS:
            raise DataError(
                f'{self.source}: these are not labels: {len(different):,} different colours off the palette in '
                f'{self._read(first_row + len(rgb))}; an image in their place, or labels saved with loss (JPEG)?'
            )
        values, first, inverse, counts = np.unique(packed, return_index=True, return_inverse=True, return_counts=True)
        nearest, distances = self._nearest(values)
        rows, columns = np.divmod(np.flatnonzero(strange)[first], strange.shape[1])
        for index, value in enumerate(values.tolist()):
            if value not in self.off:
                place = first_row + int(rows[index]), int(columns[index])
                self.off[value] = OffPalette(*place, 0, int(nearest[index]), float(distances[index]))
            self.off[value].count += int(counts[index])
        limit = -1.0 if self.max_distance is None else self.max_distance
        labels[strange] = np.where(distances <= limit, nearest, np.uint8(IGNORE_INDEX))[inverse]

    def _nearest(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N,) uint8 label of the nearest colour, and (N,) Euclidean distance to it, of N packed colours."""
        known = np.array([*self.palette.colors, *self.palette.ignore_colors], float)
        labels = [*range(self.palette.num_classes), *[IGNORE_INDEX] * len(self.palette.ignore_colors)]
        colors = np.stack([values & 255, values >> 8 & 255, values >> 16 & 255], 1)  # (N, 3)
        distances = np.sqrt(((colors[:, None] - known) ** 2).sum(2))  # (N, known)
        index = distances.argmin(1)
        return np.array(labels, np.uint8)[index], distances[np.arange(len(values)), index]

    def _name(self, label: int) -> str:
        return 'boundary' if label == IGNORE_INDEX else self.palette.classes[label]
