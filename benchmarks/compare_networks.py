"""One table of trained and tested runs of different networks: size, cost, training time and scores.

    python benchmarks/compare_networks.py work_dirs/lale_s1 work_dirs/lrformer_t [--save NAME]

Reads the work dirs of tools/train.py and tools/test.py as tools/analysis/compare_runs.py does; runs that differ in
their seed only are also averaged, with their scores by class. The training time is the
time from the start of training to its last checkpoint, including data loading and validation. The milliseconds per step
are measured when this script runs, interleaved, on the CPU of this machine and with random images. One step is a
training step with the batch size and crop size of the config.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tools' / 'analysis'))
warnings.filterwarnings('ignore')

from compare_runs import differences, group_table, grouped  # noqa: E402
from complexity import complexity  # noqa: E402
from read_runs import MORE_SCORES, SCORES, Run, data_of, read_run  # noqa: E402

from benchmarks._memory import keep_freed_memory  # noqa: E402
from benchmarks._timing import interleaved_medians, table_text, write_result  # noqa: E402
from lale_mmseg.errors import ConfigError  # noqa: E402

LEGEND = (
    'ms per step: one training step with the batch and crop of the config, measured on the CPU of this machine. '
    'Seconds of training: from its start to its last checkpoint, with data loading and validations.'
)


def training_seconds(work_dir: Path) -> float:
    """Seconds from the start of training, read from the name of its log folder, to the last checkpoint."""
    checkpoint = (work_dir / 'last_checkpoint').read_text(encoding='utf-8').strip()
    started = min(path.name for path in work_dir.glob('[0-9]*_[0-9]*'))
    begin = datetime.strptime(started, '%Y%m%d_%H%M%S').timestamp()
    return (work_dir / Path(checkpoint).name).stat().st_mtime - begin


def score_table(runs: list[Run]) -> tuple[list[str], dict[str, list[str]]]:
    """Names of the test scores, and the cells of each run.

    Raises:
        ConfigError: The runs were scored on different data or by different rules.
    """
    found = differences({run.label: data_of(run, 'test') for run in runs})
    if found:
        raise ConfigError(f'the tests of these runs are not comparable: {found}')
    names = [name for name in SCORES + MORE_SCORES if any(f'test {name}' in run.row for run in runs)]
    values = {run.label: [run.row.get(f'test {name}') for name in names] for run in runs}
    return names, {label: ['-' if value is None else f'{value:.2f}' for value in row] for label, row in values.items()}


def seed_table(runs: list[Run]) -> tuple[str, dict[str, Any]]:
    """Mean and standard deviation of the test scores of each network with several seeds, with the IoU of each class."""
    groups, notes = grouped(runs)
    groups = {name: members for name, members in groups.items() if len(members) > 1}
    if not groups:
        return '', {}
    table = group_table(groups, notes)
    columns = [column for column in table.columns.get_level_values(0).unique() if column.startswith('test ')]
    header = ('mean ± standard deviation', 'seeds', *(column.removeprefix('test ') for column in columns))
    rows, values = [], {}
    for name, members in groups.items():
        scores = {column: (table.loc[name, (column, 'mean')], table.loc[name, (column, 'std')]) for column in columns}
        seeds = [run.row['seed'] for run in members]
        rows.append((name, ' '.join(map(str, seeds)), *(f'{mean:.2f} ± {std:.2f}' for mean, std in scores.values())))
        values[name] = dict(seeds=seeds, **scores)
    return table_text(header, rows), values


class _Bare:
    """The part of a runner that is needed to build an optimizer."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model


def training_step(cfg: Config, model: nn.Module) -> Callable[[], Any]:
    """A function that trains one step on a random batch."""
    batch, (height, width) = cfg.train_dataloader.batch_size, cfg.model.data_preprocessor.size
    samples = []
    for _ in range(batch):
        sample = SegDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width)))
        sample.gt_sem_seg = PixelData(data=torch.randint(0, model.num_classes, (1, height, width)))
        sample.gt_edge_map = PixelData(data=torch.randint(0, 2, (1, height, width)))  # for heads that learn edges
        samples.append(sample)
    data = dict(inputs=[torch.randint(0, 256, (3, height, width), dtype=torch.uint8)] * batch, data_samples=samples)
    wrapper = Runner.build_optim_wrapper(_Bare(model), cfg.optim_wrapper)
    return lambda: model.train_step(data, wrapper)


def main() -> None:
    """Measures, prints and, with --save, writes benchmarks/results/NAME.*"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work_dirs', nargs='+', type=Path)
    parser.add_argument('--repeats', type=int, default=5, help='timed training steps per network; 0: no times')
    parser.add_argument('--note', default='', help='text to store with the result, such as the commands of the runs')
    parser.add_argument('--save', metavar='NAME', help='write benchmarks/results/NAME.json and NAME.md')
    args = parser.parse_args()
    keep_freed_memory()
    init_default_scope('mmseg')

    trained = [read_run(work_dir) for work_dir in args.work_dirs]
    columns, cells = score_table(trained)
    runs: dict[str, dict[str, Any]] = {}
    steps: dict[str, Callable[[], Any]] = {}
    for run in trained:
        cfg = Config(run.config)
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
        figures = complexity(model.eval(), tuple(cfg.model.data_preprocessor.size), 3)
        model.requires_grad_(True).train().to(memory_format=torch.channels_last)
        runs[run.label] = dict(
            parameters=figures['parameters'],
            gmacs=figures['gmacs'],
            training_seconds=training_seconds(run.folder),
            **{name: value for name, value in run.row.items() if name.startswith('test ')},
        )
        steps[run.label] = training_step(cfg, model)
    for name, seconds in (interleaved_medians(steps, args.repeats, warmup=1) if args.repeats else {}).items():
        runs[name]['step_seconds'] = seconds

    rows = [
        (
            name,
            f'{run["parameters"]:,}',
            f'{run["gmacs"]:.3f}',
            f'{run["step_seconds"] * 1e3:.0f}' if 'step_seconds' in run else '-',
            f'{run["training_seconds"]:.0f}',
            *cells[name],
        )
        for name, run in runs.items()
    ]
    header = ('run', 'parameters', 'GMACs', 'ms per step (CPU)', 'seconds of training (with validation)', *columns)
    averages, groups = seed_table(trained)
    notes = [f'{run.label}: {note}' for run in trained for note in run.notes]
    parts = [table_text(header, rows), averages, LEGEND, '\n'.join(notes), args.note]
    text = '\n\n'.join(part for part in parts if part)
    print(text)
    if args.save:
        for path in write_result(args.save, dict(runs=runs, groups=groups, note=args.note), text):
            print(f'written: {path.name}')


if __name__ == '__main__':
    main()
