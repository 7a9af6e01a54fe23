"""One row per epoch: losses, scores, learning rates, memory and times."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from ...files import write_atomic
from ..unwrap import unwrapped
from .by_epochs import require_epochs

if TYPE_CHECKING:
    import pandas as pd

#: The table in the work dir.
TABLE_NAME = 'diagnostics.csv'
_MEBIBYTE = 2**20


@HOOKS.register_module()
class EpochDiagnosticsHook(Hook):
    """Writes diagnostics.csv in the work dir, one row per epoch, and means over epochs for TensorBoard.

    Columns:

    * `epoch` (from 1), `iter` (iterations done), `lr` of the optimizer's first group without backbone parameters (of
      the first, if all have some) and `lr_backbone` of its first group with some;
    * `train/<loss>`: each loss, averaged over the iterations of the epoch on the main process;
    * `memory_mb` and `memory_kind`: peak in MiB, of the epoch on a GPU ('gpu') or of the process so far ('process');
    * `step_time_s` and `data_time_s`: medians of an iteration and of its wait for data; `epoch_time_s`: seconds of the
      training part of the epoch;
    * `parameters` and `trainable_parameters`;
    * `val/<score>`: the result of the validation, with `val/tile_IoU/<tile>` where tiles are scored.

    Rows of epochs that are trained again, by a resumed or a new run in the same work dir, are replaced.

    Raises:
        ConfigError: The run is not by epochs.
    """

    # Before the logger resets the peak of GPU memory, and before the schedule changes learning rates.
    priority = 'NORMAL'

    def __init__(self) -> None:
        self._losses: set[str] = set()
        self._peak = 0
        self._start = 0.0

    def before_train(self, runner: Runner) -> None:
        """Drops the rows of epochs that this run trains."""
        require_epochs(runner, 'EpochDiagnosticsHook writes a row per epoch')
        if is_main_process():
            table = read_diagnostics(runner.work_dir)
            _write(runner, table[table['epoch'] <= runner.epoch] if len(table) else table)

    def before_train_epoch(self, runner: Runner) -> None:
        """Starts the clock and the count of memory."""
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
        """Adds the row of the epoch."""
        import pandas as pd  # where tables are made, since it delays the start of every tool

        if not is_main_process():
            return
        memory = self._peak if torch.cuda.is_available() else _process_peak()
        lr, lr_backbone = _learning_rates(runner)
        parameters = [*unwrapped(runner.model).parameters()]
        row: dict[str, Any] = dict(epoch=runner.epoch + 1, iter=runner.iter, lr=lr, lr_backbone=lr_backbone)
        row |= {f'train/{name}': float(_of_epoch(runner, name).mean()) for name in sorted(self._losses)}
        row |= dict(
            memory_mb=round(memory / _MEBIBYTE, 1),
            memory_kind='gpu' if torch.cuda.is_available() else 'process',
            step_time_s=float(np.median(_of_epoch(runner, 'time'))),
            data_time_s=float(np.median(_of_epoch(runner, 'data_time'))),
            epoch_time_s=round(time.perf_counter() - self._start, 3),
            parameters=sum(p.numel() for p in parameters),
            trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        )
        _write(runner, pd.concat([read_diagnostics(runner.work_dir), pd.DataFrame([row])]))
        # mmengine's logger has running means of iterations; these are means of the epoch.
        scalars = {
            f'epoch/{name.removeprefix("train/")}': value for name, value in row.items() if name not in _NOT_LOGGED
        }
        runner.visualizer.add_scalars(scalars, step=row['epoch'])

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, Any] | None = None) -> None:
        """Adds the scores of a validation to the row of its epoch."""
        if not is_main_process() or runner._train_loop is None or isinstance(runner._train_loop, dict):
            return
        table = read_diagnostics(runner.work_dir).set_index('epoch')
        for name, value in (metrics or {}).items():
            table.loc[runner.epoch, f'val/{name}'] = float(value)
        _write(runner, table.reset_index())


_NOT_LOGGED = ('epoch', 'iter', 'lr', 'memory_kind', 'parameters', 'trainable_parameters')


def read_diagnostics(work_dir: str | Path) -> pd.DataFrame:
    """The rows of diagnostics.csv in a work dir; an empty table with a column `epoch` without it."""
    import pandas as pd

    file = Path(work_dir) / TABLE_NAME
    return pd.read_csv(file) if file.is_file() else pd.DataFrame({'epoch': pd.Series(dtype=int)})


def _write(runner: Runner, table: pd.DataFrame) -> None:
    if len(table) or (Path(runner.work_dir) / TABLE_NAME).is_file():
        write_atomic(Path(runner.work_dir) / TABLE_NAME, table.to_csv(index=False))


def _of_epoch(runner: Runner, name: str) -> np.ndarray:
    """Values of a training scalar in the epoch that ends, one per iteration."""
    history = runner.message_hub.log_scalars.get(f'train/{name}')
    count = len(runner.train_dataloader)
    return np.array([np.nan]) if history is None else np.asarray(history.data[0][-count:], np.float64)


def _process_peak() -> float:
    """Most memory that this process has used, in bytes; NaN on Windows."""
    if sys.platform == 'win32':
        return float('nan')
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else peak * 1024  # Linux counts in KiB


def _learning_rates(runner: Runner) -> tuple[float, float]:
    """Of the first group without backbone parameters, and of the first with some; NaN if there is none."""
    groups = runner.optim_wrapper.param_groups
    backbone = {id(parameter) for parameter in unwrapped(runner.model).backbone.parameters()}
    inside = [any(id(parameter) in backbone for parameter in group['params']) for group in groups]
    of_backbone = [group['lr'] for group, own in zip(groups, inside, strict=True) if own]
    others = [group['lr'] for group, own in zip(groups, inside, strict=True) if not own]
    return float((others or of_backbone)[0]), float(of_backbone[0]) if of_backbone else float('nan')
