"""One row an epoch: what was learned, how well it does on each tile, and what it took."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from ...evaluation import TileReport
from ...files import write_atomic
from ..unwrap import unwrapped
from .by_epochs import require_epochs

resource: ModuleType | None
try:
    import resource
except ImportError:  # Windows
    resource = None

ROWS_NAME = 'diagnostics.jsonl'
TABLE_NAME = 'diagnostics.csv'
#: Entry of a checkpoint: the row of its epoch, not yet validated.
_KEY = 'diagnostics'
_MEBIBYTE = 2**20


@HOOKS.register_module()
class EpochDiagnosticsHook(Hook):
    """Writes diagnostics.jsonl and diagnostics.csv in the work dir, one row an epoch, and scalars for TensorBoard.

    A row has:

    * `epoch` (from 1), `iter` (iterations done), and learning rates: `lr_backbone` of the backbone's first group in the
      optimizer (None if it has none), `lr` of the first group that has nothing of the backbone, or of the first;
    * `train`: each loss of the network, averaged over the iterations of the epoch, on this process;
    * `val`: the result of the validation, empty without one;
    * `tiles` and `worst_tile`: IoU of each tile in percent, None where it has none, from `TileSegmentationMetric`;
    * `memory_mb` and `memory_kind`: 'gpu' is the most that tensors took in the epoch on the GPU, 'process' the most
      that the process took since its start, on a CPU; MiB; None where the system does not tell (Windows);
    * `step_time_s` and `data_time_s`: medians of an iteration, waiting for data included, and of that wait alone, from
      `IterTimerHook` (None without it); `epoch_time_s`: seconds of the training part of the epoch;
    * `parameters` and `trainable_parameters` of the network during the epoch;
    * `processes`: number of processes, each of which takes batches of its own;
    * `starts`: name that mmengine gave to the start that trained the epoch, and to the one that validated
      it, if that is another; a checkpoint has that of the one that saved it (`meta.experiment_name`).

    Rows of epochs that are trained again, by a resumed run or another one in the same work dir, are replaced. Numbers
    that are not finite become None. The table has all columns but those of tiles.

    Raises:
        ConfigError: The run is not by epochs.
    """

    # Before the logger, which sets the peak of GPU memory back, and before the schedule changes learning rates.
    priority = 'NORMAL'

    def __init__(self) -> None:
        self._pending: dict[str, Any] | None = None
        self._losses: set[str] = set()
        self._peak = 0
        self._start = 0.0

    def before_train(self, runner: Runner) -> None:
        """Checks that the run is by epochs."""
        require_epochs(runner, 'EpochDiagnosticsHook writes a row an epoch')

    def before_train_epoch(self, runner: Runner) -> None:
        """Writes the row of an epoch without validation, and starts the next."""
        self._write(runner)
        self._losses = set()
        self._peak = 0
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._start = time.perf_counter()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Mapping[str, Any] | None = None
    ) -> None:
        """Notes the names of losses and the peak of GPU memory."""
        self._losses.update(name for name in outputs or () if 'loss' in name)
        if torch.cuda.is_available():
            self._peak = max(self._peak, torch.cuda.max_memory_allocated())

    def after_train_epoch(self, runner: Runner) -> None:
        """Makes the row; it waits for the validation."""
        if not is_main_process():
            return
        iterations = len(runner.train_loop.dataloader)
        losses = {name: _recent(runner, name, iterations) for name in sorted(self._losses)}
        memory = self._peak if torch.cuda.is_available() else _process_peak()
        parameters = [*unwrapped(runner.model).parameters()]
        lr, lr_backbone = _learning_rates(runner)
        self._pending = dict(
            epoch=runner.epoch + 1,
            iter=runner.iter,
            lr=lr,
            lr_backbone=lr_backbone,
            train={name: float(values.mean()) for name, values in losses.items() if values is not None},
            val={},
            tiles={},
            worst_tile=None,
            memory_mb=None if memory is None else round(memory / _MEBIBYTE, 1),
            memory_kind='gpu' if torch.cuda.is_available() else 'process',
            step_time_s=_median(_recent(runner, 'time', iterations)),
            data_time_s=_median(_recent(runner, 'data_time', iterations)),
            epoch_time_s=round(time.perf_counter() - self._start, 3),
            parameters=sum(parameter.numel() for parameter in parameters),
            trainable_parameters=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
            processes=get_world_size(),
            starts=[runner.experiment_name],
        )

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, Any] | None = None) -> None:
        """Adds the validation to the row of its epoch, and writes it."""
        if self._pending is None:
            return
        self._pending['val'] = {
            name: float(value) for name, value in (metrics or {}).items() if isinstance(value, int | float)
        }
        reports = (getattr(metric, 'report', None) for metric in runner.val_evaluator.metrics)
        report = next((report for report in reports if isinstance(report, TileReport)), None)
        if report is not None:
            self._pending['tiles'] = {tile: score.iou for tile, score in report.tiles.items()}
            worst = report.worst_tile
            self._pending['worst_tile'] = None if worst is None else dict(tile=worst[0], IoU=worst[1])
        self._write(runner)

    def after_train(self, runner: Runner) -> None:
        """Writes the last row if nothing validated it."""
        self._write(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Writes the row that waits: a resumed run validates its epoch."""
        if self._pending is not None:
            checkpoint[_KEY] = json.dumps(_finite(self._pending))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Reads it where the run is resumed."""
        if runner._resume and _KEY in checkpoint and is_main_process():
            self._pending = json.loads(checkpoint[_KEY])

    def _write(self, runner: Runner) -> None:
        if self._pending is None:
            return
        row, self._pending = _finite(self._pending), None
        row['starts'] = list(dict.fromkeys([*row.get('starts', ()), runner.experiment_name]))
        rows = write_row(Path(runner.work_dir), row)
        write_atomic(Path(runner.work_dir) / TABLE_NAME, _table(rows))
        # What mmengine's logger does not have: means of the whole epoch, and tiles. Its own names stay its own.
        scalars = {f'epoch/{name}': value for name, value in row['train'].items()}
        scalars |= {f'epoch/{name}': row[name] for name in ('lr_backbone', 'memory_mb', 'step_time_s', 'epoch_time_s')}
        scalars |= {f'tile_IoU/{tile}': value for tile, value in row['tiles'].items()}
        runner.visualizer.add_scalars(
            {name: value for name, value in scalars.items() if value is not None}, step=row['epoch']
        )


def read_rows(work_dir: Path) -> list[dict]:
    """Rows of diagnostics.jsonl by epoch; a line cut off by a crash is passed over, and no file gives none."""
    file = work_dir / ROWS_NAME
    rows = []
    for line in file.read_text(encoding='utf-8', errors='replace').splitlines() if file.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get('epoch'), int):
            rows.append(row)
    return rows


def write_row(work_dir: Path, row: Mapping[str, Any]) -> list[dict]:
    """Adds a row to diagnostics.jsonl in place of those of its epoch and later ones; returns all rows."""
    file = work_dir / ROWS_NAME
    earlier = read_rows(work_dir)
    kept = [one for one in earlier if one['epoch'] < row['epoch']]
    line = json.dumps(row, allow_nan=False) + '\n'
    content = file.read_bytes() if file.is_file() else b''
    if len(kept) < content.count(b'\n') or (content and not content.endswith(b'\n')):
        write_atomic(file, ''.join(json.dumps(one) + '\n' for one in kept) + line)
    else:
        with open(file, 'a', encoding='utf-8') as stream:
            stream.write(line)
    return [*kept, dict(row)]


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV, nested values by names such as `val/mIoU`; tiles are left out."""
    flat = [dict(_flat(row)) for row in rows]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval='', lineterminator='\n')
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if name == 'worst_tile':
            yield 'worst_tile', '' if value is None else value['tile']
            yield 'worst_tile_IoU', '' if value is None else value['IoU']
        elif isinstance(value, Mapping):
            if name != 'tiles':
                yield from ((f'{name}/{inner}', inner_value) for inner, inner_value in value.items())
        else:
            yield name, value


