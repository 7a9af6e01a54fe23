"""Where the files of a prepared ISPRS data set lie, what they are called, and which ones a tile must have."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_prep._isprs_source import BANDS, LABEL_KINDS
from lale_mmseg.metainfo import isprs

STATISTICS = 'statistics.json'
#: Folders of windows and of whole tiles.
TOPS = ('windows', 'tiles')
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
    for top in TOPS:
        for kind in ('images', *map(label_folder, LABEL_KINDS)):
            folder = out / top / kind
            found[f'{top}/{kind}'] = set(os.listdir(folder)) if folder.is_dir() else set()
    return found


def expected_files(entry: Mapping[str, Any], stem: str) -> dict[str, list[str]]:
    """Names that each folder must have for a tile, by what the manifest says of it."""
    source, (height, width) = entry['source'], entry['size']
    labels = [label_folder(kind) for kind in LABEL_KINDS if kind in source['files']]
    suffixes = {'images': image_suffix(BANDS[source['bands']][1]), **dict.fromkeys(labels, '.png')}
    found = {}
    for kind, suffix in suffixes.items():
        if entry['windows']:
            names = window_names(stem, height, width, source['size'], source['stride'])
            found[f'windows/{kind}'] = [f'{name}{suffix}' for name in names]
        if entry['whole']:
            found[f'tiles/{kind}'] = [f'{stem}{".tif" if kind == "images" else ".png"}']
    return found


def tile_files(dataset: str, there: Mapping[str, set[str]]) -> dict[str, dict[str, set[str]]]:
    """What `files_by_folder` found, for each tile by the start of its files' names."""
    found: dict[str, dict[str, set[str]]] = {}
    for folder, names in there.items():
        for name in names:
            tile = isprs.tile_of(dataset, name)
            stem = None if tile is None else isprs.tile_stem(dataset, tile)
            if stem is not None and name.startswith(f'{stem}_' if folder.startswith('windows') else f'{stem}.'):
                found.setdefault(stem, {}).setdefault(folder, set()).add(name)
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
        dataset = dataset_of(entry['kind'])
        if entry['complete'] and dataset is not None:
            tile = isprs.tile_of(dataset, stem)
            tiles[tile] = {kind: counts['pixels'] for kind, counts in entry['labels'].items()}
    return dict(classes=list(isprs.CLASSES), tiles=tiles)


def has_statistics(out: Path, parts: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the file of class counts is that of the manifest's tiles."""
    try:
        return json.loads((out / STATISTICS).read_text(encoding='utf-8')) == statistics(parts)
    except (OSError, ValueError):
        return False
