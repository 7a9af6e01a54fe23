"""Cuts raw Sentinel-2 composites and WorldCover maps into pairs by ARAS400k's published rules (arXiv 2603.09625).

Inputs are `*_S2RGBNIR.tif` (bands red, green, blue, near infrared) and `*_Map.tif` (WorldCover 2021 codes), both with a
tile name such as N38E032 in their file name. The name of a map may be up to one degree off that of the composite; its
pixels are looked up by map coordinates, nearest neighbour. Windows are taken in row order, complete ones only; a window
is left out if its image is all zero, if any label is 0, or if more than 90 % of it is water. The image is divided by
the maximum of its red, green and blue values and scaled to 8 bits, fractions truncated.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from data_prep.core.prepared import Prepared, Unit, read_markers
from data_prep.core.sources import identity_of, open_raster, reading
from data_prep.datasets.aras400k.pairs import PALETTE, Job, Pair, make_all
from lale_mmseg.errors import DataError
from lale_mmseg.files import encode_png
from lale_mmseg.metainfo import aras400k

IMAGE_SUFFIX = '_S2RGBNIR.tif'
MAP_SUFFIX = '_Map.tif'
#: Codes of WorldCover 2021 that the rules count as water.
WATER_CODES = aras400k.WORLDCOVER_CODES[aras400k.CLASSES.index('water')]
REASONS = ('no image', 'no label', 'water')

_TILE = re.compile(r'(?<![A-Z])([NS])(\d{2})([EW])(\d{3})(?!\d)')
_UNKNOWN = 254


@dataclass(frozen=True)
class TilePair:
    """A composite and the maps that may cover it, the nearest by name first."""

    tile: str
    image: Path
    maps: tuple[Path, ...]


@dataclass(frozen=True)
class Rules:
    """Rules for cutting pairs: side of the windows in pixels, largest share of water, shares of the parts."""

    window: int = aras400k.TILE_SIZE
    max_water: float = 0.9
    split: tuple[tuple[str, int], ...] = (('train', 1),)

    def part_of(self, stem: str) -> str:
        """The part of a pair. It follows from the MD5 sum of its stem, so it never changes."""
        number = int(hashlib.md5(stem.encode(), usedforsecurity=False).hexdigest()[:8], 16)
        ends = np.cumsum([share for _, share in self.split])
        return self.split[int(np.searchsorted(ends, number % int(ends[-1]), side='right'))][0]


def from_raw(
    raw_dir: str | Path,
    out: str | Path,
    rules: Rules | None = None,
    overwrite: bool = False,
    workers: int | None = None,
) -> dict[str, dict]:
    """Cuts raw Sentinel-2 and WorldCover GeoTIFFs into pairs.

    Args:
        raw_dir: Folder with `*_S2RGBNIR.tif` and `*_Map.tif`, at any depth.
        out: Folder to write to.
        rules: None for the published window, and everything in 'train'.
        overwrite, workers: See `from_archives`, also for the result.

    Raises:
        DataError: A raster is unreadable or has no map, a map has an unknown code, or no window is left.
        InputError: `out` holds something else, or another process is writing to it.
    """
    folder, rules = Prepared(Path(out), 'raw'), rules or Rules()
    wanted = [part for part, share in rules.split if share]
    settings = dict(window=rules.window, max_water=rules.max_water)
    jobs = []
    for pair in find_tiles(Path(raw_dir)):
        files = [identity_of(path) for path in (pair.image, *pair.maps)]
        source = dict(files=files, split=[list(share) for share in rules.split])
        for row in range(count_strips(pair, rules)):
            unit = Unit(f'{pair.tile}_{row:03d}', settings, source, group='-'.join(wanted))
            jobs.append(Job(folder, unit, cut_strip, (pair, row, rules)))
    made = make_all(folder, jobs, overwrite, workers, 'cutting')
    for part in wanted:
        if part not in made:
            raise DataError(f'{raw_dir}: no window is left for part {part!r}; left out: {count_left_out(folder.root)}')
    return made


def count_left_out(out: Path) -> dict[str, int]:
    """Number of windows that were left out of a prepared folder, by reason."""
    counts = [marker['left_out'] for marker in read_markers(out).values()]
    return {reason: sum(found.get(reason, 0) for found in counts) for reason in REASONS}


def find_tiles(folder: Path) -> list[TilePair]:
    """Finds the pairs of composites and maps below a folder, in order of the tile names.

    Raises:
        DataError: There is no composite, a name contains no tile, two composites share a tile, or one has no map.
    """
    images = sorted(folder.rglob(f'*{IMAGE_SUFFIX}'))
    maps = {path: _corner(path) for path in sorted(folder.rglob(f'*{MAP_SUFFIX}'))}
    if not images:
        raise DataError(f'{folder}: no file *{IMAGE_SUFFIX} found')
    pairs: dict[str, TilePair] = {}
    for image in images:
        north, east = _corner(image)
        tile = _match(image).group()
        if tile in pairs:
            raise DataError(f'{image} and {pairs[tile].image}: two composites of tile {tile}')
        offsets = {path: max(abs(corner[0] - north), abs(corner[1] - east)) for path, corner in maps.items()}
        near = sorted((path for path in maps if offsets[path] <= 1), key=lambda path: (offsets[path], path))
        if not near:
            raise DataError(
                f'{image}: no map *{MAP_SUFFIX} of tile {tile} or within one degree of it found below {folder}'
            )
        pairs[tile] = TilePair(tile, image, tuple(near))
    return [pairs[tile] for tile in sorted(pairs)]


def count_strips(pair: TilePair, rules: Rules) -> int:
    """Number of rows of whole windows; raises DataError if the composite cannot be used."""
    with open_raster(pair.image, str(pair.image)) as image:
        if image.count < 3 or image.crs is None:
            raise DataError(
                f'{pair.image}: has {image.count} bands and coordinate system {image.crs}; expected red, green and '
                'blue in bands 1 to 3, and a coordinate system to match it with a map'
            )
        return image.height // rules.window


def cut_strip(pair: TilePair, row: int, rules: Rules) -> Iterator[Pair | str]:
    """Cuts one row of windows; yields pairs named TILE_ROW_COLUMN.png, or the reason why a window is left out.

    Raises:
        DataError: A raster cannot be read, or a map has an unknown code.
    """
    with reading(f'{pair.image} with {pair.maps[0]}, row {row} of windows'):
        strip, strip_codes = _read_strip(pair, row, rules)
    for column in range(strip.shape[1] // rules.window):
        cut = np.s_[:, column * rules.window : (column + 1) * rules.window]
        rgb, codes = strip[cut], strip_codes[cut]
        reason = _left_out(rgb, codes, rules)
        if reason is not None:
            yield reason
            continue
        stem = f'{pair.tile}_{row:03d}_{column:03d}'
        source = f'{pair.maps[0]}, window {stem}'
        image, mask = scale_to_bytes(rgb), PALETTE.encode(codes_to_labels(codes, source))
        yield Pair(rules.part_of(stem), f'{stem}.png', encode_png(image), f'{stem}.png', encode_png(mask), source)


def scale_to_bytes(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: the values divided by their maximum, times 255, fractions truncated."""
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
            f'{source}: code {codes[row, column]} at row {row}, column {column} is not a code of WorldCover 2021; '
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
                # A millionth of a pixel, so each position is computed and not interpolated; rasterio rejects 0.
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
    if source.dtypes[0] != 'uint8' or source.crs is None:
        raise DataError(
            f'{path}: has values of type {source.dtypes[0]} and coordinate system {source.crs}; expected codes of 8 '
            'bits and a coordinate system to match it with a composite'
        )


def _left_out(rgb: np.ndarray, codes: np.ndarray, rules: Rules) -> str | None:
    if not rgb.any():
        return REASONS[0]
    if not codes.all():
        return REASONS[1]
    if np.isin(codes, WATER_CODES).mean() > rules.max_water:
        return REASONS[2]
    return None


def _corner(path: Path) -> tuple[int, int]:
    """Degrees north and east from the tile name in a file name."""
    north, latitude, east, longitude = _match(path).groups()
    return int(latitude) * (1 if north == 'N' else -1), int(longitude) * (1 if east == 'E' else -1)


def _match(path: Path) -> re.Match[str]:
    match = _TILE.search(path.name)
    if match is None:
        raise DataError(f'{path}: the file name contains no tile such as N38E032')
    return match
