"""Makes a synthetic Inria archive as distributed: AerialImageDataset/{train,test}/{images,gt}."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rasterio.transform import from_origin

from lale_mmseg.metainfo import inria
from tests import isprs_tiles

#: Colours of ground and roofs (red, green, blue).
_GROUND = np.array([(96, 104, 84), (120, 116, 100), (84, 96, 72)], np.uint8)
_ROOFS = np.array([(188, 180, 172), (150, 88, 70), (210, 206, 200), (104, 100, 108)], np.uint8)


def roofs(tile: str, side: int = inria.TILE_SIZE, pitch: int = 100, share: float = 0.16) -> np.ndarray:
    """(side, side) uint8 labels, 0 and 255: one roof in each cell of a grid; deterministic for each tile.

    Args:
        tile: Its name is the random seed.
        side: Pixels of the tile.
        pitch: Side of a cell in pixels, less than `side`.
        share: Approximate share of building.
    """
    rng = np.random.default_rng(zlib.crc32(tile.encode()))
    labels = np.zeros((side, side), np.uint8)
    for y in range(0, side - pitch + 1, pitch):
        for x in range(0, side - pitch + 1, pitch):
            height, width = (max(1, int(pitch * min(0.9, share**0.5 * rng.uniform(0.8, 1.2)))) for _ in range(2))
            top, left = y + rng.integers(0, pitch - height), x + rng.integers(0, pitch - width)
            labels[top : top + height, left : left + width] = 255
    return labels


def picture(tile: str, labels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB image of labels: fields, roofs in four colours, and noise."""
    seed = zlib.crc32(tile.encode()) + 1
    grain = np.random.default_rng(seed).integers(0, 16, (61, 67), np.uint8)
    height, width = labels.shape
    grain = np.tile(grain, (-(-height // 61), -(-width // 67)))[:height, :width]
    rows, columns = np.arange(height) // 97, np.arange(width) // 131
    fields = (np.add.outer(rows, columns) % len(_GROUND)).astype(np.uint8)
    # Indexes of colours: ground by field, roofs by position.
    places = (np.add.outer(3 * rows, columns + seed % 5) % len(_ROOFS)).astype(np.uint8)
    colors = np.concatenate([_GROUND, _ROOFS])
    image = colors.take(np.where(labels > 0, places + np.uint8(len(_GROUND)), fields), axis=0)
    image += grain[..., None]
    return image


def write_tif(path: Path, values: np.ndarray, **options: object) -> Path:
    """Writes (H, W) or (H, W, bands) values as a GeoTIFF of 30 cm, like the archive, but compressed."""
    bands = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    place: dict = dict(crs='EPSG:32614', transform=from_origin(616500.0, 3345000.0, 0.3, 0.3))
    return isprs_tiles.write_tif(path, bands, **place | dict(compress='deflate', zlevel=1, predictor=1) | options)


def make_inria(
    folder: Path,
    tiles: Sequence[str] = inria.tiles_of('austin'),
    side: int = inria.TILE_SIZE,
    labels: Mapping[str, np.ndarray] | None = None,
    hidden: Sequence[str] = (),
    **options: object,
) -> Path:
    """Makes FOLDER/AerialImageDataset and returns it.

    Args:
        folder: Output folder; created if missing.
        tiles: Tiles with labels, such as 'austin1'.
        side: Side of a tile in pixels.
        labels: Labels of some tiles, (H, W) with 0 and 255; the others get `roofs`.
        hidden: Tiles of the hidden cities, such as 'sfo1': images only, in test/.
        options: Passed to `rasterio.open`, such as `compress=None`.
    """
    root = folder / 'AerialImageDataset'
    for tile in tiles:
        mask = roofs(tile, side, min(100, side // 2)) if tile not in (labels or {}) else (labels or {})[tile]
        write_tif(root / 'train' / 'images' / f'{tile}.tif', picture(tile, mask), **options)
        write_tif(root / 'train' / 'gt' / f'{tile}.tif', mask, **options)
    for tile in hidden:
        image = picture(tile, roofs(tile, side, min(100, side // 2)))
        write_tif(root / 'test' / 'images' / f'{tile}.tif', image, **options)
    return root
