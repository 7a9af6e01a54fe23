"""Cuts raw Sentinel-2 composites and WorldCover maps into pairs by ARAS400k's published rules (arXiv 2603.09625).

Inputs are `*_S2RGBNIR.tif` (bands red, green, blue, near infrared) and `*_Map.tif` (WorldCover 2021 codes), both with a
tile name such as N38E032 in their file name. A map may be named up to one degree apart from the composite; its pixels
are looked up by map coordinates, nearest neighbour. Windows are taken in row order, whole windows only; one is left
out when its image is all zero, when any label is 0, or when more than 90 % of it is water. The image is scaled by the
maximum of its own red, green and blue to 8 bits (fractions are cut off).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from data_prep._files import write_bytes
from data_prep._images import decode_rgb, encode_png
from lale_mmseg.errors import DataError
from lale_mmseg.metainfo import Palette, aras400k

IMAGE_SUFFIX = '_S2RGBNIR.tif'
MAP_SUFFIX = '_Map.tif'
#: Codes of WorldCover 2021 that count as water in the leave-out rule.
WATER_CODES = aras400k.WORLDCOVER_CODES[aras400k.CLASSES.index('water')]
REASONS = ('no image', 'no label', 'water')

_TILE = re.compile(r'(?<![A-Z])([NS])(\d{2})([EW])(\d{3})(?!\d)')
_UNKNOWN = 254
_PALETTE = Palette(aras400k.CLASSES, aras400k.COLORS)


@dataclass(frozen=True)
class TilePair:
    """A composite and the maps that may cover it, best match by name first."""

    tile: str
    image: Path
    maps: tuple[Path, ...]


@dataclass(frozen=True)
class Rules:
    """What decides the pairs beside the rasters: window side in pixels, largest share of water, split shares."""

    window: int = aras400k.TILE_SIZE
    max_water: float = 0.9
    split: tuple[tuple[str, int], ...] = (('train', 1),)

    def part_of(self, stem: str) -> str:
        """The part that a pair belongs to: decided by the MD5 sum of its stem, so it never moves."""
        number = int(hashlib.md5(stem.encode(), usedforsecurity=False).hexdigest()[:8], 16)
        number %= sum(share for _, share in self.split)
        for part, share in self.split:
            number -= share
            if number < 0:
                return part
        raise AssertionError('shares add up to more than the remainder')


@dataclass
class StripResult:
    """What became of one row of windows: number of pairs written, and of windows left out for each reason."""

    written: int = 0
    left_out: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))


def find_tiles(folder: Path) -> list[TilePair]:
    """Pairs of composites and maps below a folder, in order of the tile names.

    Raises:
        DataError: There is no composite, a name has no tile in it, two composites share a tile, or one has no map.
    """
    images = sorted(folder.rglob(f'*{IMAGE_SUFFIX}'))
    maps = {path: _corner(path) for path in sorted(folder.rglob(f'*{MAP_SUFFIX}'))}
    if not images:
        raise DataError(f'{folder}: no file *{IMAGE_SUFFIX} is below it')
    pairs: dict[str, TilePair] = {}
    for image in images:
        north, east = _corner(image)
        tile = _tile_name(image)
        if tile in pairs:
            raise DataError(f'{image} and {pairs[tile].image}: two composites of tile {tile}')
        offsets = {path: max(abs(corner[0] - north), abs(corner[1] - east)) for path, corner in maps.items()}
        near = sorted((path for path in maps if offsets[path] <= 1), key=lambda path: (offsets[path], path))
        if not near:
            raise DataError(
                f'{image}: no map *{MAP_SUFFIX} of tile {tile} or within one degree of it is below {folder}'
            )
        pairs[tile] = TilePair(tile, image, tuple(near))
    return [pairs[tile] for tile in sorted(pairs)]


def count_strips(pair: TilePair, rules: Rules) -> int:
    """Number of rows of whole windows; raises DataError if the composite cannot be used."""
    try:
        with rasterio.open(pair.image) as image:
            if image.count < 3:
                raise DataError(f'{pair.image}: {image.count} bands; red, green and blue are due in bands 1 to 3')
            if image.crs is None:
                raise DataError(f'{pair.image}: has no coordinate reference system, so no map can be laid over it')
            return image.height // rules.window
    except RasterioError as error:
        raise DataError(f'{pair.image}: cannot be read ({error})') from None


def cut_strip(job: tuple[TilePair, int, Rules, Path, bool]) -> StripResult:
    """Cuts one row of windows and writes its pairs to OUT/PART/{images,masks}/TILE_ROW_COLUMN.png.

    Args:
        job: The tile, the row number, the rules, OUT, and whether files of other content are replaced.

    Raises:
        DataError: A raster cannot be read, a map has an unknown code, or a file of other content is in the way.
    """
    pair, row, rules, out, overwrite = job
    result = StripResult()
    try:
        rgb, codes = _read_strip(pair, row, rules)
    except RasterioError as error:
        raise DataError(f'{pair.image} with {pair.maps[0]}: row {row} of windows cannot be read ({error})') from None
    for column in range(rgb.shape[1] // rules.window):
        cut = np.s_[:, column * rules.window : (column + 1) * rules.window]
        reason = _left_out(rgb[cut], codes[cut], rules)
        if reason is not None:
            result.left_out[reason] += 1
            continue
        stem = f'{pair.tile}_{row:03d}_{column:03d}'
        where = f'{pair.maps[0]}, window {stem}'
        folder = out / rules.part_of(stem)
        _write(folder / 'images' / f'{stem}.png', scale_to_bytes(rgb[cut]), overwrite)
        _write(folder / 'masks' / f'{stem}.png', _PALETTE.encode(codes_to_labels(codes[cut], where)), overwrite)
        result.written += 1
    return result


def scale_to_bytes(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: the values divided by their own maximum, times 255, fractions cut off."""
    values = np.maximum(rgb, 0).astype(np.float64)
    return (values / values.max() * 255).astype(np.uint8)


