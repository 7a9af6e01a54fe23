"""Files of a submission to the Inria benchmark: source tiles, masks, manifest, check and zip archive."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from lale_mmseg.engine.ledger import file_digest
from lale_mmseg.locks import held
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

from lale_mmseg.errors import DataError, InputError
from lale_mmseg.files import write_atomic
from lale_mmseg.metainfo import inria

MANIFEST = 'manifest.json'
SUMMARY = 'summary.json'
_SHOWN = 6


@dataclass(frozen=True)
class SourceTile:
    """A hidden tile that is there."""

    name: str
    city: str
    path: Path


def tile_names(cities: Sequence[str] | None = None) -> list[str]:
    """Names of hidden tiles, such as 'bellingham1', by city and number; all 180 without `cities`."""
    return [tile for tile in inria.HIDDEN_TILES if not cities or inria.city_of(tile) in cities]


def named(tiles: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(tiles) - _SHOWN
    return ', '.join(tiles[:_SHOWN]) + (f' and {more} more' if more > 0 else '')


def find_tiles(folder: Path, cities: Sequence[str] | None, partial: bool) -> list[SourceTile]:
    """The hidden tiles of a folder, each of its header checked.

    Args:
        folder: Folder of the benchmark's test images.
        cities: Only these; all by default.
        partial: Whether tiles may be missing.

    Raises:
        DataError: The folder or tiles are missing, or a tile has another size, type or number of bands.
    """
    if not folder.is_dir():
        raise DataError(f'--images {folder}: no such folder; it is AerialImageDataset/test/images of the benchmark')
    wanted = tile_names(cities)
    missing = [name for name in wanted if not (folder / f'{name}.tif').is_file()]
    if len(missing) == len(wanted):
        raise DataError(f'--images {folder}: none of the {len(wanted)} tiles, such as {wanted[0]}.tif, is in it')
    if missing and not partial:
        raise DataError(
            f'--images {folder}: {len(missing)} of {len(wanted)} tiles are missing: {named(missing)}; --partial goes '
            'on without them'
        )
    found = [
        SourceTile(name, inria.city_of(name), folder / f'{name}.tif') for name in wanted if name not in set(missing)
    ]
    for tile in found:
        _check_source(tile.path)
    return found


def _check_source(path: Path) -> None:
    try:
        with _quiet(), rasterio.open(path) as dataset:
            size, count, types = (dataset.height, dataset.width), dataset.count, set(dataset.dtypes)
    except RasterioIOError as error:
        raise DataError(f'{path}: not a readable TIFF ({error})') from None
    if size != (inria.TILE_SIZE, inria.TILE_SIZE):
        side = inria.TILE_SIZE
        raise DataError(f'{path}: {size[0]} x {size[1]} pixels (height x width); a tile has {side} x {side}')
    if count != 3 or types != {'uint8'}:
        raise DataError(f'{path}: {count} band(s) of {", ".join(sorted(types))}; a tile has 3 bands (RGB) of uint8')


def write_mask(source: Path, labels: np.ndarray, target: Path) -> str:
    """Writes a mask where its source lies on the ground, whole or not at all.

    Args:
        source: Image of the tile.
        labels: (H, W) uint8 classes, 1 is building.
        target: TIFF to write: one band of 8 bits, 0 and 255, compressed without loss.

    Returns:
        The SHA-256 digest of the file.
    """
    with _quiet(), rasterio.open(source) as dataset:
        place: dict[str, Any] = {}
        if dataset.crs is not None:
            place['crs'] = dataset.crs
        if not dataset.transform.is_identity:
            place['transform'] = dataset.transform
    with _quiet(), rasterio.MemoryFile() as memory:
        profile = dict(driver='GTiff', dtype='uint8', count=1, compress='lzw', photometric='minisblack', **place)
        with memory.open(height=labels.shape[0], width=labels.shape[1], **profile) as dataset:
            dataset.write(np.where(labels == 1, np.uint8(inria.LABEL_VALUES[1]), np.uint8(inria.LABEL_VALUES[0])), 1)
        content = bytes(memory.getbuffer())
    write_atomic(target, content)
    return hashlib.sha256(content).hexdigest()


class Manifest:
    """`manifest.json` of a submission: of which checkpoint and settings its tiles are, which are finished, which begun.

    A tile is noted before its file is written, so a file that the manifest does not know is not of this tool. Several
    processes may share the folder: each writes, and reads what the others noted, while it holds the folder's lock.

    Args:
        out: Folder of the submission; made if missing.
        made_by: Checkpoint and settings, plain data; finished tiles are kept only where it is equal.
        overwrite: Let tiles of another checkpoint or other settings stay until they are chosen, instead of raising.

    Raises:
        InputError: The folder has tiles of something else and `overwrite` is off, files and no manifest, or files that
            its manifest does not know.
    """

    def __init__(self, out: Path, made_by: Mapping[str, Any], overwrite: bool = False) -> None:
        self.out = out
        self.path = out / MANIFEST
        self.made_by = json.loads(json.dumps(made_by))
        #: What is known of each finished tile; `made_by` where it is another than that of the manifest.
        self.tiles: dict[str, dict[str, Any]] = {}
        #: Tiles that were chosen and are not finished; files of theirs are old or of a killed run.
        self.begun: set[str] = set()
        if out.exists() and not out.is_dir():
            raise InputError(f'--out {out}: a folder is due, this is a file')
        out.mkdir(parents=True, exist_ok=True)
        self._lock = out / f'.{MANIFEST}.lock'
        with held(self._lock):
            # Nobody writes now, so what is half written is of a killed run.
            leftovers = [path for path in out.iterdir() if _is_leftover(path)]
            if self.path.is_file():
                self._read()
            elif not overwrite and set(out.iterdir()) - {*leftovers, self._lock}:
                raise InputError(
                    f'--out {out}: is not empty and has no {MANIFEST}; take a new folder, or --overwrite to write '
                    'among the files in it'
                )
            self._refuse_strangers()
            if not overwrite:
                self._refuse_others()
            for path in leftovers:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def updated(self) -> Iterator[None]:
        """Holds the folder: what other processes noted is read, and the block's changes are written at its end."""
        with held(self._lock):
            if self.path.is_file():
                self._read()
            yield
            content = dict(made_by=self.made_by, begun=sorted(self.begun), tiles=self.tiles)
            write_atomic(self.path, json.dumps(content, indent=1) + '\n')

    def choose(
        self, tiles: Sequence[SourceTile], overwrite: bool = False, limit: int | None = None
    ) -> list[SourceTile]:
        """Notes the tiles that are predicted next; their old files stay until the new ones are whole.

        Args:
            tiles: Those that are asked for.
            overwrite: Choose finished tiles, too, after the others.
            limit: Choose at most so many.
        """
        with self.updated():
            chosen = [tile for tile in tiles if not self.is_finished(tile)]
            if overwrite:
                names = {tile.name for tile in chosen}
                chosen += [tile for tile in tiles if tile.name not in names]
            chosen = chosen[:limit]
            self.begun |= {tile.name for tile in chosen}
        return chosen

    def is_finished(self, tile: SourceTile) -> bool:
        """Whether a tile's mask is there as it was written, from the same image, checkpoint and settings."""
        entry, path = self.tiles.get(tile.name), self.out / f'{tile.name}.tif'
        if entry is None or 'made_by' in entry or tile.name in self.begun or not path.is_file():
            return False
        image = tile.path.stat()
        if entry['image_bytes'] != image.st_size or file_digest(path) != entry['sha256']:
            return False
        if entry.get('image_mtime_ns') != image.st_mtime_ns:
            if file_digest(tile.path) != entry.get('image_sha256'):
                return False
            entry['image_mtime_ns'] = image.st_mtime_ns  # a copy; read once
        return True

    def finish(self, tile: SourceTile, digest: str, building: float) -> None:
        """Notes a tile, inside of `updated`; `building` is its share of building in percent."""
        image = tile.path.stat()
        self.tiles[tile.name] = dict(
            image_bytes=image.st_size,
            image_mtime_ns=image.st_mtime_ns,
            image_sha256=file_digest(tile.path),
            sha256=digest,
            building_percent=round(building, 4),
        )
        self.begun.discard(tile.name)

    def outdated(self) -> list[str]:
        """Tiles whose file is of another checkpoint or other settings, or was to be replaced and is not yet."""
        old = {name for name, entry in self.tiles.items() if 'made_by' in entry} | self.begun
        return [name for name in tile_names() if name in old and (self.out / f'{name}.tif').is_file()]

    def _read(self) -> None:
        try:
            content = json.loads(self.path.read_text(encoding='utf-8'))
            before, self.tiles = dict(content['made_by']), dict(content['tiles'])
            self.begun = set(content.get('begun', ()))
            if not all({'image_bytes', 'sha256', 'building_percent'} <= set(entry) for entry in self.tiles.values()):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(
                f'{self.path}: not a manifest of this tool, so nothing in the folder is replaced; take another --out'
            ) from None
        for entry in self.tiles.values():
            made_by = entry.pop('made_by', before)
            if made_by != self.made_by:
                entry['made_by'] = made_by

    def _refuse_strangers(self) -> None:
        """Raises where a file that a run would write is there, and not from this tool."""
        known = {f'{name}.tif' for name in {*self.tiles, *self.begun}}
        if self.path.is_file():
            known.add(SUMMARY)
        written = [f'{name}.tif' for name in tile_names()] + [SUMMARY]
        strangers = [name for name in written if name not in known and (self.out / name).exists()]
        if strangers:
            raise InputError(
                f'--out {self.out}: {MANIFEST} does not know {named(strangers)}, so this tool did not write them and '
                'does not replace them; take another folder, or move them away'
            )

    def _refuse_others(self) -> None:
        """Raises where tiles were made otherwise, unless they were chosen to be replaced before."""
        for name, entry in self.tiles.items():
            if 'made_by' not in entry or name in self.begun:
                continue
            before = entry['made_by']
            differing = [key for key in {**before, **self.made_by} if before.get(key) != self.made_by.get(key)]
            changes = '; '.join(f'{key} {before.get(key)!r}, now {self.made_by.get(key)!r}' for key in differing)
            raise InputError(
                f'--out {self.out}: its tiles were made otherwise ({changes}); take another folder, or --overwrite to '
                'replace them'
            )


