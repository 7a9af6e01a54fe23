"""Source files as publishers ship them: in folders, in zip archives, and in zip archives inside zip archives."""

from __future__ import annotations

import hashlib
import shutil
import stat
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile
from typing import IO

import rasterio
from affine import Affine, loadsw
from rasterio.errors import NotGeoreferencedWarning, RasterioError
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

    def chunks(self) -> Iterator[bytes]:
        """Yields the content; raises DataError if it is damaged."""
        with reading(self.name), ExitStack() as stack:
            if self.member is None:
                file: IO[bytes] = stack.enter_context(self.path.open('rb'))
            else:
                file = stack.enter_context(stack.enter_context(zipfile.ZipFile(self.path)).open(self.member))
            while chunk := file.read(CHUNK):
                yield chunk

    @contextmanager
    def unpacked(self, scratch: Path) -> Iterator[tuple[Path, str]]:
        """Yields the path of the content on disk and its SHA-256; members of archives are copied to `scratch`.

        A tile in memory, beside its decoded pixels, would double the memory of each thread.
        """
        digest = hashlib.sha256()
        scratch.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=scratch, suffix='.tif') as copy:
            for chunk in self.chunks():
                digest.update(chunk)
                if self.member is not None:
                    copy.write(chunk)
            copy.flush()
            yield self.path if self.member is None else Path(copy.name), digest.hexdigest()

    def crc(self) -> int:
        """CRC-32 of the content."""
        return zlib.crc32(b''.join(self.chunks())) if self.member is None else self.mark

    def transform(self, raster: rasterio.DatasetReader) -> Affine:
        """Transform of the opened file, from its world file if it has none of its own."""
        if not raster.transform.is_identity or self.world is None:
            return raster.transform
        beside = SourceFile(self.world, Path(self.world), None, 0, 0)
        if self.member is not None:
            beside = SourceFile(self.world, self.path, self.world, 0, 0)
        return loadsw(b''.join(beside.chunks()).decode())

    def check_header(self, bands: int) -> tuple[int, int]:
        """Returns (height, width) from the header.

        Raises:
            DataError: The file is unreadable, or has other bands or another data type than 8 bits.
        """
        path = str(self.path) if self.member is None else f'/vsizip/{{{self.path.resolve()}}}/{self.member}'
        with open_raster(path, self.name) as raster:
            if raster.count != bands or set(raster.dtypes) != {'uint8'}:
                raise DataError(
                    f'{self.name}: has {raster.count} band(s) of type {raster.dtypes[0]}, expected {bands} of 8 bits '
                    '(uint8)'
                )
            if self.member is None:
                # A truncated file lacks its last rows; archive members have checksums instead.
                raster.read(1, window=Window(0, raster.height - 1, raster.width, 1))
            return raster.height, raster.width


def check_tile(image: SourceFile, labels: Sequence[SourceFile], bands: tuple[int, int], size: int) -> tuple[int, int]:
    """Checks the headers of an image and its labels, and returns their (height, width).

    Args:
        image: The image.
        labels: Its label files.
        bands: Bands of the image, and of the labels.
        size: Side of the windows that are cut, in pixels.

    Raises:
        DataError: A file is unreadable or of another type, sizes differ, or are less than a window.
    """
    found = image.check_header(bands[0])
    for file in labels:
        if (other := file.check_header(bands[1])) != found:
            raise DataError(
                f'{file.name}: has {other[0]}x{other[1]} pixels (height x width), its image {image.name} has '
                f'{found[0]}x{found[1]}'
            )
    if min(found) < size:
        raise DataError(
            f'{image.name}: {found[0]}x{found[1]} pixels (height x width) are less than a window of --size {size}; use '
            f'at most {min(found)}'
        )
    return found


@contextmanager
def open_raster(path: str | Path, name: str) -> Iterator[rasterio.DatasetReader]:
    """Opens a raster; errors while its pixels are read name the file, too."""
    with reading(name), rasterio.Env(**GDAL_OPTIONS), rasterio.open(path) as raster:
        yield raster


def open_zip(path: Path, name: str) -> zipfile.ZipFile:
    """Opens a zip archive; raises DataError if it is damaged or truncated."""
    with reading(name):
        return zipfile.ZipFile(path)


@contextmanager
def reading(name: str, *errors: type[Exception]) -> Iterator[None]:
    """Turns what the libraries raise for damaged files, and `errors`, into a DataError that names the file."""
    damaged = (RasterioError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)
    try:
        yield
    except (*damaged, *errors) as error:
        raise DataError(f'{name}: cannot be read ({error}); the file is damaged or truncated') from None


@contextmanager
def scratch_beside(out: Path) -> Iterator[Path]:
    """Yields a folder for copies out of archives, which is removed in the end, also after an error.

    Inside the block, all threads are silent about rasters without georeferencing: labels have none.
    """
    out = out.resolve()
    scratch = out.with_name(f'.{out.name}.unpacked')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


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


def identity_of(path: Path) -> list:
    """Name, size and modification time of a file: equal identities mean equal content, without reading it."""
    status = path.stat()
    return [path.name, status.st_size, status.st_mtime_ns]


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
            random.
        skips: Whether to leave out a folder, given its name.
        opens: Whether to look into an archive, given its name without .zip.

    Raises:
        DataError: An archive is damaged.
    """
    if source.is_file():
        yield from _look_into(source, '', scratch, skips, opens) if source.suffix.lower() == '.zip' else ()
        return
    for path in walk_files(source, skips):
        name = path.relative_to(source).as_posix()
        if path.name.startswith('.'):
            continue
        if path.suffix.lower() == '.zip' and opens(path.stem):
            yield from _look_into(path, name, scratch, skips, opens)
        elif path.suffix.lower() in TIFF:
            worlds = (path.with_suffix(suffix) for suffix in ('.tfw', '.TFW'))
            world = next((str(world) for world in worlds if world.is_file()), None)
            _, size, modified = identity_of(path)
            yield SourceFile(name, path, None, size, modified, world)


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
                nested = SourceFile(full, archive, info.filename, info.file_size, info.CRC)
                yield from _look_into(_copy_out(nested, scratch), full, scratch, skips, opens)
            elif inner.suffix.lower() in TIFF:
                worlds = (str(inner.with_suffix(suffix)) for suffix in ('.tfw', '.TFW'))
                world = next((world for world in worlds if world in zipped.NameToInfo), None)
                yield SourceFile(full, archive, info.filename, info.file_size, info.CRC, world)


def _copy_out(archive: SourceFile, scratch: Path) -> Path:
    path = scratch / f'{archive.mark:08x}_{archive.size}.zip'
    if path.exists():
        return path
    title = f'{PurePosixPath(archive.name).name}: copying out of its archive'
    with (
        progress_bar(title, archive.size >> 20, 'MiB') as advance,
        atomic_path(path) as temporary,
        temporary.open('wb') as target,
    ):
        for chunk in archive.chunks():
            target.write(chunk)
            advance(len(chunk) >> 20)
    return path
