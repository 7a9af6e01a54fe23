"""Decodes ISPRS label colours into classes; a colour outside the palette is never mapped silently."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import rasterio

from data_prep.core.tiles import count_values, read_rows, strips
from data_prep.datasets.isprs.sources import ERODED, FULL
from lale_mmseg.errors import DataError
from lale_mmseg.metainfo import IGNORE_INDEX, Palette, isprs
from lale_mmseg.metainfo.palette import pack_rgb, unpack_color


@dataclass
class UnknownColor:
    """A colour outside the palette: first pixel, number of pixels, nearest label, and the distance to its colour."""

    row: int
    column: int
    count: int
    label: int
    distance: float


def decode_labels(
    raster: rasterio.DatasetReader, kind: str, max_distance: float | None, name: str
) -> tuple[np.ndarray, dict]:
    """Decodes the labels of one tile.

    Args:
        raster: The opened label file, (3, H, W).
        kind: 'full' or 'eroded'.
        max_distance: Map colours outside the palette to the nearest class within this distance; None to reject them.
        name: Tile and file, for messages.

    Returns:
        (H, W) uint8 class indexes with 255 for ignored pixels, and the counts for the marker.

    Raises:
        DataError: A colour cannot be mapped.
    """
    palette, limit = isprs.palette_of(kind), -1.0 if max_distance is None else max_distance
    labels = np.empty((raster.height, raster.width), np.uint8)
    unknown: dict[int, UnknownColor] = {}
    # In strips, because packed colours take four bytes a pixel; and an error need not read the rest of the file.
    for rows in strips(raster.height):
        rgb = read_rows(raster, rows)  # (rows, W, 3)
        labels[rows] = palette.decode(rgb, 'ignore')
        _map_unknown(rgb, labels[rows], rows.start, palette, limit, unknown)
        beyond = {value: found for value, found in unknown.items() if found.distance > limit}
        if beyond:
            raise DataError(_message(beyond, kind, max_distance, name))
    counts = count_values(labels)
    return labels, dict(
        pixels=counts[: palette.num_classes].tolist(),
        ignored=int(counts[IGNORE_INDEX]),
        mapped_pixels=sum(found.count for found in unknown.values()),
        mapped_colors=len(unknown),
        largest_distance=round(max((found.distance for found in unknown.values()), default=0.0), 2),
    )


def _map_unknown(
    rgb: np.ndarray,
    labels: np.ndarray,
    first_row: int,
    palette: Palette,
    limit: float,
    unknown: dict[int, UnknownColor],
) -> None:
    """Adds the colours of a strip that are outside the palette to `unknown`; labels those that are near enough."""
    is_unknown = labels == IGNORE_INDEX
    if not is_unknown.any():
        return
    packed = pack_rgb(rgb)  # (rows, W)
    for red, green, blue in palette.ignore_colors:
        is_unknown &= packed != (red | green << 8 | blue << 16)
    values, first, inverse, counts = np.unique(
        packed[is_unknown], return_index=True, return_inverse=True, return_counts=True
    )
    if not len(values):
        return
    known = np.array([*palette.colors, *palette.ignore_colors], float)
    known_labels = np.array([*range(palette.num_classes), *[IGNORE_INDEX] * len(palette.ignore_colors)], np.uint8)
    colors = np.stack([values & 255, values >> 8 & 255, values >> 16 & 255], 1)  # (N, 3)
    distances = np.sqrt(((colors[:, None] - known) ** 2).sum(2))  # (N, known)
    nearest, distances = known_labels[distances.argmin(1)], distances.min(1)
    rows, columns = np.divmod(np.flatnonzero(is_unknown)[first], is_unknown.shape[1])
    for index, value in enumerate(values.tolist()):
        place = first_row + int(rows[index]), int(columns[index])
        found = unknown.setdefault(value, UnknownColor(*place, 0, int(nearest[index]), float(distances[index])))
        found.count += int(counts[index])
    labels[is_unknown] = np.where(distances <= limit, nearest, np.uint8(IGNORE_INDEX))[inverse]


def _message(unknown: dict[int, UnknownColor], kind: str, max_distance: float | None, name: str) -> str:
    value, first = min(unknown.items(), key=lambda item: (item[1].row, item[1].column))
    color = unpack_color(value)
    nearest = 'boundary' if first.label == IGNORE_INDEX else isprs.CLASSES[first.label]
    known = ', '.join(f'{known} {color}' for known, color in zip(isprs.CLASSES, isprs.COLORS, strict=True))
    if kind == FULL and color == isprs.BOUNDARY_COLOR:
        advice = 'Black is the boundary of eroded labels: is the file in the wrong folder?'
    elif max_distance is None:
        advice = (
            'The published labels have a few such pixels: --tolerant maps them to the nearest class and counts them'
        )
    else:
        advice = f'Colours are mapped up to a distance of {max_distance:g} (--max-distance)'
    return (
        f'{name}: colour {color} at row {first.row}, column {first.column} is not in the palette ({first.count:,} such '
        f'pixels so far); nearest is {nearest} at a distance of {first.distance:.1f}; known: {known}'
        f'{", boundary (0, 0, 0)" if kind == ERODED else ""}. {advice}'
    )
