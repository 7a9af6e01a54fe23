"""Makes a small land-cover set in ARAS400k's published format, by procedure and without any download.

    python data_prep/make_toy.py data/toy --train 120 --val 24 --test 24

writes data/toy/{train,val,test,synth}/{images,masks}/STEM.png: RGB images of 8 bits and masks in ARAS400k's colours.
Each image depends on the seed, its part and its number only, so any number of processes makes the same files. The
classes differ in texture more than in colour: a classifier of single pixels stays far behind a small network.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_prep._cli import run_main
from data_prep._files import Manifest, only_run, write_if_missing
from data_prep._images import count_classes, decode_rgb, encode_png
from data_prep._parquet import ShardWriter, shard_paths
from data_prep._progress import check_workers, map_jobs, progress_bar
from data_prep._shares import print_table, summary
from data_prep._toy_layout import make_layout
from data_prep._toy_render import render
from lale_mmseg.errors import ConfigError
from lale_mmseg.metainfo import Palette, aras400k

PARTS = tuple(aras400k.PART_SIZES)
MIN_SIZE = 32
MAX_PAIRS = 400_000
DEFAULT_COUNTS = dict(train=120, val=24, test=24, synth=0)
#: Changes whenever the same seed would give other pixels: folders of another version are not continued.
GENERATOR = 1

PALETTE = Palette(aras400k.CLASSES, aras400k.COLORS)


def make_scene(rng: np.random.Generator, size: int = aras400k.TILE_SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Makes one image and its labels.

    Args:
        rng: Source of randomness; the same state gives the same scene.
        size: Side in pixels (10 m each), at least 32. A larger scene shows more land, not larger things.

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
    """Makes a set of scenes in ARAS400k's format; continues a set that was interrupted.

    Args:
        out: Folder to make the set in.
        counts: Number of pairs of each part ('train', 'val', 'test', 'synth'); parts with 0 are left out.
        size: Side of the images in pixels.
        seed: Seed of the whole set.
        workers: Number of processes; None for one a CPU. It does not change the result.
        folders: Write OUT/PART/{images,masks}/STEM.png.
        parquet: Write OUT/data/PART-00000-of-0000N.parquet.
        rows_per_shard: Pairs in each parquet shard.
        overwrite: Remove parts of these names that are of another seed, size, number or source.

    Returns:
        For each part its pairs, pixels and class shares in percent, as in OUT/manifest.json.

    Raises:
        ConfigError: An argument is out of range.
        InputError: `out` holds something else and `overwrite` is off.
    """
    wanted = _check(counts, size, seed, folders, parquet, rows_per_shard)
    processes = check_workers(workers)
    owned = [pattern for pattern, used in (('{part}', folders), ('data/{part}-*.parquet', parquet)) if used]
    manifest = Manifest(Path(out), 'toy', list(wanted), owned=owned, overwrite=overwrite)
    made = {}
    for part, count in wanted.items():
        recipe = _Recipe(part, count, size, seed, folders, parquet, rows_per_shard)
        source = dict(generator=GENERATOR, **{name: value for name, value in vars(recipe).items() if name != 'part'})
        entry = manifest.begin(part, source)
        if not entry['complete'] or not all(path.exists() for path in recipe.files(manifest.out)):
            entry.update(_make_part(manifest.out, recipe, processes), complete=True)
            manifest.save()
        made[part] = {name: entry[name] for name in ('pairs', 'pixels', 'class_shares')}
    return made


@dataclass(frozen=True)
class _Recipe:
    """All that decides the files of one part."""

    part: str
    pairs: int
    size: int
    seed: int
    folders: bool
    parquet: bool
    rows_per_shard: int

    def stem(self, index: int) -> str:
        """Name in the style of ARAS400k: tile, row and column; parts never share a tile."""
        north, east = 36 + PARTS.index(self.part), 26 + index // 400
        return f'N{north:02d}E{east:03d}_{index // 20 % 20:03d}_{index % 20:03d}'

    def folder_files(self, out: Path, index: int) -> tuple[Path, Path]:
        """Image and mask of a pair."""
        name = f'{self.stem(index)}.png'
        return out / self.part / 'images' / name, out / self.part / 'masks' / name

    def files(self, out: Path) -> Iterator[Path]:
        """Every file of the part."""
        if self.folders:
            for index in range(self.pairs):
                yield from self.folder_files(out, index)
        if self.parquet:
            yield from shard_paths(out / 'data', self.part, self.pairs, self.rows_per_shard)


@dataclass(frozen=True)
class _Pair:
    image_path: Path
    mask_path: Path
    image: bytes
    mask: bytes
    pixels: np.ndarray


def _make_part(out: Path, recipe: _Recipe, workers: int) -> dict:
    pixels = np.zeros(PALETTE.num_classes, np.int64)
    shards = None
    if recipe.parquet:
        shards = ShardWriter(out / 'data', recipe.part, recipe.pairs, recipe.rows_per_shard)
    if recipe.folders:
        for kind in ('images', 'masks'):
            (out / recipe.part / kind).mkdir(parents=True, exist_ok=True)
    jobs = [(out, recipe, index) for index in range(recipe.pairs)]
    with progress_bar(f'{recipe.part}: scenes', recipe.pairs, 'pairs') as advance:
        for pair in map_jobs(_make_pair, jobs, min(workers, recipe.pairs)):
            if recipe.folders:
                write_if_missing(pair.image_path, pair.image)
                write_if_missing(pair.mask_path, pair.mask)
            if shards is not None:
                shards.add(pair.image_path.name, pair.image, pair.mask)
            pixels += pair.pixels
            advance(1)
    return summary(recipe.pairs, PALETTE.classes, pixels)


def _make_pair(job: tuple[Path, _Recipe, int]) -> _Pair:
    """One pair as PNG files: read where an interrupted run left both, else made."""
    out, recipe, index = job
    image_path, mask_path = recipe.folder_files(out, index)
    if recipe.folders and image_path.exists() and mask_path.exists():
        mask = mask_path.read_bytes()
        labels = PALETTE.decode(decode_rgb(mask, str(mask_path)), source=str(mask_path))
        return _Pair(image_path, mask_path, image_path.read_bytes(), mask, count_classes(labels, PALETTE.num_classes))
    rng = np.random.default_rng((recipe.seed, PARTS.index(recipe.part), index))
    image, labels = make_scene(rng, recipe.size)
    files = encode_png(image), encode_png(PALETTE.encode(labels))
    return _Pair(image_path, mask_path, *files, count_classes(labels, PALETTE.num_classes))


def _check(
    counts: Mapping[str, int], size: int, seed: int, folders: bool, parquet: bool, rows_per_shard: int
) -> dict[str, int]:
    """The parts to make; raises ConfigError for what is out of range."""
    strange = set(counts) - set(PARTS)
    if strange:
        raise ConfigError(f'parts {sorted(strange)}: must be among {PARTS}')
    for part, count in counts.items():
        if not 0 <= count <= MAX_PAIRS:
            raise ConfigError(f'--{part} {count}: from 0 to {MAX_PAIRS} pairs can be made')
    if not any(counts.values()):
        raise ConfigError('nothing to make: every part has 0 pairs')
    if size < MIN_SIZE:
        raise ConfigError(f'--size {size}: at least {MIN_SIZE} pixels are due')
    if seed < 0:
        raise ConfigError(f'--seed {seed}: must not be negative')
    if not folders and not parquet:
        raise ConfigError('--no-folders leaves nothing to write without --parquet')
    if rows_per_shard < 1:
        raise ConfigError(f'--rows-per-shard {rows_per_shard}: at least 1 is due')
    return {part: counts[part] for part in PARTS if counts.get(part)}


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog='make_toy.py', description='Make a small land-cover set in the format of ARAS400k, by procedure.'
    )
    parser.add_argument('out', type=Path, metavar='OUT', help='folder to make the set in')
    for part, count in DEFAULT_COUNTS.items():
        parser.add_argument(
            f'--{part}', type=int, default=count, metavar='N', help=f'pairs in {part} (default: {count})'
        )
    parser.add_argument(
        '--size', type=int, default=aras400k.TILE_SIZE, help='side of the images in pixels (default: %(default)s)'
    )
    parser.add_argument('--seed', type=int, default=0, help='another seed gives another set (default: %(default)s)')
    parser.add_argument('--workers', type=int, metavar='N', help='number of processes (default: one for each CPU)')
    parser.add_argument('--parquet', action='store_true', help='also write parquet shards to OUT/data')
    parser.add_argument('--no-folders', action='store_true', help='with --parquet: write the shards only')
    parser.add_argument(
        '--rows-per-shard', type=int, default=500, metavar='N', help='pairs in a parquet shard (default: %(default)s)'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace parts that another run left in OUT')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    args = build_parser().parse_args(argv)
    with only_run(args.out):
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