def codes_to_labels(codes: np.ndarray, source: str) -> np.ndarray:
    """(H, W) uint8 class indexes from WorldCover codes; raises DataError for a code that belongs to no class."""
    table = np.full(256, _UNKNOWN, np.uint8)
    for index, members in enumerate(aras400k.WORLDCOVER_CODES):
        table[list(members)] = index
    labels = table[codes]
    if (labels == _UNKNOWN).any():
        row, column = np.argwhere(labels == _UNKNOWN)[0]
        raise DataError(
            f'{source}: code {codes[row, column]} at row {row}, column {column} is not of WorldCover 2021; '
            f'known: {sorted(code for members in aras400k.WORLDCOVER_CODES for code in members)} and 0'
        )
    return labels


def _read_strip(pair: TilePair, row: int, rules: Rules) -> tuple[np.ndarray, np.ndarray]:
    """(window, W, 3) image values and (window, W) uint8 map codes, 0 where no map reaches."""
    with rasterio.open(pair.image) as image:
        width = image.width // rules.window * rules.window
        window = Window(0, row * rules.window, width, rules.window)
        rgb = np.moveaxis(image.read((1, 2, 3), window=window), 0, -1)
        codes = np.zeros(rgb.shape[:2], np.uint8)
        grid = dict(crs=image.crs, transform=image.transform, width=image.width, height=image.height)
        for path in pair.maps:
            with rasterio.open(path) as source:
                _check_map(source, path)
                # A millionth of a pixel: the place of each pixel is computed, not interpolated (rasterio refuses 0).
                with WarpedVRT(
                    source, resampling=Resampling.nearest, tolerance=1e-6, src_nodata=0, nodata=0, **grid
                ) as warped:
                    found = warped.read(1, window=window)
            codes = np.where(codes == 0, found, codes)
            if codes.all():
                break
    if np.issubdtype(rgb.dtype, np.floating):
        rgb = np.nan_to_num(rgb)
    return rgb, codes


def _check_map(source: rasterio.DatasetReader, path: Path) -> None:
    if source.dtypes[0] != 'uint8':
        raise DataError(f'{path}: values of type {source.dtypes[0]}; WorldCover maps have codes of 8 bits')
    if source.crs is None:
        raise DataError(f'{path}: has no coordinate reference system, so it cannot be laid under a composite')


def _left_out(rgb: np.ndarray, codes: np.ndarray, rules: Rules) -> str | None:
    if not rgb.any():
        return REASONS[0]
    if not codes.all():
        return REASONS[1]
    if np.isin(codes, WATER_CODES).mean() > rules.max_water:
        return REASONS[2]
    return None


def _write(path: Path, rgb: np.ndarray, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        # Pixels, not bytes: another version of the PNG library may pack the same picture differently.
        if np.array_equal(decode_rgb(path.read_bytes(), str(path)), rgb):
            return
        raise DataError(f'{path}: is there with other content; remove it, or --overwrite to replace it')
    write_bytes(path, encode_png(rgb))


def _corner(path: Path) -> tuple[int, int]:
    """Degrees north and east in a file's tile name."""
    north, latitude, east, longitude = _match(path).groups()
    return int(latitude) * (1 if north == 'N' else -1), int(longitude) * (1 if east == 'E' else -1)


def _tile_name(path: Path) -> str:
    return _match(path).group()


def _match(path: Path) -> re.Match[str]:
    match = _TILE.search(path.name)
    if match is None:
        raise DataError(f'{path}: the file name has no tile such as N38E032 in it')
    return match
