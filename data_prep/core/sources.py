"""Source files as publishers ship them: in folders, in zip archives, and in zip archives inside zip archives."""

from __future__ import annotations

import hashlib
import shutil
import stat
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import rasterio
from affine import Affine, loadsw
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile
from rasterio.windows import Window

from data_prep.core.progress import progress_bar
from lale_mmseg.errors import DataError
from lale_mmseg.files import atomic_path

TIFF = ('.tif', '.tiff')
CHUNK = 1 << 22
#: Limits GDAL's block cache, in bytes, and keeps it from writing .aux.xml files beside images.
GDAL_OPTIONS = dict(GDAL_CACHEMAX=32 << 20, GDAL_PAM_ENABLED='NO')


@dataclass(frozen=True)
class SourceFile:
    """A raster of the source.

    Attributes:
        name: Path below the source; archives count as folders.
        path: The file itself, or the zip archive that holds it.
        member: Name in the archive; None for a file on disk.
        size: Bytes.
        mark: CRC of an archive member, modification time of a file on disk.
        world: World file beside it: a name in the archive, or a path. None if there is none.
    """

    name: str
    path: Path
    member: str | None
    size: int
    mark: int
    world: str | None = None

    @property
    def identity(self) -> list:
        """Name without folders, size and mark: equal identities mean equal content, without reading it."""
        return [self.name.rpartition('/')[2], self.size, self.mark]

    def read(self) -> bytes:
        """Content of the file.

        Raises:
            DataError: It is damaged or cut off.
        """
        return _read(self.path, self.member, self.name)

    def crc(self) -> int:
        """CRC-32 of the content."""
        return zlib.crc32(self.read()) if self.member is None else self.mark

    def transform(self, raster: rasterio.DatasetReader) -> Affine:
        """Transform of the opened file, from its world file if it has none of its own."""
        if not raster.transform.is_identity or self.world is None:
            return raster.transform
        world = Path(self.world) if self.member is None else self.path
        return loadsw(_read(world, None if self.member is None else self.world, self.world).decode())

    def check_header(self, bands: int) -> tuple[int, int]:
        """Returns (height, width) from the header.

        Raises:
            DataError: The file is unreadable, or has other bands or another data type than 8 bits.
        """
        path = str(self.path) if self.member is None else f'/vsizip/{{{self.path.resolve()}}}/{self.member}'
        with raster_errors(self.name), rasterio.Env(**GDAL_OPTIONS), rasterio.open(path) as raster:
            if raster.count != bands:
                raise DataError(f'{self.name}: has {raster.count} band(s), expected {bands}')
            if set(raster.dtypes) != {'uint8'}:
                raise DataError(f'{self.name}: has values of type {raster.dtypes[0]}, expected 8 bits (uint8)')
            if self.member is None:
                # A truncated file lacks its last rows; archive members have checksums instead.
                raster.read(1, window=Window(0, raster.height - 1, raster.width, 1))
            return raster.height, raster.width


@contextmanager
def open_raster(content: bytes, name: str) -> Iterator[rasterio.DatasetReader]:
    """Opens the content of a raster file.

    Raises:
        DataError: It is not a readable raster; also if reading pixels inside the block fails.
    """
    with raster_errors(name), rasterio.Env(**GDAL_OPTIONS), MemoryFile(content) as memory, memory.open() as raster:
        yield raster


@contextmanager
def without_georeference() -> Iterator[None]:
    """Silences the warning about rasters without a place on the map: labels have none. For all threads."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        yield


@contextmanager
def raster_errors(name: str) -> Iterator[None]:
    """Turns errors of rasterio into a DataError that names the file."""
    try:
        yield
    except RasterioError as error:
        raise DataError(f'{name}: cannot be read ({error}); the file is damaged or truncated') from None


@contextmanager
def archive_errors(name: str) -> Iterator[None]:
    """Turns errors of damaged archives and unreadable files into a DataError that names the file."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise DataError(f'{name}: cannot be read ({error}); the file is damaged or truncated') from None


@contextmanager
def open_zip(path: Path, name: str) -> Iterator[zipfile.ZipFile]:
    """Opens a zip archive.

    Raises:
        DataError: It is not a complete zip archive.
    """
    try:
        zipped = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(
            f'{name}: not a complete zip archive ({error}); it was probably truncated while it was copied, or is one '
            'part of several'
        ) from None
    with zipped:
        yield zipped


