"""Which window of a tile becomes its crop: the centre, or the nearest one that has enough buildings.

Windows slide on a grid: their distances from the centre are multiples of `STEP` along x and y, and the windows at the
borders of the tile are among them. The nearest one is that of the least Euclidean distance; of equal distances the one
of the least row, then of the least column.
"""

from __future__ import annotations

import csv
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lale_mmseg.errors import DataError
from lale_mmseg.metainfo import inria

#: Step of the grid in pixels; from the centre of a tile of 5000 to its border are 1988 pixels, a multiple of it.
STEP = 4
#: Why a window was taken: the centre is good; it was moved; named by hand; no window has enough, so the best; no
#: building in the tile, so the centre.
CENTRE, MOVED, NUDGED, BEST, NONE = REASONS = ('centre', 'moved', 'nudged', 'best', 'none')

_FIELDS = ('tile', 'x', 'y')


@dataclass(frozen=True)
class Crop:
    """A window: its left top corner in pixels, the share of building in it (0 to 1), and why it was taken."""

    x: int
    y: int
    share: float
    reason: str


def choose_crop(labels: np.ndarray, size: int, min_share: float, nudge: tuple[int, int] | None = None) -> Crop:
    """Chooses the window of a tile.

    Args:
        labels: (H, W) uint8, 0 and 255; H and W at least `size`.
        size: Side of the window in pixels.
        min_share: Share of building that is enough, 0 to 1.
        nudge: (x, y) of the window that was named by hand.
    """
    height, width = labels.shape
    x, y = (width - size) // 2, (height - size) // 2
    if nudge is not None:
        x, y = nudge
    at_hand = int(np.count_nonzero(labels[y : y + size, x : x + size]))
    if nudge is not None or at_hand >= min_share * size**2:
        return Crop(x, y, at_hand / size**2, CENTRE if nudge is None else NUDGED)
    if not labels.any():
        return Crop(x, y, 0.0, NONE)
    rows, columns = (_positions(length, size) for length in (height, width))
    # (rows, columns) pixels of building in every window, by the integral image.
    sums = cv2.integral((labels > 0).view(np.uint8), sdepth=cv2.CV_32S)
    top, bottom = sums[rows], sums[rows + size]
    counts = (bottom[:, columns + size] - bottom[:, columns]) - (top[:, columns + size] - top[:, columns])
    enough = counts >= min_share * size**2
    reason = MOVED if enough.any() else BEST
    chosen = np.argwhere(enough if reason == MOVED else counts == counts.max())
    at_y, at_x = rows[chosen[:, 0]], columns[chosen[:, 1]]
    nearest = np.lexsort((at_x, at_y, (at_x - x) ** 2 + (at_y - y) ** 2))[0]
    row, column = chosen[nearest]
    return Crop(int(columns[column]), int(rows[row]), float(counts[row, column] / size**2), reason)


def _positions(length: int, size: int) -> np.ndarray:
    """First pixels of the windows along one side: the centre, multiples of STEP from it, and both borders."""
    centre, last = (length - size) // 2, length - size
    grid = np.arange(centre % STEP, last + 1, STEP, dtype=np.int64)
    return np.unique(np.concatenate([grid, [0, last]]))


def read_nudges(path: Path, tiles: Collection[str]) -> dict[str, tuple[int, int]]:
    """Windows that were named by hand: a table with the header `tile,x,y`, x and y the left top corner in pixels.

    Args:
        path: The table, CSV in UTF-8.
        tiles: Names of the tiles that there are.

    Raises:
        DataError: The file is missing or malformed, or names a tile twice or one that is not there.
    """
    nudges: dict[str, tuple[int, int]] = {}
    try:
        with path.open(newline='', encoding='utf-8-sig') as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            header = tuple((name or '').strip().lower() for name in reader.fieldnames or ())
            if header != _FIELDS:
                raise DataError(f'{path}: the header is {",".join(header) or "missing"}; {",".join(_FIELDS)} is due')
            reader.fieldnames = list(header)
            for row in reader:
                tile, place = _nudge_of(row, f'{path}, line {reader.line_num}', tiles)
                if tile in nudges:
                    raise DataError(f'{path}, line {reader.line_num}: {tile} stands in a line above already')
                nudges[tile] = place
    except OSError as error:
        raise DataError(f'{path}: cannot be read ({error.strerror}); a table {",".join(_FIELDS)} is due') from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f'{path}: not a table in UTF-8 ({error})') from None
    return nudges


def _nudge_of(row: dict[str, str], where: str, tiles: Collection[str]) -> tuple[str, tuple[int, int]]:
    tile = (row['tile'] or '').strip()
    if tile not in tiles:
        known = 'it is not in the source' if tile in inria.tiles_of('austin') else 'austin1 to austin36 are due'
        raise DataError(f'{where}: tile {tile!r}: {known}')
    try:
        # A row that is too long has its rest under None, one that is too short has None for what it lacks.
        if None in row:
            raise ValueError
        return tile, (int(row['x']), int(row['y']))
    except (TypeError, ValueError):
        raise DataError(f'{where}: a tile and two whole numbers are due, found {list(row.values())}') from None


def check_nudge(nudge: tuple[int, int], tile: str, tile_size: tuple[int, int], size: int, path: Path) -> None:
    """Raises DataError unless the window lies in its tile of (height, width)."""
    for name, value, length in zip('xy', nudge, tile_size[::-1], strict=True):
        if not 0 <= value <= length - size:
            raise DataError(
                f'{path}: {tile}: {name}={value}: from 0 to {length - size} is due, for a window of {size} pixels in '
                f'{length}'
            )
