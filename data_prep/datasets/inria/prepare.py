"""Makes windows and whole tiles for the full protocol of Inria, or one crop per tile for few-shot roofs."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_prep.core.prepared import MANIFEST, Output, Prepared, Unit, manifest, read_markers, without_files
from data_prep.core.progress import map_jobs
from data_prep.core.sources import check_tile, open_raster, scratch_beside
from data_prep.core.tiles import read_pixels, windows, write_window
from data_prep.datasets.inria import crops
from data_prep.datasets.inria.crops import FEW_SHOT, FULL, check_nudge, choose_crop, read_nudges, split_of, unpublished
from data_prep.datasets.inria.overview import write_overview
from data_prep.datasets.inria.sources import TileFiles, find_tiles
from lale_mmseg.files import atomic_path, save_png, write_atomic, write_json
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
    """

    protocol: str
    size: int
    stride: int | None = None
    cities: tuple[str, ...] = inria.CITIES
    min_share: float = crops.MIN_SHARE
    quality: int = crops.QUALITY
    nudges: Path | None = None
    missing: str = 'error'

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
        return dict(size=self.size, min_share=self.min_share, step=crops.STEP, quality=self.quality)

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
        DataError: A tile is missing, damaged or has unexpected content.
        InputError: `out` holds something else, or another process is writing to it.
    """
    out = Path(out)
    folder = Prepared(out, f'{_KIND}{request.protocol}')
    with folder.locked(), scratch_beside(out) as scratch:
        tiles = find_tiles(Path(source), request.tiles, request.missing == 'skip', scratch)
        nudges = {} if request.nudges is None else read_nudges(request.nudges, tiles)
        units = [request.unit(files, nudges.get(tile)) for tile, files in tiles.items()]

        def check(unit: Unit) -> None:
            files = tiles[unit.name]
            size = check_tile(files.image, [files.mask], (3, 1), request.size)
            if unit.name in nudges:
                check_nudge(nudges[unit.name], unit.name, size, request.size)

        # What is finished was checked before: a repeated command opens no file.
        new = units if overwrite else folder.unfinished(units)
        list(map_jobs('checking headers', check, new, workers, threads=True, unit='tiles'))
        jobs = [(unit, tiles[unit.name]) for unit in folder.unmade(units, overwrite)]
        _make_all(folder, request, jobs, scratch, workers)
    return made_tiles(out), len(jobs)


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


def read_mask(path: Path, name: str) -> np.ndarray:
    """Reads a label file as (H, W) uint8 labels, 0 and 255.

    Raises:
        DataError: The file cannot be read, or has another value.
    """
    with open_raster(path, name) as raster:
        labels = raster.read(1)
    inria.PALETTE.decode(labels, source=name)
    return labels


def encode_jpeg(rgb: np.ndarray, quality: int) -> bytes:
    """Encodes (H, W, 3) uint8 RGB pixels as JPEG; colours keep full resolution (4:4:4), so roof edges do not smear."""
    content = io.BytesIO()
    Image.fromarray(rgb).save(content, 'JPEG', quality=quality, subsampling=0)
    return content.getvalue()


def _make_all(
    folder: Prepared, request: Request, jobs: Sequence[tuple[Unit, TileFiles]], scratch: Path, threads: int | None
) -> None:
    def make(job: tuple[Unit, TileFiles]) -> None:
        unit, files = job
        with (
            folder.making(unit) as output,
            files.image.unpacked(scratch) as (image, image_sha256),
            files.mask.unpacked(scratch) as (mask, mask_sha256),
        ):
            output.facts['sha256'] = dict(image=image_sha256, mask=mask_sha256)
            _make(request, files, (image, mask), unit.source['nudge'], output)

    # Before the first tile: the held-out crops of a killed run must be recognised as such.
    names = (*made_tiles(folder.root), *(unit.name for unit, _ in jobs))
    folder.write_manifest({tile: dict(kind=folder.kind) for tile in names})
    try:
        list(map_jobs('preparing', make, jobs, threads, threads=True, unit='tiles'))
    finally:
        markers = made_tiles(folder.root)
        write_json(folder.root / MANIFEST, manifest_of(request.protocol, markers))
    if request.protocol == FEW_SHOT and (jobs or not (folder.root / OVERVIEW).exists()):
        write_overview(folder.root, markers, folder.root / OVERVIEW)


def _make(
    request: Request, files: TileFiles, paths: tuple[Path, Path], nudge: list[int] | None, output: Output
) -> None:
    tile, size = files.tile, request.size
    labels = read_mask(paths[1], files.mask.name)
    # All pixels are decoded, also where they are not needed: a damaged file must not go unnoticed.
    with open_raster(paths[0], files.image.name) as raster:
        image = read_pixels(raster)
    output.facts.update(tile_size=list(labels.shape), pixels=count_pixels(labels))
    if request.protocol == FEW_SHOT:
        crop = choose_crop(labels, size, request.min_share, None if nudge is None else (nudge[0], nudge[1]))
        window = np.s_[crop.y : crop.y + size, crop.x : crop.x + size]
        write_atomic(output.path(f'crops/images/{tile}.jpg'), encode_jpeg(image[window], request.quality))
        save_png(output.path(f'crops/masks/{tile}.png'), labels[window])
        output.facts.update(x=crop.x, y=crop.y, share=round(crop.share, 6), reason=crop.reason)
        output.facts['pixels'] = count_pixels(labels[window])
    elif split_of(FULL, tile) == 'val':
        # Copies of the source files: georeferenced, lossless, and with the checksums of the archive.
        for path, kind in zip(paths, ('images', 'masks'), strict=True):
            with atomic_path(output.path(f'tiles/{kind}/{tile}.tif')) as temporary:
                shutil.copyfile(path, temporary)
    else:
        for array, kind in ((image, 'images'), (labels, 'masks')):
            for name, cut in windows(array.__getitem__, array.shape, tile, size, request.step):
                write_window(output.path(f'windows/{kind}/{name}.png'), cut)


def count_pixels(labels: np.ndarray) -> list[int]:
    """Pixels of background and of building."""
    building = int(np.count_nonzero(labels))
    return [labels.size - building, building]
