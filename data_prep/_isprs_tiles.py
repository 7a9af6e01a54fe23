"""Prepares one ISPRS tile: labels checked and decoded, the whole tile kept, windows cut; a strip of rows at a time."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
import rasterio.shutil
from rasterio.errors import RasterioError
from rasterio.windows import Window

from data_prep._files import whole_file, write_bytes
from data_prep._images import encode_png
from data_prep._isprs_labels import LabelStrips
from data_prep._isprs_layout import TOPS, image_suffix, label_folder, starts
from data_prep._isprs_plan import Request, TilePlan, palette_of
from data_prep._isprs_source import (
    BANDS,
    IMAGE,
    LABEL_KINDS,
    SourceFile,
    describe_kind,
    read_chunks,
    read_world,
    require_space,
)
from lale_mmseg.errors import DataError

#: Rows that are read at a time, and the side of the blocks of a whole image.
STRIP = 256
#: GDAL keeps decoded blocks up to this many bytes, for all threads together; its own default grows with the machine.
_CACHE = 32 << 20


class Stopped(Exception):
    """Another tile failed, or the user interrupted: this one ends early, and the next run continues it."""


@dataclass
class Control:
    """What the threads of a run share: how they report progress, and whether they must end."""

    advance: Callable[[int], None] = lambda count: None
    event: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None


@dataclass
class TileJob:
    """A tile to prepare.

    Attributes:
        plan: Its name and source files.
        target: What the manifest is to say of it; counts and sums that are known already are in it.
        todo: Names of the files to write, by folder below `out`.
        request: What is asked for.
        out: The prepared folder.
        scratch: Folder for copies.
        control: Shared by all tiles of the run.
        begin: Called with the job and its finished entry before the first file is written.
        finish: Called with both after the last one.
        earlier: What the manifest said of the tile before.
        replaces: Whether its earlier files, if there are any, are of another source, and go.
        begun: Whether `begin` was called.
        finished: Whether `finish` has ended.
    """

    plan: TilePlan
    target: dict[str, Any]
    todo: Mapping[str, set[str]]
    request: Request
    out: Path
    scratch: Path
    control: Control
    begin: Callable[[TileJob, dict[str, Any]], None]
    finish: Callable[[TileJob, dict[str, Any]], None]
    earlier: dict[str, Any] | None = None
    replaces: bool = False
    begun: bool = False
    finished: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        height, width = self.target['size']
        return height, width

    @property
    def labels(self) -> list[str]:
        """Kinds of labels to decode: those that files are missing of, or counts."""
        wanted = {kind for kind in LABEL_KINDS for top in TOPS if f'{top}/{label_folder(kind)}' in self.todo}
        return [kind for kind in self.plan.labels if kind in wanted or kind not in self.target['labels']]

    @property
    def needs_image(self) -> bool:
        """Whether the image is read: for its files, or for its sum."""
        return any(f'{top}/images' in self.todo for top in TOPS) or IMAGE not in self.target['sha256']

    @property
    def steps(self) -> int:
        """How much progress it reports."""
        strips = len(list(_strips(self.size[0])))
        rows = len(starts(self.size[0], self.request.size, self.request.stride)) if self._cuts else 0
        return strips * (len(self.labels) + ('tiles/images' in self.todo)) + rows

    @property
    def _cuts(self) -> bool:
        return any(folder.startswith('windows/') for folder in self.todo)

    def step(self) -> None:
        """Reports progress; raises Stopped if the run has ended."""
        # A finished tile that is being replaced would be lost: after another tile's error it goes on to its end.
        is_replacing = self.begun and self.replaces and self.earlier is not None and self.earlier['complete']
        if self.control.event.is_set() and not (is_replacing and self.control.error is not None):
            raise Stopped
        self.control.advance(1)


def make_tile(job: TileJob) -> None:
    """Makes the missing files of a tile.

    Raises:
        Stopped: Another tile failed first.
        DataError: A file is damaged or has colours off the palette. This and any other error is also in
            `job.control.error`, and all other tiles are stopped.
    """
    folder = job.scratch / 'tiles' / job.plan.stem
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with gdal_settings():
            _make(job, folder)
    except Stopped:
        raise
    except Exception as error:
        failure = _as_told(error, job.plan.tile)
        if job.control.error is None:
            job.control.error = failure
        job.control.event.set()
        if failure is error:
            raise
        raise failure from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _as_told(error: Exception, tile: str) -> Exception:
    """What the user gets to see: of files that cannot be read or written one line, of a bug all."""
    if isinstance(error, OSError):
        return DataError(f'tile {tile}: {error}')
    if isinstance(error, RasterioError):
        return DataError(f'tile {tile}: cannot be read or written ({error})')
    return error


def gdal_settings() -> rasterio.Env:
    """A small cache of blocks, and no files of GDAL's own beside images; each thread enters it."""
    return rasterio.Env(GDAL_CACHEMAX=_CACHE, GDAL_PAM_ENABLED='NO')


def _make(job: TileJob, folder: Path) -> None:
    plan = job.plan
    require_space(folder, 2 * sum(file.size for file in plan.files.values()), f'tile {plan.tile}')
    checksums, counts, ready = {}, {}, {}
    # All labels are decoded before anything is written: a tile with a colour off the palette leaves nothing.
    for kind in job.labels:
        raw, checksums[kind] = _fetch(plan.files[kind], folder / f'raw_{kind}.tif')
        ready[label_folder(kind)] = folder / f'{kind}.tif'
        counts[kind] = _decode_labels(job, kind, raw, ready[label_folder(kind)])
        if raw.parent == folder:
            raw.unlink()
    if job.needs_image:
        ready['images'], checksums[IMAGE] = _fetch(plan.files[IMAGE], folder / 'image.tif')
    made = dict(
        job.target,
        labels=_in_order({**job.target['labels'], **counts}),
        sha256=_in_order({**job.target['sha256'], **checksums}),
    )
    job.begin(job, made)
    _write_whole(job, ready)
    _cut(job, ready)
    job.finish(job, made)


