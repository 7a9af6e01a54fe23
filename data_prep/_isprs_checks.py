"""Checks a prepared ISPRS data set against its manifest: every window and whole tile, each kind of labels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep._files import MANIFEST, read_manifest
from data_prep._isprs_layout import STATISTICS, dataset_of, expected_files, files_by_folder, label_folder, statistics
from data_prep._isprs_plan import palette_of
from data_prep._isprs_source import BANDS, LABEL_KINDS
from data_prep._pair_checks import Expected, Fault, Item, PairReport, check_pair
from data_prep._progress import check_workers, map_jobs, progress_bar
from data_prep._report import Report
from data_prep._shares import summary
from lale_mmseg.errors import DataError
from lale_mmseg.metainfo import isprs


def is_isprs(root: Path) -> bool:
    """Whether a folder has the manifest of a prepared ISPRS data set."""
    try:
        parts = read_manifest(root)['parts']
    except (DataError, OSError):
        return False
    return any(dataset_of(entry['kind']) for entry in parts.values())


def verify_isprs(root: Path, workers: int | None = None) -> Report:
    """Checks every file of every tile of the manifest.

    Args:
        root: Folder of the data set.
        workers: Number of processes; None for one a CPU.

    Returns:
        Class counts of windows and of whole tiles for each kind of labels, and all faults.

    Raises:
        DataError: `root` has no manifest of a prepared ISPRS data set.
    """
    processes = check_workers(workers)
    if not is_isprs(root):
        raise DataError(f'{root}: no {MANIFEST} of a prepared ISPRS data set; prepare one with data_prep/isprs.py')
    parts = read_manifest(root)['parts']
    report = Report(isprs.CLASSES)
    there = files_by_folder(root)
    report.faults += _unfinished(root, parts)
    report.faults += _strays(root, parts, there)
    report.faults += _wrong_statistics(root, parts)
    jobs = [job for stem, entry in parts.items() if entry['complete'] for job in _jobs(root, stem, entry, there)]
    for item, _ in jobs:
        report.faults += _missing(root, item, there)
    _check(root, parts, jobs, processes, report)
    return report


def _jobs(
    root: Path, stem: str, entry: Mapping[str, Any], there: Mapping[str, set[str]]
) -> Iterator[tuple[Item, Expected]]:
    """Every label file of a tile with its due size; the first kind's with the image that all kinds share."""
    source, files = entry['source'], expected_files(entry, stem)
    for top, size in (('windows', (source['size'],) * 2), ('tiles', tuple(entry['size']))):
        images = files.get(f'{top}/images', [])
        for number, kind in enumerate(kind for kind in LABEL_KINDS if kind in entry['labels']):
            expected = Expected(palette_of(kind), bands=BANDS[source['bands']][1], masks=source['masks'])
            folder = f'{top}/{label_folder(kind)}'
            for image, mask in zip(images, files.get(folder, []), strict=True):
                image_path = root / top / 'images' / image if number == 0 and image in there[f'{top}/images'] else None
                mask_path = root / folder / mask if mask in there[folder] else None
                yield Item(f'{top} {kind}', Path(image).stem, image_path, mask_path, size), expected


def _missing(root: Path, item: Item, there: Mapping[str, set[str]]) -> Iterator[Fault]:
    top, _, kind = item.split.partition(' ')
    if item.mask is None:
        path = root / top / label_folder(kind) / f'{item.stem}.png'
        yield Fault('missing mask', item.split, str(path), 'is of a finished tile, and is not there')
    folder = f'{top}/images'
    if item.image is None and not {f'{item.stem}.png', f'{item.stem}.tif'} & there[folder]:
        path = root / folder / f'{item.stem}.*'
        yield Fault('missing image', item.split, str(path), 'is of a finished tile, and is not there')


def _unfinished(root: Path, parts: Mapping[str, Mapping[str, Any]]) -> Iterator[Fault]:
    for stem, entry in parts.items():
        if not entry['complete'] or 'next' in entry:
            message = f'tile {stem} is not finished; run data_prep/isprs.py as before, it continues'
            yield Fault('unfinished tile', '', str(root / MANIFEST), message)


def _strays(root: Path, parts: Mapping[str, Mapping[str, Any]], there: Mapping[str, set[str]]) -> Iterator[Fault]:
    """Files that no tile of the manifest has; those of unfinished tiles are left alone."""
    left = {folder: set(names) for folder, names in there.items()}
    for stem, entry in parts.items():
        if entry['complete']:
            for folder, names in expected_files(entry, stem).items():
                left[folder] -= set(names)
    begun = [stem for stem, entry in parts.items() if not entry['complete'] or 'next' in entry]
    unfinished = tuple(f'{stem}{end}' for stem in begun for end in '_.')
    for folder, strays in left.items():
        for name in sorted(strays):
            if not name.lstrip('.').startswith(unfinished):
                message = 'belongs to no tile and window of the manifest; remove it'
                yield Fault('stray file', folder.partition('/')[0], str(root / folder / name), message)


def _wrong_statistics(root: Path, parts: Mapping[str, Mapping[str, Any]]) -> Iterator[Fault]:
    path = root / STATISTICS
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        yield Fault('statistics', '', str(path), f'cannot be read ({error})')
        return
    if found != statistics(parts):
        yield Fault('statistics', '', str(path), f'differs from the counts of {MANIFEST}; prepare the data again')


def _check(
    root: Path,
    parts: Mapping[str, Mapping[str, Any]],
    jobs: Sequence[tuple[Item, Expected]],
    workers: int,
    report: Report,
) -> None:
    pixels: dict[str, np.ndarray] = {}
    pairs: dict[str, int] = {}
    ignored: dict[str, int] = {}
    with progress_bar('checking', len(jobs), 'masks') as advance:
        for result in map_jobs(check_pair, jobs, max(min(workers, len(jobs) // 8), 1)):
            split = result.item.split
            pixels[split] = pixels.get(split, 0) + result.pixels
            ignored[split] = ignored.get(split, 0) + result.ignored
            pairs[split] = pairs.get(split, 0) + 1
            report.faults += result.faults
            report.faults += _wrong_counts(parts, result)
            advance(1)
    for split in sorted(pairs, reverse=True):
        entry = summary(pairs[split], isprs.CLASSES, pixels[split])
        report.splits[split] = dict(entry, ignored_pixels=ignored[split])


def _wrong_counts(parts: Mapping[str, Mapping[str, Any]], result: PairReport) -> Iterator[Fault]:
    """Whole labels whose pixels are not those that the manifest counted."""
    item = result.item
    top, _, kind = item.split.partition(' ')
    # What cannot be decoded, or has unknown values, is noted already.
    if top != 'tiles' or item.mask is None or any(fault.file == str(item.mask) for fault in result.faults):
        return
    due = parts[item.stem]['labels'][kind]
    found = ([int(count) for count in result.pixels], result.ignored)
    if found != (due['pixels'], due['ignored']):
        message = f'pixels of each class and ignored: {found[0]}, {found[1]}; {MANIFEST} has {due["pixels"]}, '
        yield Fault('counts', item.split, str(item.mask), message + str(due['ignored']))
