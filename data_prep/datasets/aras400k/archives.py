"""Checks and unpacks the published zip archives of `images/` and `masks/`."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from data_prep.core.prepared import Prepared, Unit
from data_prep.core.report import some_of
from data_prep.core.sources import md5_of, open_zip, reading, safe_path
from data_prep.datasets.aras400k.pairs import KINDS, PARTS, Job, Pair, make_all
from lale_mmseg.errors import DataError
from lale_mmseg.files import hash_json
from lale_mmseg.metainfo import aras400k
from lale_mmseg.metainfo.layout import IMAGE_SUFFIXES

#: Pairs that are unpacked at a time, by one process.
PAIRS_PER_UNIT = 1000


def from_archives(
    zip_dir: str | Path,
    out: str | Path,
    parts: Sequence[str] | None = None,
    verify: bool = True,
    overwrite: bool = False,
    workers: int | None = None,
    expected_md5: Mapping[str, str] = aras400k.ARCHIVE_MD5,
) -> dict[str, dict]:
    """Checks the MD5 sums of the published archives and unpacks them.

    Args:
        zip_dir: Folder with `train.zip` and the others.
        out: Folder to unpack to.
        parts: Which of 'train', 'val', 'test', 'synth'; None for every archive in `zip_dir`.
        verify: Whether to raise an error if an MD5 sum is not the published one.
        overwrite: Unpack the parts again, and replace those from another kind of source.
        workers: Number of processes; None for one per CPU.
        expected_md5: MD5 sum of each archive.

    Returns:
        Pairs, pixels and class shares of each finished part of `out`, as in the manifest.

    Raises:
        DataError: An archive is missing or damaged, has another sum, or unexpected content.
        InputError: `out` holds something else, or another process is writing to it.
    """
    folder = Prepared(Path(out), 'archives')
    jobs = {path: _jobs(folder, path) for path in _find_archives(Path(zip_dir), parts)}
    # All sums are checked before anything is unpacked. Finished archives are not summed again.
    for path, of_archive in jobs.items():
        if verify and (overwrite or folder.unfinished([job.unit for job in of_archive])):
            _check_md5(path, expected_md5[path.name])
    return make_all(
        folder, [job for of_archive in jobs.values() for job in of_archive], overwrite, workers, 'unpacking'
    )


def _find_archives(folder: Path, parts: Sequence[str] | None) -> list[Path]:
    existing = [part for part in PARTS if (folder / f'{part}.zip').is_file()]
    missing = [part for part in parts or () if part not in existing]
    if missing or not existing:
        names = ', '.join(f'{part}.zip' for part in missing or PARTS)
        raise DataError(f'{folder}: {names} missing; download the published archives of ARAS400k to this folder')
    return [folder / f'{part}.zip' for part in existing if part in (parts or existing)]


def _check_md5(path: Path, expected: str) -> None:
    found = md5_of(path)
    if found != expected:
        raise DataError(
            f'{path}: MD5 sum {found}, expected {expected}; download it again, or unpack it anyway with --no-verify'
        )


def _jobs(folder: Prepared, archive: Path) -> list[Job]:
    """Units of an archive, identified by the checksums in its directory."""
    part = archive.stem
    images, masks = _members(archive)
    stems = sorted(images)
    jobs = []
    for start in range(0, len(stems), PAIRS_PER_UNIT):
        block = [(images[stem], masks[stem]) for stem in stems[start : start + PAIRS_PER_UNIT]]
        content = hash_json([[info.filename, info.file_size, info.CRC] for pair in block for info in pair])
        source = dict(archive=archive.name, content=content)
        unit = Unit(f'{part}-{start // PAIRS_PER_UNIT:04d}', {}, source, group=part)
        names = [(image.filename, mask.filename) for image, mask in block]
        jobs.append(Job(folder, unit, _read_pairs, (archive, part, names)))
    return jobs


def _members(archive: Path) -> list[dict[str, zipfile.ZipInfo]]:
    """Images and masks of an archive, each by stem; `images/` and `masks/` lie at its top or in one folder."""
    found: dict[str, list[tuple[str, zipfile.ZipInfo]]] = {kind: [] for kind in KINDS}
    with open_zip(archive, str(archive)) as zipped:
        for info in zipped.infolist():
            path = safe_path(info, archive)
            hidden = path.parts[0] == '__MACOSX' or any(name.startswith('.') for name in path.parts)
            if info.is_dir() or hidden or path.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            if not 2 <= len(path.parts) <= 3 or path.parts[-2] not in KINDS:
                raise DataError(f'{archive}: member {info.filename!r}: images must lie in images/ or masks/')
            found[path.parts[-2]].append((path.stem, info))
    for kind, members in found.items():
        twice = sorted(stem for stem, count in Counter(stem for stem, _ in members).items() if count > 1)
        if twice:
            raise DataError(f'{archive}: {kind} with the same stem: {some_of(twice, 5)}')
    images, masks = (dict(members) for members in found.values())
    for kind, unpaired in (('mask', images.keys() - masks.keys()), ('image', masks.keys() - images.keys())):
        if unpaired:
            raise DataError(
                f'{archive}: no {kind} for {len(unpaired)} of {len(images)} pairs: {some_of(sorted(unpaired), 5)}'
            )
    return [images, masks]


def _read_pairs(archive: Path, part: str, names: Sequence[tuple[str, str]]) -> Iterator[Pair]:
    with open_zip(archive, str(archive)) as zipped:
        for members in names:
            contents = []
            for member in members:
                with reading(f'{archive}, {member}'):
                    contents.append(zipped.read(member))
            image_name, mask_name = (Path(member.replace('\\', '/')).name for member in members)
            yield Pair(part, image_name, contents[0], mask_name, contents[1], str(archive))
