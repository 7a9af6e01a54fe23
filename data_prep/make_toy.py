"""Generates a small land-cover set in the published format of ARAS400k, without any download.

    python data_prep/make_toy.py data/toy --train 120 --val 24 --test 24

writes data/toy/{train,val,test,synth}/{images,masks}/STEM.png: 8-bit RGB images and masks in the colours of
ARAS400k. Each image depends only on the seed, its part and its number, so the number of processes does not change the
files. The classes differ in texture more than in colour: a classifier of single pixels stays far behind a small
network.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_prep.core.prepared import Output, Prepared, Unit, read_markers, without_files
from data_prep.core.progress import map_jobs
from data_prep.core.report import number, print_table, run_main, summary
from data_prep.core.tiles import count_values
from data_prep.datasets.aras400k.parquet import ShardWriter, shard_names
from data_prep.datasets.toy.layout import make_layout
from data_prep.datasets.toy.render import render
from lale_mmseg.errors import ConfigError
from lale_mmseg.files import encode_png, write_atomic
from lale_mmseg.metainfo import Palette, aras400k

PARTS = tuple(aras400k.PART_SIZES)
MIN_SIZE = 32
MAX_PAIRS = 400_000
DEFAULT_COUNTS = dict(train=120, val=24, test=24, synth=0)
#: Increased whenever the same seed gives other pixels, so that older folders are made again.
GENERATOR = 1

PALETTE = Palette(aras400k.CLASSES, aras400k.COLORS)


def make_scene(rng: np.random.Generator, size: int = aras400k.TILE_SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Generates one image and its labels.

    Args:
        rng: Source of randomness; the same state gives the same scene.
        size: Side in pixels (10 m each), at least 32. A larger scene shows more land, not larger objects.

    Returns:
        (size, size, 3) uint8 RGB image and (size, size) uint8 class indexes of ARAS400k.
    """
    layout = make_layout(rng, size)
    return render(rng, layout), layout.labels