def safe_path(info: zipfile.ZipInfo, archive: str | Path) -> PurePosixPath:
    """Path of an archive member that is going to be unpacked.

    Raises:
        DataError: The member is a link, or its name leads out of the folder.
    """
    path = PurePosixPath(info.filename.replace('\\', '/'))
    is_link = stat.S_ISLNK(info.external_attr >> 16)
    if path.is_absolute() or '..' in path.parts or ':' in info.filename or not path.parts or is_link:
        raise DataError(f'{archive}: member {info.filename!r} has an unsafe name or is a link; nothing was unpacked')
    return path


def sha256(content: bytes) -> str:
    """SHA-256 as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def md5_of(path: Path) -> str:
    """MD5 sum of a file as hexadecimal digits; shows a progress bar."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open('rb') as file, progress_bar(f'{path.name}: MD5', path.stat().st_size >> 20, 'MiB') as advance:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            advance(len(chunk) >> 20)
    return digest.hexdigest()


def walk_files(folder: Path, skips: Callable[[str], bool], above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yields the files below a folder in order of their names, and follows links.

    Args:
        folder: Where to start.
        skips: Whether to leave out a subfolder, given its name. Hidden ones are always left out.
        above: Resolved parents of `folder`; a link back to one of them is not followed.
    """
    real = folder.resolve()
    if real in above:
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if not path.name.startswith('.') and not skips(path.name):
                yield from walk_files(path, skips, (*above, real))
        else:
            yield path


def walk_rasters(
    source: Path, scratch: Path, skips: Callable[[str], bool], opens: Callable[[str], bool] = lambda stem: True
) -> Iterator[SourceFile]:
    """Yields the TIFF files of a folder or zip archive at any depth, archives inside archives included.

    Args:
        source: A folder, or one zip archive.
        scratch: Folder that inner archives are copied to, because members of a compressed archive cannot be read at
            random. Created if needed; the caller removes it.
        skips: Whether to leave out a folder, given its name.
        opens: Whether to look into an archive, given its name without .zip.

    Raises:
        DataError: `source` does not exist, or an archive is damaged.
    """
    if source.is_file():
        yield from _look_into(source, '', scratch, skips, opens) if source.suffix.lower() == '.zip' else ()
        return
    if not source.is_dir():
        raise DataError(f'{source}: no such folder')
    for path in walk_files(source, skips):
        name = path.relative_to(source).as_posix()
        if path.name.startswith('.'):
            continue
        if path.suffix.lower() == '.zip' and opens(path.stem):
            yield from _look_into(path, name, scratch, skips, opens)
        elif path.suffix.lower() in TIFF:
            status = path.stat()
            worlds = (path.with_suffix(suffix) for suffix in ('.tfw', '.TFW'))
            world = next((str(world) for world in worlds if world.is_file()), None)
            yield SourceFile(name, path, None, status.st_size, status.st_mtime_ns, world)


def _look_into(
    archive: Path, name: str, scratch: Path, skips: Callable[[str], bool], opens: Callable[[str], bool]
) -> Iterator[SourceFile]:
    with open_zip(archive, name or str(archive)) as zipped:
        for info in sorted(zipped.infolist(), key=lambda info: info.filename):
            inner = PurePosixPath(info.filename.replace('\\', '/'))
            if info.is_dir() or inner.name.startswith('.') or any(skips(part) for part in inner.parts[:-1]):
                continue
            full = f'{name}/{inner}' if name else str(inner)
            if inner.suffix.lower() == '.zip' and opens(inner.stem):
                yield from _look_into(_copy_out(zipped, info, full, scratch), full, scratch, skips, opens)
            elif inner.suffix.lower() in TIFF:
                worlds = (str(inner.with_suffix(suffix)) for suffix in ('.tfw', '.TFW'))
                world = next((world for world in worlds if world in zipped.NameToInfo), None)
                yield SourceFile(full, archive, info.filename, info.file_size, info.CRC, world)


def _copy_out(zipped: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, scratch: Path) -> Path:
    path = scratch / f'{info.CRC:08x}_{info.file_size}.zip'
    if path.exists():
        return path
    title = f'{PurePosixPath(name).name}: copying out of its archive'
    with (
        progress_bar(title, info.file_size >> 20, 'MiB') as advance,
        atomic_path(path) as temporary,
        archive_errors(name),
        zipped.open(info) as opened,
        temporary.open('wb') as target,
    ):
        while chunk := opened.read(CHUNK):
            target.write(chunk)
            advance(len(chunk) >> 20)
    return path


def _read(path: Path, member: str | None, name: str) -> bytes:
    with archive_errors(name):
        if member is None:
            return path.read_bytes()
        with zipfile.ZipFile(path) as zipped:
            return zipped.read(member)


def remove_scratch(scratch: Path) -> None:
    """Removes the copies of inner archives."""
    shutil.rmtree(scratch, ignore_errors=True)
