"""Where the files of a prepared ISPRS data set lie, what they are called, and which ones a tile must have."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_prep._isprs_source import BANDS, LABEL_KINDS
from lale_mmseg.metainfo import isprs

STATISTICS = 'statistics.json'
#: What belongs to a tile in the prepared folder.
OWNED = ('windows/*/{part}_*', 'tiles/*/{part}.*')
_KIND = 'isprs-'


def manifest_kind(dataset: str) -> str:
    """How the manifest names the maker of a prepared data set."""
    return f'{_KIND}{dataset}'


def dataset_of(kind: str) -> str | None:
    """'potsdam' or 'vaihingen' from what `manifest_kind` returned; None if the data are of another kind."""
    return kind[len(_KIND) :] if kind.startswith(_KIND) else None


def label_folder(kind: str) -> str:
    """Name of the folder of a kind of labels."""
    return f'labels_{kind}'


def image_suffix(bands: int) -> str:
    """Of windows: PNG cannot hold four bands without taking one for transparency."""
    return '.png' if bands == 3 else '.tif'


def starts(length: int, size: int, stride: int) -> list[int]:
    """First pixels of the windows along one side: every `stride`, and a last one that ends at the border.

    Args:
        length: Pixels of the side, at least `size`.
        size: Pixels of a window.
        stride: Step from one to the next, at most `size`.
    """
    found = list(range(0, length - size + 1, stride))
    return found if found[-1] == length - size else [*found, length - size]


def window_names(stem: str, height: int, width: int, size: int, stride: int) -> list[str]:
    """Names without suffix of all windows of a tile, row by row."""
    return [
        f'{stem}_{x}_{y}_{x + size}_{y + size}'
        for y in starts(height, size, stride)
        for x in starts(width, size, stride)
    ]


def files_by_folder(out: Path) -> dict[str, set[str]]:
    """Names of the files in each folder of windows and tiles, such as 'windows/images'."""
    found = {}
    for top in ('windows', 'tiles'):
        for kind in ('images', *map(label_folder, LABEL_KINDS)):
            folder = out / top / kind
            found[f'{top}/{kind}'] = set(os.listdir(folder)) if folder.is_dir() else set()
    return found


def expected_files(entry: Mapping[str, Any], stem: str) -> dict[str, list[str]]:
    """Names that each folder must have for a tile, by what the manifest says of it."""
    source, (height, width) = entry['source'], entry['size']
    suffixes = {'images': image_suffix(BANDS[source['bands']][1]), **{label_folder(k): '.png' for k in entry['labels']}}
    found = {}
    for kind, suffix in suffixes.items():
        if entry['windows']:
            names = window_names(stem, height, width, source['size'], source['stride'])
            found[f'windows/{kind}'] = [f'{name}{suffix}' for name in names]
        if entry['whole']:
            found[f'tiles/{kind}'] = [f'{stem}{".tif" if kind == "images" else ".png"}']
    return found


def missing_files(entry: Mapping[str, Any], stem: str, there: Mapping[str, set[str]]) -> list[str]:
    """Paths below the data folder that a finished tile lacks."""
    return [
        f'{folder}/{name}'
        for folder, names in expected_files(entry, stem).items()
        for name in names
        if name not in there[folder]
    ]


def statistics(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Content of the file of class counts: pixels of each class on every finished tile, for each kind of its labels."""
    tiles = {}
    for stem, entry in parts.items():
        if entry['complete']:
            tile = isprs.tile_of(dataset_of(entry['kind']) or '', stem)
            tiles[tile] = {kind: counts['pixels'] for kind, counts in entry['labels'].items()}
    return dict(classes=list(isprs.CLASSES), tiles=tiles)
