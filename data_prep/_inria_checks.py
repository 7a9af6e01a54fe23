"""Checks prepared Inria tiles against their manifest: every window, whole tile or crop, and every label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep._files import MANIFEST, is_leftover, read_manifest
from data_prep._inria_layout import FEW_SHOT, FULL, OVERVIEW, expected_files, files_by_folder, protocol_of, split_of
from data_prep._inria_published import unpublished
from data_prep._names import some_of
from data_prep._pair_checks import Expected, Fault, Item, PairReport, check_pair
from data_prep._progress import check_workers, map_jobs, progress_bar
from data_prep._report import Report
from data_prep._shares import summary
from lale_mmseg.errors import DataError
from lale_mmseg.metainfo import Palette, inria

Entries = Mapping[str, Mapping[str, Any]]

_EXPECTED = Expected(Palette(inria.CLASSES, inria.COLORS), masks='binary')


def is_inria(root: Path) -> bool:
    """Whether a folder has the manifest of prepared Inria tiles."""
    try:
        parts = read_manifest(root)['parts']
    except (DataError, OSError):
        return False
    return any(protocol_of(entry['kind']) for entry in parts.values())


def verify_inria(root: Path, workers: int | None = None) -> Report:
    """Checks every file of every tile of the manifest.

    Args:
        root: Folder of the data set.
        workers: Number of processes; None for one a CPU.

    Returns:
        Pixels of background and building for each split and folder, all faults, and as notes the tiles that were left
        out with --missing skip, in what crops differ from the published ones, and which pixels are counted.

    Raises:
        DataError: `root` has no manifest of prepared Inria tiles.
    """
    processes = check_workers(workers)
    if not is_inria(root):
        raise DataError(f'{root}: no {MANIFEST} of prepared Inria tiles; prepare them with data_prep/inria.py')
    manifest = read_manifest(root)
    parts = manifest['parts']
    protocol = protocol_of(next(iter(parts.values()))['kind'])
    assert protocol is not None
    report = Report(inria.CLASSES)
    report.faults += _unfinished(root, parts, protocol)
    report.notes += _left_out(parts, manifest.get('notes', {}).get('tiles', ()), protocol)
    departure = unpublished(parts) if protocol == FEW_SHOT else None
    report.notes += [] if departure is None else [departure]
    report.notes += _counted_once(parts) if protocol == FULL else ()
    there = files_by_folder(root, protocol)
    report.faults += _strays(root, parts, there)
    if protocol == FEW_SHOT and not (root / OVERVIEW).is_file():
        report.faults.append(Fault('missing overview', '', str(root / OVERVIEW), 'prepare the data again as before'))
    items = [
        item
        for tile, entry in parts.items()
        if entry['complete']
        for item in _items(root, tile, entry, protocol, there, report.faults)
    ]
    _check(parts, items, processes, report)
    return report


def _unfinished(root: Path, parts: Entries, protocol: str) -> Iterator[Fault]:
    for tile, entry in parts.items():
        if not entry['complete']:
            message = f'{tile} is not finished; run data_prep/inria.py as before, it continues'
            yield Fault('unfinished tile', split_of(protocol, tile), str(root / MANIFEST), message)


def _left_out(parts: Entries, wanted: Sequence[str], protocol: str) -> Iterator[str]:
    """For each split the tiles that were asked for and not there, as --missing skip allows."""
    for split in ('train', 'val', 'test'):
        tiles = [tile for tile in wanted if tile not in parts and split_of(protocol, tile) == split]
        if tiles:
            yield f'{len(tiles)} tiles of split {split!r} were not in the source and left out: {some_of(tiles)}'


def _counted_once(parts: Entries) -> Iterator[str]:
    """The share of building by which classes are weighted, where it is not that of the windows."""
    cut = [
        entry['pixels']
        for tile, entry in parts.items()
        if entry['complete'] and split_of(FULL, tile) == 'train' and 'pixels' in entry
    ]
    if cut:
        once = summary(len(cut), inria.CLASSES, np.array(cut, np.int64).sum(0))['class_shares']['building']
        yield (
            f"'train windows' counts a pixel once for each window that has it; class_weight='data' and inria.py count "
            f'each pixel of the {len(cut)} tiles once: building {once:.2f} %'
        )


def _strays(root: Path, parts: Entries, there: Mapping[str, set[str]]) -> Iterator[Fault]:
    """Files that no tile of the manifest has; those of unfinished tiles, and of a killed run, are left alone."""
    due: dict[str, set[str]] = {}
    for tile, entry in parts.items():
        if 'tile_size' in entry:
            for folder, expected in expected_files(tile, entry).items():
                due.setdefault(folder, set()).update(expected)
    for folder, names in there.items():
        for name in sorted(names - due.get(folder, set())):
            if not is_leftover(Path(name)):
                message = 'belongs to no tile and window of the manifest; remove it'
                yield Fault('stray file', folder.partition('/')[0], str(root / folder / name), message)


def _items(
    root: Path, tile: str, entry: Mapping[str, Any], protocol: str, there: Mapping[str, set[str]], faults: list[Fault]
) -> Iterator[Item]:
    """Every image of a tile with its mask and due size; notes those that are missing."""
    (image_folder, images), (mask_folder, masks) = expected_files(tile, entry).items()
    top = image_folder.partition('/')[0]
    side = entry['source']['size']
    size = tuple(entry['tile_size']) if top == 'tiles' else (side, side)
    split = f'{split_of(protocol, tile)} {top}'
    for image, mask in zip(images, masks, strict=True):
        found: list[Path | None] = []
        for kind, folder, name in (('image', image_folder, image), ('mask', mask_folder, mask)):
            path = root / folder / name
            found.append(path if name in there[folder] else None)
            if name not in there[folder]:
                faults.append(Fault(f'missing {kind}', split, str(path), 'is of a finished tile, and is not there'))
        yield Item(split, Path(mask).stem, found[0], found[1], (size[0], size[1]))


def _check(parts: Entries, items: Sequence[Item], workers: int, report: Report) -> None:
    pixels: dict[str, np.ndarray] = {}
    pairs: dict[str, int] = {}
    jobs = [(item, _EXPECTED) for item in items]
    with progress_bar('checking', len(jobs), 'pairs') as advance:
        for result in map_jobs(check_pair, jobs, max(min(workers, len(jobs) // 8), 1)):
            split = result.item.split
            pixels[split] = pixels.get(split, 0) + result.pixels
            pairs[split] = pairs.get(split, 0) + 1
            report.faults += result.faults
            report.faults += _wrong_counts(parts, result)
            advance(1)
    for split in sorted(pairs, key=lambda split: ('train', 'val', 'test').index(split.partition(' ')[0])):
        report.splits[split] = dict(summary(pairs[split], inria.CLASSES, pixels[split]), ignored_pixels=0)


def _wrong_counts(parts: Entries, result: PairReport) -> Iterator[Fault]:
    """Whole masks and crops whose pixels are not those that the manifest counted."""
    item = result.item
    # What cannot be decoded, or has unknown values, is noted already; windows overlap.
    if item.stem not in parts or item.mask is None or any(fault.file == str(item.mask) for fault in result.faults):
        return
    found, due = [int(count) for count in result.pixels], parts[item.stem]['pixels']
    if found != due:
        message = f'pixels of background and building: {found}; {MANIFEST} has {due}'
        yield Fault('counts', item.split, str(item.mask), message)
