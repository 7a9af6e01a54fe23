"""Makes windows and whole tiles of ISPRS.

Each source file, an image or one kind of labels, becomes up to two units: its windows and its whole tile. So another
protocol or another kind of labels adds units and leaves the others alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.core.prepared import Prepared, Unit, read_markers, without_files
from data_prep.core.progress import map_jobs
from data_prep.core.sources import check_tile, open_raster, scratch_beside
from data_prep.core.tiles import Rows, read_rows, windows, write_tiff, write_window
from data_prep.datasets.isprs.labels import decode_labels
from data_prep.datasets.isprs.request import Request, Tile, plan
from data_prep.datasets.isprs.sources import BANDS, IMAGE, LABEL_KINDS, describe_kind, find_files, list_inputs
from lale_mmseg.files import hash_json, write_json
from lale_mmseg.metainfo import isprs

STATISTICS = 'statistics.json'
#: Folders of a prepared dataset, and the `product` of their markers.
WINDOWS, TILES = 'windows', 'tiles'
_KIND = 'isprs-'


@dataclass(frozen=True)
class Job:
    """One source file and the units that are made of it."""

    tile: Tile
    kind: str
    units: tuple[Unit, ...]


def prepare(
    request: Request, source: str | Path, out: str | Path, overwrite: bool = False, workers: int | None = None
) -> dict[str, dict[str, Any]]:
    """Prepares a dataset.

    Args:
        request: Options of the run.
        source: Folder with the archives or unpacked folders of ISPRS, at any depth, or one archive.
        out: Folder to write to.
        overwrite: Make all chosen tiles again.
        workers: Number of threads; None for one per CPU.

    Returns:
        Markers of all finished units of `out`.

    Raises:
        DataError: A file is missing, damaged or has unexpected content, or labels have colours outside the palette.
        InputError: `out` holds something else, or another process is writing to it.
    """
    source, out = Path(source), Path(out)
    folder = Prepared(out, f'{_KIND}{request.dataset}')
    run = _run_unit(request, source)
    markers = read_markers(out)
    # A repeated command is recognised by its inputs alone: inner archives need not be copied out again.
    if not overwrite and not folder.unfinished([run]) and not folder.missing(markers[run.name]['units']):
        return made_units(out)
    with folder.locked(), scratch_beside(out) as scratch:
        tiles = plan(request, find_files(source, request.wanted, scratch))

        def check(tile: Tile) -> None:
            labels = [file for kind, file in tile.files.items() if kind != IMAGE]
            size = request.size if tile.windows else 1
            check_tile(tile.files[IMAGE], labels, (BANDS[request.bands][1], 3), size)

        list(map_jobs('checking headers', check, tiles, workers, threads=True, unit='tiles'))
        jobs = [_job(request, tile, kind) for tile in tiles for kind in (*LABEL_KINDS, IMAGE) if kind in tile.files]
        _make_all(folder, request, jobs, run, overwrite, scratch, workers)
    return made_units(out)


def dataset_of(kind: str) -> str | None:
    """'potsdam' or 'vaihingen' from the kind of a prepared folder; None for other data."""
    return kind.removeprefix(_KIND) if kind.startswith(_KIND) else None


def made_units(out: Path) -> dict[str, dict[str, Any]]:
    """Markers of finished windows and whole tiles."""
    return {name: marker for name, marker in read_markers(out).items() if 'content' in marker}


def statistics(markers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Content of the file of class counts: pixels of each class on every tile, for each kind of labels."""
    tiles: dict[str, dict[str, list[int]]] = {}
    for marker in markers.values():
        if marker['content'] != IMAGE:
            tiles.setdefault(marker['tile'], {})[marker['content']] = marker['pixels']
    order = [tile for dataset in isprs.TILES.values() for tile in dataset if tile in tiles]
    return dict(
        classes=list(isprs.CLASSES),
        tiles={tile: {kind: tiles[tile][kind] for kind in LABEL_KINDS if kind in tiles[tile]} for tile in order},
    )


