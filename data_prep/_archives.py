"""Checks and unpacks zip archives of `images/` and `masks/`; an unpacking that was interrupted is continued."""

from __future__ import annotations

import hashlib
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from data_prep._files import write_bytes
from data_prep._pairs import KINDS, require_pairs
from data_prep._progress import progress_bar
from lale_mmseg.errors import DataError
from lale_mmseg.metainfo.layout import IMAGE_SUFFIXES

_CHUNK = 1 << 22


def md5_of(path: Path) -> str:
    """MD5 sum of a file, as 32 hexadecimal digits; shows a progress bar."""
    digest = hashlib.md5(usedforsecurity=False)
    megabyte = 1 << 20
    with path.open('rb') as file, progress_bar(f'{path.name}: MD5', path.stat().st_size // megabyte, 'MiB') as advance:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            advance(len(chunk) // megabyte)
    return digest.hexdigest()


def unpack(archive: Path, part: str, target: Path, overwrite: bool = False) -> None:
    """Unpacks an archive to TARGET/images and TARGET/masks.

    The archive may hold `images/` and `masks/` at its top or in one folder. Files that are there with the same
    content are kept.

    Args:
        archive: The zip file.
        part: Name of the part, for the progress bar.
        target: Folder of the part.
        overwrite: Replace files of other content instead of raising.

    Raises:
        DataError: The archive is truncated or damaged, has a member outside `images/` and `masks/`, an unsafe name,
            or an image without a mask; the disk is too full; a file of other content is in the way.
    """
    with _opened(archive) as zipped:
        members = _members(zipped, archive)
        missing = [info for path, info in members.items() if not (target / path).exists()]
        needed, free = sum(info.file_size for info in missing), shutil.disk_usage(target.parent).free
        if needed > free:
            raise DataError(f'{target}: {needed:,} bytes are to be unpacked, {free:,} are free on this disk')
        for kind in KINDS:
            (target / kind).mkdir(parents=True, exist_ok=True)
        with progress_bar(f'{part}: unpacking', len(members)) as advance:
            for path, info in members.items():
                _extract(zipped, archive, info, target / path, overwrite)
                advance(1)


def _opened(archive: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(
            f'{archive}: not a whole zip file ({error}); it was probably cut off while it was copied or downloaded'
        ) from None


def _members(zipped: zipfile.ZipFile, archive: Path) -> dict[Path, zipfile.ZipInfo]:
    """Image files of the archive by their place below the part's folder; every image has its mask."""
    members: dict[Path, zipfile.ZipInfo] = {}
    for info in zipped.infolist():
        path = _safe(info, archive)
        if info.is_dir() or path.parts[0] == '__MACOSX' or any(name.startswith('.') for name in path.parts):
            continue
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if not 2 <= len(path.parts) <= 3 or path.parts[-2] not in KINDS:
            raise DataError(f'{archive}: member {info.filename!r}: images must lie in images/ or masks/')
        place = Path(*path.parts[-2:])
        if place in members:
            raise DataError(
                f'{archive}: members {members[place].filename!r} and {info.filename!r} would both become {place}'
            )
        members[place] = info
    names = {kind: [place.stem for place in members if place.parts[0] == kind] for kind in KINDS}
    require_pairs(names['images'], names['masks'], str(archive))
    return members


def _safe(info: zipfile.ZipInfo, archive: Path) -> PurePosixPath:
    """Path of a member; raises DataError where it could lead out of the folder that it is unpacked in."""
    name = info.filename
    path = PurePosixPath(name.replace('\\', '/'))
    is_link = stat.S_ISLNK(info.external_attr >> 16)
    if path.is_absolute() or '..' in path.parts or ':' in name or not path.parts or is_link:
        raise DataError(f'{archive}: member {name!r} has an unsafe name or is a link; nothing was unpacked')
    return path


def _extract(zipped: zipfile.ZipFile, archive: Path, info: zipfile.ZipInfo, path: Path, overwrite: bool) -> None:
    if path.exists():
        if path.stat().st_size == info.file_size and zlib.crc32(path.read_bytes()) == info.CRC:
            return
        if not overwrite:
            raise DataError(
                f'{path}: is there with other content than in {archive}; remove it, or --overwrite to replace it'
            )
    write_bytes(path, _read(zipped, archive, info))


def _read(zipped: zipfile.ZipFile, archive: Path, info: zipfile.ZipInfo) -> bytes:
    try:
        return zipped.read(info)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(
            f'{archive}: member {info.filename!r} cannot be read ({error}); the archive is damaged'
        ) from None
