"""Writes pairs of images and RGB masks into OUT/PART/{images,masks}, and counts their classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.core.prepared import Prepared, Unit, read_markers
from data_prep.core.progress import map_jobs
from data_prep.core.report import summary
from data_prep.core.tiles import count_values, decode_rgb
from lale_mmseg.errors import DataError
from lale_mmseg.files import write_atomic
from lale_mmseg.metainfo import Palette, aras400k

KINDS = ('images', 'masks')
PARTS = tuple(aras400k.PART_SIZES)
PALETTE = Palette(aras400k.CLASSES, aras400k.COLORS, ignore_colors=(aras400k.NO_DATA_COLOR,))


@dataclass(frozen=True)
class Pair:
    """Image and mask files of a pair: their names and content, the part, and the source for messages."""

    part: str
    image_name: str
    image: bytes
    mask_name: str
    mask: bytes
    source: str


@dataclass(frozen=True)
class Job:
    """A unit to make, and the function that reads its pairs in a worker process.

    Instead of a pair, `read(*args)` may yield the reason why one was left out.
    """

    folder: Prepared
    unit: Unit
    read: Callable[..., Iterable[Pair | str]]
    args: tuple


def make_pairs(job: Job) -> None:
    """Writes the pairs of a unit; its marker gets the number of pairs and the pixels of each class, by part.

    Raises:
        DataError: A pair cannot be read, or a mask has an unknown colour.
    """
    pairs: dict[str, int] = {}
    pixels: dict[str, np.ndarray] = {}
    left_out: Counter[str] = Counter()
    with job.folder.making(job.unit) as output:
        for pair in job.read(*job.args):
            if isinstance(pair, str):
                left_out[pair] += 1
                continue
            name = f'{pair.source}, {pair.mask_name}'
            labels = PALETTE.decode(decode_rgb(pair.mask, name), source=name)
            pairs[pair.part] = pairs.get(pair.part, 0) + 1
            pixels[pair.part] = pixels.get(pair.part, 0) + count_values(labels)[: PALETTE.num_classes]
            write_atomic(output.path(f'{pair.part}/images/{pair.image_name}'), pair.image)
            write_atomic(output.path(f'{pair.part}/masks/{pair.mask_name}'), pair.mask)
        output.facts['left_out'] = left_out
        output.facts['parts'] = {part: dict(pairs=pairs[part], pixels=pixels[part].tolist()) for part in pairs}


def make_all(
    folder: Prepared, jobs: Sequence[Job], overwrite: bool, workers: int | None, title: str
) -> dict[str, dict]:
    """Makes the units that are not finished, then writes and returns the parts of the manifest.

    Raises:
        DataError: See `make_pairs`; or the folders hold files that do not belong to the data.
    """
    with folder.locked():
        names = {unit.name for unit in folder.unmade([job.unit for job in jobs], overwrite)}
        jobs = [job for job in jobs if job.unit.name in names]
        list(map_jobs(title, make_pairs, jobs, workers, unit='blocks'))
        parts = parts_of(folder.root)
        folder.write_manifest(parts)
    for part, entry in parts.items():
        for kind in KINDS:
            found = sum(not path.name.startswith('.') for path in (folder.root / part / kind).iterdir())
            if found != entry['pairs']:
                raise DataError(
                    f'{folder.root / part / kind}: has {found:,} files, expected {entry["pairs"]:,}; remove the folder '
                    'and prepare the part again'
                )
    return parts


def parts_of(root: Path) -> dict[str, dict[str, Any]]:
    """Number of pairs and class shares of each part, from the markers of a prepared folder."""
    found: dict[str, dict[str, Any]] = {}
    pixels: dict[str, np.ndarray] = {}
    for marker in read_markers(root).values():
        for part, counts in marker['parts'].items():
            entry = found.setdefault(part, dict(kind=marker['kind'], settings=marker['settings'], pairs=0))
            entry['pairs'] += counts['pairs']
            pixels[part] = pixels.get(part, 0) + np.array(counts['pixels'], np.int64)
    order = [*(part for part in PARTS if part in found), *sorted(set(found) - set(PARTS))]
    return {part: found[part] | summary(found[part]['pairs'], PALETTE.classes, pixels[part]) for part in order}
