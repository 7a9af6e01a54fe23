"""Finds what is wrong with a data set before training, by decoding every image and mask.

    python data_prep/verify.py data/aras400k
    python data_prep/verify.py data/mine --classes data/mine/classes.csv --json faults.json
    python data_prep/verify.py data/potsdam
    python data_prep/verify.py data/inria_few_shot

Reads ARAS400k folders (ROOT/{train,val,test,synth}/{images,masks}) and anyone's images with RGB masks and classes.csv
(ROOT/images, ROOT/masks and train.txt, val.txt, test.txt, or folders of splits in either order), and what
data_prep/isprs.py and data_prep/inria.py prepare. Exit status: 0 when the data are clean, 1 when there are faults, 2
when the command cannot be carried out.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_prep._cli import run_main
from data_prep._files import write_json
from data_prep._inria_checks import is_inria, verify_inria
from data_prep._inria_source import shipped_archive
from data_prep._isprs_checks import is_isprs, verify_isprs
from data_prep._pair_checks import Expected, Fault, Item, check_pair
from data_prep._progress import check_workers, map_jobs, progress_bar
from data_prep._report import Report, print_report
from data_prep._shares import summary
from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.metainfo import Palette, aras400k
from lale_mmseg.metainfo.layout import IMAGE_SUFFIXES, SplitLayout, find_layout

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
        root: Folder of the data set.
        expected: Classes, meaning of unknown colours, bands and data type of the images.
        splits: Names of the splits; None for those of train, val, test and synth that are there.
        workers: Number of processes; None for one a CPU.
        image_dir: Name of the image folder.
        mask_dir: Name of the mask folder.

    Returns:
        Class counts of each split, and all faults.

    Raises:
        DataError: `root` does not exist or has no split in a known layout.
    """
    processes = check_workers(workers)
    layouts = find_splits(Path(root), splits, image_dir, mask_dir)
    report = Report(expected.palette.classes)
    items: list[Item] = []
    for split, layout in layouts.items():
        found = _list_split(split, layout, report.faults)
        if not found:
            where = str(layout.stems_file or layout.images)
            report.faults.append(Fault('empty split', split, where, f'split {split!r} has no pair'))
        items += found
    report.faults += _in_two_splits(items, layouts)
    _check_pairs(items, list(layouts), expected, processes, report)
    # Splits that list files of one folder meet the same faults in it.
    report.faults = list({(fault.kind, fault.file, fault.message): fault for fault in report.faults[::-1]}.values())[
        ::-1
    ]
    return report


def find_splits(
    root: Path, splits: Sequence[str] | None, image_dir: str = 'images', mask_dir: str = 'masks'
) -> dict[str, SplitLayout]:
    """Where each split lies.

    Raises:
        DataError: `root` does not exist, has none of the usual splits, or lacks a split that is named.
    """
    if not root.is_dir():
        raise DataError(f'{root}: no such folder')
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


def _list_split(split: str, layout: SplitLayout, faults: list[Fault]) -> list[Item]:
    """Pairs of a split; notes files that are missing or have the same stem."""
    images = _by_stem(split, layout.images, faults)
    masks = _by_stem(split, layout.masks, faults)
    if layout.stems_file is None:
        stems = sorted(set(images) | set(masks))
    else:
        stems = _read_stems(split, layout.stems_file, faults)
    items = [Item(split, stem, images.get(stem), masks.get(stem)) for stem in stems]
    for item in items:
        for kind, path, folder in (('image', item.image, layout.images), ('mask', item.mask, layout.masks)):
            if path is None:
                due = f'{folder / item.stem}.*'
                faults.append(Fault(f'missing {kind}', split, due, f'no {kind} of the stem {item.stem!r} in {folder}'))
    return items


def _by_stem(split: str, folder: Path, faults: list[Fault]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob('*')):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith('.'):
            continue
        stem = path.relative_to(folder).with_suffix('').as_posix()
        if stem in found:
            message = f'has the same stem as {found[stem].name}; keep one of them'
            faults.append(Fault('duplicate stem', split, str(path), message))
        else:
            found[stem] = path
    return found


