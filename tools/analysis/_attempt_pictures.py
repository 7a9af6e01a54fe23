"""Images, labels and predictions that ReportHook left in work dirs, as rows of one picture."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lale_mmseg.datasets.image_io import decode_image, decode_label_image, read_bytes
from lale_mmseg.errors import DataError
from lale_mmseg.evaluation.attempt_plots import Row
from lale_mmseg.evaluation.overlay import overlay
from lale_mmseg.evaluation.tile_metric import natural_key
from lale_mmseg.metainfo import IGNORE_INDEX

#: Index of the class that is drawn and scored.
_BUILDING = 1
#: Yellow is rare on roofs and on the ground; background stays as it is.
_COLORS = ((0, 0, 0), (255, 214, 0))


def names_of(folders: Mapping[str, Path]) -> dict[str, list[str]]:
    """Images by name with the labels of the attempts that predicted them, those of most attempts first.

    Args:
        folders: `val` or `test` of each work dir, by label.
    """
    found: dict[str, list[str]] = {}
    for label, folder in folders.items():
        for path in sorted((folder / 'predictions').glob('*.png')):
            if (folder / 'images' / f'{path.stem}.jpg').is_file() and (folder / 'labels' / path.name).is_file():
                found.setdefault(path.stem, []).append(label)
    return dict(sorted(found.items(), key=lambda pair: (-len(pair[1]), natural_key(pair[0]))))


def rows_of(folders: Mapping[str, Path], count: int) -> list[Row]:
    """The images that most attempts share, at most `count`.

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
            predictions[label] = _painted(shown, pred)
            scores[label] = _score(folder, name, pred, truth)
        rows.append(Row(name, shown, _painted(shown, truth), predictions, scores))
    return rows


def _read(path: Path) -> np.ndarray:
    values = decode_label_image(read_bytes(path), str(path))
    if values.ndim != 2:
        raise DataError(f'{path}: class indexes of one channel are due')
    return values


def _painted(image: np.ndarray, classes: np.ndarray) -> np.ndarray:
    building = np.where(classes == _BUILDING, np.uint8(_BUILDING), np.uint8(IGNORE_INDEX))
    return overlay(image, building, _COLORS)


def _score(folder: Path, name: str, pred: np.ndarray, truth: np.ndarray) -> float | None:
    """IoU of an image: that of per_tile.csv if the image is the tile, else from the pixels of the picture."""
    path = folder / 'per_tile.csv'
    if path.is_file():
        with path.open(encoding='utf-8', newline='') as file:
            for row in csv.DictReader(file):
                if row.get('tile') == name and 'IoU' in row:
                    return float(row['IoU']) if row['IoU'] else None
    counted = truth != IGNORE_INDEX
    found, wanted = (pred == _BUILDING) & counted, truth == _BUILDING
    either = int((found | wanted).sum())
    return 100 * int((found & wanted).sum()) / either if either else None


def absent(folders: Mapping[str, Path], drawn: Sequence[Row]) -> list[str]:
    """One line for each attempt without any picture."""
    with_pictures = {label for labels in names_of(folders).values() for label in labels}
    if not drawn:
        return []
    return [f'{label}: no pictures in {folder}' for label, folder in folders.items() if label not in with_pictures]
