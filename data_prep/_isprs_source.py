"""Finds the ISPRS images and labels in archives and folders as they are shipped: at any depth, zips inside zips.

What a file is follows from its name (`top_potsdam_2_10_RGB.tif`, `top_potsdam_2_10_label_noBoundary.tif`). Vaihingen's
full labels have the names of its images, so there the folders and archives above a file decide, nearest first: `top/`
holds images, `gts*/` and anything with `ground_truth` in its name holds labels. Where they do not say, it is an error.
"""

from __future__ import annotations

import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from data_prep._files import walk_files, whole_file
from data_prep._progress import progress_bar
from lale_mmseg.errors import DataError

IMAGE, FULL, ERODED = 'image', 'full', 'eroded'
LABEL_KINDS = (FULL, ERODED)
#: How the image files of each choice of bands end, and how many bands they have.
BANDS = {'rgb': ('RGB', 3), 'irrg': ('IRRG', 3), 'rgbir': ('RGBIR', 4)}
CHUNK = 1 << 22

_TIFF = ('.tif', '.tiff')
_POTSDAM = re.compile(r'top_potsdam_(\d+)_(\d+)_(RGB|IRRG|RGBIR|label|label_noBoundary)', re.IGNORECASE)
_VAIHINGEN = re.compile(r'top_mosaic_09cm_area(\d+)(_noBoundary)?', re.IGNORECASE)
_LABEL_FOLDER = re.compile(r'(gts?|labels)(_.*)?|.*ground[_ -]?truth.*', re.IGNORECASE)
_ERODED = re.compile(r'noboundary|eroded', re.IGNORECASE)
_ORTHO = re.compile(r'ortho_(rgbir|rgb|irrg)', re.IGNORECASE)
#: Folders that are never looked into, and archives: surface models and laser points.
_SKIPPED = re.compile(r'(\d+_)?n?dsm(_.*)?|lidar|__macosx', re.IGNORECASE)
_SKIPPED_ARCHIVE = re.compile(r'(^|_)n?dsm(_|$)|lidar', re.IGNORECASE)
#: Labels that were handed to participants are part of the complete ones, which came later.
_PARTICIPANTS = re.compile(r'participants', re.IGNORECASE)


@dataclass(frozen=True)
class SourceFile:
    """An image or label file.

    Attributes:
        name: Path below the source folder; archives count as folders.
        path: The file itself, or the zip file that holds it.
        member: Name in the zip file; None for a file of its own.
        size: Bytes.
        mark: CRC of a member, time of change of a file: tells one content from another without reading it.
        world: World file beside it in the zip file, None if there is none.
    """

    name: str
    path: Path
    member: str | None
    size: int
    mark: int
    world: str | None = None

    @property
    def gdal_path(self) -> str:
        """What rasterio opens to read the header."""
        return str(self.path) if self.member is None else f'/vsizip/{{{self.path.resolve()}}}/{self.member}'


Key = tuple[str, str]


