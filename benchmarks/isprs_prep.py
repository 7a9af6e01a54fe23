"""Time, peak memory and disk space of data_prep/isprs.py, with one thread and with several.

    python benchmarks/isprs_prep.py [--threads 1 2] [--repeats 3] [--save]

Prepares two synthetic Potsdam tiles of full size, with full and eroded labels, in archives inside an archive, as the
ISPRS distributes them. Each run is a separate process that starts with an empty folder. Runs alternate between the
numbers of threads, and the results are medians. Time is measured for the whole process, and memory is the peak of its
resident set. The images are noisy and the labels are blocks, so real tiles need a different amount of disk space.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rasterio.errors import NotGeoreferencedWarning

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._timing import REPOSITORY, table_text, write_result
from lale_mmseg.metainfo import isprs
from tests.isprs_tiles import make_potsdam

#: Runs the command line, then prints the peak of the resident set on a separate line. The process reads its own peak,
#: because the peak that the parent gets for a child includes the memory of the parent, which the child had before exec.
_CHILD = """
import json, sys
from pathlib import Path
from data_prep.isprs import main
status = main(sys.argv[1:])
lines = Path('/proc/self/status').read_text().splitlines()
print(json.dumps(int(next(line for line in lines if line.startswith('VmHWM:')).split()[1]) / 2**10))
sys.exit(status)
"""


def measure(source: Path, out: Path, threads: int, args: argparse.Namespace) -> dict[str, float]:
    """Seconds, peak memory in MiB and MiB on disk of one run. Removes its output."""
    options = ['--size', args.size, '--stride', args.stride, '--workers', threads]
    command = [sys.executable, '-c', _CHILD, 'potsdam', source, out, *options]
    start = time.perf_counter()
    done = subprocess.run([str(word) for word in command], cwd=REPOSITORY, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        raise RuntimeError(f'data_prep/isprs.py ended with {done.returncode}:\n{done.stderr[-2000:]}')
    found = dict(seconds=seconds, peak=json.loads(done.stdout.splitlines()[-1]), windows=0.0, whole=0.0)
    for path in sorted(out.rglob('*'), reverse=True):
        if path.is_dir():
            path.rmdir()
            continue
        top = path.relative_to(out).parts[0]
        if top in ('windows', 'tiles'):
            found['windows' if top == 'windows' else 'whole'] += path.stat().st_size / 2**20
        path.unlink()
    out.rmdir()
    return found


def collect(args: argparse.Namespace) -> dict[str, Any]:
    """All runs, and the medians for each number of threads."""
    runs: dict[str, list[dict[str, float]]] = {str(threads): [] for threads in args.threads}
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', NotGeoreferencedWarning)  # labels are not georeferenced
            source = make_potsdam(folder / 'source', isprs.TILES['potsdam'][: args.tiles], args.side)
        for turn in range(args.repeats):
            for threads in args.threads:
                runs[str(threads)].append(measure(source, folder / 'out', threads, args))
                print(f'run {turn + 1}, {threads} thread(s): done', file=sys.stderr, flush=True)
    medians = {
        threads: {key: statistics.median(run[key] for run in of_count) for key in of_count[0]}
        for threads, of_count in runs.items()
    }
    return dict(runs=runs, medians=medians)


def report(medians: Mapping[str, Mapping[str, float]], args: argparse.Namespace) -> str:
    """A table of medians."""
    header = ('threads', 's', 's a tile', 'peak MiB', 'windows, MiB a tile', 'whole, MiB a tile')
    rows = [
        (
            threads,
            f'{values["seconds"]:.1f}',
            f'{values["seconds"] / args.tiles:.1f}',
            f'{values["peak"]:.0f}',
            f'{values["windows"] / args.tiles:.1f}',
            f'{values["whole"] / args.tiles:.1f}',
        )
        for threads, values in medians.items()
    ]
    lines = [
        f'{args.tiles} synthetic tile(s) of {args.side}x{args.side} pixels with full and eroded labels, in archives '
        f'inside an archive; windows of {args.size} every {args.stride} pixels; medians of {args.repeats} run(s), each '
        'a separate process. Time and memory are those of the whole process.',
        '',
        table_text(header, rows),
    ]
    return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints and, with --save, writes benchmarks/results/isprs_prep_cpu.*"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--tiles', type=int, default=2, help='number of tiles')
    parser.add_argument('--side', type=int, default=isprs.POTSDAM_TILE_SIZE, help='side of the tiles in pixels')
    parser.add_argument('--size', type=int, default=512, help='side of the windows')
    parser.add_argument('--stride', type=int, default=256, help='step between windows')
    parser.add_argument('--threads', type=int, nargs='+', default=[1, 2], help='numbers of threads to compare')
    parser.add_argument('--repeats', type=int, default=3, help='runs per number of threads')
    parser.add_argument('--folder', type=Path, help='temporary folder for source and output (default: /tmp)')
    parser.add_argument('--save', action='store_true', help='write benchmarks/results/isprs_prep_cpu.json and .md')
    args = parser.parse_args(argv)
    if min(args.threads) < 1 or max(args.threads) > args.tiles:
        parser.error(f'--threads {" ".join(map(str, args.threads))}: expected 1 to --tiles {args.tiles}')
    found = collect(args)
    text = report(found['medians'], args)
    print(text)
    if args.save:
        settings = {key: getattr(args, key) for key in ('tiles', 'side', 'size', 'stride', 'threads', 'repeats')}
        for path in write_result('isprs_prep_cpu', dict(found, settings=settings), text):
            print(f'written: {path.name}')


if __name__ == '__main__':
    main()
