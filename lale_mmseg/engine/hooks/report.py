"""Pictures of every validation and test, curves of the training, and a copy of the best validation."""

from __future__ import annotations

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

from ...evaluation.overlay import MAX_SIDE, panel, to_display
from ...evaluation.plots import plot_curves
from ...files import results_dir, save_png, write_atomic
from ..unwrap import unwrapped
from .by_epochs import require_epochs

#: Images whose parts are kept if all are drawn.
_KEPT = 8
#: Folder of the best validation, and the file in it that names its checkpoint.
BEST_NAME = 'val_best'
_CHECKPOINT = 'checkpoint.txt'


@HOOKS.register_module()
class ReportHook(Hook):
    """Draws overlays into `val/` and `test/` of the work dir, and `curves.png` after each validation of a run.

    An overlay shows image, ground truth and prediction of one image side by side; `val/` holds those of the last
    validation. Beside them are the parts that later pictures need: images/STEM.jpg, labels/STEM.png and
    predictions/STEM.png (class indexes, 8-bit grey) of up to 8 images, scaled down to a longer side of at most 1024
    pixels. `SegmentationMetric` writes its tables into the same folders.

    With `keep_best`, `val_best/` is a copy of `val/` from the validation that made the best checkpoint
    (`default_hooks.checkpoint.save_best`), whose name is in val_best/checkpoint.txt. A resumed training keeps the
    folder if its checkpoint still has that best score; any other training starts without it.

    Args:
        num_overlays: Number of images to draw, evenly spread over the dataset; -1 for all of them.
        overlay_dir: Folder for the overlays of tests; `test/overlays` of the work dir by default.
        overlay_interval: Number of epochs after which the overlays of a validation are also kept, in
            `val/overlays_epoch_010` and so on; none are kept by default.
        keep_best: Whether the best validation is kept.

    Raises:
        ConfigError: `overlay_interval` is set and the run is not by epochs.
    """

    # After the checkpoint hook, which decides what is the best validation.
    priority = 'LOWEST'

    def __init__(
        self,
        num_overlays: int = 8,
        overlay_dir: str | None = None,
        overlay_interval: int | None = None,
        keep_best: bool = False,
    ) -> None:
        self.num_overlays = num_overlays
        self.overlay_dir = overlay_dir
        self.overlay_interval = overlay_interval
        self.keep_best = keep_best
        self._drawn: dict[Path, str] = {}
        self._best: str | None = None

    def before_train(self, runner: Runner) -> None:
        """Removes a best validation of another training."""
        if self.overlay_interval is not None:
            require_epochs(runner, f'ReportHook: overlay_interval={self.overlay_interval} counts epochs')
        folder = Path(runner.work_dir) / BEST_NAME
        self._best = _best_checkpoint(runner)
        if self.keep_best and is_main_process() and folder.exists() and _name(folder) != self._best:
            runner.logger.info(f'{folder} does not belong to the best checkpoint of this training: removed')
            shutil.rmtree(folder)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Draws the chosen images of a validation batch."""
        folder = results_dir(runner.work_dir, 'val')
        overlays = [folder / 'overlays']
        training = isinstance(runner._train_loop, EpochBasedTrainLoop)
        if self.overlay_interval is not None and training and runner.epoch % self.overlay_interval == 0:
            overlays.append(folder / f'overlays_epoch_{runner.epoch:03d}')
        self._draw(runner, runner.val_dataloader, batch_idx, data_batch, outputs, folder, overlays)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Draws the chosen images of a test batch."""
        folder = results_dir(runner.work_dir, 'test')
        overlays = [Path(self.overlay_dir or folder / 'overlays')]
        self._draw(runner, runner.test_dataloader, batch_idx, data_batch, outputs, folder, overlays)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Draws the curves so far, and keeps the validation if it made the best checkpoint."""
        if isinstance(runner._train_loop, BaseLoop):
            self._draw_curves(runner)
        best, folder = _best_checkpoint(runner), Path(runner.work_dir) / BEST_NAME
        if self.keep_best and is_main_process() and best != self._best:
            self._best = best
            new, old = (folder.with_name(f'.{BEST_NAME}.{name}') for name in ('new', 'old'))
            for leftover in (new, old):
                shutil.rmtree(leftover, ignore_errors=True)
            ignored = shutil.ignore_patterns('overlays_epoch_*', '.*.tmp')
            shutil.copytree(results_dir(runner.work_dir, 'val'), new, ignore=ignored)
            write_atomic(new / _CHECKPOINT, f'{best}\n')
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
            shutil.rmtree(old, ignore_errors=True)

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Logs where the results are."""
        if is_main_process():
            folder = results_dir(runner.work_dir, 'test')
            runner.logger.info(f'scores and pictures: {folder}, overlays: {self.overlay_dir or folder / "overlays"}')

    def after_train(self, runner: Runner) -> None:
        """Says where the curves are."""
        if self._draw_curves(runner):
            runner.logger.info(f'curves: {Path(runner.work_dir) / "curves.png"}')

    def _draw_curves(self, runner: Runner) -> bool:
        """Draws loss, learning rate and validation scores over the whole run, resumed parts included."""
        target = Path(runner.work_dir) / 'curves.png'
        logs = sorted(Path(runner.work_dir).glob('*/vis_data/scalars.json'))
        return is_main_process() and plot_curves(logs, target)

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
        """Draws the chosen images of a batch into each folder of `overlays`, and keeps their parts in `folder`."""
        count = _KEPT if self.num_overlays == -1 else self.num_overlays
        spread = np.linspace(0, len(loader) - 1, min(count, len(loader))).astype(int)
        chosen = is_main_process() and batch_idx in spread
        if self.num_overlays != -1 and not chosen:
            return
        meta = loader.dataset.metainfo
        for position, sample in enumerate(outputs if self.num_overlays == -1 else outputs[:1]):
            pred = sample.pred_sem_seg.data.squeeze(0).cpu().numpy().astype(np.int64)
            label = sample.gt_sem_seg.data.squeeze(0).cpu().numpy() if 'gt_sem_seg' in sample else None
            image = _display(runner, data_batch['inputs'][position])
            if image.shape[:2] != pred.shape:  # a pipeline that resizes: predictions are at the original size
                image = cv2.resize(image, pred.shape[::-1], interpolation=cv2.INTER_AREA)
            # The stem names the files, with its folder before it if another image has the same stem.
            path = Path(sample.img_path)
            first = self._drawn.setdefault(overlays[0] / path.stem, sample.img_path)
            name = path.stem if first == sample.img_path else f'{path.parent.name}_{path.stem}'
            maps = {'Ground truth': label, 'Prediction': pred} if label is not None else {'Prediction': pred}
            drawn = panel(name, image, maps, meta['classes'], meta['palette'])
            for target in overlays:
                save_png(target / f'{name}.png', drawn)
            if chosen and position == 0:
                _keep(folder, name, image, label, pred)


