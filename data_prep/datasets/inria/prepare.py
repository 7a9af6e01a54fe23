"""Makes windows and whole tiles for the full protocol of Inria, or one crop per tile for few-shot roofs."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_prep.core.prepared import MANIFEST, Output, Prepared, Unit, manifest, read_markers, without_files
from data_prep.core.progress import check_workers, map_jobs, progress_bar
from data_prep.core.sources import open_raster, remove_scratch, sha256, without_georeference
from data_prep.core.tiles import read_pixels, windows, write_window
from data_prep.datasets.inria.crops import (
    FEW_SHOT,
    FULL,
    MIN_SHARE,
    QUALITY,
    STEP,
    check_nudge,
    choose_crop,
    read_nudges,
    split_of,
    unpublished,
)
from data_prep.datasets.inria.overview import write_overview
from data_prep.datasets.inria.sources import TileFiles, find_tiles
from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.files import save_png, write_atomic, write_json
from lale_mmseg.metainfo import inria

OVERVIEW = 'overview.png'
_KIND = f'{inria.DATASET}-'


@dataclass(frozen=True)
class Request:
    """Options of a run.

    Attributes:
        protocol: 'full' or 'few-shot'.
        size: Side of the windows or crops in pixels.
        stride: Step from one window to the next, for 'full'; None for `size`, that is, without overlap.
        cities: Cities to prepare, for 'full'.
        min_share: Share of building (0 to 1) that a crop should have, for 'few-shot'.
        quality: JPEG quality of the crops, 1 to 100, for 'few-shot'.
        nudges: Table of windows chosen by hand, for 'few-shot'.
        missing: What to do about tiles whose files are missing: 'error' or 'skip'.

    Raises:
        ConfigError: A value is out of range.
    """

    protocol: str
    size: int
    stride: int | None = None
    cities: tuple[str, ...] = inria.CITIES
    min_share: float = MIN_SHARE
    quality: int = QUALITY
    nudges: Path | None = None
    missing: str = 'error'

    def __post_init__(self) -> None:
        if self.protocol == FULL and not 1 <= self.step <= self.size:
            raise ConfigError(
                f'--stride {self.step} with --size {self.size}: expected a stride from 1 to {max(self.size, 1)}; a '
                'larger one would skip the pixels between the windows'
            )
        if self.protocol == FEW_SHOT and self.size < STEP:
            raise ConfigError(f'--size {self.size}: expected at least {STEP} pixels, the step of the windows')
        if not 0 <= self.min_share <= 1:
            raise ConfigError(f'--min-share {self.min_share:g}: expected a share from 0 to 1, such as 0.05 for 5 %')
        if not 1 <= self.quality <= 100:
            raise ConfigError(f'--quality {self.quality}: expected 1 to 100')
        strange = [city for city in self.cities if city not in inria.CITIES]
        if strange:
            raise ConfigError(f'--cities {" ".join(strange)}: cities with labels are {", ".join(inria.CITIES)}')

    @property
    def step(self) -> int:
        """Step from one window to the next in pixels."""
        return self.size if self.stride is None else self.stride

    @property
    def tiles(self) -> tuple[str, ...]:
        """Tiles to prepare."""
        cities = self.cities if self.protocol == FULL else ('austin',)
        return tuple(tile for city in inria.CITIES if city in cities for tile in inria.tiles_of(city))

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that all tiles of a folder share."""
        if self.protocol == FULL:
            return dict(size=self.size, stride=self.step)
        return dict(size=self.size, min_share=self.min_share, step=STEP, quality=self.quality)

    def unit(self, files: TileFiles, nudge: tuple[int, int] | None) -> Unit:
        """The unit of a tile."""
        source = dict(
            image=files.image.identity, mask=files.mask.identity, nudge=None if nudge is None else list(nudge)
        )
        if self.protocol == FEW_SHOT:
            patterns = ('crops/images/{}.jpg', 'crops/masks/{}.png')
        elif split_of(FULL, files.tile) == 'val':
            patterns = ('tiles/images/{}.tif', 'tiles/masks/{}.tif')
        else:
            patterns = ('windows/images/{}_*.png', 'windows/masks/{}_*.png')
        return Unit(files.tile, self.settings, source, tuple(pattern.format(files.tile) for pattern in patterns))


def prepare(
    request: Request, source: str | Path, out: str | Path, overwrite: bool = False, workers: int | None = None
) -> tuple[dict[str, dict[str, Any]], int]:
    """Prepares the tiles of a request.

    Args:
        request: Options of the run.
        source: Folder or zip archive.
        out: Folder to write to.
        overwrite: Make the chosen tiles again.
        workers: Number of threads; None for one per CPU.

    Returns:
        Markers of all finished tiles of `out`, and how many tiles this run made.

    Raises:
        ConfigError: An option is out of range.
        DataError: A tile is missing, damaged or has unexpected content.
        InputError: `out` holds something else, or another process is writing to it.
    """
    threads, out = check_workers(workers), Path(out)
    folder = Prepared(out, f'{_KIND}{request.protocol}')
    scratch = out.resolve().with_name(f'.{out.resolve().name}.unpacked')
    try:
        with without_georeference():
            tiles = find_tiles(Path(source), request.tiles, request.missing == 'skip', scratch)
            nudges = {} if request.nudges is None else read_nudges(request.nudges, tiles)
            units = {tile: request.unit(files, nudges.get(tile)) for tile, files in tiles.items()}
            # What is finished was checked before: a repeated command opens no file.
            new = [*units.values()] if overwrite else folder.unfinished([*units.values()])
            _check_headers([tiles[unit.name] for unit in new], request, nudges, threads)
            with folder.writing([*units.values()], overwrite) as unmade:
                _make_all(folder, request, {unit.name: (unit, tiles[unit.name]) for unit in unmade}, threads)
    finally:
        remove_scratch(scratch)
    return made_tiles(out), len(unmade)


