"""Prepares Inria Aerial Image Labeling for its own protocol, or its Austin tiles for that of few-shot roofs.

    python data_prep/inria.py full SOURCE data/inria
    python data_prep/inria.py few-shot SOURCE data/inria_few_shot
    python data_prep/verify.py data/inria_few_shot

SOURCE holds AerialImageDataset/train/{images,gt} at any depth, unpacked or in a zip file. `full` writes
windows/{images,masks}/TILE_X0_Y0_X1_Y1.png of the tiles to train on and tiles/{images,masks}/TILE.tif, whole, of those
to validate on; `few-shot` writes one crop a tile, crops/images/TILE.jpg and crops/masks/TILE.png, and overview.png to
look at. Labels stay 0 and 255. Every pixel of all tiles is checked before anything is written; manifest.json has
settings, counts and SHA-256 sums. A run can be interrupted and started again; finished tiles are kept.
"""

from __future__ import annotations

import argparse
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.errors import NotGeoreferencedWarning
from rich.table import Table

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_prep._cli import run_main
from data_prep._files import MANIFEST, Manifest, only_run, read_manifest
from data_prep._inria_crops import CENTRE, NONE, STEP, check_nudge, read_nudges
from data_prep._inria_layout import (
    FEW_SHOT,
    FULL,
    OVERVIEW,
    OWNED,
    files_by_folder,
    manifest_kind,
    missing_files,
    split_of,
)
from data_prep._inria_overview import write_overview
from data_prep._inria_published import MIN_SHARE, QUALITY, SIZE, unpublished
from data_prep._inria_source import Scan, TileFiles, find_tiles, scan_tile
from data_prep._inria_tiles import TileJob, make_tile
from data_prep._names import some_of
from data_prep._progress import Job, Result, check_workers, map_jobs, progress_bar
from data_prep._shares import print_table, summary, table_console
from lale_mmseg.errors import ConfigError, InputError
from lale_mmseg.metainfo import inria

MISSING = ('error', 'skip')
COUNTED_ONCE = (
    "shares count each pixel of a tile once, as class_weight='data' does; verify.py counts windows, which may overlap"
)


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Attributes:
        protocol: 'full' or 'few-shot'.
        size: Side of the windows or crops in pixels.
        stride: Step from one window to the next, of 'full'; None for `size`, so that windows do not overlap.
        cities: Cities to prepare, of 'full'.
        min_share: Share of building (0 to 1) that a crop is to have, of 'few-shot'.
        quality: JPEG quality of the crops, 1 to 100, of 'few-shot'.
        nudges: Table of windows that are chosen by hand, of 'few-shot'.
        missing: What tiles that lack files mean: 'error', or 'skip'.
    """

    protocol: str
    size: int
    stride: int | None = None
    cities: tuple[str, ...] = inria.CITIES
    min_share: float = MIN_SHARE
    quality: int = QUALITY
    nudges: Path | None = None
    missing: str = 'error'

    def __post_init__(self) -> None:
        if self.protocol == FULL and not 1 <= self.step <= self.size:
            raise ConfigError(
                f'--stride {self.step} with --size {self.size}: from 1 to {max(self.size, 1)} is due; a larger step '
                'would lose the pixels between the windows'
            )
        if self.protocol == FEW_SHOT and self.size < STEP:
            raise ConfigError(f'--size {self.size}: at least {STEP} pixels are due, the step by which windows slide')
        if not 0 <= self.min_share <= 1:
            raise ConfigError(f'--min-share {self.min_share:g}: a share from 0 to 1 is due, such as 0.05 for 5 %')
        if not 1 <= self.quality <= 100:
            raise ConfigError(f'--quality {self.quality}: from 1 to 100 is due')
        strange = [city for city in self.cities if city not in inria.CITIES]
        if strange or not self.cities:
            raise ConfigError(f'--cities {" ".join(strange)}: cities with labels are {", ".join(inria.CITIES)}')

    @property
    def step(self) -> int:
        """Step from one window to the next in pixels."""
        return self.size if self.stride is None else self.stride

    @property
    def tiles(self) -> tuple[str, ...]:
        """Tiles to prepare."""
        cities = self.cities if self.protocol == FULL else ('austin',)
        return tuple(tile for city in inria.CITIES if city in cities for tile in inria.tiles_of(city))

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the content of a tile's files, beside its sources."""
        if self.protocol == FULL:
            return dict(size=self.size, stride=self.step)
        return dict(size=self.size, min_share=self.min_share, step=STEP, quality=self.quality)


