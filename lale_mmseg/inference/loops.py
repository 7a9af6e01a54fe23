"""Validation and test loops that predict with a `Predictor`, so their classes are those of tools/predict.py."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.runner import BaseLoop, Runner, TestLoop, ValLoop, autocast
from mmseg.registry import LOOPS, METRICS
from mmseg.structures import SegDataSample

from ..engine.unwrap import unwrapped
from ..files import results_dir
from .predictor import Predictor

#: Seconds between two lines in the log while large images are predicted.
LOG_INTERVAL = 30.0


class PredictionLoop(BaseLoop):
    """What the validation and the test loop share.

    Metrics that write files get a folder of their own in the work dir, unless the config names another.
    """

    #: 'val' or 'test', as in the names of hooks and folders.
    phase: str

    def __init__(self, runner: Runner, dataloader: Any, evaluator: Any, fp16: bool = False) -> None:
        folder = results_dir(runner.work_dir, self.phase)
        super().__init__(runner, dataloader, with_folders(evaluator, folder), fp16)  # type: ignore[call-arg]
        self.predictor = Predictor(unwrapped(self.runner.model))

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: Mapping[str, Any]) -> None:
        """Predicts and evaluates a batch."""
        self.runner.call_hook(f'before_{self.phase}_iter', batch_idx=idx, data_batch=data_batch)
        with autocast(enabled=self.fp16):
            outputs = predict_logged(self.predictor, data_batch)
        self.evaluator.process(data_samples=outputs, data_batch=data_batch)
        self.runner.call_hook(f'after_{self.phase}_iter', batch_idx=idx, data_batch=data_batch, outputs=outputs)


@LOOPS.register_module()
class PredictionValLoop(PredictionLoop, ValLoop):
    """mmengine's `ValLoop`, predicting with a `Predictor` instead of `model.val_step`; same arguments."""

    phase = 'val'


@LOOPS.register_module()
class PredictionTestLoop(PredictionLoop, TestLoop):
    """mmengine's `TestLoop`, predicting with a `Predictor` instead of `model.test_step`; same arguments."""

    phase = 'test'


def with_folders(evaluator: Any, folder: Path) -> Any:
    """Configs of metrics; those that write a report get an `output_dir` below `folder`, one for each prefix."""
    if isinstance(evaluator, (list, tuple)):
        return [with_folders(one, folder) for one in evaluator]
    # Other metrics may empty their `output_dir` first, as mmsegmentation's CityscapesMetric does.
    kind = METRICS.get(evaluator['type']) if isinstance(evaluator, dict) else None
    if not getattr(kind, 'writes_report', False) or evaluator.get('output_dir'):
        return evaluator
    return {**evaluator, 'output_dir': str(folder / (evaluator.get('prefix') or ''))}


def predict_logged(predictor: Predictor, data: Mapping[str, Any]) -> list[SegDataSample]:
    """Predicts a batch; if that takes longer than `LOG_INTERVAL`, logs how much is done and how long the rest takes."""
    total = sum(len(predictor.grid((image.shape[1], image.shape[2]))) for image in data['inputs'])
    name = Path(data['data_samples'][0].get('img_path') or 'image').name
    done, start = 0, time.monotonic()
    logged = start

    def log(count: int) -> None:
        nonlocal done, logged
        done += count
        now = time.monotonic()
        if now - logged < LOG_INTERVAL or done == total:
            return
        logged = now
        left = round((now - start) / done * (total - done))
        print_log(f'{name}: {done} of {total} windows, about {left // 60}:{left % 60:02d} min left', logger='current')

    return predictor(data, log)
