"""Brings ARAS400k (arXiv 2603.09625) into the folders that the configs read: OUT/PART/{images,masks}/STEM.png.

    python data_prep/aras400k.py archives DOWNLOADS data/aras400k      # train.zip, val.zip, test.zip, synth.zip
    python data_prep/aras400k.py parquet SHARDS data/aras400k          # train-00000-of-00010.parquet, ...
    python data_prep/aras400k.py raw TILES data/aras400k --split 80 10 10

Each can be interrupted and started again; finished files are kept, and files of other content are never replaced
unless --overwrite is given. Each ends with the number of pairs and the class shares of every part, decoded from the
masks, and writes them to OUT/manifest.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_prep._archives import md5_of, unpack
from data_prep._cli import run_main
from data_prep._files import Manifest, only_run, write_bytes
from data_prep._pairs import KINDS, describe, list_images
from data_prep._parquet import count_rows, find_shards, read_rows
from data_prep._progress import check_workers, map_jobs, progress_bar
from data_prep._raw_tiles import REASONS, Rules, TilePair, count_strips, cut_strip, find_tiles
from data_prep._shares import print_table
from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.metainfo import Palette, aras400k

PARTS = tuple(aras400k.PART_SIZES)
PALETTE = Palette(aras400k.CLASSES, aras400k.COLORS, ignore_colors=(aras400k.NO_DATA_COLOR,))


def from_archives(
    zip_dir: str | Path,
    out: str | Path,
    parts: Sequence[str] | None = None,
    verify: bool = True,
    overwrite: bool = False,
    workers: int | None = None,
    expected_md5: Mapping[str, str] = aras400k.ARCHIVE_MD5,
) -> dict[str, dict]:
    """Checks the MD5 sums of the published archives and unpacks them.

    Args:
        zip_dir: Folder with `train.zip` and the others.
        out: Folder to unpack to.
        parts: Which of 'train', 'val', 'test', 'synth'; None for every archive that is in `zip_dir`.
        verify: Raise if an MD5 sum is not the published one.
        overwrite: Replace parts from another source and files of other content.
        workers: Number of processes that count classes; None for one a CPU.
        expected_md5: MD5 sum of each archive.

    Returns:
        What OUT/manifest.json says of each part of `out`.

    Raises:
        ConfigError: An argument is out of range.
        DataError: An archive is missing, damaged, or has another sum, or its content is not as published.
    """
    processes = check_workers(workers)
    archives = _find_archives(Path(zip_dir), parts)
    manifest = Manifest(Path(out), 'archives', list(archives), overwrite=overwrite)
    # All sums before anything is unpacked: a bad download is known at once.
    sums = {part: _checked_md5(path, manifest.parts.get(part), verify, expected_md5) for part, path in archives.items()}
    for part, path in archives.items():
        entry = manifest.begin(part, dict(archive=path.name, md5=sums[part]))
        entry['archive_stat'] = _stat(path)
        manifest.save()
        if overwrite or not _is_whole(manifest, part):
            unpack(path, part, manifest.out / part, overwrite)
            _finish(manifest, part, processes)
    return _finished(manifest)


def from_parquet(
    shard_dir: str | Path,
    out: str | Path,
    parts: Sequence[str] | None = None,
    overwrite: bool = False,
    workers: int | None = None,
) -> dict[str, dict]:
    """Unpacks parquet shards to folders.

    Args:
        shard_dir: Folder with shards such as `train-00000-of-00010.parquet`, at any depth.
        out: Folder to unpack to.
        parts: Which parts; None for all that are found.
        overwrite: Replace parts from another source and files of other content.
        workers: Number of processes that count classes; None for one a CPU.

    Returns:
        What OUT/manifest.json says of each part of `out`.

    Raises:
        ConfigError: An argument is out of range.
        DataError: Shards are missing or damaged, or their content is not as published.
    """
    processes = check_workers(workers)
    found = find_shards(_folder(Path(shard_dir)))
    missing = sorted(set(parts or ()) - set(found))
    if missing:
        raise DataError(f'{shard_dir}: has no shards of {missing}, only of {sorted(found)}')
    order = [part for part in PARTS if part in found] + sorted(set(found) - set(PARTS))
    chosen = {part: found[part] for part in order if part in (parts or found)}
    manifest = Manifest(Path(out), 'parquet', list(chosen), overwrite=overwrite)
    for part, shards in chosen.items():
        manifest.begin(part, dict(shards={shard.name: shard.stat().st_size for shard in shards}))
        if overwrite or not _is_whole(manifest, part):
            _unpack_shards(shards, manifest.out / part, overwrite)
            _finish(manifest, part, processes)
    return _finished(manifest)


def from_raw(
    raw_dir: str | Path,
    out: str | Path,
    rules: Rules | None = None,
    overwrite: bool = False,
    workers: int | None = None,
) -> dict[str, dict]:
    """Cuts raw Sentinel-2 and WorldCover GeoTIFFs into pairs by the published rules (see `_raw_tiles`).

    Args:
        raw_dir: Folder with `*_S2RGBNIR.tif` and `*_Map.tif`, at any depth.
        out: Folder to write to.
        rules: Window, share of water, and split; None for the published window and everything in 'train'.
        overwrite: Replace parts from another source and files of other content.
        workers: Number of processes; None for one a CPU.

    Returns:
        What OUT/manifest.json says of each part of `out`.

    Raises:
        ConfigError: An argument is out of range.
        DataError: A raster is unreadable, has no map, or a map has an unknown code; or no window is left.
    """
    processes = check_workers(workers)
    rules = rules or Rules()
    tiles = find_tiles(_folder(Path(raw_dir)))
    strips = [(pair, row) for pair in tiles for row in range(count_strips(pair, rules))]
    parts = [part for part, share in rules.split if share]
    manifest = Manifest(Path(out), 'raw', parts, overwrite=overwrite)
    files = {path.name: path.stat().st_size for pair in tiles for path in (pair.image, *pair.maps)}
    source = dict(files=files, window=rules.window, max_water=rules.max_water, split=dict(rules.split))
    entries = [manifest.begin(part, source) for part in parts]
    if overwrite or not all(_is_whole(manifest, part) for part in parts):
        _cut(manifest, [(pair, row, rules, manifest.out, overwrite) for pair, row in strips], processes)
        for part in parts:
            if not list_images(manifest.out / part / 'images'):
                raise DataError(f'{raw_dir}: no window is left for part {part!r}; left out: {entries[0]["left_out"]}')
            _finish(manifest, part, processes)
    return _finished(manifest)


def _cut(manifest: Manifest, jobs: Sequence[tuple[TilePair, int, Rules, Path, bool]], workers: int) -> None:
    """Cuts the rows of windows that no earlier run has finished, and records how far it came."""
    parts = list(manifest.current)
    for part in parts:
        for kind in KINDS:
            (manifest.out / part / kind).mkdir(parents=True, exist_ok=True)
    record = manifest.parts[parts[0]].setdefault(
        'progress', dict(rows=0, written=0, left_out=dict.fromkeys(REASONS, 0))
    )
    if sum(len(list_images(manifest.out / part / kind)) for part in parts for kind in KINDS) < 2 * record['written']:
        # Files went missing since: go through all rows again; what is there is compared and kept.
        record.update(rows=0, written=0, left_out=dict.fromkeys(REASONS, 0))
    with progress_bar('cutting', len(jobs), 'rows of windows') as advance:
        advance(record['rows'])
        left = jobs[record['rows'] :]
        for result in map_jobs(cut_strip, left, max(min(workers, len(left)), 1)):
            record['rows'] += 1
            record['written'] += result.written
            for reason, count in result.left_out.items():
                record['left_out'][reason] += count
            manifest.save()
            advance(1)
    for part in parts:
        manifest.parts[part]['left_out'] = record['left_out']


def _unpack_shards(shards: Sequence[Path], target: Path, overwrite: bool) -> None:
    rows = [count_rows(shard) for shard in shards]
    for kind in KINDS:
        (target / kind).mkdir(parents=True, exist_ok=True)
    seen: dict[str, Path] = {}
    with progress_bar(f'{target.name}: unpacking', sum(rows), 'pairs') as advance:
        for shard in shards:
            for image_name, image, mask_name, mask in read_rows(shard):
                stem = Path(image_name).stem
                if stem in seen:
                    raise DataError(
                        f'{shard}: {image_name} is also in {seen[stem].name}; names must be unique in a part'
                    )
                seen[stem] = shard
                _write(target / 'images' / image_name, image, shard, overwrite)
                _write(target / 'masks' / mask_name, mask, shard, overwrite)
                advance(1)


def _write(path: Path, data: bytes, source: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        if path.read_bytes() == data:
            return
        raise DataError(
            f'{path}: is there with other content than in {source}; remove it, or --overwrite to replace it'
        )
    write_bytes(path, data)


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise DataError(f'{path}: no such folder')
    return path


def _find_archives(folder: Path, parts: Sequence[str] | None) -> dict[str, Path]:
    strange = sorted(set(parts or ()) - set(PARTS))
    if strange:
        raise ConfigError(f'parts {strange}: must be among {PARTS}')
    _folder(folder)
    there = {part: folder / f'{part}.zip' for part in PARTS if (folder / f'{part}.zip').is_file()}
    missing = [f'{part}.zip' for part in parts or () if part not in there]
    if missing or not there:
        names = ', '.join(missing or [f'{part}.zip' for part in PARTS])
        raise DataError(f'{folder}: lacks {names}; download the published archives of ARAS400k to this folder')
    return {part: there[part] for part in PARTS if part in (parts or there)}


def _stat(path: Path) -> list[int]:
    return [path.stat().st_size, path.stat().st_mtime_ns]


def _checked_md5(path: Path, entry: Mapping[str, Any] | None, verify: bool, expected: Mapping[str, str]) -> str:
    """MD5 sum of an archive; taken from the manifest where the file has not changed since it was summed."""
    known = entry is not None and entry['kind'] == 'archives' and entry.get('archive_stat') == _stat(path)
    found = entry['source']['md5'] if entry is not None and known else md5_of(path)
    if verify and found != expected[path.name]:
        raise DataError(
            f'{path}: MD5 sum {found}, the published one is {expected[path.name]}; download it again, '
            'or --no-verify to unpack it as it is'
        )
    return found


def _is_whole(manifest: Manifest, part: str) -> bool:
    """Whether an earlier run finished the part and all its files are still there."""
    entry = manifest.parts[part]
    folders = [manifest.out / part / kind for kind in KINDS]
    return bool(entry['complete']) and all(len(list_images(folder)) == entry['pairs'] for folder in folders)


def _finish(manifest: Manifest, part: str, workers: int) -> None:
    entry = manifest.parts[part]
    entry.update(describe(manifest.out / part, PALETTE, workers), complete=True)
    entry.pop('progress', None)
    manifest.save()


def _finished(manifest: Manifest) -> dict[str, dict]:
    return {part: entry for part, entry in manifest.parts.items() if entry['complete']}


def _split(args: argparse.Namespace) -> tuple[tuple[str, int], ...]:
    if args.split is None:
        return ((args.part, 1),)
    if min(args.split) < 0 or sum(args.split) == 0:
        raise ConfigError(f'--split {args.split}: three shares are due, none negative and not all 0, such as 80 10 10')
    return tuple(zip(('train', 'val', 'test'), args.split, strict=True))


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog='aras400k.py', description='Bring ARAS400k into OUT/PART/{images,masks}.')
    commands = parser.add_subparsers(dest='command', required=True)
    archives = commands.add_parser('archives', help='check and unpack train.zip, val.zip, test.zip and synth.zip')
    archives.add_argument('source', type=Path, metavar='ZIP_DIR', help='folder with the published archives')
    archives.add_argument('--no-verify', action='store_true', help='unpack archives of other MD5 sums too')
    shards = commands.add_parser('parquet', help='unpack parquet shards to folders')
    shards.add_argument('source', type=Path, metavar='SHARD_DIR', help='folder with the shards, at any depth')
    raw = commands.add_parser('raw', help='cut raw Sentinel-2 and WorldCover GeoTIFFs by the published rules')
    raw.add_argument('source', type=Path, metavar='RAW_DIR', help='folder with *_S2RGBNIR.tif and *_Map.tif')
    raw.add_argument('--window', type=int, default=aras400k.TILE_SIZE, help='side in pixels (default: %(default)s)')
    where = raw.add_mutually_exclusive_group()
    where.add_argument('--part', choices=PARTS, default='train', help='part to put all pairs in (default: train)')
    where.add_argument(
        '--split',
        type=int,
        nargs=3,
        metavar=('TRAIN', 'VAL', 'TEST'),
        help='shares of the parts, such as 80 10 10; the MD5 sum of its name decides the part of each window, '
        'so neighbouring windows may fall in different parts (to keep tiles apart, use --part on folders of tiles)',
    )
    for command in (archives, shards, raw):
        command.add_argument('out', type=Path, metavar='OUT', help='folder to write to')
        command.add_argument('--workers', type=int, metavar='N', help='number of processes (default: one for each CPU)')
        command.add_argument('--overwrite', action='store_true', help='replace parts and files of another source')
    for command in (archives, shards):
        command.add_argument('--parts', nargs='+', choices=PARTS, help='which parts (default: all that are there)')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    args = build_parser().parse_args(argv)
    common: dict[str, Any] = dict(overwrite=args.overwrite, workers=args.workers)
    if args.command == 'raw' and args.window < 1:
        raise ConfigError(f'--window {args.window}: at least 1 pixel is due')
    with only_run(args.out):
        if args.command == 'archives':
            made = from_archives(args.source, args.out, args.parts, not args.no_verify, **common)
        elif args.command == 'parquet':
            made = from_parquet(args.source, args.out, args.parts, **common)
        else:
            made = from_raw(args.source, args.out, Rules(window=args.window, split=_split(args)), **common)
            left_out = next(iter(made.values()))['left_out']
            print('windows left out: ' + ', '.join(f'{count:,} ({reason})' for reason, count in left_out.items()))
    print_table(str(args.out), PALETTE.classes, made)
    return 0


if __name__ == '__main__':
    sys.exit(run_main(main))