def prepare(
    request: Request, source: str | Path, out: str | Path, overwrite: bool = False, workers: int | None = None
) -> dict[str, dict]:
    """Prepares the tiles of a request.

    Args:
        request: What is asked for.
        source: Folder or zip file of the archive.
        out: Folder to write to.
        overwrite: Make the chosen tiles again, also where `out` has them from other files or with other settings.
        workers: Number of threads; None for one a CPU.

    Returns:
        What OUT/manifest.json says of each finished tile.

    Raises:
        ConfigError: An argument is out of range.
        InputError: `out` has something else in it, or tiles that were made with other settings; or another process
            prepares it.
        DataError: A tile is missing, damaged or not as due, or a label is neither 0 nor 255; nothing is written then.
    """
    with only_run(out):
        return _prepare(request, Path(source), Path(out), overwrite, workers)[0]


def _prepare(
    request: Request, source: Path, out: Path, overwrite: bool, workers: int | None
) -> tuple[dict[str, dict], int, int]:
    """What `prepare` returns, how many tiles of the source were finished before, and how many it has."""
    threads = check_workers(workers)
    tiles = find_tiles(source, request.tiles, request.missing == 'skip')
    nudges = {} if request.nudges is None else read_nudges(request.nudges, tiles)
    settings = {tile: _settings_of(request, tile, nudges) for tile in tiles}
    # A folder that is there is looked at first, and one that is not is made last: errors leave nothing behind.
    manifest = _manifest(request, out, overwrite) if out.exists() else None
    if manifest is not None:
        _require_settings(manifest, request, {} if overwrite else settings, tiles)
    done = set() if overwrite or manifest is None else _done(manifest, request, tiles)
    due = [tile for tile in tiles if tile not in done]
    with warnings.catch_warnings():
        # The filter of warnings is one for all threads, so it is set here.
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        scans = _scan(request, [tiles[tile] for tile in due], threads)
        for tile, nudge in nudges.items():
            if tile in scans:
                assert request.nudges is not None
                check_nudge(nudge, tile, scans[tile].size, request.size, request.nudges)
        manifest = manifest or _manifest(request, out, overwrite)
        jobs = _begin(manifest, request, tiles, settings, scans)
        _make(manifest, jobs, threads)
    return _conclude(manifest, request, made=bool(jobs)), len(done), len(tiles)


