"""Leaves scores and pictures of every validation and test in the work dir."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import Tensor
from torch.utils.data import DataLoader

from ...evaluation import SegmentationMetric
from ...evaluation.overlay import panel, to_display
from ...evaluation.plots import plot_confusion, plot_curves
from ..unwrap import unwrapped


@HOOKS.register_module()
class ReportHook(Hook):
    """Writes `val/` and `test/` in the work dir, and `curves.png` after training.

    Each folder gets metrics.json, per_class.csv, confusion_matrix.csv (from `SegmentationMetric`),
    confusion_matrix.png, and overlays of some images: image, ground truth and prediction side by side. `val/` always
    shows the last validation.

    Args:
        num_overlays: Number of images to draw, evenly spread over the data set; -1 for all of them.
        overlay_dir: Folder for the overlays of tests; `test/overlays` of the work dir by default.
    """

    priority = 'LOW'

    def __init__(self, num_overlays: int = 8, overlay_dir: str | None = None) -> None:
        if num_overlays < -1:
            raise ValueError(f'num_overlays={num_overlays}: 0 or more is due, or -1 for all images')
        self.num_overlays = num_overlays
        self.overlay_dir = overlay_dir
        self._drawn: dict[Path, str] = {}

    def before_val(self, runner: Runner) -> None:
        """Tells the metric where to write."""
        self._direct(runner, runner.val_evaluator, 'val')

    def before_test(self, runner: Runner) -> None:
        """Tells the metric where to write."""
        self._direct(runner, runner.test_evaluator, 'test')

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Draws the chosen images of a validation batch."""
        self._draw(
            runner, runner.val_dataloader, batch_idx, data_batch, outputs, Path(runner.work_dir) / 'val' / 'overlays'
        )

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Draws the chosen images of a test batch."""
        folder = Path(self.overlay_dir or Path(runner.work_dir) / 'test' / 'overlays')
        self._draw(runner, runner.test_dataloader, batch_idx, data_batch, outputs, folder)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Draws the confusion matrix."""
        self._plot_confusion(runner, runner.val_evaluator, 'val')

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Draws the confusion matrix and says where the pictures are."""
        self._plot_confusion(runner, runner.test_evaluator, 'test')
        if is_main_process():
            overlays = self.overlay_dir or Path(runner.work_dir) / 'test' / 'overlays'
            runner.logger.info(f'scores and pictures: {Path(runner.work_dir) / "test"}, overlays: {overlays}')

    def after_train(self, runner: Runner) -> None:
        """Draws loss, learning rate and validation scores over the whole run, resumed parts included."""
        if not is_main_process():
            return
        target = Path(runner.work_dir) / 'curves.png'
        if plot_curves(sorted(Path(runner.work_dir).glob('*/vis_data/scalars.json')), target):
            runner.logger.info(f'curves: {target}')

    def _direct(self, runner: Runner, evaluator: Any, name: str) -> None:
        for metric in _metrics(evaluator):
            if metric.output_dir is None:
                # Metrics with prefixes of their own do not share files.
                metric.output_dir = str(Path(runner.work_dir) / name / (metric.prefix or ''))

    def _plot_confusion(self, runner: Runner, evaluator: Any, name: str) -> None:
        if not is_main_process():
            return
        for metric in _metrics(evaluator):
            if metric.report is not None:
                target = Path(metric.output_dir or Path(runner.work_dir) / name) / 'confusion_matrix.png'
                protocol = metric.report.protocol
                title = 'Confusion matrix'
                if protocol is not None:
                    title += f', all labelled pixels (protocol {protocol.letter}, {protocol.test_labels} labels)'
                plot_confusion(metric.report.matrix, metric.report.classes, target, title)

    def _draw(
        self, runner: Runner, loader: DataLoader, batch_idx: int, data_batch: Any, outputs: Any, folder: Path
    ) -> None:
        if self.num_overlays == -1:
            samples = outputs
        elif is_main_process() and batch_idx in _evenly_spread(self.num_overlays, len(loader)):
            samples = outputs[:1]
        else:
            return
        meta = loader.dataset.metainfo
        for position, sample in enumerate(samples):
            pred = sample.pred_sem_seg.data.squeeze().cpu().numpy().astype(np.int64)
            label = sample.gt_sem_seg.data.squeeze().cpu().numpy() if 'gt_sem_seg' in sample else None
            image = _input_image(runner, data_batch['inputs'], position)
            if image.shape[:2] != pred.shape:  # a pipeline that resizes: predictions are at the original size
                image = cv2.resize(image, pred.shape[::-1], interpolation=cv2.INTER_AREA)
            path = Path(sample.img_path)
            if self._drawn.setdefault(folder / f'{path.stem}.png', sample.img_path) == sample.img_path:
                target = folder / f'{path.stem}.png'
            else:  # images of one name in several folders
                target = folder / f'{path.parent.name}_{path.stem}.png'
            panel(image, label, pred, meta['classes'], meta['palette'], target)


def _metrics(evaluator: Any) -> list[SegmentationMetric]:
    return [metric for metric in evaluator.metrics if isinstance(metric, SegmentationMetric)]


def _evenly_spread(count: int, size: int) -> set[int]:
    return {int(position) for position in np.linspace(0, size - 1, min(count, size))}


def _input_image(runner: Runner, inputs: Any, position: int) -> np.ndarray:
    """Image `position` of a batch as it was loaded, (H, W, 3) uint8 RGB."""
    # Test-time augmentation gives one list for each augmentation, the first of them being none.
    tensor = inputs[position] if isinstance(inputs[position], Tensor) else inputs[0][position]
    image = tensor.permute(1, 2, 0).cpu().numpy()
    preprocessor = unwrapped(runner.model).data_preprocessor
    if image.shape[2] == 3 and preprocessor._channel_conversion:
        image = image[..., ::-1]
    return to_display(image)
