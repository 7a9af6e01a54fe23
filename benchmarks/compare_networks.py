"""One table over trained and tested runs of different networks: size, cost, speed of training, scores.

    python benchmarks/compare_networks.py work_dirs/lale_s1 work_dirs/lrformer_t [--save NAME]

reads the config, the last checkpoint and test/metrics.json of each work dir, as tools/train.py and tools/test.py write
them. The seconds of training are those of the run as it was, from its start to its last checkpoint: validations before
that checkpoint and reading data are in them. The milliseconds of a step are measured now, in turns, on the CPU of this
machine and on made-up images: one step of training of the config's batch and crop.
"""

from __future__ import annotations

import argparse
import json
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

from complexity import complexity  # noqa: E402

from benchmarks._memory import keep_freed_memory  # noqa: E402
from benchmarks._timing import interleaved_medians, table_text, write_result  # noqa: E402
from lale_mmseg.errors import ConfigError  # noqa: E402

SCORES = ('mIoU', 'mF1', 'OA')
#: Shown next to mIoU for the runs that were tested with a boundary tolerance.
BOUNDARY_SCORES = ('mBF1', 'mBIoU')
#: What stands below the table.
LEGEND = (
    "ms a step: one training step of the config's batch and crop, measured on the CPU of this machine. seconds of "
    'training: of the run as it was, from its start to its last checkpoint, reading data and the validations before '
    'that checkpoint included.'
)


def config_of(work_dir: Path) -> Path:
    """The config in a work dir; of several that of the last run, which keeps a copy in its log folder.

    Raises:
        ConfigError: There is none, or not one that is that of the last run.
    """
    configs = sorted(work_dir.glob('*.py'))
    if len(configs) == 1:
        return configs[0]
    copies = sorted(work_dir.glob('[0-9]*_[0-9]*/vis_data/config.py'))
    found = [path for path in configs if copies and path.read_bytes() == copies[-1].read_bytes()]
    if len(found) != 1:
        names = ', '.join(path.name for path in configs) or 'none'
        raise ConfigError(f'{work_dir}: one config of the last run is due, {len(found)} of those here ({names}) are it')
    return found[0]


def load_run(work_dir: Path) -> tuple[Config, nn.Module]:
    """Config and network of a run; the config has the number of classes as trained."""
    cfg = Config.fromfile(config_of(work_dir))
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    return cfg, revert_sync_batchnorm(MODELS.build(cfg.model))


def training_seconds(work_dir: Path) -> float:
    """From the start of the training, which names its log folder, to the last checkpoint."""
    checkpoint = (work_dir / 'last_checkpoint').read_text(encoding='utf-8').strip()
    started = min(path.name for path in work_dir.glob('[0-9]*_[0-9]*'))
    begin = datetime.strptime(started, '%Y%m%d_%H%M%S').timestamp()
    return (work_dir / Path(checkpoint).name).stat().st_mtime - begin


def read_scores(work_dir: Path) -> dict[str, Any]:
    """Scores of a tested run in percent, with those of boundaries (and their tolerance in pixels) where it has them."""
    metrics = json.loads((work_dir / 'test' / 'metrics.json').read_text(encoding='utf-8'))
    summary, boundary, protocol = metrics['summary'], metrics.get('boundary'), metrics.get('protocol')
    return dict(
        **{name: summary[name] for name in (*SCORES, *BOUNDARY_SCORES) if name in summary or name in SCORES},
        boundary_tolerance=boundary and boundary['tolerance'],
        protocol=protocol and protocol['name'],
        IoU={name: entry['IoU'] for name, entry in metrics['per_class'].items()},
    )


def score_table(runs: dict[str, dict[str, Any]]) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]], list[str]]:
    """Columns of scores, their cells by run, and what is to be said of them.

    Raises:
        ConfigError: Runs were scored in different ways, so they do not stand in one table.
    """
    for field in ('protocol', 'boundary_tolerance'):
        # Runs without boundary scores have gaps; those with some must have the same.
        found = {name: run[field] for name, run in runs.items() if field == 'protocol' or run[field] is not None}
        if len(set(found.values())) > 1:
            raise ConfigError(f'runs of different {field} cannot be compared: {found}')
    shown = [name for name in BOUNDARY_SCORES if any(name in run for run in runs.values())]
    columns = (SCORES[0], *shown, *SCORES[1:])
    cells = {
        run: tuple(f'{scores[name]:.2f}' if name in scores else '-' for name in columns) for run, scores in runs.items()
    }
    tolerances = {run['boundary_tolerance'] for run in runs.values()} - {None}
    notes = [f'mBF1, mBIoU: boundaries within {tolerance} pixel(s).' for tolerance in tolerances]
    notes += [f'Protocol: {protocol}.' for protocol in {run['protocol'] for run in runs.values()} - {None}]
    return columns, cells, notes


class _Bare:
    """As much of a runner as building an optimizer needs."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model


def training_step(cfg: Config, model: nn.Module) -> Callable[[], Any]:
    """A function that trains one step on a made-up batch."""
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
    """Measures, prints and, if asked to, writes benchmarks/results/NAME.*"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work_dirs', nargs='+', type=Path)
    parser.add_argument('--repeats', type=int, default=5, help='timed training steps of each network')
    parser.add_argument('--note', default='', help='the commands of the runs, kept with the result')
    parser.add_argument('--save', metavar='NAME', help='write benchmarks/results/NAME.json and NAME.md')
    args = parser.parse_args()
    keep_freed_memory()

    runs: dict[str, dict[str, Any]] = {}
    steps: dict[str, Callable[[], Any]] = {}
    for work_dir in args.work_dirs:
        cfg, model = load_run(work_dir)
        figures = complexity(model.eval(), tuple(cfg.model.data_preprocessor.size), 3)
        model.requires_grad_(True).train().to(memory_format=torch.channels_last)
        runs[work_dir.name] = dict(
            parameters=figures['parameters'],
            gmacs=figures['gmacs'],
            training_seconds=training_seconds(work_dir),
            **read_scores(work_dir),
        )
        steps[work_dir.name] = training_step(cfg, model)
    columns, cells, notes = score_table(runs)
    for name, seconds in interleaved_medians(steps, args.repeats, warmup=1).items():
        runs[name]['step_seconds'] = seconds

    rows = [
        (
            name,
            f'{run["parameters"]:,}',
            f'{run["gmacs"]:.3f}',
            f'{run["step_seconds"] * 1e3:.0f}',
            f'{run["training_seconds"]:.0f}',
            *cells[name],
        )
        for name, run in runs.items()
    ]
    header = ('run', 'parameters', 'GMACs', 'ms a step (CPU)', 'seconds of training (with validation)', *columns)
    text = '\n\n'.join([table_text(header, rows), ' '.join([LEGEND, *notes])])
    if args.note:
        text += f'\n\n{args.note}'
    print(text)
    if args.save:
        for path in write_result(args.save, dict(runs=runs, note=args.note), text):
            print(f'written: {path.name}')


if __name__ == '__main__':
    main()