@dataclass(frozen=True)
class Check:
    """What a look at the finished folder found.

    Attributes:
        building: Percent of building by tile, of the tiles that are as the benchmark asks.
        missing: Tiles that are not there.
        faults: What is wrong, one line each.
    """

    building: dict[str, float]
    missing: list[str]
    faults: list[str]

    @property
    def complete(self) -> bool:
        """Whether the folder is what the benchmark takes."""
        return not self.missing and not self.faults

    def by_city(self) -> dict[str, dict[str, float]]:
        """Tiles, and percent of building over all of them, lowest and highest, by city."""
        groups: dict[str, list[float]] = {}
        for tile, share in self.building.items():
            groups.setdefault(inria.city_of(tile), []).append(share)
        return {
            city: dict(tiles=len(shares), building=float(np.mean(shares)), lowest=min(shares), highest=max(shares))
            for city, shares in groups.items()
        }


def check_submission(out: Path) -> Check:
    """Reads every file of a submission back: names, number, size, bands, type and values."""
    building: dict[str, float] = {}
    faults: list[str] = []
    expected = tile_names()
    strangers = sorted(path.name for path in out.glob('*.tif*') if path.stem not in expected or path.suffix != '.tif')
    if strangers:
        faults.append(f'{out}: files that are no tile of the benchmark: {named(strangers)}')
    for name in expected:
        path = out / f'{name}.tif'
        if not path.is_file():
            continue
        try:
            with _quiet(), rasterio.open(path) as dataset:
                shape, kinds = (dataset.count, dataset.height, dataset.width), dataset.dtypes
                values = dataset.read(1)
        except RasterioIOError as error:
            faults.append(f'{path}: not readable ({error})')
            continue
        if shape != (1, inria.TILE_SIZE, inria.TILE_SIZE) or kinds[0] != 'uint8':
            faults.append(
                f'{path}: {shape[0]} band(s) of {shape[1]} x {shape[2]} {kinds[0]}; one of {inria.TILE_SIZE} x '
                f'{inria.TILE_SIZE} uint8 is due'
            )
            continue
        counts = np.bincount(values.ravel(), minlength=256)
        strange = [value for value in np.flatnonzero(counts).tolist() if value not in inria.LABEL_VALUES]
        if strange:
            faults.append(f'{path}: value {strange[0]}; only 0 and 255 are due')
            continue
        building[name] = 100 * float(counts[inria.LABEL_VALUES[1]]) / values.size
    missing = [name for name in expected if not (out / f'{name}.tif').is_file()]
    return Check(building, missing, faults)


def write_zip(out: Path, target: Path) -> None:
    """Packs the tiles, without folders and without manifest; whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f'.{target.name}.{os.getpid()}.tmp')
    try:
        # The masks are compressed already.
        with zipfile.ZipFile(temporary, 'w', zipfile.ZIP_STORED) as archive:
            for name in tile_names():
                archive.write(out / f'{name}.tif', f'{name}.tif')
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _is_leftover(path: Path) -> bool:
    """Whether a file is what a killed run left of one that this tool writes: `write_atomic` names it so."""
    match = re.fullmatch(r'\.(.+\.(?:tif|json))\.\d+(?:\.[0-9a-f]+)?\.tmp', path.name)
    return match is not None and match[1] in {MANIFEST, SUMMARY, *(f'{name}.tif' for name in tile_names())}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Images without a place are no news here."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        yield
