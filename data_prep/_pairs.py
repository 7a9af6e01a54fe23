"""Folders of images and masks with equal names: finding pairs, and counting what the masks hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from data_prep._images import count_classes, decode_rgb
from data_prep._names import some_of
from data_prep._progress import map_jobs, progress_bar
from data_prep._shares import summary
from lale_mmseg.errors import DataError
from lale_mmseg.metainfo import Palette
from lale_mmseg.metainfo.layout import IMAGE_SUFFIXES

KINDS = ('images', 'masks')
_SHOWN = 5
_MASKS_PER_JOB = 64


def list_images(folder: Path) -> list[Path]:
    """Image files directly in a folder, sorted by name; hidden files are left out."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith('.')
    )


def require_pairs(images: Iterable[str], masks: Iterable[str], source: str) -> None:
    """Raises DataError unless there are images, and images and masks have the same stems, each once."""
    images, masks = list(images), list(masks)
    for kind, stems in zip(KINDS, (images, masks), strict=True):
        twice = sorted(stem for stem, count in Counter(stems).items() if count > 1)
        if twice:
            raise DataError(f'{source}: {kind} with the same stem: {_first(twice)}')
    if not images and not masks:
        raise DataError(f'{source}: no image in images/ and no mask in masks/')
    lonely = sorted(set(images) - set(masks))
    if lonely:
        raise DataError(f'{source}: {len(lonely)} images have no mask of the same stem in masks/: {_first(lonely)}')
    lonely = sorted(set(masks) - set(images))
    if lonely:
        raise DataError(f'{source}: {len(lonely)} masks have no image of the same stem in images/: {_first(lonely)}')


def describe(folder: Path, palette: Palette, workers: int) -> dict:
    """Decodes every mask of FOLDER/masks.

    Args:
        folder: A part, with `images/` and `masks/`.
        palette: Classes and colours of the masks.
        workers: Number of processes.

    Returns:
        Pairs, pixels and class shares as `data_prep._shares.summary` gives them.

    Raises:
        DataError: An image has no mask, or a mask is unreadable or has an unknown colour.
    """
    images, masks = (list_images(folder / kind) for kind in KINDS)
    require_pairs((path.stem for path in images), (path.stem for path in masks), str(folder))
    jobs = [(masks[start : start + _MASKS_PER_JOB], palette) for start in range(0, len(masks), _MASKS_PER_JOB)]
    pixels = np.zeros(palette.num_classes, np.int64)
    with progress_bar(f'{folder.name}: counting', len(masks), 'masks') as advance:
        for (paths, _), counts in zip(jobs, map_jobs(_count, jobs, min(workers, len(jobs))), strict=True):
            pixels += counts
            advance(len(paths))
    return summary(len(masks), palette.classes, pixels)


def _count(job: tuple[list[Path], Palette]) -> np.ndarray:
    paths, palette = job
    pixels = np.zeros(palette.num_classes, np.int64)
    for path in paths:
        labels = palette.decode(decode_rgb(path.read_bytes(), str(path)), source=str(path))
        pixels += count_classes(labels, palette.num_classes)
    return pixels


def _first(names: list[str]) -> str:
    return some_of(names, _SHOWN)
