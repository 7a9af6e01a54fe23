"""Finds faults in a dataset before training, by decoding every image and mask.

    python data_prep/verify.py data/aras400k
    python data_prep/verify.py data/mine --classes data/mine/classes.csv --json faults.json
    python data_prep/verify.py data/mine --bands 4 --dtype uint16 --stats
    python data_prep/verify.py data/potsdam
    python data_prep/verify.py data/inria_few_shot

Reads ARAS400k folders (ROOT/{train,val,test,synth}/{images,masks}), your own images with masks and classes.csv
(ROOT/images, ROOT/masks and train.txt, val.txt, test.txt, or folders of splits in either order), and what
data_prep/isprs.py and data_prep/inria.py prepare. Exit status: 0 if the data are clean, 1 if there are faults, 2 if
the command cannot be carried out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_prep.core.checks import Expected, Fault, Item, ItemReport, Report, decode, kinds_of
from data_prep.core.report import number, run_main
from data_prep.datasets.inria.prepare import protocol_of
from data_prep.datasets.inria.sources import shipped_archive
from data_prep.datasets.inria.verify import verify_inria
from data_prep.datasets.isprs.prepare import dataset_of
from data_prep.datasets.isprs.verify import verify_isprs
from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.files import write_json
from lale_mmseg.metainfo import Palette, aras400k
from lale_mmseg.metainfo.layout import Pair, SplitLayout, find_layout, inspect_split

SPLITS = tuple(aras400k.PART_SIZES)
CLASSES_FILE = 'classes.csv'


def verify(
    root: str | Path,
    expected: Expected,
    splits: Sequence[str] | None = None,
    workers: int | None = None,
    image_dir: str = 'images',
    mask_dir: str = 'masks',
) -> Report:
    """Checks every pair of every split.

    Args:
        root: Folder of the dataset.
        expected: Classes, meaning of unknown colours, bands and data type of the images.
        splits: Names of the splits; None for train, val, test and synth, as far as they exist.
        workers: Number of processes; None for one per CPU.
        image_dir: Name of the image folder.
        mask_dir: Name of the mask folder.

    Returns:
        Class counts of each split, and all faults.

    Raises:
        DataError: `root` has no split in a known layout.
    """
    layouts = find_splits(Path(root), splits, image_dir, mask_dir)
    report = Report(expected.palette.classes)
    items = []
    stats_of = 'train' if 'train' in layouts else next(iter(layouts))
    for split, layout in layouts.items():
        pairs, problems = inspect_split(layout)
        report.faults += [Fault(problem.kind, split, str(problem.file), problem.message) for problem in problems]
        palette, moments = _palette_of_split(expected.palette, pairs), expected.moments and split == stats_of
        of_split = replace(expected, palette=palette, moments=moments)
        items += [Item(split, pair.image, pair.mask, of_split) for pair in pairs]
    report.faults += _in_two_splits(items, layouts)
    reports = report.check(items, list(layouts), workers)
    report.faults += _same_images(reports)
    if expected.moments:
        report.notes.append(
            _stats(stats_of, [found.moments for found in reports if found.moments is not None], expected)
        )
    # Splits that list files of one folder have the same faults in it: each is reported once.
    unique = {(fault.kind, fault.file, fault.message): fault for fault in reversed(report.faults)}
    report.faults = list(reversed(unique.values()))
    return report


def find_splits(
    root: Path, splits: Sequence[str] | None, image_dir: str = 'images', mask_dir: str = 'masks'
) -> dict[str, SplitLayout]:
    """Finds where each split is stored.

    Raises:
        DataError: `root` has none of the usual splits, or lacks a named split.
    """
    if splits:
        return {split: find_layout(root, split, image_dir, mask_dir) for split in splits}
    layouts = {}
    for split in SPLITS:
        try:
            layouts[split] = find_layout(root, split, image_dir, mask_dir)
        except DataError:
            continue
    if not layouts:
        hint = ''
        if any(root.glob('*.parquet')) or any(root.glob('data/*.parquet')):
            hint = '; it has parquet shards: unpack them first with "python data_prep/aras400k.py parquet"'
        raise DataError(
            f'{root}: no split found; looked for train, val, test and synth as NAME.txt beside {image_dir}/, as '
            f'NAME/{image_dir}/ and as {image_dir}/NAME/ (name others with --splits){hint}'
        )
    return layouts


def _palette_of_split(palette: Palette, pairs: Sequence[Pair]) -> Palette:
    """The palette for the masks of a split, whose form is that of the first one, as in `PaletteDataset`."""
    for mask in (pair.mask for pair in pairs if pair.mask is not None):
        with suppress(Exception):  # reported when the mask itself is checked
            return palette.of_form(single_band=decode(mask).shape[2] == 1)
    return palette


def _stats(split: str, moments: Sequence[np.ndarray], expected: Expected) -> str:
    """Mean and standard deviation of each band over all pixels, as a part of a config."""
    if not moments:
        return f'no statistics: split {split!r} has no image without a fault'
    count, total, squares = np.sum(moments, axis=0)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    mean_text, std_text = (', '.join(f'{value:.6g}' for value in values) for values in (mean, std))
    # Without `bands` in LoadBands, three bands are loaded as BGR.
    rgb = expected.bands == 3
    order = 'RGB order (bgr_to_rgb=False if LoadBands lists bands)' if rgb else 'the order of the files'
    return (
        f'{len(moments):,} images of split {split!r}, values in the units of the files, bands in {order}:\n'
        f'model = dict(data_preprocessor=dict(mean=[{mean_text}], std=[{std_text}], bgr_to_rgb={rgb}))'
    )


def _in_two_splits(items: Sequence[Item], layouts: Mapping[str, SplitLayout]) -> Iterator[Fault]:
    """Files that two splits share; equal names in the folders of two splits are different files."""
    owner: dict[Path | None, Item] = {}
    for item in items:
        first = owner.setdefault(item.image, item)
        if first is not item:
            message = f'is also in {layouts[first.split].origin}'
            yield Fault('in two splits', item.split, str(item.image), message)


def _same_images(reports: Sequence[ItemReport]) -> Iterator[Fault]:
    """Images with equal pixels in two splits."""
    first: dict[bytes, Item] = {}
    for report in reports:
        if report.digest is None:
            continue
        item, other = report.item, first.setdefault(report.digest, report.item)
        if other.split != item.split and other.image != item.image:
            message = f'has the same pixels as {other.image} of split {other.split!r}'
            yield Fault('same image in two splits', item.split, str(item.image), message)


def load_palette(
    root: Path, dataset: str | None, classes: Path | None, ignore_colors: Sequence[Sequence[int]] = ()
) -> Palette:
    """Classes of the data: those of a table if there is one, else those of ARAS400k.

    Args:
        root: Folder of the dataset.
        dataset: 'palette' for ROOT/classes.csv, 'aras400k' to ignore that file; None to decide by whether it exists.
        classes: Another table.
        ignore_colors: Colours of pixels that are ignored, see `PaletteDataset`.

    Raises:
        DataError: The table is missing or malformed.
    """
    if classes is not None or dataset == 'palette' or (dataset is None and (root / CLASSES_FILE).exists()):
        return Palette.from_csv(classes or root / CLASSES_FILE, ignore_colors)
    return Palette(aras400k.CLASSES, aras400k.COLORS, ignore_colors=(aras400k.NO_DATA_COLOR, *ignore_colors))


def color(text: str) -> tuple[int, ...]:
    """An (r, g, b) of the command line, such as 0,0,0."""
    red, green, blue = (int(value) for value in text.split(','))
    return red, green, blue


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog='verify.py', description='Find faults in a dataset before training.')
    parser.add_argument('root', type=Path, metavar='DATA_ROOT', help='folder of the dataset')
    parser.add_argument(
        '--dataset', choices=('aras400k', 'palette', 'isprs', 'inria'), help='default: recognised by its files'
    )
    parser.add_argument('--classes', type=Path, metavar='CSV', help='table of classes (default: DATA_ROOT/classes.csv)')
    parser.add_argument(
        '--splits', nargs='+', metavar='NAME', help='default: those of train, val, test, synth that exist'
    )
    parser.add_argument(
        '--unknown', choices=('error', 'ignore'), default='error', help='whether unknown colours are faults'
    )
    parser.add_argument(
        '--ignore-colors', nargs='+', type=color, default=[], metavar='R,G,B', help='colours of pixels to ignore'
    )
    parser.add_argument('--bands', type=number(int, 1), default=3, metavar='N', help='bands of the images (default: 3)')
    parser.add_argument(
        '--dtype', type=np.dtype, default='uint8', help='data type of the images, such as uint16 (default: uint8)'
    )
    parser.add_argument('--image-dir', default='images', metavar='NAME', help='image folder (default: images)')
    parser.add_argument('--mask-dir', default='masks', metavar='NAME', help='mask folder (default: masks)')
    parser.add_argument(
        '--workers', type=number(int, 1), metavar='N', help='number of processes (default: one per CPU)'
    )
    parser.add_argument(
        '--stats', action='store_true', help='print mean and standard deviation of each band of the training images'
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all counts and all faults to this file')
    return parser


def _refuse_layout_options(args: argparse.Namespace, script: str) -> None:
    """Raises ConfigError for options that the markers of a prepared dataset already determine."""
    for name in ('classes', 'splits', 'unknown', 'ignore_colors', 'bands', 'dtype', 'image_dir', 'mask_dir', 'stats'):
        if getattr(args, name) != build_parser().get_default(name):
            raise ConfigError(
                f'--{name.replace("_", "-")}: not valid for {args.root}, which was prepared by {script}; omit it'
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status: 0 clean, 1 faults."""
    args = build_parser().parse_args(argv)
    kinds = kinds_of(args.root)
    if args.dataset == 'isprs' or (args.dataset is None and any(map(dataset_of, kinds))):
        _refuse_layout_options(args, 'isprs.py')
        report = verify_isprs(args.root, args.workers)
    elif args.dataset == 'inria' or (args.dataset is None and any(map(protocol_of, kinds))):
        _refuse_layout_options(args, 'inria.py')
        report = verify_inria(args.root, args.workers)
    elif args.dataset is None and args.mask_dir == 'masks' and (archive := shipped_archive(args.root)) is not None:
        raise DataError(
            f'{archive}: is the unprepared Inria archive; prepare it first, with "python data_prep/inria.py '
            f'few-shot {args.root} OUT" or "python data_prep/inria.py full {args.root} OUT", and check OUT'
        )
    else:
        palette = load_palette(args.root, args.dataset, args.classes, args.ignore_colors)
        expected = Expected(palette, args.unknown, args.bands, args.dtype.name, moments=args.stats)
        report = verify(args.root, expected, args.splits, args.workers, args.image_dir, args.mask_dir)
    if args.json is not None:
        write_json(args.json, dict(root=str(args.root), **report.as_dict()))
    report.print(args.root)
    return 1 if report.faults else 0


if __name__ == '__main__':
    sys.exit(run_main(main))