def _in_order(values: Mapping[str, Any]) -> dict[str, Any]:
    return {kind: values[kind] for kind in (IMAGE, *LABEL_KINDS) if kind in values}


def _fetch(file: SourceFile, copy: Path) -> tuple[Path, str]:
    """A file that GDAL can read at random, and its SHA-256 sum: members of archives are copied, checksums compared."""
    digest = hashlib.sha256()
    if file.member is None:
        for chunk in read_chunks(file):
            digest.update(chunk)
        return file.path, digest.hexdigest()
    with copy.open('wb') as target:
        for chunk in read_chunks(file):
            digest.update(chunk)
            target.write(chunk)
    world = read_world(file)
    if world is not None:
        copy.with_suffix('.tfw').write_bytes(world)
    return copy, digest.hexdigest()


def _decode_labels(job: TileJob, kind: str, raw: Path, ready: Path) -> dict[str, Any]:
    """Writes the decoded labels, as they are to be, to a file that windows are read from; returns their counts."""
    height, width = job.size
    palette = palette_of(kind)
    name = f'tile {job.plan.tile}, {describe_kind(kind)}, {job.plan.files[kind].name}'
    strips = LabelStrips(kind, palette, job.request.max_distance, name, height)
    bands = 1 if job.request.masks == 'index' else 3
    profile = dict(driver='GTiff', count=bands, height=height, width=width, dtype='uint8', blockysize=STRIP)
    with rasterio.open(raw) as source, rasterio.open(ready, 'w', **profile) as target:
        for row, rows in _strips(height):
            window = Window(0, row, width, rows)
            rgb = np.ascontiguousarray(source.read(window=window).transpose(1, 2, 0))  # (rows, W, 3)
            labels = strips.decode(rgb, row)
            values = labels[None] if bands == 1 else palette.encode(labels).transpose(2, 0, 1)
            target.write(values, window=window)
            job.step()
    return strips.as_dict()


def _write_whole(job: TileJob, sources: Mapping[str, Path]) -> None:
    """Writes the whole image as tiled GeoTIFF without loss, and the whole labels as PNG."""
    height, width = job.size
    for folder, source_path in sources.items():
        for name in job.todo.get(f'tiles/{folder}', ()):
            path = job.out / 'tiles' / folder / name
            if folder != 'images':
                with whole_file(path) as temporary:
                    rasterio.shutil.copy(source_path, temporary, driver='PNG')
                continue
            with rasterio.open(source_path) as source:
                # Without `photometric` a fourth band, here near infrared, would be taken for transparency.
                profile = dict(driver='GTiff', count=source.count, height=height, width=width, dtype='uint8')
                profile |= dict(tiled=True, blockxsize=STRIP, blockysize=STRIP, interleave='pixel')
                profile |= dict(compress='deflate', predictor=2, photometric='RGB')
                if source.crs is not None:
                    profile['crs'] = source.crs
                if not source.transform.is_identity:
                    profile['transform'] = source.transform
                with whole_file(path) as temporary, rasterio.open(temporary, 'w', **profile) as target:
                    for row, rows in _strips(height):
                        window = Window(0, row, width, rows)
                        target.write(source.read(window=window), window=window)
                        job.step()


def _cut(job: TileJob, sources: Mapping[str, Path]) -> None:
    """Cuts the missing windows, a row of them at a time."""
    (height, width), size, stem = job.size, job.request.size, job.plan.stem
    missing = {folder: job.todo[f'windows/{folder}'] for folder in sources if f'windows/{folder}' in job.todo}
    if not missing:
        return
    image = image_suffix(BANDS[job.request.bands][1])
    for row in starts(height, size, job.request.stride):
        for folder, names in missing.items():
            suffix = image if folder == 'images' else '.png'
            due = {
                x: f'{stem}_{x}_{row}_{x + size}_{row + size}{suffix}' for x in starts(width, size, job.request.stride)
            }
            due = {x: name for x, name in due.items() if name in names}
            if due:
                with rasterio.open(sources[folder]) as opened:
                    strip = opened.read(window=Window(0, row, width, size))  # (bands, size, W)
                for x, name in due.items():
                    _write_window(job.out / 'windows' / folder / name, strip[:, :, x : x + size])
        job.step()


def _write_window(path: Path, values: np.ndarray) -> None:
    """Writes (bands, H, W) values: PNG of one or three bands, GeoTIFF of four."""
    bands, height, width = values.shape
    if bands == 4:
        profile = dict(driver='GTiff', count=4, height=height, width=width, dtype='uint8', compress='deflate')
        profile |= dict(predictor=2, interleave='pixel', photometric='RGB')
        with whole_file(path) as temporary, rasterio.open(temporary, 'w', **profile) as target:
            target.write(values)
    elif bands == 3:
        write_bytes(path, encode_png(np.ascontiguousarray(values.transpose(1, 2, 0))))
    else:
        write_bytes(path, cv2.imencode('.png', np.ascontiguousarray(values[0]))[1].tobytes())


def _strips(height: int) -> Iterator[tuple[int, int]]:
    """(first row, rows) of each strip."""
    for row in range(0, height, STRIP):
        yield row, min(STRIP, height - row)
