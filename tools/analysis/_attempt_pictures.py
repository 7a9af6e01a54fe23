"""Images, labels and predictions that ReportHook left in work dirs, as rows of one picture."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from lale_mmseg.evaluation.tile_metric import natural_key

from lale_mmseg.datasets.image_io import decode_image, decode_label_image, read_bytes
from lale_mmseg.errors import DataError
from lale_mmseg.evaluation.attempt_plots import Row
from lale_mmseg.evaluation.overlay import overlay
from lale_mmseg.metainfo import IGNORE_INDEX

#: Index of the class that is drawn and scored.
_BUILDING = 1
#: Background stays as it is; yellow: building that was found, or the truth; red: false building; blue: missed.
_COLORS = ((0, 0, 0), (255, 214, 0), (230, 0, 0), (0, 60, 255))
_FALSE, _MISSED = 2, 3
#: Roofs may be as bright as the colours.
_ALPHA = 0.6


def folder_of(work_dir: Path, split: str) -> tuple[Path, str]:
    """Where the pictures of a work dir lie, and of what they are: those of the best validation, if they were kept."""
    if split == 'test':
        return work_dir / 'test', 'test'
    best = work_dir / 'val_best'
    if any((best / 'predictions').glob('*.png')):
        return best, 'best validation'
    return work_dir / 'val', 'last validation'


def names_of(folders: Mapping[str, Path]) -> dict[str, list[str]]:
    """Images by name with the labels of the attempts that predicted them.

    Images with buildings come first; of these, and of the others, those that most attempts predicted.

    Args:
        folders: `val` or `test` of each work dir, by label.
    """
    found: dict[str, list[str]] = {}
    for label, folder in folders.items():
        for path in sorted((folder / 'predictions').glob('*.png')):
            if (folder / 'images' / f'{path.stem}.jpg').is_file() and (folder / 'labels' / path.name).is_file():
                found.setdefault(path.stem, []).append(label)
    empty = {
        name: not (_read(folders[labels[0]] / 'labels' / f'{name}.png') == _BUILDING).any()
        for name, labels in found.items()
    }
    return dict(sorted(found.items(), key=lambda pair: (empty[pair[0]], -len(pair[1]), natural_key(pair[0]))))


def rows_of(folders: Mapping[str, Path], count: int) -> list[Row]:
    """The images with buildings that most attempts share, then others, at most `count`.

    Raises:
        DataError: A file cannot be read, or attempts disagree in the labels of an image.
    """
    rows = []
    for name, labels in [*names_of(folders).items()][:count]:
        first = folders[labels[0]]
        image = decode_image(read_bytes(first / 'images' / f'{name}.jpg'), str(first / 'images' / f'{name}.jpg'))
        shown = np.ascontiguousarray(image[..., ::-1])
        truth = _read(first / 'labels' / f'{name}.png')
        predictions, scores = {}, {}
        for label in labels:
            folder = folders[label]
            if not np.array_equal(_read(folder / 'labels' / f'{name}.png'), truth):
                raise DataError(
                    f'{folder / "labels" / f"{name}.png"}: is another label than {first / "labels" / f"{name}.png"}; '
                    'attempts on other data or classes do not stand in one picture'
                )
            pred = _read(folder / 'predictions' / f'{name}.png')
            if pred.shape != truth.shape:
                raise DataError(
                    f'{folder / "predictions" / f"{name}.png"}: {pred.shape}, but its label has {truth.shape} (height, '
                    'width)'
                )
            predictions[label] = painted(shown, pred, truth)
            scores[label] = _score(folder, name, pred, truth)
        rows.append(Row(name, shown, painted(shown, truth, truth), predictions, scores))
    return rows


def _read(path: Path) -> np.ndarray:
    values = decode_label_image(read_bytes(path), str(path))
    if values.ndim != 2:
        raise DataError(f'{path}: class indexes of one channel are due')
    return values


def painted(image: np.ndarray, classes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Paints buildings over an image: found ones yellow, false ones red, missed ones blue.

    Args:
        image: (H, W, 3) uint8 array, RGB.
        classes: (H, W) predicted class indexes.
        truth: (H, W) class indexes; where they are ignored nothing is painted.

    Returns:
        (H, W, 3) uint8 array, RGB.
    """
    found, wanted = classes == _BUILDING, truth == _BUILDING
    kinds = np.full(truth.shape, IGNORE_INDEX, np.uint8)
    kinds[found & wanted] = _BUILDING
    kinds[found & ~wanted & (truth != IGNORE_INDEX)] = _FALSE
    kinds[~found & wanted] = _MISSED
    return overlay(image, kinds, _COLORS, alpha=_ALPHA)


def _score(folder: Path, name: str, pred: np.ndarray, truth: np.ndarray) -> float | None:
    """IoU of an image: that of per_tile.csv if the image is the tile, else from the pixels of the picture.

    None where the truth has no building.
    """
    path = folder / 'per_tile.csv'
    if path.is_file():
        with path.open(encoding='utf-8', newline='') as file:
            for row in csv.DictReader(file):
                if row.get('tile') == name and 'IoU' in row:
                    return float(row['IoU']) if row['IoU'] and row.get('label_pixels') != '0' else None
    counted = truth != IGNORE_INDEX
    found, wanted = (pred == _BUILDING) & counted, truth == _BUILDING
    either = int((found | wanted).sum())
    return 100 * int((found & wanted).sum()) / either if wanted.any() else None


def absent(folders: Mapping[str, Path], drawn: Sequence[Row]) -> list[str]:
    """One line for each attempt without any picture."""
    with_pictures = {label for labels in names_of(folders).values() for label in labels}
    if not drawn:
        return []
    return [f'{label}: no pictures in {folder}' for label, folder in folders.items() if label not in with_pictures]
