"""Finds the Inria tiles in AerialImageDataset as it is shipped, unpacked or in a zip, and checks every pixel."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.windows import Window

from data_prep._files import walk_files
from data_prep._isprs_source import SourceFile, read_chunks
from data_prep._isprs_tiles import gdal_settings
from data_prep._names import some_of
from lale_mmseg.errors import DataError
from lale_mmseg.metainfo import inria

IMAGE, MASK = 'image', 'mask'
#: Folders of the archive, below train/, and how many bands their files have.
FOLDERS = {'images': IMAGE, 'gt': MASK}
BANDS = {IMAGE: 3, MASK: 1}
#: Rows that are read at a time.
STRIP = 256

_TIFF = ('.tif', '.tiff')
_NAME = re.compile(rf'({"|".join(inria.CITIES)})(\d+)')
#: Archives and parts of archives that have to be unpacked first; zip files are looked into.
_PACKED = re.compile(r'\.(7z|rar|tar|gz|tgz)(\.\d+)?$|\.zip\.\d+$|\.z\d+$', re.IGNORECASE)


@dataclass(frozen=True)
class TileFiles:
    """A tile and its two files."""

    tile: str
    image: SourceFile
    mask: SourceFile

    @property
    def stamps(self) -> dict[str, list[int]]:
        """Size and mark of both files: as long as they are equal, the content is taken to be."""
        return {kind: [file.size, file.mark] for kind, file in ((IMAGE, self.image), (MASK, self.mask))}


@dataclass(frozen=True)
class Scan:
    """What was found in a tile: (height, width), pixels of background and building, and SHA-256 sums of both files."""

    size: tuple[int, int]
    pixels: list[int]
    sha256: dict[str, str]


def find_tiles(source: Path, wanted: Sequence[str], skip_missing: bool = False) -> dict[str, TileFiles]:
    """Image and labels of each wanted tile, in their order.

    Args:
        source: A folder that holds AerialImageDataset/train/{images,gt} at any depth, is it, or is a part of it, or
            that holds it in zip files; or one zip file.
        wanted: Names of tiles, such as 'austin1'.
        skip_missing: Leave out tiles without image or labels.

    Raises:
        DataError: `source` is not there or still packed, a tile lacks a file, is there twice, or has a number that
            no tile has.
    """
    found: dict[tuple[str, str], SourceFile] = {}
    for file in _walk(source):
        path = PurePosixPath(file.name)
        kind = FOLDERS.get(path.parent.name.lower())
        name = _NAME.fullmatch(path.stem)
        above = PurePosixPath((file.member or file.name).replace('\\', '/')).parts[:-2]
        # A folder `images` of the source or of an archive itself need not lie in train/; one that lies deeper must.
        if kind is None or name is None or (above and above[-1].lower() != 'train'):
            continue
        if path.stem not in inria.TILES:
            raise DataError(f'{file.name}: {name[1]} has tiles 1 to {inria.TILES_PER_CITY}, this is none of them')
        other = found.setdefault((path.stem, kind), file)
        if other is not file:
            raise DataError(f'{source}: {other.name} and {file.name} are both the {kind} of {path.stem}; keep one')
    missing = [_name_missing(tile, found) for tile in wanted if not {(tile, IMAGE), (tile, MASK)} <= found.keys()]
    tiles = {
        tile: TileFiles(tile, found[tile, IMAGE], found[tile, MASK])
        for tile in wanted
        if {(tile, IMAGE), (tile, MASK)} <= found.keys()
    }
    if not tiles:
        raise DataError(_nothing_found(source, wanted))
    if missing and not skip_missing:
        raise DataError(
            f'{source}: {len(missing)} of {len(wanted)} tiles lack files: {some_of(missing)}; unpack '
            'all parts of the archive, or go on without these tiles with --missing skip'
        )
    return tiles


def _name_missing(tile: str, found: dict[tuple[str, str], SourceFile]) -> str:
    lacking = [folder for folder, kind in FOLDERS.items() if (tile, kind) not in found]
    return tile if len(lacking) == len(FOLDERS) else f'{tile} (no {lacking[0]}/{tile}.tif)'


def _nothing_found(source: Path, wanted: Sequence[str]) -> str:
    packed = [source] if source.is_file() else _files(source)
    packed = [path for path in packed if _PACKED.search(path.name)]
    if packed:
        first = next((path for path in packed if path.name.endswith('.001')), packed[0])
        return (
            f'{first}: is packed, or a part of a packed file; unpack it first, for example with "7z x {first.name}" '
            '(all parts in one folder), and give the folder or the zip file that comes out of it'
        )
    return (
        f'{source}: no tile was found; AerialImageDataset/train/images/{wanted[0]}.tif and train/gt/{wanted[0]}.tif, '
        'for example, are due, at any depth'
    )


def shipped_archive(root: Path) -> Path | None:
    """The folder AerialImageDataset of the archive as it is shipped, where `root` is it or holds it; else None."""
    for folder in (root, root / 'AerialImageDataset'):
        named = folder.resolve().name == 'AerialImageDataset'
        if (folder / 'train' / 'gt').is_dir() or (
            named and any((folder / name).is_dir() for name in ('train', 'test'))
        ):
            return folder
    return None


def _files(folder: Path) -> list[Path]:
    return [*walk_files(folder, lambda name: name.startswith('.') or name == '__MACOSX')]


def _walk(source: Path) -> Iterator[SourceFile]:
    """TIFF files of a folder and of the zip files in it, or of a zip file."""
    if source.is_file():
        if source.suffix.lower() == '.zip':
            yield from _members(source, '')
        return
    if not source.is_dir():
        raise DataError(f'{source}: no such folder (one that holds AerialImageDataset is due)')
    for path in _files(source):
        relative = path.relative_to(source).as_posix()
        if path.name.startswith('.'):
            continue
        if path.suffix.lower() == '.zip':
            yield from _members(path, f'{relative}/')
        elif path.suffix.lower() in _TIFF:
            stat = path.stat()
            yield SourceFile(relative, path, None, stat.st_size, stat.st_mtime_ns)


def _members(path: Path, prefix: str) -> Iterator[SourceFile]:
    try:
        with zipfile.ZipFile(path) as zipped:
            infos = sorted(zipped.infolist(), key=lambda info: info.filename)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(
            f'{path}: not a whole zip file ({error}); it was probably cut off while it was copied or downloaded, or is '
            'a part of one that has to be unpacked'
        ) from None
    for info in infos:
        inner = PurePosixPath(info.filename.replace('\\', '/'))
        if inner.suffix.lower() in _TIFF and '__MACOSX' not in inner.parts and not inner.name.startswith('.'):
            yield SourceFile(f'{prefix}{inner}', path, info.filename, info.file_size, info.CRC)


@contextmanager
def opened(file: SourceFile) -> Iterator[rasterio.DatasetReader]:
    """The raster of a file; what GDAL cannot read is a DataError with its name. Members of archives are in memory."""
    try:
        if file.member is None:
            with rasterio.open(file.path) as raster:
                yield raster
        else:
            with MemoryFile(b''.join(read_chunks(file))) as memory, memory.open() as raster:
                yield raster
    except RasterioError as error:
        raise DataError(f'{file.name}: cannot be read ({error}); the file is damaged or cut off') from None


def scan_tile(files: TileFiles, least: int) -> Scan:
    """Decodes both files of a tile and looks at every label.

    Args:
        files: The tile.
        least: Side that the tile must have, in pixels.

    Raises:
        DataError: A file is damaged, cut off, or of other bands or depth; sizes differ or are too small; a label is
            neither 0 nor 255.
    """
    sha256 = {}
    with gdal_settings():
        labels = read_mask(files.mask)
        with opened(files.image) as raster:
            _check_bands(raster, files.image, IMAGE)
            size = raster.height, raster.width
            # Every row is decoded: a file that is cut off must not show after half of the tiles are written.
            for row in range(0, raster.height, STRIP):
                raster.read(window=Window(0, row, raster.width, min(STRIP, raster.height - row)))
    if size != labels.shape:
        raise DataError(
            f'{files.mask.name}: the labels have {labels.shape[0]}x{labels.shape[1]} pixels (height x width), the '
            f'image {files.image.name} has {size[0]}x{size[1]}'
        )
    if min(size) < least:
        raise DataError(
            f'{files.image.name}: {size[0]}x{size[1]} pixels (height x width) are less than a window of --size {least}'
        )
    for kind, file in ((IMAGE, files.image), (MASK, files.mask)):
        digest = hashlib.sha256()
        for chunk in read_chunks(file):
            digest.update(chunk)
        sha256[kind] = digest.hexdigest()
    return Scan(size, count_pixels(labels), sha256)


def read_mask(file: SourceFile) -> np.ndarray:
    """(H, W) uint8 labels, 0 and 255.

    Raises:
        DataError: The file cannot be read, has other bands or another depth, or has another value.
    """
    with opened(file) as raster:
        _check_bands(raster, file, MASK)
        labels = raster.read(1)
    off, on = inria.LABEL_VALUES
    strange = (labels != off) & (labels != on)
    if strange.any():
        row, column = np.unravel_index(int(strange.argmax()), strange.shape)
        raise DataError(
            f'{file.name}: label {labels[row, column]} at row {row}, column {column} ({int(strange.sum()):,} pixels '
            f'with such labels); {off} (background) and {on} (building) are due'
        )
    return labels


def count_pixels(labels: np.ndarray) -> list[int]:
    """Pixels of background and of building."""
    building = int(np.count_nonzero(labels))
    return [labels.size - building, building]


def _check_bands(raster: rasterio.DatasetReader, file: SourceFile, kind: str) -> None:
    if raster.count != BANDS[kind]:
        what = 'red, green and blue' if kind == IMAGE else 'labels'
        raise DataError(f'{file.name}: has {raster.count} band(s), {BANDS[kind]} is due ({what})')
    if set(raster.dtypes) != {'uint8'}:
        raise DataError(f'{file.name}: has values of type {raster.dtypes[0]}, 8 bits (uint8) are due')
