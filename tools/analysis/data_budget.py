"""How much is a labelled tile worth? `python tools/analysis/data_budget.py CONFIG --tiles 5 12 24 --seeds 0 1 2`.

Trains a config on a growing number of its training tiles, several seeds each, and draws the best validation IoU
against the number of tiles. The test split is never read.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import _cli
from _budget import (
    RECORD,
    Run,
    check_folder,
    config_digest,
    identity,
    plan,
    result_of,
    score_name,
    summarize,
    training_set,
    write_config,
    write_record,
)
from _recipes import hooks_of
from _runs import DIAGNOSTICS
from lale_mmseg.locks import lock
from mmengine.config import Config
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import lale_mmseg.register  # noqa: F401
from lale_mmseg.errors import ConfigError, InputError
from lale_mmseg.evaluation.attempt_plots import plot_budget
from lale_mmseg.files import write_atomic

TRAIN = Path(__file__).resolve().parents[1] / 'train.py'
LOG = 'budget.log'
#: Seconds between two looks at the running trainings.
_POLL = 1.0
_LAST_LINES = 12


class Training:
    """A training in a process of its own; its output goes into `budget.log` of the work dir.

    Raises:
        InputError: One that outlived an earlier run of this tool, or that of another, still goes on there.
    """

    def __init__(self, run: Run, command: Sequence[str], of: dict[str, Any], before: float) -> None:
        self.run = run
        self.of = of
        self._before = before
        self._start = time.monotonic()
        run.folder.mkdir(parents=True, exist_ok=True)
        if not (run.folder / RECORD).is_file():
            write_record(run, of, before, finished=False)
        self._log: IO[bytes] = (run.folder / LOG).open('ab')
        self._lock()
        self.process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)

    def _lock(self) -> None:
        """Locks the log: the training, whose output it is, holds the lock as long as it lives, whatever ends this."""
        if not lock(self._log.fileno(), wait=False):
            self._log.close()
            raise InputError(
                f'{self.run.folder}: another training goes on there (it holds {LOG}); wait until it ends, or end it, '
                'then run the same command'
            )

    def epochs(self) -> int:
        """Epochs that are done, for the progress."""
        with contextlib.suppress(OSError):
            return len((self.run.folder / DIAGNOSTICS).read_bytes().splitlines())
        return 0

    def stop(self) -> None:
        """Waits for the terminated process to end; what it trained up to its last checkpoint stays."""
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._note(finished=False)

    def conclude(self) -> None:
        """Notes how it ended: `result` or `error` of the run."""
        result = None
        if self.process.returncode != 0:
            self.run.error = f'training ended with status {self.process.returncode}\n{end_of(self.run.folder / LOG)}'
        else:
            try:
                result = result_of(self.run)
            except InputError as error:
                self.run.error = str(error)
        seconds = self._note(finished=result is not None)
        if result is not None:
            self.run.result = {**result, 'seconds': seconds}

    def _note(self, finished: bool) -> float:
        """Writes the record of the run; returns the seconds that its trainings took so far."""
        seconds = self._before + time.monotonic() - self._start
        write_record(self.run, self.of, seconds, finished)
        self._log.close()
        return seconds


def parse_args() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description='Trains a config on growing numbers of tiles, several seeds each.')
    parser.add_argument('config', help='config file')
    parser.add_argument('--tiles', nargs='+', type=int, required=True, metavar='N', help='numbers of training tiles')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], metavar='SEED', help='default: 0 1 2')
    parser.add_argument('--work-dir', required=True, metavar='DIR', help='folder for the runs, the table and the chart')
    parser.add_argument('--random-init', action='store_true', help='start from random weights; as of tools/train.py')
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='trainings at the same time (default: 1)')
    parser.add_argument(
        '--cfg-options',
        dest='overrides',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='of all trainings; as of tools/train.py',
    )
    return parser.parse_args()


def read_config(args: argparse.Namespace) -> Config:
    """The config with its overrides."""
    parser = argparse.ArgumentParser()
    _cli.add_common_options(parser)
    common = parser.parse_args(['--cfg-options', *args.overrides] if args.overrides else [])
    common.config = args.config
    return _cli.load_config(common)


def check_config(cfg: Config) -> None:
    """Raises ConfigError where a run of the config would leave no result."""
    if not any(str(hook.get('type')).endswith('EpochDiagnosticsHook') for hook in hooks_of(cfg.to_dict())):
        raise ConfigError(
            'default_hooks has no EpochDiagnosticsHook, which writes the scores of each epoch; add '
            "default_hooks = dict(diagnostics=dict(type='EpochDiagnosticsHook'))"
        )
    if not cfg.get('val_dataloader'):
        raise ConfigError('the config has no val_dataloader; the study compares the IoU of the validation')


def command_of(run: Run, config: Path, args: argparse.Namespace) -> list[str]:
    """The training of a run; it goes on from its newest checkpoint if there is one."""
    options = ['--cfg-options', *args.overrides] if args.overrides else []
    if args.random_init:
        options = ['--random-init', *options]
    words = [TRAIN, config, '--work-dir', run.folder, '--seed', run.seed, '--resume', 'auto', *options]
    return [sys.executable, *map(str, words)]


def carry_out(todo: Sequence[tuple[Run, Path, dict, float]], args: argparse.Namespace, epochs: int | None) -> None:
    """Trains the runs, some at a time; one that fails does not stop the others.

    Args:
        todo: Runs, with the config, the identity and the seconds before of each.
        args: Of the command line.
        epochs: Of a whole training, for the progress; None where it is counted otherwise.
    """
    share = epochs or 1
    waiting = [*todo]
    trainings: list[Training] = []
    finished = 0
    with progress_bar(len(todo) * share) as advance_to:
        try:
            while waiting or trainings:
                while waiting and len(trainings) < args.jobs:
                    run, config, of, before = waiting.pop(0)
                    try:
                        trainings.append(Training(run, command_of(run, config, args), of, before))
                    except InputError as error:
                        run.error = str(error)
                        finished += 1
                        report(run)
                for training in [*trainings]:
                    if training.process.poll() is not None:
                        training.conclude()
                        trainings.remove(training)
                        finished += 1
                        report(training.run)
                done = sum(min(training.epochs(), share) for training in trainings) if epochs else 0
                names = ', '.join(training.run.name for training in trainings)
                advance_to(finished * share + done, names)
                if trainings:
                    time.sleep(_POLL)
        finally:
            for training in trainings:  # all at once, also where waiting for one is interrupted
                training.process.terminate()
            for training in trainings:
                training.stop()


def report(run: Run) -> None:
    """One line about a run that ended, or why it failed."""
    if run.result is not None:
        epochs = f'{run.result["best_epoch"]} of {run.result["epochs"]}'
        print(f'{run.name}: {score_name([run])} {run.result["IoU"]:.2f} at epoch {epochs}')
    else:
        print(f'error: {run.name}: {run.error}', file=sys.stderr)


def end_of(path: Path) -> str:
    """The last lines of a log."""
    lines = path.read_text(encoding='utf-8', errors='replace').rstrip().splitlines()
    return '\n'.join([f'  {line}' for line in lines[-_LAST_LINES:]] + [f'  all of it: {path}'])


def table_of(rows: Sequence[dict[str, Any]], score: str) -> Table:
    """Mean and spread by number of tiles."""
    table = Table(title=f'best validation {score}, percent', title_justify='left', box=None, pad_edge=False)
    for column in ('tiles', 'runs', 'mean', 'std (n - 1)', 'lowest', 'highest', 'best epoch'):
        table.add_column(column, justify='right')
    for row in rows:
        values = [row['mean'], row['std'], row['min'], row['max']]
        scores = ['-' if value is None else f'{value:.2f}' for value in values]
        table.add_row(str(row['tiles']), str(row['runs']), *scores, f'{row["best_epoch"]:.1f}')
    return table


def write_results(args: argparse.Namespace, runs: Sequence[Run], of: dict[str, Any], files: Path) -> None:
    """Writes data_budget.json, .csv and .png."""
    rows, score = summarize(runs), score_name(runs)
    listed = [
        dict(
            name=run.name,
            tiles=run.count,
            seed=run.seed,
            **(run.result or dict(IoU=None, best_epoch=None, epochs=None, seconds=None)),
            error=run.error.splitlines()[0] if run.error else None,
            tile_names=run.tiles,
        )
        for run in runs
    ]
    content = dict(
        config=args.config,
        overrides=args.overrides,
        random_init=args.random_init,
        config_digest=config_digest(of),
        score=f'best validation {score}, percent',
        summary=rows,
        runs=listed,
    )
    write_atomic(files / 'data_budget.json', json.dumps(content, indent=1, allow_nan=False) + '\n')
    text = io.StringIO()
    writer = csv.DictWriter(text, [*listed[0]], lineterminator='\n')
    writer.writeheader()
    writer.writerows({**row, 'tile_names': ' '.join(row['tile_names'])} for row in listed)
    write_atomic(files / 'data_budget.csv', text.getvalue())
    written = ['data_budget.json', 'data_budget.csv']
    if rows:
        points: dict[int, dict[int, float]] = {}
        for run in runs:
            if run.result is not None:
                points.setdefault(run.count, {})[run.seed] = run.result['IoU']
        title = f'Score by number of training tiles\n{Path(args.config).stem}'
        plot_budget(points, files / 'data_budget.png', title, score)
        written.append('data_budget.png')
    print('written: ' + ', '.join(str(files / name) for name in written))


def main() -> int:
    """Plans, trains what is not finished, and shows what came of it."""
    args = parse_args()
    if args.jobs < 1:
        raise InputError(f'--jobs {args.jobs}: 1 or more is due')
    cfg = read_config(args)
    check_config(cfg)
    training = training_set(cfg)
    files = Path(args.work_dir)
    runs = plan(training, args.tiles, args.seeds, files)
    todo = []
    for run in runs:
        of = identity(cfg, run, args.random_init)
        record = check_folder(run, of)
        if record is not None and record['finished']:
            run.result = {**result_of(run), 'seconds': record['seconds']}
            continue
        todo.append((run, record, of))
    print(f'{len(runs)} runs, {len(runs) - len(todo)} finished before')
    prepared = [
        (run, write_config(run, Path(args.config), training.path), of, record['seconds'] if record else 0.0)
        for run, record, of in todo
    ]
    carry_out(prepared, args, (cfg.get('train_cfg') or {}).get('max_epochs'))
    Console(width=100, highlight=False).print(table_of(summarize(runs), score_name(runs)))
    write_results(args, runs, identity(cfg, runs[0], args.random_init), files)
    failed = [run for run in runs if run.error is not None]
    for run in failed:
        print(f'error: {run.name}: no result; the same command tries it again', file=sys.stderr)
    return 1 if failed else 0


@contextlib.contextmanager
def progress_bar(total: int) -> Iterator[Any]:
    """Shows a bar with the time left on standard error."""
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task('training', total=total)
        yield lambda done, name: progress.update(task, completed=done, description=name or 'training')


if __name__ == '__main__':
    # As by Ctrl-C: the trainings are ended, too, and noted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _cli.run(main)
