"""Leaves scores and pictures of every validation and test in the work dir."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from mmseg.registry import HOOKS
from torch import Tensor
from torch.utils.data import DataLoader

from ...errors import ConfigError
from ...evaluation import SegmentationMetric
from ...evaluation.overlay import MAX_SIDE, panel, to_display
from ...evaluation.plots import plot_confusion, plot_curves
from ...evaluation.tile_report import TILE_FILES
from ...files import save_png, write_atomic
from ..unwrap import unwrapped
from .by_epochs import require_epochs

#: Images whose parts are kept where all are drawn.
_KEPT = 8
#: What `keep_best` copies of the last validation: its pictures, and scores.
_PICTURES = ('images', 'labels', 'predictions', 'overlays')
_SCORES = ('metrics.json', *TILE_FILES)
#: Scores that may be watched: those of the summary, all of which are better where they are larger.
_WATCHED = ('mIoU', 'mF1', 'mP', 'mR', 'OA', 'kappa', 'mBF1', 'mBIoU')
BEST_NAME = 'val_best'
#: Entry of a checkpoint: the highest score so far, by name.
_KEY = 'keep_best'
#: The best validation before it, while it is replaced, and the one that is being copied.
_BEFORE, _NEXT = f'.{BEST_NAME}.before', f'.{BEST_NAME}.next'


@HOOKS.register_module()
class ReportHook(Hook):
    """Writes `val/` and `test/` in the work dir, and `curves.png` after training.

    Each folder gets metrics.json, per_class.csv, confusion_matrix.csv (from `SegmentationMetric`),
    confusion_matrix.png, and overlays of some images: image, ground truth and prediction side by side. `val/` always
    shows the last validation.

    Beside them lie what later pictures need: images/STEM.jpg, labels/STEM.png and predictions/STEM.png (class indexes,
    8-bit grey) of the same images, of up to 8 of them if all are drawn. All three have one size, that of the image, or
    less where its longer side is over 1024 pixels.

    With `keep_best`, `val_best/` of the work dir has the pictures, metrics.json, per_tile.csv and per_city.csv of the
    training's validation with the highest score, under the names of `val/`; of equal ones the first, as for the best
    checkpoint. It is replaced as a whole. The highest score is in checkpoints, and a resumed training goes on from
    that. At its start a training removes a folder of another score: of epochs that are trained again, or of a training
    that is not resumed. So there may be none, where no validation after a resume is better than the best before it.

    Args:
        num_overlays: Number of images to draw, evenly spread over the data set; -1 for all of them.
        overlay_dir: Folder for the overlays of tests; `test/overlays` of the work dir by default.
        overlay_interval: Number of epochs after which the overlays of a validation are also kept, in
            `val/overlays_epoch_010` and so on; none are kept by default.
        keep_best: Score of a `SegmentationMetric`, such as 'mIoU', by which the best validation is kept; with a
            `prefix` of the metric before it. None by default.

    Raises:
        ConfigError: `overlay_interval` is set, and the run is not by epochs; `keep_best` is no score, or no metric of
            the validation has it.
    """

    priority = 'LOW'

    def __init__(
        self,
        num_overlays: int = 8,
        overlay_dir: str | None = None,
        overlay_interval: int | None = None,
        keep_best: str | None = None,
    ) -> None:
        if num_overlays < -1:
            raise ValueError(f'num_overlays={num_overlays}: 0 or more is due, or -1 for all images')
        if overlay_interval is not None and (not isinstance(overlay_interval, int) or overlay_interval < 1):
            raise ConfigError(f'ReportHook: overlay_interval={overlay_interval!r}: a number of epochs from 1 is due')
        self.num_overlays = num_overlays
        self.overlay_dir = overlay_dir
        self.overlay_interval = overlay_interval
        if keep_best is not None and str(keep_best).rpartition('/')[2] not in _WATCHED:
            raise ConfigError(f'ReportHook: keep_best={keep_best!r}: one of {", ".join(_WATCHED)} is due')
        self.keep_best = keep_best
        self._best: float | None = None
        self._drawn: dict[Path, str] = {}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Reads the best score where a training is resumed."""
        if runner._resume:
            self._best = (checkpoint.get(_KEY) or {}).get(self.keep_best)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Writes it."""
        if self._best is not None:
            checkpoint[_KEY] = {self.keep_best: self._best}

    def before_train(self, runner: Runner) -> None:
        """Checks that epochs are counted where overlays are kept by epochs; removes a best validation of others."""
        if self.overlay_interval is not None:
            require_epochs(runner, f'ReportHook: overlay_interval={self.overlay_interval} counts epochs')
        if self.keep_best is not None and is_main_process():
            folder = Path(runner.work_dir) / BEST_NAME
            if _drop_other_best(folder.parent, self.keep_best, self._best):
                runner.logger.info(f'{folder} is not the best validation of this training so far: removed')

    def before_val(self, runner: Runner) -> None:
        """Tells the metric where to write."""
        self._direct(runner, runner.val_evaluator, 'val')

    def before_test(self, runner: Runner) -> None:
        """Tells the metric where to write."""
        self._direct(runner, runner.test_evaluator, 'test')

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Draws the chosen images of a validation batch."""
        folder = Path(runner.work_dir) / 'val'
        self._draw(runner, runner.val_dataloader, batch_idx, data_batch, outputs, folder, self._val_overlays(runner))

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Draws the chosen images of a test batch."""
        folder = Path(runner.work_dir) / 'test'
        overlays = [Path(self.overlay_dir or folder / 'overlays')]
        self._draw(runner, runner.test_dataloader, batch_idx, data_batch, outputs, folder, overlays)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Draws the confusion matrix, and keeps the validation if it is the best of a training."""
        self._plot_confusion(runner, runner.val_evaluator, 'val')
        if self.keep_best is not None and isinstance(runner._train_loop, BaseLoop):
            self._keep_if_best(runner, self.keep_best)

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

    def _keep_if_best(self, runner: Runner, name: str) -> None:
        prefix, _, score = name.rpartition('/')
        for metric in _metrics(runner.val_evaluator):
            if (metric.prefix or '') == prefix and metric.report is not None and score in metric.report.summary:
                break
        else:
            raise ConfigError(f'ReportHook: keep_best={name!r}: no SegmentationMetric of val_evaluator has this score')
        value = float(metric.report.summary[score])
        if is_main_process() and (self._best is None or value > self._best):
            _replace_best(Path(runner.work_dir), Path(metric.output_dir or ''))
            self._best = value

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

    def _val_overlays(self, runner: Runner) -> list[Path]:
        """Folders that overlays of this validation go to."""
        folder = Path(runner.work_dir) / 'val'
        folders = [folder / 'overlays']
        training = isinstance(runner._train_loop, EpochBasedTrainLoop)
        if self.overlay_interval is not None and training and runner.epoch % self.overlay_interval == 0:
            folders.append(folder / f'overlays_epoch_{runner.epoch:03d}')
        return folders

    def _draw(
        self,
        runner: Runner,
        loader: DataLoader,
        batch_idx: int,
        data_batch: Any,
        outputs: Any,
        folder: Path,
        overlays: Sequence[Path],
    ) -> None:
        """Draws the chosen images of a batch into each folder of `overlays`, and keeps what they show in `folder`."""
        count = _KEPT if self.num_overlays == -1 else self.num_overlays
        chosen = is_main_process() and batch_idx in _evenly_spread(count, len(loader))
        if self.num_overlays != -1 and not chosen:
            return
        meta = loader.dataset.metainfo
        for position, sample in enumerate(outputs if self.num_overlays == -1 else outputs[:1]):
            pred = sample.pred_sem_seg.data.squeeze().cpu().numpy().astype(np.int64)
            label = sample.gt_sem_seg.data.squeeze().cpu().numpy() if 'gt_sem_seg' in sample else None
            image = _input_image(runner, data_batch['inputs'], position)
            if image.shape[:2] != pred.shape:  # a pipeline that resizes: predictions are at the original size
                image = cv2.resize(image, pred.shape[::-1], interpolation=cv2.INTER_AREA)
            name = self._name(overlays[0], sample.img_path)
            drawn = panel(image, label, pred, meta['classes'], meta['palette'])
            for target in overlays:
                save_png(target / f'{name}.png', drawn)
            if chosen and position == 0:
                _keep(folder, name, image, label, pred)

    def _name(self, folder: Path, img_path: str) -> str:
        """Name of an image's files: its stem, with its folder before it if another image has the same."""
        path = Path(img_path)
        first = self._drawn.setdefault(folder / path.stem, img_path)
        return path.stem if first == img_path else f'{path.parent.name}_{path.stem}'


