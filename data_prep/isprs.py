"""Prepares ISPRS Potsdam or Vaihingen from the archives or folders as ISPRS ships them.

    python data_prep/isprs.py potsdam DOWNLOADS data/potsdam
    python data_prep/isprs.py vaihingen DOWNLOADS data/vaihingen --protocol geoseg
    python data_prep/verify.py data/potsdam

OUT gets windows/{images,labels_full,labels_eroded}/STEM_X0_Y0_X1_Y1.png to train on, tiles/ with the same folders for
whole tiles to validate and test on, statistics.json with the pixels of each class, and manifest.json. All that can be
known beforehand is checked before anything is written. A run can be interrupted and started again; finished files are
kept. After an error finished tiles are as they were, those of earlier runs too, and what the run had begun is removed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.errors import NotGeoreferencedWarning

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_prep._cli import run_main
from data_prep._files import Manifest, only_run
from data_prep._isprs_compare import require_equal_settings
from data_prep._isprs_layout import files_by_folder, has_statistics, manifest_kind, missing_files
from data_prep._isprs_plan import MASKS, MAX_DISTANCE, Request, TilePlan, check_headers
from data_prep._isprs_record import Record
from data_prep._isprs_source import BANDS, LABEL_KINDS, find_files, list_inputs
from data_prep._isprs_tiles import Control, Stopped, TileJob, gdal_settings, make_tile
from data_prep._names import some_of
from data_prep._progress import check_workers, map_jobs, progress_bar
from data_prep._shares import print_table, summary
from lale_mmseg.errors import ConfigError
from lale_mmseg.metainfo import isprs


def prepare(
    request: Request, source: str | Path, out: str | Path, overwrite: bool = False, workers: int | None = None
) -> dict[str, dict]:
    """Prepares a data set.

    Args:
        request: What is asked for.
        source: Folder with the archives or unpacked folders of ISPRS, at any depth.
        out: Folder to write to.
        overwrite: Make all chosen tiles again, also where `out` has them from other files or with other settings.
        workers: Number of threads; None for one a CPU.

    Returns:
        What OUT/manifest.json says of each finished tile, by the start of its files' names.

    Raises:
        ConfigError: An argument is out of range.
        DataError: A file is missing, damaged or not as due, or labels have colours off the palette.
        InputError: `out` has something else in it, or another process prepares it.
    """
    threads = check_workers(workers)
    with only_run(out):
        return _prepare(request, Path(source), Path(out), overwrite, threads)


def _prepare(request: Request, source: Path, out: Path, overwrite: bool, threads: int) -> dict[str, dict]:
    inputs = list_inputs(source)
    # A folder that is there is looked at first, and one that is not is made last: errors leave nothing behind.
    manifest = _manifest(request, out, overwrite) if out.exists() else None
    if manifest is not None and not overwrite and _is_done(manifest, request, inputs):
        return _finished(manifest)
    whole = out.resolve()
    scratch = whole.with_name(f'.{whole.name}.unpacked')
    shutil.rmtree(scratch / 'tiles', ignore_errors=True)
    try:
        # The filter of warnings is one for all threads, so it is set here.
        with gdal_settings(), warnings.catch_warnings():
            warnings.simplefilter('ignore', NotGeoreferencedWarning)
            plans = request.plan(find_files(source, request.wanted, scratch))
            if manifest is not None:
                chosen = {plan.stem for plan in plans}
                others = {stem: entry for stem, entry in _finished(manifest).items() if stem not in chosen}
                require_equal_settings(out, others, request)
            sizes = check_headers(plans, request, threads)
            manifest = manifest or _manifest(request, out, overwrite)
            _make_all(manifest, request, plans, sizes, inputs, scratch, threads)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return _finished(manifest)


def _manifest(request: Request, out: Path, overwrite: bool) -> Manifest:
    return Manifest(out, manifest_kind(request.dataset), [request.dataset], overwrite=overwrite)


def _is_done(manifest: Manifest, request: Request, inputs: list) -> bool:
    """Whether the same request was finished before from the same files, and all that it made is still there."""
    last = manifest.notes.get('last_run', {})
    if last.get('request') != request.as_dict() or last.get('inputs') != inputs:
        return False
    there = files_by_folder(manifest.out)
    return has_statistics(manifest.out, manifest.parts) and all(
        manifest.parts.get(stem, {}).get('complete') and not missing_files(manifest.parts[stem], stem, there)
        for stem in last['tiles']
    )


def _make_all(
    manifest: Manifest,
    request: Request,
    plans: Sequence[TilePlan],
    sizes: Mapping[str, tuple[int, int]],
    inputs: list,
    scratch: Path,
    threads: int,
) -> None:
    record, control = Record(manifest, request), Control()
    jobs = record.jobs(plans, sizes, scratch, control)
    try:
        _run(jobs, control, threads)
    except Exception:
        record.undo(jobs)
        raise
    record.close(inputs, plans)


def _run(jobs: Sequence[TileJob], control: Control, threads: int) -> None:
    """Makes the tiles; each notes itself in the manifest."""
    with progress_bar('preparing', sum(job.steps for job in jobs), 'strips of rows') as advance:
        control.advance = advance
        try:
            for _ in map_jobs(make_tile, jobs, max(min(threads, len(jobs)), 1), threads=True, stop=control.event.set):
                pass
        except Stopped:
            # This tile ended because another one failed; that one's error is the one to show.
            assert control.error is not None
            raise control.error from None


def _finished(manifest: Manifest) -> dict[str, dict]:
    return {
        part: entry for part, entry in manifest.parts.items() if entry['complete'] and entry['kind'] == manifest.kind
    }


def print_summary(dataset: str, out: Path, made: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints windows and class shares for each kind of labels, tiles that lack, and what became another colour."""
    rows = {}
    for kind in LABEL_KINDS:
        entries = [entry for entry in made.values() if kind in entry['labels']]
        if entries:
            pixels = np.array([entry['labels'][kind]['pixels'] for entry in entries], np.int64).sum(0)
            name = f'{kind} labels, {len(entries)} tiles'
            rows[name] = summary(sum(entry['windows'] for entry in entries), isprs.CLASSES, pixels)
    published = isprs.TILES[dataset]
    lacking = [tile for tile in published if isprs.tile_stem(dataset, tile) not in made]
    print_table(f'{out}: {len(made)} of {len(published)} tiles', isprs.CLASSES, rows, unit='windows')
    if lacking:
        print(f'not there: {some_of(lacking)}')
    for stem, entry in made.items():
        for kind, counts in entry['labels'].items():
            if counts['snapped']:
                print(
                    f'{stem}, {kind} labels: {counts["snapped"]:,} pixels of {counts["snapped_colors"]:,} colours off '
                    f'the palette were taken as the nearest class (largest distance {counts["largest_distance"]:g})'
                )


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog='isprs.py', description='Prepare ISPRS Potsdam or Vaihingen.')
    commands = parser.add_subparsers(dest='dataset', required=True)
    for dataset in isprs.TILES:
        command = commands.add_parser(dataset, help=f'{len(isprs.TILES[dataset])} tiles')
        command.add_argument('source', type=Path, metavar='SOURCE', help='folder with the archives or files of ISPRS')
        command.add_argument('out', type=Path, metavar='OUT', help='folder to write to')
        command.add_argument('--size', type=int, default=512, metavar='N', help='side of the windows (default: 512)')
        command.add_argument('--stride', type=int, default=256, metavar='N', help='step between them (default: 256)')
        if dataset == 'potsdam':
            command.add_argument('--bands', choices=tuple(BANDS), default='rgb', help='(default: rgb)')
        command.add_argument(
            '--masks', choices=MASKS, default='index', help='class indexes, or colours (default: index)'
        )
        command.add_argument(
            '--labels', nargs='+', choices=LABEL_KINDS, help='kinds that every tile must have (default: what is there)'
        )
        command.add_argument('--tiles', nargs='+', metavar='TILE', help='such as 2_10 in Potsdam, 1 in Vaihingen')
        command.add_argument(
            '--protocol',
            nargs='+',
            default=[],
            metavar='NAME',
            help='only what these protocols use: windows of training tiles, whole tiles to validate and test on',
        )
        command.add_argument(
            '--tolerant', action='store_true', help='take colours off the palette as the nearest class, and count them'
        )
        command.add_argument(
            '--max-distance', type=float, metavar='D', help=f'how far that may be, in RGB (default: {MAX_DISTANCE:g})'
        )
        command.add_argument('--overwrite', action='store_true', help='make the chosen tiles again')
        command.add_argument('--workers', type=int, metavar='N', help='number of threads (default: one for each CPU)')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    args = build_parser().parse_args(argv)
    if args.max_distance is not None and not args.tolerant:
        raise ConfigError(f'--max-distance {args.max_distance:g}: is for --tolerant; give both')
    distance = None
    if args.tolerant:
        distance = MAX_DISTANCE if args.max_distance is None else args.max_distance
    request = Request(
        dataset=args.dataset,
        size=args.size,
        stride=args.stride,
        bands=getattr(args, 'bands', 'irrg'),
        masks=args.masks,
        labels=None if args.labels is None else tuple(args.labels),
        tiles=None if args.tiles is None else tuple(args.tiles),
        protocols=tuple(args.protocol),
        max_distance=distance,
    )
    made = prepare(request, args.source, args.out, args.overwrite, args.workers)
    print_summary(args.dataset, args.out, made)
    return 0


if __name__ == '__main__':
    sys.exit(run_main(main))
