"""Attempts of configs/buildings on one class of palette data, trained, tested and compared in one run.

    python benchmarks/attempts.py DATA_ROOT --epochs 5 --attempts unet_c32 lale_s1 --seeds 0 1 2 --save NAME

trains the config `ATTEMPT_..._inria-few-shot-1024x1024.py` of each attempt by tools/train.py, with palette data in
place of Inria's, 400 draws an epoch, with each seed, tests the best checkpoints on validation once by tools/test.py,
and compares all of them by tools/analysis/compare_attempts.py. Finished attempts in the same work dir are kept, an
interrupted one is resumed; one of another command is an error. The folder of results gets NAME.md, NAME.json and
NAME_convergence.png; pictures of predictions contain the images and stay in the work dir.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._timing import REPOSITORY, RESULTS, write_result
from lale_mmseg.errors import ConfigError
from lale_mmseg.files import write_atomic

CONFIGS = REPOSITORY / 'configs' / 'buildings'
IDENTITY = 'attempt.json'


def config_of(attempt: str, work_dir: Path) -> Path:
    """Writes the config of an attempt with palette data in place of Inria's, and returns its path.

    Raises:
        ConfigError: There is no such attempt; names the known ones.
    """
    found = {path.stem.partition('_1xb')[0]: path for path in sorted(CONFIGS.glob('*_inria-few-shot-*.py'))}
    if attempt not in found:
        raise ConfigError(f'--attempts {attempt}: unknown attempt; expected one of {", ".join(found)}')
    text = found[attempt].read_text(encoding='utf-8').replace("'../_base_", f"'{CONFIGS.parent}/_base_")
    path = work_dir.resolve() / 'configs' / f'{attempt}_palette-building.py'
    write_atomic(path, text.replace('inria_few_shot', 'palette_building'))
    return path


def run(*command: object) -> None:
    """Runs a tool of this repository with this interpreter."""
    subprocess.run([sys.executable, *(str(part) for part in command)], cwd=REPOSITORY, check=True)


def claim(work_dir: Path, identity: dict[str, Any]) -> None:
    """Notes in an empty work dir what is trained there.

    Raises:
        ConfigError: The work dir is of something else.
    """
    path = work_dir / IDENTITY
    if not work_dir.is_dir() or {*work_dir.iterdir()} <= {path}:
        write_atomic(path, json.dumps(identity, indent=1) + '\n')
        return
    before = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}
    changed = [key for key in identity if key not in before or before[key] != identity[key]]
    if changed:
        shown = '; '.join(f'{key} {before.get(key, "unknown")!r}, now {identity[key]!r}' for key in changed)
        raise ConfigError(f'{work_dir}: was made with another command ({shown}); take another --work-dir')


def train_and_test(attempt: str, seed: int, args: argparse.Namespace) -> Path:
    """Trains and tests an attempt unless it was; returns its work dir."""
    config, work_dir = config_of(attempt, args.work_dir), folder_of(attempt, seed, args)
    options = ['--work-dir', work_dir, '--cfg-options', f'data_root={args.data_root.resolve()}', *args.options]
    of_training = ['--resume', '--seed', seed, *(['--random-init'] if args.random_init else [])]
    if (work_dir / 'test' / 'metrics.json').is_file():
        return work_dir
    run('tools/train.py', config, *of_training, *options, f'train_cfg.max_epochs={args.epochs}')
    best = sorted(work_dir.glob('best_mIoU_epoch_*.pth'), key=lambda path: path.stat().st_mtime)[-1]
    run('tools/test.py', config, best, *options)
    return work_dir


def folder_of(attempt: str, seed: int, args: argparse.Namespace) -> Path:
    """The work dir of an attempt."""
    return args.work_dir.resolve() / f'{attempt}_seed-{seed}'


def main() -> None:
    """Trains, tests, compares, and writes the results."""
    parser = argparse.ArgumentParser(description='Trains, tests and compares attempts on one class of palette data.')
    parser.add_argument('data_root', type=Path)
    parser.add_argument('--attempts', nargs='+', default=['unet_c32', 'lale_s1', 'ued-bes-sfm_x10'])
    parser.add_argument('--epochs', type=int, default=5)
    parser.add_argument('--seeds', nargs='+', type=int, default=[42])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/attempts'))
    parser.add_argument('--random-init', action='store_true', help='as of tools/train.py')
    parser.add_argument('--options', nargs='+', default=[], metavar='KEY=VALUE', help='further --cfg-options')
    parser.add_argument('--save', metavar='NAME', help='write benchmarks/results/NAME.*')
    args = parser.parse_args()
    wanted = [(attempt, seed) for seed in args.seeds for attempt in args.attempts]
    same = dict(epochs=args.epochs, options=args.options, random_init=args.random_init)
    for attempt, seed in wanted:
        config = config_of(attempt, args.work_dir).name
        identity = dict(config=config, seed=seed, data_root=str(args.data_root.resolve()), **same)
        claim(folder_of(attempt, seed, args), identity)
    folders = [train_and_test(attempt, seed, args) for attempt, seed in wanted]
    out = args.work_dir.resolve() / 'compared'
    run('tools/analysis/compare_attempts.py', *folders, '--out', out)
    if args.save:
        table = (out / 'attempts.md').read_text(encoding='utf-8')
        text = f'{table}\n![Validation IoU by epoch]({args.save}_convergence.png)\n\nThreads: {_threads()}.'
        values = json.loads((out / 'attempts.json').read_text(encoding='utf-8'))
        for attempt in values['attempts']:
            del attempt['work_dir']  # a path of this machine
        write_result(args.save, values, text)
        shutil.copyfile(out / 'convergence.png', RESULTS / f'{args.save}_convergence.png')


def _threads() -> str:
    return f'OMP_NUM_THREADS={os.environ["OMP_NUM_THREADS"]}' if 'OMP_NUM_THREADS' in os.environ else 'as torch sets'


if __name__ == '__main__':
    main()