def make_toy(
    out: str | Path,
    counts: Mapping[str, int],
    size: int = aras400k.TILE_SIZE,
    seed: int = 0,
    workers: int | None = 1,
    folders: bool = True,
    parquet: bool = False,
    rows_per_shard: int = 500,
    overwrite: bool = False,
) -> dict[str, dict]:
    """Generates a set of scenes in the format of ARAS400k; keeps finished parts.

    Args:
        out: Folder to write to.
        counts: Number of pairs of each part ('train', 'val', 'test', 'synth'); parts with 0 are left out.
        size: Side of the images in pixels.
        seed: Seed of the whole set.
        workers: Number of processes; None for one per CPU.
        folders: Write OUT/PART/{images,masks}/STEM.png.
        parquet: Write OUT/data/PART-00000-of-0000N.parquet.
        rows_per_shard: Pairs in each parquet shard.
        overwrite: Make all parts again, and replace those of another source.

    Returns:
        For each part its pairs, pixels and class shares in percent, as in OUT/manifest.json.

    Raises:
        InputError: `out` holds something else.
    """
    folder = Prepared(Path(out), 'toy')
    recipes = {
        part: Recipe(part, counts[part], size, seed, folders, parquet, rows_per_shard)
        for part in PARTS
        if counts.get(part)
    }
    units = [_unit(recipe) for recipe in recipes.values()]
    with folder.locked():
        for unit in folder.unmade(units, overwrite):
            with folder.making(unit) as output:
                _make_part(output, recipes[unit.name], workers)
        markers = read_markers(folder.root)
        folder.write_manifest({part: without_files(markers[part]) for part in PARTS if part in markers})
    return {part: {name: markers[part][name] for name in ('pairs', 'pixels', 'class_shares')} for part in recipes}


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the files of one part."""

    part: str
    pairs: int
    size: int
    seed: int
    folders: bool
    parquet: bool
    rows_per_shard: int

    def name(self, index: int) -> str:
        """File name in the style of ARAS400k: tile, row and column. Parts never share a tile."""
        north, east = 36 + PARTS.index(self.part), 26 + index // 400
        return f'N{north:02d}E{east:03d}_{index // 20 % 20:03d}_{index % 20:03d}.png'


def _unit(recipe: Recipe) -> Unit:
    patterns = (f'{recipe.part}/images/*.png', f'{recipe.part}/masks/*.png', f'data/{recipe.part}-*.parquet')
    return Unit(recipe.part, {}, dict(generator=GENERATOR, **vars(recipe)), patterns)


def _make_part(output: Output, recipe: Recipe, workers: int | None) -> None:
    pixels = np.zeros(PALETTE.num_classes, np.int64)
    names = shard_names(recipe.part, recipe.pairs, recipe.rows_per_shard) if recipe.parquet else []
    shards = ShardWriter([output.path(f'data/{name}') for name in names], recipe.pairs, recipe.rows_per_shard)
    jobs = [(recipe, index) for index in range(recipe.pairs)]
    made = map_jobs(f'{recipe.part}: scenes', _make_pair, jobs, workers, unit='pairs')
    for index, (image, mask, counts) in enumerate(made):
        name = recipe.name(index)
        if recipe.folders:
            write_atomic(output.path(f'{recipe.part}/images/{name}'), image)
            write_atomic(output.path(f'{recipe.part}/masks/{name}'), mask)
        if recipe.parquet:
            shards.add(name, image, mask)
        pixels += counts
    output.facts.update(summary(recipe.pairs, PALETTE.classes, pixels))


def _make_pair(job: tuple[Recipe, int]) -> tuple[bytes, bytes, np.ndarray]:
    """Image and mask of one pair as PNG files, and the pixels of each class."""
    recipe, index = job
    rng = np.random.default_rng((recipe.seed, PARTS.index(recipe.part), index))
    image, labels = make_scene(rng, recipe.size)
    return encode_png(image), encode_png(PALETTE.encode(labels)), count_values(labels)[: PALETTE.num_classes]


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog='make_toy.py', description='Generate a small land-cover set in the format of ARAS400k.'
    )
    parser.add_argument('out', type=Path, metavar='OUT', help='folder to write to')
    for part, count in DEFAULT_COUNTS.items():
        parser.add_argument(
            f'--{part}',
            type=number(int, 0, MAX_PAIRS),
            default=count,
            metavar='N',
            help=f'pairs in {part} (default: {count})',
        )
    parser.add_argument(
        '--size',
        type=number(int, MIN_SIZE),
        default=aras400k.TILE_SIZE,
        help='side of the images in pixels (default: %(default)s)',
    )
    parser.add_argument(
        '--seed', type=number(int, 0), default=0, help='another seed gives another set (default: %(default)s)'
    )
    parser.add_argument(
        '--workers', type=number(int, 1), metavar='N', help='number of processes (default: one per CPU)'
    )
    parser.add_argument('--parquet', action='store_true', help='also write parquet shards to OUT/data')
    parser.add_argument('--no-folders', action='store_true', help='with --parquet: write the shards only')
    parser.add_argument(
        '--rows-per-shard',
        type=number(int, 1),
        default=500,
        metavar='N',
        help='pairs in a parquet shard (default: %(default)s)',
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='make the parts again, and replace those of another source'
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    args = build_parser().parse_args(argv)
    if args.no_folders and not args.parquet:
        raise ConfigError('--no-folders: nothing to write without --parquet; add it')
    made = make_toy(
        args.out,
        {part: getattr(args, part) for part in PARTS},
        size=args.size,
        seed=args.seed,
        workers=args.workers,
        folders=not args.no_folders,
        parquet=args.parquet,
        rows_per_shard=args.rows_per_shard,
        overwrite=args.overwrite,
    )
    print_table(f'{args.out}: scenes of {args.size}x{args.size} pixels', PALETTE.classes, made)
    return 0


if __name__ == '__main__':
    sys.exit(run_main(main))
