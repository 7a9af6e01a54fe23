"""Finds the images and labels of ISPRS by name.

A file name such as `top_potsdam_2_10_RGB.tif` or `top_potsdam_2_10_label_noBoundary.tif` determines the content. The
full labels of Vaihingen have the same names as its images, so there the folders and archives above a file decide,
nearest first: `top/` holds images; `gts*/` and anything with `ground_truth` in its name hold labels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data_prep.core.sources import TIFF, SourceFile, identity_of, walk_files, walk_rasters
from lale_mmseg.errors import DataError

IMAGE, FULL, ERODED = 'image', 'full', 'eroded'
LABEL_KINDS = (FULL, ERODED)
#: Ending of the image files of each choice of bands, and their number of bands.
BANDS = {'rgb': ('RGB', 3), 'irrg': ('IRRG', 3), 'rgbir': ('RGBIR', 4)}

_POTSDAM = re.compile(r'top_potsdam_(\d+)_(\d+)_(RGB|IRRG|RGBIR|label|label_noBoundary)', re.IGNORECASE)
_VAIHINGEN = re.compile(r'top_mosaic_09cm_area(\d+)(_noBoundary)?', re.IGNORECASE)
_LABEL_FOLDER = re.compile(r'(gts?|labels)(_.*)?|.*ground[_ -]?truth.*', re.IGNORECASE)
_ERODED = re.compile(r'noboundary|eroded', re.IGNORECASE)
_ORTHO = re.compile(r'ortho_(rgbir|rgb|irrg)', re.IGNORECASE)
#: Surface models and laser points, which are large and never needed.
_SKIPPED = re.compile(r'(\d+_)?n?dsm(_.*)?|lidar|__macosx', re.IGNORECASE)
_SKIPPED_ARCHIVE = re.compile(r'(^|_)n?dsm(_|$)|lidar', re.IGNORECASE)
#: Labels for participants of the contest; the complete labels, published later, contain them.
_PARTICIPANTS = re.compile(r'participants', re.IGNORECASE)

Key = tuple[str, str]


@dataclass(frozen=True)
class Wanted:
    """Which files to look for: dataset, choice of bands, kinds of labels."""

    dataset: str
    bands: str
    labels: Sequence[str]

    def file_name(self, tile: str, kind: str) -> str:
        """Name that ISPRS gives a file, for messages."""
        if self.dataset == 'potsdam':
            end = {IMAGE: BANDS[self.bands][0], FULL: 'label', ERODED: 'label_noBoundary'}[kind]
            return f'top_potsdam_{tile}_{end}.tif'
        where = {IMAGE: 'top/', FULL: 'gts_for_participants/ or an archive *ground_truth*: ', ERODED: ''}[kind]
        return f'{where}top_mosaic_09cm_area{tile}{"_noBoundary" if kind == ERODED else ""}.tif'

    def opens(self, archive: str) -> bool:
        """Whether an archive, named without .zip, can hold a wanted file."""
        ortho = _ORTHO.search(archive)
        if ortho is not None:
            return ortho.group(1).lower() == self.bands
        return not _SKIPPED_ARCHIVE.search(archive)

    def classify(self, name: str) -> Key | None:
        """(tile, kind) of a TIFF file, or None if it is not wanted.

        Raises:
            DataError: Neither the name nor the folders above distinguish image and labels.
        """
        path = PurePosixPath(name)
        key = self._potsdam(path) if self.dataset == 'potsdam' else self._vaihingen(path)
        return key if key is not None and key[1] in (IMAGE, *self.labels) else None

    def _potsdam(self, path: PurePosixPath) -> Key | None:
        match = _POTSDAM.fullmatch(path.stem)
        if match is None:
            return None
        row, column, end = match.groups()
        kinds = {'label': FULL, 'label_noboundary': ERODED, BANDS[self.bands][0].lower(): IMAGE}
        kind = kinds.get(end.lower())
        return None if kind is None else (f'{int(row)}_{int(column)}', kind)

    def _vaihingen(self, path: PurePosixPath) -> Key | None:
        match = _VAIHINGEN.fullmatch(path.stem)
        if match is None:
            return None
        tile = str(int(match.group(1)))
        if match.group(2):
            return tile, ERODED
        for folder in reversed(path.parts[:-1]):
            stem = folder[:-4] if folder.lower().endswith('.zip') else folder
            if _LABEL_FOLDER.fullmatch(stem):
                return tile, ERODED if _ERODED.search(stem) else FULL
            if stem.lower() in ('top', 'images'):
                return tile, IMAGE
        raise DataError(
            f'{path}: image or labels? Both have this name, and no folder or archive above it tells them apart; put '
            'images into a folder top/, full labels into gts_for_participants/ or an archive with ground_truth in its '
            'name'
        )


def find_files(source: Path, wanted: Wanted, scratch: Path) -> dict[Key, SourceFile]:
    """Finds image and label files, by (tile, kind).

    Complete labels take precedence over those for participants. Any other two files of one tile and kind must have
    equal content.

    Args:
        source: Folder or zip archive.
        wanted: Which files to look for.
        scratch: Folder for copies of inner archives.

    Raises:
        DataError: An archive is damaged, a file may be an image or labels, or two files of one
            tile and kind differ.
    """
    found: dict[Key, SourceFile] = {}
    # The name of the source itself may distinguish images and labels.
    top = source.resolve().name
    for file in walk_rasters(source, scratch, _skips, wanted.opens):
        key = wanted.classify(f'{top}/{file.name}')
        if key is not None:
            found[key] = _choose(found[key], file, key) if key in found else file
    return found


def list_inputs(source: Path) -> list[list]:
    """Name, size and modification time of all archives and rasters; equal lists mean an unchanged source."""
    paths = [source] if source.is_file() else walk_files(source, _skips) if source.is_dir() else []
    return [identity_of(path) for path in paths if path.suffix.lower() in ('.zip', *TIFF)]


def describe_kind(kind: str) -> str:
    """'image' or 'full labels', for messages."""
    return kind if kind == IMAGE else f'{kind} labels'


def _skips(name: str) -> bool:
    return name.startswith('.') or _SKIPPED.fullmatch(name) is not None


def _choose(first: SourceFile, second: SourceFile, key: Key) -> SourceFile:
    partial = [bool(_PARTICIPANTS.search(file.name)) for file in (first, second)]
    if partial[0] != partial[1]:
        return second if partial[0] else first
    if first.size != second.size or first.crc() != second.crc():
        raise DataError(
            f'tile {key[0]}: {first.name} and {second.name} differ, but both are its {describe_kind(key[1])}; remove '
            'one of them'
        )
    return first
