"""How much is a labelled tile worth? `python tools/analysis/data_budget.py CONFIG --tiles 5 12 24 --work-dir DIR`.

Trains a config on a growing number of its training tiles, with several seeds each, and draws the best validation score
against the number of tiles. The test split is not read. The same command continues a study that was interrupted.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from mmengine.config import Config
from mmseg.registry import DATASETS
from read_runs import read_run

from lale_mmseg.cli.common import add_common_options, load_config, run_command
from lale_mmseg.engine.config import complete_config, leaf_datasets
from lale_mmseg.engine.provenance import config_hash
from lale_mmseg.errors import ConfigError
from lale_mmseg.evaluation.run_plots import plot_budget
from lale_mmseg.files import write_atomic

TRAIN = Path(__file__).resolve().parents[1] / 'train.py'
#: Written into the work dir of a run after its training ended well: the hash of its config.
FINISHED = 'budget_finished'


@dataclass(frozen=True)
class BudgetRun:
    """One run: number of tiles, seed of their choice and of the training, their names, config and work dir."""

    count: int
    seed: int
    tiles: list[str]
    config: Path
    folder: Path

    def is_finished(self, digest: str) -> bool:
        """Whether it was trained to its end; ConfigError if that was with another config."""
        marker = self.folder / FINISHED
        if marker.is_file() and marker.read_text() != digest:
            raise ConfigError(f'{self.folder}: trained with another config or other overrides; take another --work-dir')
        return marker.is_file()


def samples_by_tile(cfg: Config) -> tuple[str, dict[str, list[int]]]:
    """Path of the training dataset in the config, and the numbers of its samples by tile.

    Samples belong to one tile if the dataset's `tile_pattern` finds the same tile in their names; without a pattern
    every image is a tile.

    Raises:
        ConfigError: There is not exactly one training dataset, or its `indices` are set already.
    """
    leaves = list(leaf_datasets(complete_config(cfg), 'train'))
    if len(leaves) != 1 or leaves[0][1].get('indices') is not None or '.datasets.' in leaves[0][0]:
        raise ConfigError(
            f'train_dataloader has the datasets {", ".join(path for path, _ in leaves)}; a study of the number of '
            'tiles needs a single one, without indices'
        )
    path, config = leaves[0]
    dataset = DATASETS.build({**config, 'pipeline': [], 'lazy_init': False})
    pattern = dataset.metainfo.get('tile_pattern', '(?P<tile>.*)')
    tiles: dict[str, list[int]] = {}
    for index in range(len(dataset)):
        match = re.fullmatch(pattern, Path(dataset.get_data_info(index)['img_path']).stem)
        assert match is not None, f'{dataset.get_data_info(index)["img_path"]} does not match {pattern!r}'
        tiles.setdefault(match['tile'], []).append(index)
    return path, tiles


def plan(cfg: Config, args: argparse.Namespace) -> list[BudgetRun]:
    """Writes the config of every run, a child of the study's config; larger sets of one seed contain the smaller ones.

    Raises:
        ConfigError: The training set has fewer tiles than asked for.
    """
    path, tiles = samples_by_tile(cfg)
    names = list(tiles)
    if not 1 <= min(args.tiles) <= max(args.tiles) <= len(names):
        raise ConfigError(f'--tiles {" ".join(map(str, args.tiles))}: the training set has {len(names)} tiles')
    runs = []
    for count in sorted(set(args.tiles)):
        for seed in sorted(set(args.seeds)):
            chosen = sorted(np.random.default_rng(seed).permutation(len(names))[:count])
            own = [names[place] for place in chosen]
            fields: object = dict(indices=[index for name in own for index in tiles[name]])
            field, *inner = path.split('.')
            for key in reversed(inner):
                fields = {key: fields}
            name = f'tiles-{count:02d}_seed-{seed}'
            child = args.work_dir / 'configs' / f'{name}.py'
            write_atomic(child, f'_base_ = {str(Path(args.config).resolve())!r}\n{field} = {fields!r}\n')
            runs.append(BudgetRun(count, seed, own, child, args.work_dir / name))
    return runs


def train(run: BudgetRun, args: argparse.Namespace, digest: str, running: set[subprocess.Popen]) -> str | None:
    """Trains one run, from its newest checkpoint if there is one; returns what went wrong."""
    if run.is_finished(digest):
        return None
    options = ['--cfg-options', *args.overrides] if args.overrides else []
    options = ['--random-init', *options] if args.random_init else options
    command = [sys.executable, TRAIN, run.config, '--work-dir', run.folder, '--seed', run.seed, '--resume', *options]
    run.folder.mkdir(parents=True, exist_ok=True)
    log = run.folder / 'budget.log'
    print(f'{run.folder.name}: training, log in {log}', flush=True)
    with log.open('ab') as file:
        process = subprocess.Popen([str(word) for word in command], stdout=file, stderr=subprocess.STDOUT)
        running.add(process)
        status = process.wait()
    if status != 0:
        end = '\n'.join(log.read_text(errors='replace').splitlines()[-12:])
        return f'{run.folder.name}: training ended with status {status}; all of its log: {log}\n{end}'
    write_atomic(run.folder / FINISHED, digest)
    return None


def write_results(runs: list[BudgetRun], args: argparse.Namespace) -> None:
    """Prints the table of finished runs and writes data_budget.csv, .json and .png."""
    found = [read_run(run.folder) for run in runs]
    table = pd.DataFrame([dict(tiles=run.count, seed=run.seed) for run in runs])
    table['score'] = [run.row[f'val {run.monitor}'] for run in found]
    table['best'] = [run.row['best'] for run in found]
    table['trained'] = [run.row['trained'] for run in found]
    table['tile_names'] = [' '.join(run.tiles) for run in runs]
    averaged = found[0].metrics['val']['score_classes'] if 'val' in found[0].metrics else ['all classes']
    name = 'IoU' if found[0].monitor == 'mIoU' and len(averaged) == 1 else found[0].monitor
    score = f'{name} of {", ".join(averaged)}'
    summary = table.groupby('tiles')['score'].agg(['count', 'mean', 'std', 'min', 'max'])
    print(f'best validation {score}, percent\n{summary.round(2).to_string()}')
    write_atomic(args.work_dir / 'data_budget.csv', table.to_csv(index=False))
    content = dict(config=args.config, overrides=args.overrides, random_init=args.random_init, score=score)
    content |= dict(
        summary=json.loads(summary.reset_index().to_json(orient='records')),
        runs=json.loads(table.to_json(orient='records')),
    )
    write_atomic(args.work_dir / 'data_budget.json', json.dumps(content, indent=1) + '\n')
    title = f'Score by number of training tiles\n{Path(args.config).stem}'
    plot_budget(table, args.work_dir / 'data_budget.png', title, score)
    print(f'written: {args.work_dir}/data_budget.csv, .json, .png')


def parse_args() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description='Trains a config on growing numbers of tiles, several seeds each.')
    parser.add_argument('config', help='config file')
    parser.add_argument('--tiles', nargs='+', type=int, required=True, metavar='N', help='numbers of training tiles')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], metavar='SEED', help='default: 0 1 2')
    parser.add_argument('--work-dir', required=True, type=Path, metavar='DIR', help='folder for runs and results')
    parser.add_argument('--random-init', action='store_true', help='start from random weights; see tools/train.py')
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='runs at the same time (default: 1)')
    parser.add_argument(
        '--cfg-options',
        dest='overrides',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='overrides for all runs; see tools/train.py',
    )
    return parser.parse_args()


def read_config(args: argparse.Namespace) -> Config:
    """The config with its overrides."""
    parser = argparse.ArgumentParser()
    add_common_options(parser)
    common = parser.parse_args(['--cfg-options', *args.overrides] if args.overrides else [])
    common.config = args.config
    return load_config(common)


def main() -> int:
    """Trains the runs that are not finished, then shows the results."""
    args = parse_args()
    cfg = read_config(args)
    runs = plan(cfg, args)
    digest = config_hash(cfg) + (' random' if args.random_init else '')
    running: set[subprocess.Popen] = set()
    try:
        with FileLock(args.work_dir / '.lock', timeout=0), ThreadPoolExecutor(args.jobs) as pool:
            try:
                errors = [error for error in pool.map(lambda run: train(run, args, digest, running), runs) if error]
            except KeyboardInterrupt:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in running:
                    process.terminate()
                raise
    except Timeout:
        raise ConfigError(f'{args.work_dir}: another process runs this study; wait for it') from None
    finished = [run for run in runs if run.is_finished(digest)]
    if finished:
        write_results(finished, args)
    for error in errors:
        print(f'error: {error}', file=sys.stderr)
    return 1 if errors else 0


if __name__ == '__main__':
    # SIGTERM ends the runs, too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run_command(main)