def _settings_of(request: Request, tile: str, nudges: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    settings = dict(request.settings)
    if request.protocol == FEW_SHOT:
        settings['nudge'] = list(nudges[tile]) if tile in nudges else None
    return settings


def _manifest(request: Request, out: Path, overwrite: bool) -> Manifest:
    kind = manifest_kind(request.protocol)
    if (out / MANIFEST).exists():
        others = {entry['kind'] for entry in read_manifest(out)['parts'].values()} - {kind}
        if others:
            raise InputError(f'{out}: holds data of {", ".join(sorted(others))}, this run makes {kind}; choose another')
    return Manifest(out, kind, request.tiles, OWNED[request.protocol], overwrite)


def _require_settings(
    manifest: Manifest, request: Request, settings: Mapping[str, Mapping[str, Any]], chosen: Iterable[str]
) -> None:
    """Raises InputError where tiles of `manifest` were made with other settings, and are not to be replaced."""
    kept = {tile: request.settings for tile in manifest.parts if tile not in chosen}
    for tile, wanted in {**kept, **settings}.items():
        before = manifest.parts.get(tile, {}).get('source')
        if before is None:
            continue
        differing = {name: (before.get(name), value) for name, value in wanted.items() if before.get(name) != value}
        if differing:
            words = ', '.join(f'{name} {old} (now {new})' for name, (old, new) in differing.items())
            advice = '--overwrite to make the tiles again' if tile in settings else 'the same settings for all tiles'
            raise InputError(f'{manifest.out}: tile {tile} was made with {words}; choose another folder, or {advice}')


def _done(manifest: Manifest, request: Request, tiles: Mapping[str, TileFiles]) -> set[str]:
    """Tiles that were finished before from the same files, and all that was made of them is there."""
    there = files_by_folder(manifest.out, request.protocol)
    return {
        tile
        for tile, entry in manifest.parts.items()
        if tile in tiles
        and entry['complete']
        and entry['stamps'] == tiles[tile].stamps
        and not missing_files(tile, entry, there)
    }


def _scan(request: Request, tiles: Sequence[TileFiles], threads: int) -> dict[str, Scan]:
    """Looks at every pixel of the tiles."""
    scans: dict[str, Scan] = {}
    if not tiles:
        return scans
    with progress_bar('checking the tiles', len(tiles), 'tiles') as advance:
        results = _run(lambda files: scan_tile(files, request.size), tiles, threads)
        for files, scan in zip(tiles, results, strict=True):
            scans[files.tile] = scan
            advance(1)
    return scans


def _begin(
    manifest: Manifest,
    request: Request,
    tiles: Mapping[str, TileFiles],
    settings: Mapping[str, Mapping[str, Any]],
    scans: Mapping[str, Scan],
) -> list[TileJob]:
    """Notes the tiles that are about to be written; files of other sources go only if all of them may."""
    sources = {tile: dict(settings[tile], sha256=scan.sha256) for tile, scan in scans.items()}
    for tile, source in sources.items():
        manifest.check(tile, source)
    jobs = []
    for tile, source in sources.items():
        if manifest.overwrite:
            manifest.remove(tile)
        entry = manifest.begin(tile, source)
        size, pixels = scans[tile].size, scans[tile].pixels
        entry.update(complete=False, stamps=tiles[tile].stamps, tile_size=list(size), pixels=pixels)
        jobs.append(TileJob(tiles[tile], entry, manifest.out))
    if jobs:
        _save(manifest, request)
    return jobs


def _make(manifest: Manifest, jobs: Sequence[TileJob], threads: int) -> None:
    """Writes the tiles, and notes each one that is finished."""
    if not jobs:
        return
    stop = threading.Event()
    for job in jobs:
        job.stop = stop
    with progress_bar('writing', len(jobs), 'tiles') as advance:
        for job, made in zip(jobs, _run(make_tile, jobs, threads, stop.set), strict=True):
            job.entry.update(made, complete=True)
            manifest.save()
            advance(1)


def _run(
    function: Callable[[Job], Result], jobs: Sequence[Job], threads: int, stop: Callable[[], None] | None = None
) -> Iterable[Result]:
    return map_jobs(function, jobs, max(min(threads, len(jobs)), 1), chunks_ahead=2, threads=True, stop=stop)


def _save(manifest: Manifest, request: Request) -> None:
    """Writes the manifest with its tiles in the order of their cities and numbers."""
    order = {tile: number for number, tile in enumerate(inria.TILES)}
    manifest.parts = {tile: manifest.parts[tile] for tile in sorted(manifest.parts, key=order.__getitem__)}
    before = manifest.notes.get('tiles', [])
    manifest.notes['tiles'] = [tile for tile in inria.TILES if tile in {*before, *request.tiles}]
    manifest.save()


def _conclude(manifest: Manifest, request: Request, made: bool) -> dict[str, dict]:
    finished = {tile: entry for tile, entry in manifest.parts.items() if entry['complete']}
    if request.protocol == FEW_SHOT:
        if made or not (manifest.out / OVERVIEW).exists():
            write_overview(manifest.out, finished, manifest.out / OVERVIEW)
        published = unpublished(manifest.parts) is None
        if manifest.notes.get('published') != published:
            manifest.notes['published'] = published
            manifest.save()
    return finished


def print_summary(request: Request, out: Path, made: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints the share of building in each split, what was not there, and every crop that is not the centre."""
    rows = {}
    for split in ('train', 'val', 'test'):
        entries = [entry for tile, entry in made.items() if split_of(request.protocol, tile) == split]
        if entries:
            pixels = np.array([entry['pixels'] for entry in entries], np.int64).sum(0)
            files = sum(entry.get('windows') or 1 for entry in entries)
            rows[f'{split}, {len(entries)} tiles'] = summary(files, inria.CLASSES, pixels)
    unit = 'crops' if request.protocol == FEW_SHOT else 'files'
    print_table(f'{out}: {len(made)} tiles of protocol {request.protocol}', inria.CLASSES, rows, unit)
    lacking = [tile for tile in request.tiles if tile not in made]
    if lacking:
        print(f'not there: {some_of(lacking)}')
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
        'moved': f'the centre has less than {100 * request.min_share:g} % of building',
        'nudged': f'named in {request.nudges}',
        'best': f'no window has {100 * request.min_share:g} %; this one has most',
        'none': 'no building in the tile; the centre is taken',
    }
    for tile, entry in made.items():
        if entry['reason'] != CENTRE:
            share = f'{100 * entry["share"]:.2f}'
            reason = f'{entry["reason"]}: {words[entry["reason"]]}'
            table.add_row(tile, split_of(FEW_SHOT, tile), str(entry['x']), str(entry['y']), share, reason)
    if table.row_count:
        table_console(5).print(table)
    empty = [tile for tile, entry in made.items() if entry['reason'] == NONE]
    if empty:
        print(f'warning: no building in {some_of(empty)}; the IoU of such a crop is undefined', file=sys.stderr)
    print(f'look at {out / OVERVIEW}')


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog='inria.py', description='Prepare Inria Aerial Image Labeling.')
    commands = parser.add_subparsers(dest='protocol', required=True)
    full = commands.add_parser(FULL, help='windows of 155 tiles to train on, 25 whole tiles to validate on')
    few = commands.add_parser(FEW_SHOT, help='one crop of each of the 36 tiles of Austin')
    for command, size in ((full, 512), (few, SIZE)):
        command.add_argument('source', type=Path, metavar='SOURCE', help='folder or zip file with AerialImageDataset')
        command.add_argument('out', type=Path, metavar='OUT', help='folder to write to')
        command.add_argument('--size', type=int, default=size, metavar='N', help=f'side in pixels (default: {size})')
        command.add_argument(
            '--missing', choices=MISSING, default='error', help='what tiles that lack files mean (default: error)'
        )
        command.add_argument('--overwrite', action='store_true', help='make the tiles again')
        command.add_argument('--workers', type=int, metavar='N', help='number of threads (default: one for each CPU)')
    full.add_argument('--stride', type=int, metavar='N', help='step between windows (default: --size)')
    full.add_argument(
        '--cities', nargs='+', default=list(inria.CITIES), metavar='CITY', help='default: all five with labels'
    )
    few.add_argument(
        '--min-share', type=float, default=MIN_SHARE, metavar='S', help=f'share of building due (default: {MIN_SHARE})'
    )
    few.add_argument('--nudges', type=Path, metavar='CSV', help='table tile,x,y of windows that are chosen by hand')
    few.add_argument('--quality', type=int, default=QUALITY, metavar='Q', help=f'JPEG quality (default: {QUALITY})')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    args = vars(build_parser().parse_args(argv))
    source, out, overwrite, workers = (args.pop(name) for name in ('source', 'out', 'overwrite', 'workers'))
    if 'cities' in args:
        args['cities'] = tuple(args['cities'])
    request = Request(**args)
    with only_run(out):
        made, kept, found = _prepare(request, source, out, overwrite, workers)
    print_summary(request, out, made)
    if kept:
        # All of them: the run had nothing to write.
        print(f'{f"all {found}" if kept == found else f"{kept} of {found}"} tiles were there already, and were kept')
    return 0


if __name__ == '__main__':
    sys.exit(run_main(main))