def _name(folder: Path) -> str | None:
    """The checkpoint that a best validation belongs to."""
    file = folder / _CHECKPOINT
    return file.read_text(encoding='utf-8').strip() if file.is_file() else None


def _best_checkpoint(runner: Runner) -> str | None:
    """File name of the best checkpoint of the training so far; mmengine keeps it in checkpoints, too."""
    best = runner.message_hub.runtime_info.get('best_ckpt')
    return None if best is None else Path(best).name


def _keep(folder: Path, name: str, image: np.ndarray, label: np.ndarray | None, pred: np.ndarray) -> None:
    """Writes an image (H, W, 3), its label and its prediction (H, W), scaled down if they are large."""
    factor = min(1.0, MAX_SIDE / max(pred.shape))
    size = (max(1, round(pred.shape[1] * factor)), max(1, round(pred.shape[0] * factor)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode('.jpg', small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    write_atomic(folder / 'images' / f'{name}.jpg', encoded.tobytes())
    for kind, values in (('labels', label), ('predictions', pred)):
        if values is not None:
            resized = cv2.resize(values.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
            save_png(folder / kind / f'{name}.png', resized)


def _display(runner: Runner, tensor: Tensor) -> np.ndarray:
    """A loaded image (bands, H, W) as (H, W, 3) uint8 RGB."""
    image = tensor.permute(1, 2, 0).cpu().numpy()
    return to_display(image, bgr=unwrapped(runner.model).data_preprocessor._channel_conversion)