def _recent(runner: Runner, name: str, count: int) -> np.ndarray | None:
    """The last values of a training scalar, as many as an epoch has iterations; None if nobody logs it."""
    history = runner.message_hub.log_scalars.get(f'train/{name}')
    return None if history is None else np.asarray(history.data[0][-count:], np.float64)


def _median(values: np.ndarray | None) -> float | None:
    return None if values is None or not len(values) else round(float(np.median(values)), 6)


def _learning_rates(runner: Runner) -> tuple[float | None, float | None]:
    """Of the first group without backbone parameters (the first, if all have some), and of the backbone; or None."""
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)  # several optimizers have no first group
    groups = [] if optimizer is None else optimizer.param_groups
    backbone = getattr(unwrapped(runner.model), 'backbone', None)
    own = {id(parameter) for parameter in backbone.parameters()} if backbone is not None else set()
    of_backbone = [group for group in groups if any(id(parameter) in own for parameter in group['params'])]
    others = [group for group in groups if all(id(parameter) not in own for parameter in group['params'])]
    rates = [float(found[0]['lr']) if found else None for found in (others or groups, of_backbone)]
    return rates[0], rates[1]


def _process_peak() -> int | None:
    """Most memory that this process has taken, in bytes; Linux counts in KiB, macOS in bytes, Windows not at all."""
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else peak * 1024


def _finite(value: Any) -> Any:
    """Nested values with None in place of NaN and infinity, which JSON lacks."""
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
