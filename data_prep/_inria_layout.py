"""Where the files of prepared Inria tiles lie, what they are called, and which ones a tile must have."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_prep._isprs_layout import window_names
from lale_mmseg.metainfo import inria
from lale_mmseg.metainfo.protocols import find_protocol

FULL, FEW_SHOT = (protocol.name for protocol in inria.PROTOCOLS)
OVERVIEW = 'overview.png'
#: Folders of images and masks, by protocol.
TOPS = {FULL: ('windows', 'tiles'), FEW_SHOT: ('crops',)}
#: Patterns of the files of a tile, for the manifest.
OWNED = {
    FULL: ('windows/*/{part}_*.png', 'tiles/*/{part}.tif'),
    FEW_SHOT: ('crops/images/{part}.jpg', 'crops/masks/{part}.png'),
}
_SUFFIXES = {'windows': ('.png', '.png'), 'tiles': ('.tif', '.tif'), 'crops': ('.jpg', '.png')}
_KIND = f'{inria.DATASET}-'


def manifest_kind(protocol: str) -> str:
    """How the manifest names the maker of tiles prepared for a protocol."""
    return f'{_KIND}{protocol}'


def protocol_of(kind: str) -> str | None:
    """'full' or 'few-shot' from what `manifest_kind` returned; None if the data are of another kind."""
    name = kind[len(_KIND) :] if kind.startswith(_KIND) else None
    return name if name in TOPS else None


def split_of(protocol: str, tile: str) -> str:
    """'train', 'val' or 'test'."""
    split = find_protocol(protocol).split(inria.DATASET)
    return next(name for name in ('train', 'val', 'test') if tile in getattr(split, name))


def expected_files(tile: str, entry: Mapping[str, Any]) -> dict[str, list[str]]:
    """Names that each folder must have for a tile, by what the manifest says of it."""
    protocol = protocol_of(entry['kind'])
    assert protocol is not None
    top, names = TOPS[protocol][0], [tile]
    if protocol == FULL and split_of(FULL, tile) == 'val':
        top = 'tiles'
    elif protocol == FULL:
        (height, width), source = entry['tile_size'], entry['source']
        names = window_names(tile, height, width, source['size'], source['stride'])
    image, mask = _SUFFIXES[top]
    return {f'{top}/images': [f'{name}{image}' for name in names], f'{top}/masks': [f'{name}{mask}' for name in names]}


def files_by_folder(out: Path, protocol: str) -> dict[str, set[str]]:
    """Names of the files in each folder of images and masks, such as 'windows/images'."""
    folders = [f'{top}/{kind}' for top in TOPS[protocol] for kind in ('images', 'masks')]
    return {name: set(os.listdir(out / name)) if (out / name).is_dir() else set() for name in folders}


def missing_files(tile: str, entry: Mapping[str, Any], there: Mapping[str, set[str]]) -> list[str]:
    """Paths below the data folder that a finished tile lacks."""
    return [
        f'{folder}/{name}'
        for folder, names in expected_files(tile, entry).items()
        for name in names
        if name not in there[folder]
    ]
