"""Prepares Inria Aerial Image Labeling for its own protocol, or its Austin tiles for few-shot roofs.

    python data_prep/inria.py full SOURCE data/inria
    python data_prep/inria.py few-shot SOURCE data/inria_few_shot
    python data_prep/verify.py data/inria_few_shot

SOURCE holds AerialImageDataset/train/{images,gt} at any depth, unpacked or in a zip archive. `full` writes
windows/{images,masks}/TILE_X0_Y0_X1_Y1.png of the training tiles and tiles/{images,masks}/TILE.tif, whole, of the
validation tiles; `few-shot` writes one crop per tile, crops/images/TILE.jpg and crops/masks/TILE.png, and overview.png
to look at. Labels stay 0 and 255. manifest.json has settings, counts and SHA-256 sums. A run can be interrupted and
started again: what is finished from the same files with the same settings is kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_prep.core.report import add_common_options, number, print_table, run_main, some_of, summary, table_console
from data_prep.core.tiles import check_stride
from data_prep.datasets.inria import crops
from data_prep.datasets.inria.crops import FEW_SHOT, FULL, split_of, unpublished
from data_prep.datasets.inria.prepare import OVERVIEW, Request, prepare
from lale_mmseg.metainfo import inria

COUNTED_ONCE = (
    "shares count each pixel of a tile once, as class_weight='data' does; verify.py counts windows, which may overlap"
)


def print_summary(request: Request, out: Path, made: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints the share of building in each split, missing tiles, and every crop that is not the centre."""
    rows = {}
    for split in ('train', 'val', 'test'):
        markers = [marker for tile, marker in made.items() if split_of(request.protocol, tile) == split]
        if markers:
            pixels = np.array([marker['pixels'] for marker in markers], np.int64).sum(0)
            files = sum(len(next(iter(marker['files'].values()))) for marker in markers)
            rows[f'{split}, {len(markers)} tiles'] = summary(files, inria.CLASSES, pixels)
    unit = 'crops' if request.protocol == FEW_SHOT else 'files'
    print_table(f'{out}: {len(made)} tiles of protocol {request.protocol}', inria.CLASSES, rows, unit)
    missing = [tile for tile in request.tiles if tile not in made]
    if missing:
        print(f'not prepared: {some_of(missing)}')
    if request.protocol == FEW_SHOT:
        _print_crops(request, out, made)
        departure = unpublished(made)
        if departure is not None:
            print(f'note: {departure}')
    else:
        print(COUNTED_ONCE)


def _print_crops(request: Request, out: Path, made: Mapping[str, Mapping[str, Any]]) -> None:
    table = Table(title='crops that are not the centre of their tile')
    for column in ('tile', 'split', 'x', 'y', 'building %', 'why'):
        table.add_column(column, justify='left' if column in ('tile', 'split', 'why') else 'right')
    words = {
        crops.MOVED: f'the centre has less than {100 * request.min_share:g} % of building',
        crops.NUDGED: 'chosen by hand',
        crops.BEST: f'no window has {100 * request.min_share:g} %; this one has most',
        crops.NONE: 'no building in the tile; the centre is taken',
    }
    for tile, marker in made.items():
        if marker['reason'] != crops.CENTRE:
            place = str(marker['x']), str(marker['y']), f'{100 * marker["share"]:.2f}'
            table.add_row(tile, split_of(FEW_SHOT, tile), *place, f'{marker["reason"]}: {words[marker["reason"]]}')
    if table.row_count:
        table_console(5).print(table)
    empty = [tile for tile, marker in made.items() if marker['reason'] == crops.NONE]
    if empty:
        print(f'warning: no building in {some_of(empty)}; the IoU of such a crop is undefined', file=sys.stderr)
    print(f'look at {out / OVERVIEW}')


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog='inria.py', description='Prepare Inria Aerial Image Labeling.')
    commands = parser.add_subparsers(dest='protocol', required=True)
    full = commands.add_parser(FULL, help='windows of 155 tiles to train on, 25 whole tiles to validate on')
    few = commands.add_parser(FEW_SHOT, help='one crop of each of the 36 tiles of Austin')
    for command, size in ((full, 512), (few, crops.SIZE)):
        add_common_options(command, 'folder or zip archive with AerialImageDataset', 'threads')
        command.add_argument(
            '--size',
            type=number(int, crops.STEP),
            default=size,
            metavar='N',
            help='side in pixels (default: %(default)s)',
        )
        command.add_argument(
            '--missing',
            choices=('error', 'skip'),
            default='error',
            help='tiles whose files are missing (default: error)',
        )
    full.add_argument('--stride', type=number(int, 1), metavar='N', help='step between windows (default: --size)')
    full.add_argument('--cities', nargs='+', choices=inria.CITIES, default=inria.CITIES, help='default: all')
    few.add_argument(
        '--min-share',
        type=number(float, 0, 1),
        default=crops.MIN_SHARE,
        metavar='S',
        help=f'share of building that a crop should have (default: {crops.MIN_SHARE})',
    )
    few.add_argument('--nudges', type=Path, metavar='CSV', help='table tile,x,y of windows chosen by hand')
    few.add_argument(
        '--quality',
        type=number(int, 1, 100),
        default=crops.QUALITY,
        metavar='Q',
        help='JPEG quality (default: %(default)s)',
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    args = vars(build_parser().parse_args(argv))
    source, out, overwrite, workers = (args.pop(name) for name in ('source', 'out', 'overwrite', 'workers'))
    if 'cities' in args:
        args['cities'] = tuple(args['cities'])
    request = Request(**args)
    check_stride(request.size, request.step)
    made, count = prepare(request, source, out, overwrite, workers)
    print_summary(request, out, made)
    print(f'{count} tiles prepared, {len(made) - count} were already finished')
    return 0


if __name__ == '__main__':
    sys.exit(run_main(main))