def _run_unit(request: Request, source: Path) -> Unit:
    inputs = dict(request=vars(request), inputs=list_inputs(source))
    return Unit(f'run-{hash_json(vars(request))[:12]}', {}, inputs)


def _make_all(
    folder: Prepared,
    request: Request,
    jobs: Sequence[Job],
    run: Unit,
    overwrite: bool,
    scratch: Path,
    threads: int | None,
) -> None:
    units = [unit for job in jobs for unit in job.units]
    names = {unit.name for unit in folder.unmade(units, overwrite)}
    jobs = [Job(job.tile, job.kind, tuple(unit for unit in job.units if unit.name in names)) for job in jobs]
    jobs = [job for job in jobs if job.units]
    try:
        make = partial(_make, folder, request, scratch)
        list(map_jobs('preparing', make, jobs, threads, threads=True, unit='images and labels'))
    finally:
        markers = made_units(folder.root)
        write_json(folder.root / STATISTICS, statistics(markers))
        folder.write_manifest({name: without_files(marker) for name, marker in markers.items()})
    with folder.making(run) as output:
        output.facts['units'] = {unit.name: unit.hash for unit in units}


def _job(request: Request, tile: Tile, kind: str) -> Job:
    folder = 'images' if kind == IMAGE else f'labels_{kind}'
    settings: dict[str, Any] = dict(bands=request.bands) if kind == IMAGE else dict(masks=request.masks)
    source: dict[str, Any] = dict(file=tile.files[kind].identity)
    if kind != IMAGE:
        source['max_distance'] = request.max_distance
    units = []
    if tile.windows:
        cut = dict(settings, size=request.size, stride=request.stride)
        units.append(Unit(f'{tile.stem}-{WINDOWS}-{folder}', cut, source, (f'{WINDOWS}/{folder}/{tile.stem}_*',)))
    if tile.whole:
        units.append(Unit(f'{tile.stem}-{TILES}-{folder}', settings, source, (f'{TILES}/{folder}/{tile.stem}.*',)))
    return Job(tile, kind, tuple(units))


def _make(folder: Prepared, request: Request, scratch: Path, job: Job) -> None:
    file, kind = job.tile.files[job.kind], job.kind
    name = f'tile {job.tile.name}, {describe_kind(kind)}, {file.name}'
    with file.unpacked(scratch) as (path, sha256):

        def read(rows: slice) -> np.ndarray:
            # Opened each time, so that an image of 100 MB and more never lies in memory as a whole.
            with open_raster(path, name) as opened:
                return read_rows(opened, rows)

        with open_raster(path, name) as raster:
            shape = raster.height, raster.width, raster.count
            crs, transform = raster.crs, file.transform(raster)
            if kind == IMAGE:
                rows: Rows = read
                facts: dict[str, Any] = dict(bands=raster.count)
            else:
                labels, facts = decode_labels(raster, kind, request.max_distance, name)
                pixels = isprs.palette_of(kind).encode(labels) if request.masks == 'rgb' else labels
                rows = pixels.__getitem__
        facts = dict(sha256=sha256) | facts | dict(tile=job.tile.name, content=kind, size=list(shape[:2]))
        # PNG cannot hold four bands without taking one for opacity.
        suffix = '.tif' if shape[2] == 4 else '.png'
        for unit in job.units:
            with folder.making(unit) as output:
                target, stem = unit.patterns[0].rpartition('/')[0], job.tile.stem
                product = target.split('/')[0]
                output.facts.update(facts, product=product)
                if product == WINDOWS:
                    for window, cut in windows(rows, shape, stem, request.size, request.stride):
                        write_window(output.path(f'{target}/{window}{suffix}'), cut)
                elif kind == IMAGE:
                    place = None if transform.is_identity else transform
                    write_tiff(output.path(f'{target}/{stem}.tif'), rows, shape, True, crs, place)
                else:
                    write_window(output.path(f'{target}/{stem}.png'), pixels)