def _metrics(evaluator: Any) -> list[SegmentationMetric]:
    return [metric for metric in evaluator.metrics if isinstance(metric, SegmentationMetric)]


def _drop_other_best(work_dir: Path, name: str, best: float | None) -> bool:
    """Removes `val_best/` where its score `name` is not `best`; returns whether it did."""
    folder, before = work_dir / BEST_NAME, work_dir / _BEFORE
    if before.is_dir() and not folder.exists():  # killed while one took the place of the other
        before.rename(folder)
    shutil.rmtree(before, ignore_errors=True)
    try:
        summary = json.loads((folder / _SCORES[0]).read_text(encoding='utf-8'))['summary']
        found = summary[name.rpartition('/')[2]]
    except (OSError, ValueError, KeyError, TypeError):  # damaged, or not there
        found = None
    if not folder.exists() or (best is not None and found == best):
        return False
    shutil.rmtree(folder)
    return True


def _replace_best(work_dir: Path, scores: Path) -> None:
    """Makes the last validation, with its files in `scores`, the best one; a kill leaves the one or the other whole."""
    best, before, following = (work_dir / name for name in (BEST_NAME, _BEFORE, _NEXT))
    shutil.rmtree(following, ignore_errors=True)
    following.mkdir()
    for name in _PICTURES:
        if (work_dir / 'val' / name).is_dir():
            shutil.copytree(work_dir / 'val' / name, following / name)
    for name in _SCORES:
        if (scores / name).is_file():
            shutil.copy2(scores / name, following / name)
    if best.exists():
        shutil.rmtree(before, ignore_errors=True)
        best.rename(before)
    try:
        following.rename(best)
    except BaseException:
        if before.exists():
            before.rename(best)
        raise
    shutil.rmtree(before, ignore_errors=True)


def _keep(folder: Path, name: str, image: np.ndarray, label: np.ndarray | None, pred: np.ndarray) -> None:
    """Writes an image (H, W, 3), its label and its prediction (H, W), smaller where they are larger than a picture."""
    factor = min(1.0, MAX_SIDE / max(pred.shape))
    size = (max(1, round(pred.shape[1] * factor)), max(1, round(pred.shape[0] * factor)))
    small = image if factor == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode('.jpg', small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    write_atomic(folder / 'images' / f'{name}.jpg', encoded.tobytes())
    for kind, values in (('labels', label), ('predictions', pred)):
        if values is not None:
            index_map = values.astype(np.uint8)
            resized = index_map if factor == 1 else cv2.resize(index_map, size, interpolation=cv2.INTER_NEAREST)
            save_png(folder / kind / f'{name}.png', resized)


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
