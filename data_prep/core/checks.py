"""Everything that can be wrong with an image or a mask, found by decoding it, and the report of a check."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import rasterio
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning
from rich.table import Table

from data_prep.core.prepared import MARKERS, Listing, read_markers
from data_prep.core.progress import count_cpus, map_jobs
from data_prep.core.report import print_table, summary, table_console
from data_prep.core.sources import TIFF
from data_prep.core.tiles import count_values, strips
from lale_mmseg.errors import DataError
from lale_mmseg.metainfo import IGNORE_INDEX, Palette

_PNG_MAGIC = b'\x89PNG\r\n\x1a\n'
_PNG_DEPTH_AT = 24


@dataclass(frozen=True)
class Expected:
    """What images and masks must be.

    Attributes:
        palette: Classes, and how masks store them.
        unknown: Whether unknown colours are faults, or are ignored.
        bands: Bands of the images.
        dtype: Data type of the images.
        moments: Whether to add up the values of the images and their squares.
    """

    palette: Palette
    unknown: Literal['error', 'ignore'] = 'error'
    bands: int = 3
    dtype: str = 'uint8'
    moments: bool = False


@dataclass(frozen=True)
class Item:
    """An image, a mask, or both, to check; `size` is the expected (height, width), None for any."""

    split: str
    image: Path | None
    mask: Path | None
    expected: Expected
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Fault:
    """Something wrong: a short kind, the split, the file, and what was found and expected."""

    kind: str
    split: str
    file: str
    message: str


@dataclass
class ItemReport:
    """Result of checking an item: its faults, pixels of each class, and a digest of the image's pixels.

    `moments` are, for each band of the image, the number of pixels, and the sums of their values and of their squares,
    (3, bands) float64; None unless asked for.
    """

    item: Item
    pixels: np.ndarray
    ignored: int = 0
    digest: bytes | None = None
    moments: np.ndarray | None = None
    faults: list[Fault] = field(default_factory=list)

    def add(self, kind: str, path: Path, message: str) -> None:
        """Adds a fault."""
        self.faults.append(Fault(kind, self.item.split, str(path), message))


def check_item(item: Item) -> ItemReport:
    """Decodes the files of an item and reports all faults; raises no error about their content."""
    report = ItemReport(item, np.zeros(item.expected.palette.num_classes, np.int64))
    sizes = []
    for path, check in ((item.image, _check_image), (item.mask, _check_mask)):
        if path is None:
            continue
        # Damaged files make Pillow raise many kinds of errors, SyntaxError and struct.error among them.
        try:
            pixels = decode(path)
        except Exception as error:
            empty = path.stat().st_size == 0
            kind, message = ('empty file', 'has 0 bytes') if empty else ('unreadable', f'cannot be decoded ({error})')
            report.add(kind, path, message)
            continue
        check(path, pixels, item.expected, report)
        sizes.append(pixels.shape[:2])
        expected = item.size or sizes[0]
        if sizes[-1] != expected:
            report.add(
                'size',
                path,
                f'{sizes[-1][0]}x{sizes[-1][1]} pixels (height x width), expected {expected[0]}x{expected[1]}'
                f'{"" if item.size else ", the size of its image"}',
            )
    return report


def decode(path: Path) -> np.ndarray:
    """(H, W, bands) array of an image file; a PNG with a colour table becomes RGB."""
    with warnings.catch_warnings():
        # Whole orthophotos exceed Pillow's size limit; masks are not georeferenced.
        warnings.simplefilter('ignore', Image.DecompressionBombWarning)
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        if path.suffix.lower() in TIFF:
            with rasterio.open(path) as dataset:
                return dataset.read().transpose(1, 2, 0)
        with Image.open(path) as image:
            image.load()
            pixels = np.asarray(image.convert('RGB') if image.mode == 'P' else image)
    with path.open('rb') as file:
        header = file.read(_PNG_DEPTH_AT + 1)
    if header.startswith(_PNG_MAGIC) and header[_PNG_DEPTH_AT] == 16:
        # Pillow reduces colour PNGs of 16 bits to 8.
        pixels = np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
        pixels = pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, *range(3, pixels.shape[2])]]
    # OpenCV, which reads the training data, has 0 and 255 for images of one bit.
    pixels = pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _check_image(path: Path, pixels: np.ndarray, expected: Expected, report: ItemReport) -> None:
    # Data sets read grey, palette and opacity images of the common 8-bit formats as three bands, but not GeoTIFFs.
    converted = path.suffix.lower() not in TIFF and expected.bands == 3
    if pixels.shape[2] != expected.bands and not converted:
        report.add('bands', path, f'{pixels.shape[2]} bands, expected {expected.bands} (see --bands)')
    if pixels.dtype != np.dtype(expected.dtype):
        report.add('bit depth', path, f'values of type {pixels.dtype}, expected {expected.dtype} (see --dtype)')
    if pixels.dtype.kind == 'f' and not np.isfinite(pixels).all():
        row, column, _ = np.argwhere(~np.isfinite(pixels))[0]
        report.add('not finite', path, f'the value at row {row}, column {column} is not finite; replace it by a number')
    if expected.moments and not report.faults:
        # Training reads grey as three equal bands and drops opacity.
        seen = pixels if not converted else pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., [0, 0, 0]]
        report.moments = np.zeros((3, expected.bands))
        for rows in strips(len(seen)):
            values = seen[rows].reshape(-1, expected.bands).astype(np.float64)
            report.moments += (np.full(expected.bands, len(values)), values.sum(0), (values**2).sum(0))
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    report.digest = digest.digest()


def _check_mask(path: Path, pixels: np.ndarray, expected: Expected, report: ItemReport) -> None:
    bands, palette = pixels.shape[2], expected.palette
    if pixels.dtype != np.uint8:
        report.add('bit depth', path, f'expected a mask of 8 bits per channel, found values of type {pixels.dtype}')
        return
    if palette.values is None if bands == 1 else not (palette.rgb and bands in (3, 4)):
        form = 'of class colours (RGB)' if palette.rgb else 'of one band'
        report.add('mask bands', path, f'expected a mask {form}, found {bands} band(s)')
        return
    mask = pixels[..., 0] if bands == 1 else np.ascontiguousarray(pixels[..., :3])
    labels = None
    try:
        labels = palette.decode(mask, expected.unknown, source=path.name)
    except DataError as error:
        report.add('unknown value' if bands == 1 else 'unknown colour', path, str(error))
        with suppress(DataError):  # values with two meanings, which cannot be counted
            labels = palette.decode(mask, 'ignore')
    if labels is not None:
        counts = count_values(labels)
        report.pixels, report.ignored = counts[: palette.num_classes], int(counts[IGNORE_INDEX])


@dataclass
class Report:
    """Result of a check: class counts of each split, all faults, and notes that are no faults."""

    classes: tuple[str, ...]
    splits: dict[str, dict] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        kinds = Counter(fault.kind for fault in self.faults)
        return dict(
            classes=list(self.classes),
            splits=self.splits,
            fault_counts=dict(kinds.most_common()),
            faults=[asdict(fault) for fault in self.faults],
            notes=self.notes,
        )

    def check(self, items: Sequence[Item], splits: Sequence[str], workers: int | None) -> list[ItemReport]:
        """Checks all items in parallel; adds their faults, and the class counts of each split."""
        # A process takes a second to start: small sets are faster without.
        workers = max(min(workers or count_cpus(), len(items) // 8), 1)
        reports = list(map_jobs('checking', check_item, items, workers))
        self.faults += [fault for found in reports for fault in found.faults]
        for split in splits:
            of_split = [found for found in reports if found.item.split == split and found.item.mask is not None]
            pixels = sum((found.pixels for found in of_split), np.zeros(len(self.classes), np.int64))
            ignored = sum(found.ignored for found in of_split)
            pairs = sum(item.split == split and item.mask is not None for item in items)
            self.splits[split] = dict(summary(pairs, self.classes, pixels), ignored_pixels=ignored)
        return reports

    def compare_counts(self, found: ItemReport, marker: Mapping[str, Any]) -> None:
        """Adds a fault if the pixels of a whole mask differ from those in its marker."""
        mask = found.item.mask
        if mask is None or any(fault.file == str(mask) for fault in found.faults):
            return
        pixels, ignored = found.pixels.tolist(), marker.get('ignored', 0)
        if (pixels, found.ignored) != (marker['pixels'], ignored):
            message = (
                f'has {pixels} pixels of each class and {found.ignored} ignored ones, the marker {marker["pixels"]} '
                f'and {ignored}'
            )
            self.faults.append(Fault('counts', found.item.split, str(mask), message))

    def print(self, root: Path, limit: int = 40) -> None:
        """Prints class shares of each split, notes, and the first faults of each kind."""
        print_table(f'{root}: class shares', self.classes, self.splits)
        for split, entry in self.splits.items():
            if entry['ignored_pixels']:
                print(f'{split}: {entry["ignored_pixels"]:,} pixels are ignored (no class)')
        for note in self.notes:
            print(f'note: {note}')
        if not self.faults:
            print(f'no fault in {sum(entry["pairs"] for entry in self.splits.values()):,} pairs')
            return
        kinds = Counter(fault.kind for fault in self.faults)
        # A kind with thousands of faults must not hide one that occurs once.
        share = max(limit // len(kinds), 1)
        table = Table(title=f'{len(self.faults):,} fault{"s" * (len(self.faults) != 1)}', show_lines=False)
        for column in ('kind', 'split', 'file', 'what'):
            table.add_column(column, overflow='fold')
        for kind, count in kinds.most_common():
            for fault in [fault for fault in self.faults if fault.kind == kind][:share]:
                table.add_row(fault.kind, fault.split, fault.file, fault.message)
            if count > share:
                table.add_row(kind, '', '', f'... and {count - share:,} more')
        table_console(len(self.classes)).print(table)
        print('faults: ' + ', '.join(f'{count:,} {kind}' for kind, count in kinds.most_common()))


def check_files(root: Path, markers: Mapping[str, Mapping[str, Any]], split_of: Mapping[str, str]) -> list[Fault]:
    """Compares the files of a prepared folder with its markers.

    Args:
        root: The folder.
        markers: Markers by unit name.
        split_of: Split of each unit, for the faults.

    Returns:
        Faults for files that are missing, and for files that no marker lists: those of an unfinished unit, and others.
    """
    listing, faults = Listing(root), []
    listed: dict[str, set[str]] = {}
    for name, marker in markers.items():
        for path in listing.missing(marker['files']):
            kind = 'missing image' if '/images/' in path else 'missing mask'
            message = f'belongs to {name}, which is finished; run the same command again to make it'
            faults.append(Fault(kind, split_of[name], str(root / path), message))
        for folder, names in marker['files'].items():
            listed.setdefault(folder, set()).update(names)
    tops = {folder.partition('/')[0] for folder in listed}
    for folder in sorted(path.relative_to(root).as_posix() for top in tops for path in (root / top).iterdir()):
        for name in sorted(listing.names(folder) - listed.get(folder, set())):
            if not name.startswith('.'):
                message = f'no marker in {MARKERS}/ lists it; an unfinished run continues with the same command'
                faults.append(Fault('stray file', folder.partition('/')[0], str(root / folder / name), message))
    return faults


def check_json(path: Path, expected: Any) -> list[Fault]:
    """A fault if a JSON file is not readable or differs from what the markers contain."""
    try:
        same = json.loads(path.read_text(encoding='utf-8')) == expected
    except (OSError, ValueError) as error:
        return [Fault(path.stem, '', str(path), f'cannot be read ({error}); prepare the data again')]
    message = f'differs from the markers in {MARKERS}/; prepare the data again'
    return [] if same else [Fault(path.stem, '', str(path), message)]


def kinds_of(root: Path) -> set[str]:
    """Kinds of data in a prepared folder; empty for other folders."""
    return {marker['kind'] for marker in read_markers(root).values()}
