"""Brings ARAS400k (arXiv 2603.09625) into the folders that the configs read: OUT/PART/{images,masks}/STEM.png.

    python data_prep/aras400k.py archives DOWNLOADS data/aras400k      # train.zip, val.zip, test.zip, synth.zip
    python data_prep/aras400k.py parquet SHARDS data/aras400k          # train-00000-of-00010.parquet, ...
    python data_prep/aras400k.py raw TILES data/aras400k --split 80 10 10

A run can be interrupted and started again: what is finished from the same files with the same settings is kept. Each
command ends with the number of pairs and the class shares of every part, and writes them to OUT/manifest.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_prep.core.report import add_common_options, number, print_table, run_main
from data_prep.datasets.aras400k.archives import from_archives
from data_prep.datasets.aras400k.pairs import PALETTE, PARTS
from data_prep.datasets.aras400k.parquet import from_parquet
from data_prep.datasets.aras400k.raw import Rules, count_left_out, from_raw
from lale_mmseg.errors import ConfigError
from lale_mmseg.metainfo import aras400k


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog='aras400k.py', description='Bring ARAS400k into OUT/PART/{images,masks}.')
    commands = parser.add_subparsers(dest='command', required=True)
    archives = commands.add_parser('archives', help='check and unpack train.zip, val.zip, test.zip and synth.zip')
    add_common_options(archives, 'folder with the published archives', 'processes')
    archives.add_argument('--no-verify', action='store_true', help='also unpack archives with other MD5 sums')
    shards = commands.add_parser('parquet', help='unpack parquet shards to folders')
    add_common_options(shards, 'folder with the shards, at any depth', 'processes')
    raw = commands.add_parser('raw', help='cut raw Sentinel-2 and WorldCover GeoTIFFs by the published rules')
    add_common_options(raw, 'folder with *_S2RGBNIR.tif and *_Map.tif', 'processes')
    raw.add_argument(
        '--window', type=number(int, 1), default=aras400k.TILE_SIZE, help='side in pixels (default: %(default)s)'
    )
    where = raw.add_mutually_exclusive_group()
    where.add_argument('--part', choices=PARTS, default='train', help='part to put all pairs in (default: train)')
    where.add_argument(
        '--split',
        type=number(int, 0),
        nargs=3,
        metavar=('TRAIN', 'VAL', 'TEST'),
        help='shares of the parts, such as 80 10 10; the MD5 sum of its name determines the part of each window, '
        'so neighbouring windows may fall in different parts (to keep tiles apart, use --part on folders of tiles)',
    )
    for command in (archives, shards):
        command.add_argument('--parts', nargs='+', choices=PARTS, help='which parts (default: all that are found)')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    args = build_parser().parse_args(argv)
    common: dict[str, Any] = dict(overwrite=args.overwrite, workers=args.workers)
    if args.command == 'archives':
        made = from_archives(args.source, args.out, args.parts, not args.no_verify, **common)
    elif args.command == 'parquet':
        made = from_parquet(args.source, args.out, args.parts, **common)
    else:
        split = dict(zip(('train', 'val', 'test'), args.split, strict=True)) if args.split else {args.part: 1}
        if not any(split.values()):
            raise ConfigError('--split 0 0 0: expected at least one share above 0, such as 80 10 10')
        made = from_raw(args.source, args.out, Rules(args.window, split=tuple(split.items())), **common)
        left_out = count_left_out(args.out)
        print('windows left out: ' + ', '.join(f'{count:,} ({reason})' for reason, count in left_out.items()))
    print_table(str(args.out), PALETTE.classes, made)
    return 0


if __name__ == '__main__':
    sys.exit(run_main(main))
