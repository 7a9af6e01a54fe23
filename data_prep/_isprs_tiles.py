"""Prepares one ISPRS tile: labels checked and decoded, the whole tile kept, windows cut; a strip of rows at a time."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
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
from data_prep._isprs_layout import image_suffix, label_folder, starts, window_names
from data_prep._isprs_plan import Request, TilePlan, palette_of
from data_prep._isprs_source import IMAGE, SourceFile, read_chunks, read_world, require_space
from lale_mmseg.errors import DataError, InputError

#: Rows that are read at a time, and the side of the blocks of a whole image.
STRIP = 256
#: GDAL keeps decoded blocks up to this many bytes, for all threads together; its own default grows with the machine.
_CACHE = 32 << 20


class Stopped(Exception):
    """Another tile failed, or the user interrupted: this one ends early, and the next run continues it."""


@dataclass
class Control:
    """What the threads of a run share: how they report progress, and whether they must end."""

    advance: Callable[[int], None]
    event: threading.Event = field(default_factory=threading.Event)
    error: InputError | None = None

    def step(self, count: int = 1) -> None:
        """Reports progress; raises Stopped if the run has ended."""
        if self.event.is_set():
            raise Stopped
        self.advance(count)


@dataclass(frozen=True)
class TileJob:
    """A tile to prepare: its plan and size, the request, folders, and whether finished files are made again."""

    plan: TilePlan
    size: tuple[int, int]
    request: Request
    out: Path
    scratch: Path
    again: bool
    control: Control

    @property
    def steps(self) -> int:
        """How much progress it reports."""
        (height, _), plan = self.size, self.plan
        strips = -(-height // STRIP)
        rows = len(starts(height, self.request.size, self.request.stride)) if plan.windows else 0
        return strips * (len(plan.labels) + plan.whole) + rows


def make_tile(job: TileJob) -> dict[str, Any]:
    """Makes the files of a tile; those that an earlier run has finished are kept.

    Returns:
        Size, number of windows, label counts and checksums of the tile, for the manifest.

    Raises:
        Stopped: Another tile failed first.
        DataError: A file is damaged or has colours off the palette; the error is also in `job.control.error`, and all
            other tiles are stopped.
    """
    folder = job.scratch / 'tiles' / job.plan.stem
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with gdal_settings():
            return _make(job, folder)
    except OSError as error:
        failure = DataError(f'tile {job.plan.tile}: {error}')
    except RasterioError as error:
        failure = DataError(f'tile {job.plan.tile}: cannot be read or written ({error})')
    except InputError as error:
        failure = error  # type: ignore[assignment]
    finally:
        for path in sorted(folder.glob('*')):
            path.unlink()
        if folder.exists():
            folder.rmdir()
    if job.control.error is None:
        job.control.error = failure
    job.control.event.set()
    raise failure


def gdal_settings() -> rasterio.Env:
    """A small cache of blocks, and no files of GDAL's own beside images; each thread enters it."""
    return rasterio.Env(GDAL_CACHEMAX=_CACHE, GDAL_PAM_ENABLED='NO')


