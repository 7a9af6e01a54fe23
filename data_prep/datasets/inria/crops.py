"""Which window of a tile becomes its few-shot crop: the centre, or the nearest window with enough buildings.

Windows lie on a grid: their offsets from the centre are multiples of `STEP` in x and y, and windows at the borders of
the tile are included. The nearest window is that of the smallest Euclidean distance; ties go to the smaller row, then
to the smaller column.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_prep.core.report import some_of
from lale_mmseg.errors import DataError
from lale_mmseg.metainfo import inria
from lale_mmseg.metainfo.protocols import find_protocol

FULL, FEW_SHOT = (protocol.name for protocol in inria.PROTOCOLS)
#: Step of the grid in pixels; 1988 pixels, from the centre of a tile of 5000 to its border, are a multiple of it.
STEP = 4
#: Settings of the published crops.
SIZE, MIN_SHARE, QUALITY = 1024, 0.05, 90
#: Why a window was taken: the centre has enough buildings; it was moved; chosen by hand; no window has enough, so the
#: best; the tile has no building, so the centre.
CENTRE, MOVED, NUDGED, BEST, NONE = ('centre', 'moved', 'nudged', 'best', 'none')


@dataclass(frozen=True)
class Crop:
    """A window: its upper left corner in pixels, its share of building (0 to 1), and why it was taken."""

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
        nudge: (x, y) of a window chosen by hand.
    """
    height, width = labels.shape
    x, y = nudge or ((width - size) // 2, (height - size) // 2)
    here = int(np.count_nonzero(labels[y : y + size, x : x + size]))
    if nudge is not None or here >= min_share * size**2:
        return Crop(x, y, here / size**2, CENTRE if nudge is None else NUDGED)
    if not labels.any():
        return Crop(x, y, 0.0, NONE)
    rows, columns = (_positions(length, size) for length in (height, width))
    # Building pixels of every window, (rows, columns), from the integral image.
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
    """Reads windows chosen by hand: a CSV table `tile,x,y`, with x and y of the upper left corner in pixels.

    Args:
        path: The table, in UTF-8.
        tiles: Names of the tiles in the source.

    Raises:
        DataError: The table is malformed, or a tile occurs twice or is not in the source.
    """
    rows = csv.reader(path.read_text(encoding='utf-8-sig').splitlines(), skipinitialspace=True)
    try:
        header, *found = [row for row in rows if row]
        if header != ['tile', 'x', 'y']:
            raise ValueError(f'the header is {",".join(header)}')
        table = [(tile, (int(x), int(y))) for tile, x, y in found]
    except ValueError as error:
        raise DataError(f'{path}: {error}; expected a table tile,x,y of a tile and two whole numbers') from None
    names = [tile for tile, _ in table]
    wrong = [tile for tile in names if names.count(tile) > 1 or tile not in tiles]
    if wrong:
        raise DataError(f'{path}: {some_of(wrong)}: listed twice, or not in the source; remove the lines')
    return dict(table)


def check_nudge(nudge: tuple[int, int], tile: str, tile_size: tuple[int, int], size: int) -> None:
    """Raises DataError unless the window lies inside its tile of (height, width)."""
    last_x, last_y = tile_size[1] - size, tile_size[0] - size
    if not (0 <= nudge[0] <= last_x and 0 <= nudge[1] <= last_y):
        raise DataError(
            f'--nudges: {tile}: x={nudge[0]}, y={nudge[1]}: expected x from 0 to {last_x} and y from 0 to {last_y}, '
            f'for a window of {size} pixels'
        )


def split_of(protocol: str, tile: str) -> str:
    """'train', 'val' or 'test'."""
    split = find_protocol(protocol).split(inria.DATASET)
    return next(name for name in ('train', 'val', 'test') if tile in getattr(split, name))


def unpublished(markers: Mapping[str, Mapping[str, Any]]) -> str | None:
    """How crops differ from those of the published protocol, in one sentence; None if they do not.

    Args:
        markers: Markers of crops by tile.
    """
    published = dict(
        size=('crops of', SIZE),
        min_share=('a share of building of', MIN_SHARE),
        quality=('JPEG quality', QUALITY),
        step=('windows in steps of', STEP),
    )
    found = []
    for name, (words, expected) in published.items():
        others = sorted({marker['settings'][name] for marker in markers.values()} - {expected})
        if others:
            found.append(f'{words} {", ".join(f"{value:g}" for value in others)} (published: {expected:g})')
    whole = f'{inria.TILE_SIZE}x{inria.TILE_SIZE}'
    sizes = {'x'.join(map(str, marker['tile_size'])) for marker in markers.values()} - {whole}
    if sizes:
        found.append(f'tiles of {", ".join(sorted(sizes))} (published: {whole})')
    by_hand = [tile for tile, marker in markers.items() if marker['reason'] == NUDGED]
    if by_hand:
        found.append(f'windows chosen by hand in {some_of(by_hand)}')
    missing = [tile for tile in inria.tiles_of('austin') if tile not in markers]
    if missing:
        splits = [split_of(FEW_SHOT, tile) for tile in missing]
        words = ', '.join(f'{splits.count(split)} of {split}' for split in ('train', 'val', 'test') if split in splits)
        found.append(f'{len(missing)} of {inria.TILES_PER_CITY} tiles are missing ({words})')
    return f'not the published few-shot protocol: {"; ".join(found)}' if found else None
