"""What is made of one Inria tile: windows to train on, the whole tile to validate on, or one crop."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from rasterio.windows import Window

from data_prep._files import whole_file, write_bytes
from data_prep._images import encode_png
from data_prep._inria_crops import Crop, choose_crop
from data_prep._inria_layout import expected_files
from data_prep._inria_source import TileFiles, count_pixels, opened, read_mask
from data_prep._isprs_layout import starts
from data_prep._isprs_source import SourceFile, read_chunks
from data_prep._isprs_tiles import gdal_settings
from lale_mmseg.errors import DataError


class Stopped(Exception):
    """Another tile failed, or the user interrupted: this one ends early, and the next run continues it."""


@dataclass
class TileJob:
    """A tile to prepare.

    Attributes:
        files: Its source files.
        entry: What the manifest says of it so far: size of the tile, pixels, and as `source` the settings.
        out: The prepared folder.
        stop: Set when the run has ended.
    """

    files: TileFiles
    entry: dict[str, Any]
    out: Path
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def missing(self) -> dict[str, set[str]]:
        """Names of the files to write, by folder: those that are there are of the same source, and whole."""
        due = expected_files(self.files.tile, self.entry)
        return {
            folder: {name for name in names if not (self.out / folder / name).exists()} for folder, names in due.items()
        }


def make_tile(job: TileJob) -> dict[str, Any]:
    """Writes what is missing of a tile.

    Returns:
        What is to be added to its entry.

    Raises:
        Stopped: The run has ended.
        DataError: A file cannot be read or written.
    """
    missing = job.missing
    for folder in missing:
        (job.out / folder).mkdir(parents=True, exist_ok=True)
    top = next(iter(missing)).partition('/')[0]
    with gdal_settings():
        return {'crops': _make_crop, 'windows': _make_windows, 'tiles': _make_whole}[top](job, missing)


def _make_whole(job: TileJob, missing: dict[str, set[str]]) -> dict[str, Any]:
    """Copies both files as they are: georeferenced, without loss, and with the checksums of the archive."""
    for kind, file in (('images', job.files.image), ('masks', job.files.mask)):
        for name in missing[f'tiles/{kind}']:
            with whole_file(job.out / 'tiles' / kind / name) as temporary, temporary.open('wb') as target:
                for chunk in read_chunks(file):
                    _go_on(job)
                    target.write(chunk)
    return dict(windows=0)


def _make_windows(job: TileJob, missing: dict[str, set[str]]) -> dict[str, Any]:
    """Cuts the windows, a row of them at a time."""
    (height, width), size = job.entry['tile_size'], job.entry['source']['size']
    stride, tile = job.entry['source']['stride'], job.files.tile
    columns, rows = starts(width, size, stride), starts(height, size, stride)
    if any(missing.values()):
        labels = read_mask(job.files.mask)
        with opened(job.files.image) as raster:
            for y in rows:
                _go_on(job)
                strip = raster.read(window=Window(0, y, width, size)).transpose(1, 2, 0)  # (size, W, 3)
                for x in columns:
                    name = f'{tile}_{x}_{y}_{x + size}_{y + size}.png'
                    if name in missing['windows/images']:
                        image = np.ascontiguousarray(strip[:, x : x + size])
                        write_bytes(job.out / 'windows' / 'images' / name, encode_png(image))
                    if name in missing['windows/masks']:
                        _write_mask(job.out / 'windows' / 'masks' / name, labels[y : y + size, x : x + size])
    return dict(windows=len(rows) * len(columns))


def _make_crop(job: TileJob, missing: dict[str, set[str]]) -> dict[str, Any]:
    source, tile = job.entry['source'], job.files.tile
    labels, size = read_mask(job.files.mask), source['size']
    nudge = None if source['nudge'] is None else (source['nudge'][0], source['nudge'][1])
    crop = choose_crop(labels, size, source['min_share'], nudge)
    chosen = labels[crop.y : crop.y + size, crop.x : crop.x + size]
    _go_on(job)
    if missing['crops/images']:
        image = read_window(job.files.image, crop.x, crop.y, size)
        write_bytes(job.out / 'crops' / 'images' / f'{tile}.jpg', encode_jpeg(image, source['quality']))
    if missing['crops/masks']:
        _write_mask(job.out / 'crops' / 'masks' / f'{tile}.png', chosen)
    return dict(describe(crop), pixels=count_pixels(chosen))


def describe(crop: Crop) -> dict[str, Any]:
    """What the manifest says of a crop."""
    return dict(x=crop.x, y=crop.y, share=round(crop.share, 6), reason=crop.reason)


def read_window(file: SourceFile, x: int, y: int, size: int) -> np.ndarray:
    """(size, size, 3) uint8 RGB pixels of a window of an image, as they are in the file."""
    with opened(file) as raster:
        return np.ascontiguousarray(raster.read(window=Window(x, y, size, size)).transpose(1, 2, 0))


def encode_jpeg(rgb: np.ndarray, quality: int) -> bytes:
    """JPEG of (H, W, 3) uint8 RGB pixels; colours are kept at full resolution (4:4:4), or roof edges would smear."""
    content = io.BytesIO()
    Image.fromarray(rgb).save(content, 'JPEG', quality=quality, subsampling=0)
    return content.getvalue()


def _write_mask(path: Path, labels: np.ndarray) -> None:
    done, content = cv2.imencode('.png', np.ascontiguousarray(labels))
    if not done:
        raise DataError(f'{path}: labels of shape {labels.shape} cannot be written as PNG')
    write_bytes(path, content.tobytes())


def _go_on(job: TileJob) -> None:
    if job.stop.is_set():
        raise Stopped