def _make(job: TileJob, folder: Path) -> dict[str, Any]:
    plan, (height, width) = job.plan, job.size
    require_space(folder, 2 * sum(file.size for file in plan.files.values()), f'tile {plan.tile}')
    checksums, counts, ready = {}, {}, {}
    # All labels are decoded before anything is written: a tile with a colour off the palette leaves nothing.
    for kind in plan.labels:
        raw, checksums[kind] = _fetch(plan.files[kind], folder / f'raw_{kind}.tif')
        ready[kind] = folder / f'{kind}.tif'
        counts[kind] = _decode_labels(job, kind, raw, ready[kind])
        if raw.parent == folder:
            raw.unlink()
    image, checksums[IMAGE] = _fetch(plan.files[IMAGE], folder / 'image.tif')
    if plan.whole:
        _write_whole(job, image, ready)
    if plan.windows:
        _cut(job, image, ready)
    names = window_names(plan.stem, height, width, job.request.size, job.request.stride) if plan.windows else []
    return dict(
        size=[height, width],
        windows=len(names),
        whole=plan.whole,
        labels=counts,
        sha256=checksums,
    )


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
    strips = LabelStrips(kind, palette, job.request.max_distance)
    bands = 1 if job.request.masks == 'index' else 3
    profile = dict(driver='GTiff', count=bands, height=height, width=width, dtype='uint8', blockysize=STRIP)
    with rasterio.open(raw) as source, rasterio.open(ready, 'w', **profile) as target:
        for row, rows in _strips(height):
            window = Window(0, row, width, rows)
            rgb = np.ascontiguousarray(source.read(window=window).transpose(1, 2, 0))  # (rows, W, 3)
            labels = strips.decode(rgb, row)
            values = labels[None] if bands == 1 else palette.encode(labels).transpose(2, 0, 1)
            target.write(values, window=window)
            job.control.step()
    strips.require_known(job.plan.tile, job.plan.files[kind].name)
    return strips.as_dict()


def _write_whole(job: TileJob, image: Path, labels: dict[str, Path]) -> None:
    """Writes the whole image as tiled GeoTIFF without loss, and the whole labels as PNG."""
    height, width = job.size
    path = _path(job, 'tiles', 'images', f'{job.plan.stem}.tif')
    if job.again or not path.exists():
        with rasterio.open(image) as source:
            # Without `photometric` a fourth band, here near infrared, would be taken for transparency.
            profile = dict(driver='GTiff', count=source.count, height=height, width=width, dtype='uint8', tiled=True)
            profile |= dict(blockxsize=STRIP, blockysize=STRIP, compress='deflate', predictor=2, interleave='pixel')
            profile |= dict(photometric='RGB')
            if source.crs is not None:
                profile['crs'] = source.crs
            if not source.transform.is_identity:
                profile['transform'] = source.transform
            with whole_file(path) as temporary, rasterio.open(temporary, 'w', **profile) as target:
                for row, rows in _strips(height):
                    window = Window(0, row, width, rows)
                    target.write(source.read(window=window), window=window)
                    job.control.step()
    else:
        job.control.step(len(list(_strips(height))))
    for kind, source_path in labels.items():
        path = _path(job, 'tiles', label_folder(kind), f'{job.plan.stem}.png')
        if job.again or not path.exists():
            with whole_file(path) as temporary:
                rasterio.shutil.copy(source_path, temporary, driver='PNG')


def _cut(job: TileJob, image: Path, labels: dict[str, Path]) -> None:
    """Cuts all windows, a row of them at a time."""
    (height, width), size, stem = job.size, job.request.size, job.plan.stem
    columns = starts(width, size, job.request.stride)
    sources = {'images': image, **{label_folder(kind): path for kind, path in labels.items()}}
    with rasterio.open(image) as opened:
        bands = opened.count
    for row in starts(height, size, job.request.stride):
        for folder, source in sources.items():
            suffix = image_suffix(bands) if folder == 'images' else '.png'
            paths = {
                x: _path(job, 'windows', folder, f'{stem}_{x}_{row}_{x + size}_{row + size}{suffix}') for x in columns
            }
            missing = {x: path for x, path in paths.items() if job.again or not path.exists()}
            if missing:
                with rasterio.open(source) as opened:
                    strip = opened.read(window=Window(0, row, width, size))  # (bands, size, W)
                for x, path in missing.items():
                    _write_window(path, strip[:, :, x : x + size])
        job.control.step()


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


def _path(job: TileJob, *parts: str) -> Path:
    return job.out.joinpath(*parts)


def _strips(height: int) -> Iterator[tuple[int, int]]:
    """(first row, rows) of each strip."""
    for row in range(0, height, STRIP):
        yield row, min(STRIP, height - row)
