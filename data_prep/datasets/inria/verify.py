"""Checks prepared Inria tiles: every window, whole tile or crop, and every label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.core.checks import Expected, Fault, Item, Report, check_files, check_json
from data_prep.core.prepared import MANIFEST
from data_prep.core.report import some_of, summary
from data_prep.datasets.inria.crops import FEW_SHOT, FULL, split_of, unpublished
from data_prep.datasets.inria.prepare import OVERVIEW, made_tiles, manifest_of, protocol_of
from lale_mmseg.errors import DataError
from lale_mmseg.metainfo import inria

_EXPECTED = Expected(inria.PALETTE)


def verify_inria(root: Path, workers: int | None = None) -> Report:
    """Checks every file of a prepared folder.

    Args:
        root: The folder.
        workers: Number of processes; None for one per CPU.

    Returns:
        Pixels of background and building for each split and folder, and all faults. Notes tell which tiles are missing,
        how crops differ from the published ones, and which pixels are counted.

    Raises:
        DataError: `root` does not hold prepared Inria tiles.
    """
    markers = made_tiles(root)
    protocols = {protocol_of(marker['kind']) for marker in markers.values()}
    protocol = next(iter(protocols), None)
    if protocol is None:
        raise DataError(f'{root}: holds no prepared Inria tiles; prepare them with data_prep/inria.py')
    report = Report(inria.CLASSES)
    report.notes += _notes(protocol, markers)
    splits = {tile: split_of(protocol, tile) for tile in markers}
    report.faults += check_files(root, markers, splits)
    report.faults += check_json(root / MANIFEST, manifest_of(protocol, markers))
    if protocol == FEW_SHOT and not (root / OVERVIEW).is_file():
        report.faults.append(Fault('missing overview', '', str(root / OVERVIEW), 'run data_prep/inria.py as before'))
    items = [item for tile, marker in markers.items() for item in _items(root, splits[tile], marker)]
    order = [f'{split} {top}' for split in ('train', 'val', 'test') for top in ('windows', 'tiles', 'crops')]
    existing = {item.split for item in items}
    for found in report.check(items, [split for split in order if split in existing], workers):
        # Windows overlap, so their pixels were not counted.
        if not found.item.split.endswith('windows'):
            tile = (found.item.mask or found.item.image or root).stem
            report.compare_counts(found, markers[tile])
    return report


def _notes(protocol: str, markers: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if protocol == FEW_SHOT:
        departure = unpublished(markers)
        if departure is not None:
            yield departure
        return
    cities = {inria.city_of(tile) for tile in markers}
    missing = [tile for tile in inria.TILES if inria.city_of(tile) in cities and tile not in markers]
    for split in ('train', 'val'):
        tiles = [tile for tile in missing if split_of(FULL, tile) == split]
        if tiles:
            yield f'{len(tiles)} tiles of split {split!r} are missing: {some_of(tiles)}'
    train = [marker['pixels'] for tile, marker in markers.items() if split_of(FULL, tile) == 'train']
    if train:
        share = summary(len(train), inria.CLASSES, np.array(train, np.int64).sum(0))['class_shares']['building']
        yield (
            f"'train windows' counts a pixel once for each window that has it; class_weight='data' and inria.py count "
            f'each pixel of the {len(train)} tiles once: building {share:.2f} %'
        )


def _items(root: Path, split: str, marker: Mapping[str, Any]) -> Iterator[Item]:
    (image_folder, images), (mask_folder, masks) = sorted(marker['files'].items())
    top = image_folder.partition('/')[0]
    height, width = marker['tile_size'] if top == 'tiles' else [marker['settings']['size']] * 2
    for image, mask in zip(sorted(images), sorted(masks), strict=True):
        paths = [path if path.exists() else None for path in (root / image_folder / image, root / mask_folder / mask)]
        yield Item(f'{split} {top}', paths[0], paths[1], _EXPECTED, (height, width))
