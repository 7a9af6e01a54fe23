"""Prepares ISPRS Potsdam or Vaihingen from the archives or folders that ISPRS distributes.

    python data_prep/isprs.py potsdam DOWNLOADS data/potsdam
    python data_prep/isprs.py vaihingen DOWNLOADS data/vaihingen --protocol geoseg
    python data_prep/verify.py data/potsdam

OUT gets windows/{images,labels_full,labels_eroded}/STEM_X0_Y0_X1_Y1.png to train on, tiles/ with the same folders for
whole tiles to validate and test on, statistics.json with the pixels of each class, and manifest.json. A run can be
interrupted and started again: what is finished from the same files with the same settings is kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_prep.core.report import add_common_options, number, print_table, run_main, some_of, summary
from data_prep.core.tiles import check_stride
from data_prep.datasets.isprs.prepare import prepare
from data_prep.datasets.isprs.request import DISTANCE_LIMIT, MASKS, MAX_DISTANCE, Request
from data_prep.datasets.isprs.sources import BANDS, IMAGE, LABEL_KINDS
from lale_mmseg.metainfo import isprs


def print_summary(dataset: str, out: Path, made: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints tiles and class shares for each kind of labels, missing tiles, and colours that were mapped."""
    rows = {}
    for kind in LABEL_KINDS:
        of_kind = {marker['tile']: marker for marker in made.values() if marker['content'] == kind}
        if of_kind:
            pixels = np.array([marker['pixels'] for marker in of_kind.values()], np.int64).sum(0)
            rows[f'{kind} labels'] = summary(len(of_kind), isprs.CLASSES, pixels)
            for tile, marker in of_kind.items():
                if marker['mapped_pixels']:
                    print(
                        f'tile {tile}, {kind} labels: {marker["mapped_pixels"]:,} pixels of '
                        f'{marker["mapped_colors"]:,} colours outside the palette were mapped to the nearest class '
                        f'(largest distance {marker["largest_distance"]:g})'
                    )
    published, made_tiles = isprs.TILES[dataset], {marker['tile'] for marker in made.values()}
    images = [marker for marker in made.values() if marker['content'] == IMAGE and 'stride' in marker['settings']]
    windows = sum(len(names) for marker in images for names in marker['files'].values())
    title = f'{out}: {len(made_tiles)} of {len(published)} tiles, {windows:,} windows'
    print_table(title, isprs.CLASSES, rows, unit='tiles')
    missing = [tile for tile in published if tile not in made_tiles]
    if missing:
        print(f'not prepared: {some_of(missing)}')


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog='isprs.py', description='Prepare ISPRS Potsdam or Vaihingen.')
    commands = parser.add_subparsers(dest='dataset', required=True)
    for dataset in isprs.TILES:
        command = commands.add_parser(dataset, help=f'{len(isprs.TILES[dataset])} tiles')
        add_common_options(command, 'folder with the archives or files of ISPRS', 'threads')
        command.add_argument(
            '--size', type=number(int, 1), default=512, metavar='N', help='side of the windows (default: 512)'
        )
        command.add_argument(
            '--stride', type=number(int, 1), default=256, metavar='N', help='step between them (default: 256)'
        )
        if dataset == 'potsdam':
            command.add_argument('--bands', choices=tuple(BANDS), default='rgb', help='(default: rgb)')
        command.add_argument(
            '--masks', choices=MASKS, default='index', help='class indexes, or colours (default: index)'
        )
        command.add_argument(
            '--labels', nargs='+', choices=LABEL_KINDS, help='kinds that every tile must have (default: those found)'
        )
        command.add_argument(
            '--tiles',
            nargs='+',
            choices=isprs.TILES[dataset],
            metavar='TILE',
            help=f'such as {isprs.TILES[dataset][0]}',
        )
        command.add_argument(
            '--protocol',
            nargs='+',
            default=[],
            metavar='NAME',
            help='only what these protocols use: windows of training tiles, whole tiles to validate and test on',
        )
        command.add_argument(
            '--tolerant', action='store_true', help='map colours outside the palette to the nearest class, count them'
        )
        command.add_argument(
            '--max-distance',
            type=number(float, 0, DISTANCE_LIMIT),
            default=MAX_DISTANCE,
            metavar='D',
            help='largest such distance in RGB (default: %(default)g)',
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    args = build_parser().parse_args(argv)
    check_stride(args.size, args.stride)
    request = Request(
        dataset=args.dataset,
        size=args.size,
        stride=args.stride,
        bands=getattr(args, 'bands', 'irrg'),
        masks=args.masks,
        labels=None if args.labels is None else tuple(args.labels),
        tiles=None if args.tiles is None else tuple(args.tiles),
        protocols=tuple(args.protocol),
        max_distance=args.max_distance if args.tolerant else None,
    )
    made = prepare(request, args.source, args.out, args.overwrite, args.workers)
    print_summary(args.dataset, args.out, made)
    return 0


if __name__ == '__main__':
    sys.exit(run_main(main))