def _read_stems(split: str, path: Path, faults: list[Fault]) -> list[str]:
    """Stems of a split's text file, each once; notes those that stand twice."""
    seen: dict[str, int] = {}
    try:
        lines = path.read_text(encoding='utf-8-sig').splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f'{path}: not a UTF-8 text file ({error})') from None
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name or name.startswith('#'):
            continue
        entry = Path(name)
        stem = (entry.with_suffix('') if entry.suffix.lower() in IMAGE_SUFFIXES else entry).as_posix()
        if stem in seen:
            message = f'line {number}: {stem!r} stands in line {seen[stem]} already'
            faults.append(Fault('duplicate stem', split, str(path), message))
        else:
            seen[stem] = number
    return list(seen)


def _in_two_splits(items: Sequence[Item], layouts: dict[str, SplitLayout]) -> Iterator[Fault]:
    """Files that two splits share; equal names in the folders of two splits are different files."""
    owner: dict[Path, Item] = {}
    for item in items:
        path = item.image or item.mask
        if path is None:
            continue
        first = owner.setdefault(path, item)
        if first is not item:
            where = layouts[first.split].stems_file or layouts[first.split].images
            yield Fault('in two splits', item.split, str(path), f'{item.stem!r} is also in {where}')


def _check_pairs(
    items: Sequence[Item], splits: Sequence[str], expected: Expected, workers: int, report: Report
) -> None:
    count = expected.palette.num_classes
    pixels = {split: np.zeros(count, np.int64) for split in splits}
    pairs, ignored = Counter(item.split for item in items), Counter[str]()
    seen: dict[bytes, Item] = {}
    jobs = ((item, expected) for item in items)
    with progress_bar('checking', len(items), 'pairs') as advance:
        for result in map_jobs(check_pair, jobs, max(min(workers, len(items) // 8), 1)):
            item = result.item
            pixels[item.split] += result.pixels
            ignored[item.split] += result.ignored
            report.faults += result.faults
            if result.digest is not None:
                first = seen.setdefault(result.digest, item)
                # One file in two splits is noted already, by its name.
                if first.split != item.split and first.image != item.image:
                    message = f'the same picture as {first.image} of {first.split!r}'
                    report.faults.append(Fault('same image in two splits', item.split, str(item.image), message))
            advance(1)
    for split, counts in pixels.items():
        entry = summary(pairs[split], expected.palette.classes, counts)
        report.splits[split] = dict(entry, ignored_pixels=ignored[split])


def load_palette(
    root: Path, dataset: str | None, classes: Path | None, ignore_colors: Sequence[Sequence[int]] = ()
) -> Palette:
    """Classes of the data: ARAS400k's, or those of a table.

    Args:
        root: Folder of the data set.
        dataset: 'aras400k', 'palette', or None to decide by whether there is a table.
        classes: The table; None for ROOT/classes.csv.
        ignore_colors: Colours of pixels to leave out by agreement, as of `PaletteDataset`.

    Raises:
        ConfigError: A table is given for ARAS400k, which has its own classes.
        DataError: The table is missing or malformed.
    """
    if dataset is None:
        dataset = 'palette' if classes is not None or (root / CLASSES_FILE).exists() else 'aras400k'
    if dataset == 'palette':
        return Palette.from_csv(classes or root / CLASSES_FILE, ignore_colors)
    if classes is not None:
        raise ConfigError(f'--classes {classes}: ARAS400k has classes of its own; leave it out, or --dataset palette')
    return Palette(aras400k.CLASSES, aras400k.COLORS, ignore_colors=(aras400k.NO_DATA_COLOR, *ignore_colors))


def _color(text: str) -> tuple[int, ...]:
    """An (r, g, b) of the command line, such as 0,0,0."""
    try:
        red, green, blue = (int(value) for value in text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r}: three numbers such as 0,0,0 are due') from None
    return red, green, blue


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog='verify.py', description='Find what is wrong with a data set before training.'
    )
    parser.add_argument('root', type=Path, metavar='DATA_ROOT', help='folder of the data set')
    parser.add_argument(
        '--dataset', choices=('aras400k', 'palette', 'isprs', 'inria'), help='default: by what is there'
    )
    parser.add_argument('--classes', type=Path, metavar='CSV', help='table of classes (default: DATA_ROOT/classes.csv)')
    parser.add_argument('--splits', nargs='+', metavar='NAME', help='default: train, val, test, synth where there')
    parser.add_argument('--unknown', choices=('error', 'ignore'), default='error', help='what unknown colours mean')
    parser.add_argument(
        '--ignore-colors', nargs='+', type=_color, default=[], metavar='R,G,B', help='colours of pixels to leave out'
    )
    parser.add_argument('--bands', type=int, default=3, metavar='N', help='bands of the images (default: 3)')
    parser.add_argument('--dtype', default='uint8', help='data type of the images, such as uint16 (default: uint8)')
    parser.add_argument('--image-dir', default='images', metavar='NAME', help='image folder (default: images)')
    parser.add_argument('--mask-dir', default='masks', metavar='NAME', help='mask folder (default: masks)')
    parser.add_argument('--workers', type=int, metavar='N', help='number of processes (default: one for each CPU)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all counts and all faults to this file')
    return parser


def _refuse_layout_options(args: argparse.Namespace, script: str) -> None:
    """Raises ConfigError for options that say what the manifest of a prepared data set says already."""
    for name in ('classes', 'splits', 'unknown', 'ignore_colors', 'bands', 'dtype', 'image_dir', 'mask_dir'):
        if getattr(args, name) != build_parser().get_default(name):
            raise ConfigError(
                f'--{name.replace("_", "-")}: {args.root} was prepared by {script}, and its manifest says that; leave '
                'it out'
            )


def _refuse_archive(args: argparse.Namespace) -> None:
    """Raises DataError for the Inria archive as it is shipped, whose masks no layout has, unless options name them."""
    named = args.dataset or args.classes or args.splits or args.mask_dir != 'masks'
    archive = None if named or (args.root / CLASSES_FILE).exists() else shipped_archive(args.root)
    if archive is not None:
        raise DataError(
            f'{archive}: is the Inria archive as it is shipped; prepare it first, with "python data_prep/inria.py '
            f'few-shot {args.root} OUT" or "python data_prep/inria.py full {args.root} OUT", and check OUT'
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status: 0 clean, 1 faults."""
    args = build_parser().parse_args(argv)
    if args.bands < 1:
        raise ConfigError(f'--bands {args.bands}: at least 1 is due')
    try:
        np.dtype(args.dtype)
    except TypeError:
        raise ConfigError(f'--dtype {args.dtype!r}: not a data type; uint8, uint16 or float32 are usual') from None
    if args.json is not None and not args.json.parent.is_dir():
        raise ConfigError(f'--json {args.json}: folder {args.json.parent} does not exist')
    if args.dataset == 'isprs' or (args.dataset is None and is_isprs(args.root)):
        _refuse_layout_options(args, 'isprs.py')
        report = verify_isprs(args.root, args.workers)
    elif args.dataset == 'inria' or (args.dataset is None and is_inria(args.root)):
        _refuse_layout_options(args, 'inria.py')
        report = verify_inria(args.root, args.workers)
    else:
        _refuse_archive(args)
        palette = load_palette(args.root, args.dataset, args.classes, args.ignore_colors)
        expected = Expected(palette, args.unknown, args.bands, args.dtype)
        report = verify(args.root, expected, args.splits, args.workers, args.image_dir, args.mask_dir)
    if args.json is not None:
        write_json(args.json, dict(root=str(args.root), **report.as_dict()))
    print_report(args.root, report)
    return 1 if report.faults else 0


if __name__ == '__main__':
    sys.exit(run_main(main))