@dataclass(frozen=True)
class Wanted:
    """What is looked for: data set, choice of bands, kinds of labels."""

    dataset: str
    bands: str
    labels: Sequence[str]

    def file_name(self, tile: str, kind: str) -> str:
        """How ISPRS names a file, for messages."""
        if self.dataset == 'potsdam':
            end = {IMAGE: BANDS[self.bands][0], FULL: 'label', ERODED: 'label_noBoundary'}[kind]
            return f'top_potsdam_{tile}_{end}.tif'
        where = {IMAGE: 'top/', FULL: 'gts_for_participants/ or an archive *ground_truth*: ', ERODED: ''}[kind]
        return f'{where}top_mosaic_09cm_area{tile}{"_noBoundary" if kind == ERODED else ""}.tif'

    def opens(self, archive: str) -> bool:
        """Whether an archive of this name, without .zip, can hold something that is wanted."""
        ortho = _ORTHO.search(archive)
        if ortho is not None:
            return ortho.group(1).lower() == self.bands
        return not _SKIPPED_ARCHIVE.search(archive)

    def classify(self, name: str) -> Key | None:
        """(tile, kind) of a file; None if it is not wanted.

        Raises:
            DataError: The name alone does not say whether it is an image or labels, nor do the folders above it.
        """
        path = PurePosixPath(name)
        if path.suffix.lower() not in _TIFF or path.name.startswith('.'):
            return None
        key = self._potsdam(path) if self.dataset == 'potsdam' else self._vaihingen(path)
        return key if key is not None and key[1] in (IMAGE, *self.labels) else None

    def _potsdam(self, path: PurePosixPath) -> Key | None:
        match = _POTSDAM.fullmatch(path.stem)
        if match is None:
            return None
        row, column, end = match.groups()
        kinds = {'label': FULL, 'label_noboundary': ERODED, BANDS[self.bands][0].lower(): IMAGE}
        kind = kinds.get(end.lower())
        return None if kind is None else (f'{int(row)}_{int(column)}', kind)

    def _vaihingen(self, path: PurePosixPath) -> Key | None:
        match = _VAIHINGEN.fullmatch(path.stem)
        if match is None:
            return None
        tile = str(int(match.group(1)))
        if match.group(2):
            return tile, ERODED
        for folder in reversed(path.parts[:-1]):
            stem = folder[:-4] if folder.lower().endswith('.zip') else folder
            if _LABEL_FOLDER.fullmatch(stem):
                return tile, ERODED if _ERODED.search(stem) else FULL
            if stem.lower() in ('top', 'images'):
                return tile, IMAGE
        raise DataError(
            f'{path}: image or labels? Both have this name, and no folder or archive above it says which; put images '
            'into a folder top/, full labels into gts_for_participants/ or an archive with ground_truth in its name'
        )


def list_inputs(source: Path) -> list[list]:
    """Name, size and time of change of all files that can matter; equal lists mean that nothing was exchanged.

    Raises:
        DataError: `source` does not exist.
    """
    found = []
    for path in _walk(source, lambda name: not _SKIPPED_ARCHIVE.search(name)):
        stat = path.stat()
        found.append([path.relative_to(source).as_posix(), stat.st_size, stat.st_mtime_ns])
    return found


def find_files(source: Path, wanted: Wanted, scratch: Path) -> dict[Key, SourceFile]:
    """Image and label files by (tile, kind).

    A file that is there twice counts once: the complete labels go before those of participants, and of files with
    equal size and content the first one is taken.

    Args:
        source: A folder, or one zip file.
        wanted: What is looked for.
        scratch: Folder that archives inside archives are copied to; made when needed, left to the caller to remove.

    Raises:
        DataError: `source` does not exist, an archive is damaged, a file may be image or labels, two files of one tile
            and kind differ, or the disk is too full for the copies.
    """
    found: dict[Key, SourceFile] = {}
    for path in _walk(source, wanted.opens):
        # The name of the source itself may say what is in it.
        name = PurePosixPath(source.resolve().name, path.relative_to(source).as_posix()).as_posix()
        for key, file in _look_into(path, name, wanted, scratch):
            found[key] = _choose(found.get(key), file, key)
    return found


def read_chunks(file: SourceFile) -> Iterator[bytes]:
    """Content of a file in chunks; a damaged member is an error.

    Raises:
        DataError: It cannot be read, or its checksum is wrong.
    """
    if file.member is None:
        with _reading(file.name), file.path.open('rb') as opened:
            yield from _chunks(opened)
        return
    with _reading(file.name), zipfile.ZipFile(file.path) as zipped, zipped.open(file.member) as opened:
        yield from _chunks(opened)


def read_world(file: SourceFile) -> bytes | None:
    """Content of the world file of a member of an archive; None if there is none."""
    if file.world is None:
        return None
    with _reading(file.name), zipfile.ZipFile(file.path) as zipped:
        return zipped.read(file.world)