def protocol_of(kind: str) -> str | None:
    """'full' or 'few-shot' from the kind of a prepared folder; None for other data."""
    return kind.removeprefix(_KIND) if kind.startswith(_KIND) else None


def made_tiles(out: Path) -> dict[str, dict[str, Any]]:
    """Markers of finished tiles, by city and number."""
    markers = read_markers(out)
    return {tile: markers[tile] for tile in inria.TILES if tile in markers}


def manifest_of(protocol: str, markers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Content of the manifest; `InriaDataset` reads kinds, pixels, and whether crops are the published ones."""
    notes = dict(published=unpublished(markers) is None) if protocol == FEW_SHOT else {}
    return manifest({tile: without_files(marker) for tile, marker in markers.items()}, **notes)


def read_mask(content: bytes, name: str) -> np.ndarray:
    """Decodes a label file into (H, W) uint8 labels, 0 and 255.

    Raises:
        DataError: The file cannot be read, or has another value.
    """
    with open_raster(content, name) as raster:
        labels = raster.read(1)
    off, on = inria.LABEL_VALUES
    strange = (labels != off) & (labels != on)
    if strange.any():
        row, column = np.unravel_index(int(strange.argmax()), strange.shape)
        raise DataError(
            f'{name}: label {labels[row, column]} at row {row}, column {column} ({int(strange.sum()):,} pixels with '
            f'such labels); expected {off} (background) and {on} (building)'
        )
    return labels


def encode_jpeg(rgb: np.ndarray, quality: int) -> bytes:
    """Encodes (H, W, 3) uint8 RGB pixels as JPEG; colours keep full resolution (4:4:4), so roof edges do not smear."""
    content = io.BytesIO()
    Image.fromarray(rgb).save(content, 'JPEG', quality=quality, subsampling=0)
    return content.getvalue()


def _check_headers(
    tiles: list[TileFiles], request: Request, nudges: Mapping[str, tuple[int, int]], threads: int
) -> None:
    def check(files: TileFiles) -> None:
        size = files.check_headers(request.size)
        if files.tile in nudges:
            assert request.nudges is not None
            check_nudge(nudges[files.tile], files.tile, size, request.size, request.nudges)

    with progress_bar('checking headers', len(tiles), 'tiles') as advance:
        for _ in map_jobs(check, tiles, max(min(threads, len(tiles)), 1), threads=True):
            advance(1)


def _make_all(folder: Prepared, request: Request, jobs: Mapping[str, tuple[Unit, TileFiles]], threads: int) -> None:
    def make(job: tuple[Unit, TileFiles]) -> None:
        with folder.making(job[0]) as output:
            _make(request, job[1], job[0].source['nudge'], output)

    # Before the first tile: the held-out crops of a killed run must be recognised as such.
    folder.write_manifest({tile: dict(kind=folder.kind) for tile in (*made_tiles(folder.root), *jobs)})
    try:
        with progress_bar('preparing', len(jobs), 'tiles') as advance:
            for _ in map_jobs(make, jobs.values(), max(min(threads, len(jobs)), 1), threads=True):
                advance(1)
    finally:
        markers = made_tiles(folder.root)
        write_json(folder.root / MANIFEST, manifest_of(request.protocol, markers))
    if request.protocol == FEW_SHOT and (jobs or not (folder.root / OVERVIEW).exists()):
        write_overview(folder.root, markers, folder.root / OVERVIEW)


def _make(request: Request, files: TileFiles, nudge: list[int] | None, output: Output) -> None:
    tile, size = files.tile, request.size
    content, labels_content = files.image.read(), files.mask.read()
    labels = read_mask(labels_content, files.mask.name)
    # All pixels are decoded, also where they are not needed: a damaged file must not go unnoticed.
    with open_raster(content, files.image.name) as raster:
        image = read_pixels(raster)
    output.facts.update(tile_size=list(labels.shape), pixels=count_pixels(labels))
    output.facts['sha256'] = dict(image=sha256(content), mask=sha256(labels_content))
    if request.protocol == FEW_SHOT:
        crop = choose_crop(labels, size, request.min_share, None if nudge is None else (nudge[0], nudge[1]))
        window = np.s_[crop.y : crop.y + size, crop.x : crop.x + size]
        write_atomic(output.path(f'crops/images/{tile}.jpg'), encode_jpeg(image[window], request.quality))
        save_png(output.path(f'crops/masks/{tile}.png'), labels[window])
        output.facts.update(x=crop.x, y=crop.y, share=round(crop.share, 6), reason=crop.reason)
        output.facts['pixels'] = count_pixels(labels[window])
    elif split_of(FULL, tile) == 'val':
        # Copies of the source files: georeferenced, lossless, and with the checksums of the archive.
        write_atomic(output.path(f'tiles/images/{tile}.tif'), content)
        write_atomic(output.path(f'tiles/masks/{tile}.tif'), labels_content)
    else:
        for array, kind in ((image, 'images'), (labels, 'masks')):
            for name, cut in windows(array, tile, size, request.step):
                write_window(output.path(f'windows/{kind}/{name}.png'), cut)


def count_pixels(labels: np.ndarray) -> list[int]:
    """Pixels of background and of building."""
    building = int(np.count_nonzero(labels))
    return [labels.size - building, building]