class _reading:
    """Turns what broken archives raise into one message."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)):
            raise DataError(
                f'{self.name}: cannot be read ({error}); the file is damaged, or was cut off while it was copied'
            ) from None


def _chunks(opened: IO[bytes]) -> Iterator[bytes]:
    while chunk := opened.read(CHUNK):
        yield chunk


def _walk(source: Path, opens: Callable[[str], bool]) -> Iterator[Path]:
    """Zip files, and TIFF and world files of ISPRS, below a folder in order of their names; `source` if it is a zip."""
    if source.is_file() and source.suffix.lower() == '.zip':
        yield source
        return
    if not source.is_dir():
        raise DataError(f'{source}: no such folder (a folder with the archives or files of ISPRS is due)')
    for path in walk_files(source, _skips_folder):
        suffix = path.suffix.lower()
        if suffix == '.zip' and not path.name.startswith('.') and opens(path.stem):
            yield path
        if suffix in (*_TIFF, '.tfw') and path.name.lower().startswith('top_'):
            yield path


def _skips_folder(name: str) -> bool:
    return name.startswith('.') or _SKIPPED.fullmatch(name) is not None


def _look_into(path: Path, name: str, wanted: Wanted, scratch: Path) -> Iterator[tuple[Key, SourceFile]]:
    """Wanted files that a file is or holds."""
    if path.suffix.lower() != '.zip':
        key = wanted.classify(name)
        if key is not None:
            stat = path.stat()
            yield key, SourceFile(name, path, None, stat.st_size, stat.st_mtime_ns)
        return
    try:
        zipped = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(
            f'{name}: not a whole zip file ({error}); it was probably cut off while it was copied or downloaded'
        ) from None
    with zipped:
        for info in sorted(zipped.infolist(), key=lambda info: info.filename):
            inner = PurePosixPath(info.filename.replace('\\', '/'))
            if info.is_dir() or any(_skips_folder(part) for part in inner.parts[:-1]):
                continue
            if inner.suffix.lower() == '.zip' and not inner.name.startswith('.'):
                if wanted.opens(inner.stem):
                    copy = _copy_out(zipped, info, f'{name}/{inner}', scratch)
                    yield from _look_into(copy, f'{name}/{inner}', wanted, scratch)
                continue
            key = wanted.classify(f'{name}/{inner}')
            if key is not None:
                world = next(
                    (str(inner.with_suffix(end)) for end in ('.tfw', '.TFW') if _has(zipped, inner.with_suffix(end))),
                    None,
                )
                yield key, SourceFile(f'{name}/{inner}', path, info.filename, info.file_size, info.CRC, world)


def _has(zipped: zipfile.ZipFile, path: PurePosixPath) -> bool:
    return str(path) in zipped.NameToInfo


def _copy_out(zipped: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, scratch: Path) -> Path:
    """An inner archive as a file: its members cannot be read at random while it is packed in another one."""
    path = scratch / 'archives' / f'{info.CRC:08x}_{info.file_size}.zip'
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f'{scratch}: the folder for archives inside archives cannot be made ({error})') from None
    require_space(path.parent, info.file_size, name)
    mebibyte = 1 << 20
    title = f'{PurePosixPath(name).name}: copying out of its archive'
    with (
        progress_bar(title, info.file_size // mebibyte, 'MiB') as advance,
        whole_file(path) as temporary,
        temporary.open('wb') as target,
        _reading(name),
        zipped.open(info) as opened,
    ):
        for chunk in _chunks(opened):
            target.write(chunk)
            advance(len(chunk) // mebibyte)
    return path


def require_space(folder: Path, needed: int, name: str) -> None:
    """Raises DataError if a disk has no room for a copy."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(f'{folder}: {needed:,} bytes are needed for a copy of {name}, {free:,} are free on this disk')


def _choose(first: SourceFile | None, second: SourceFile, key: Key) -> SourceFile:
    if first is None:
        return second
    partial = [bool(_PARTICIPANTS.search(file.name)) for file in (first, second)]
    if partial[0] != partial[1]:
        return second if partial[0] else first
    if first.size != second.size or _crc(first) != _crc(second):
        raise DataError(
            f'tile {key[0]}: {first.name} and {second.name} differ, and both are its {describe_kind(key[1])}; '
            'remove one of them'
        )
    # Equal content: a file of its own need not be copied out of its archive.
    return second if first.member is not None and second.member is None else first


def describe_kind(kind: str) -> str:
    """'image' or 'full labels', for messages."""
    return kind if kind == IMAGE else f'{kind} labels'


def _crc(file: SourceFile) -> int:
    if file.member is not None:
        return file.mark
    crc = 0
    for chunk in read_chunks(file):
        crc = zlib.crc32(chunk, crc)
    return crc
