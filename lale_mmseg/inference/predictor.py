"""The one way from pixels to classes: windows, views and scales, batches, blending, results."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ..engine.checkpoint import description_of, load_weights, read_checkpoint, rename_weights
from ..engine.fields import check_overrides
from ..engine.pretrained import leave_out_pretrained
from ..errors import CheckpointError
from .harmless import require_harmless
from .options import TestOptions, apply_tta
from .views import VIEWS
from .windows import Window, WindowGrid, WindowMean

#: Rows that become classes at once: argmax gives 8 bytes a pixel, which is not allocated for a whole image.
_ROWS = 512
#: Axes of (..., H, W) that a flip of mmcv's `RandomFlip` reverses.
_FLIPPED_AXES = {'horizontal': (-1,), 'vertical': (-2,), 'diagonal': (-2, -1)}
#: Steps of a test pipeline that load files and labels or pack the result, and so leave the image as it is.
_LOADING_STEPS = (
    *('LoadBands', 'LoadImageFromFile', 'PackSegInputs'),
    *('LoadPaletteMask', 'LoadLabels', 'LoadBinaryLabels', 'LoadAnnotations'),
)


@dataclass
class _Image:
    """An image on its way through the windows.

    Attributes:
        pixels: (bands, H, W) as loaded.
        sample: The sample that gets the result.
        mean: The mean over windows, of the padded size.
    """

    pixels: Tensor
    sample: SegDataSample
    mean: WindowMean

    def piece(self, window: Window) -> Tensor:
        """The part of the image inside a window, which may reach into the padding."""
        return self.pixels[:, window.rows, window.columns]


class Predictor:
    """Predicts images of any size with a segmentor of mmsegmentation, according to its `test_cfg` (see `TestOptions`).

    An image is cut into windows; a small one in 'whole' mode is a single window. Each batch of windows is normalized,
    predicted in every view and scale, and added to the mean of its image. With the blend 'mean' the mean logits are
    those of mmsegmentation's slide mode, but all work has the size of a window, and finished rows become classes.

    With `views` other than 'none' or `scales` other than (1.0,), class probabilities (softmax; sigmoid for one channel)
    are averaged over views and scales, then over windows; `seg_logits` are then logarithms of the mean probabilities.

    Args:
        model: An `EncoderDecoder` or a similar segmentor, in evaluation mode. Used are its `data_preprocessor`,
            `encode_decode`, `align_corners`, `test_cfg` and, for heads with one channel, `decode_head.threshold`.
        classes: Class names.
        palette: (r, g, b) of each class.
        bands: Numbers of the bands to load, counting from 1; None for those that an image has.
        other_steps: Steps of the test pipeline, such as Resize, which a predictor does not repeat; for information.

    Raises:
        ConfigError: `test_cfg` has an unknown key or an unusable value.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str] = (),
        palette: Sequence[Sequence[int]] = (),
        bands: Sequence[int] | None = None,
        other_steps: Sequence[str] = (),
    ) -> None:
        self.model: Any = model
        self.options = TestOptions.parse(self.model.test_cfg)
        self.classes = tuple(classes)
        self.palette = [list(color) for color in palette]
        self.bands = None if bands is None else tuple(bands)
        self.other_steps = tuple(other_steps)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        device: str = 'cpu',
        trust: bool = False,
        overrides: Mapping[str, Any] | None = None,
        tta: bool = False,
    ) -> Predictor:
        """Rebuilds the network that a checkpoint describes, without running any code from the checkpoint.

        Args:
            path: Checkpoint written by this package's runner.
            device: Where to compute, such as 'cpu' or 'cuda:0'.
            trust: See `read_checkpoint`.
            overrides: Changes to the config in the checkpoint by dotted name, such as {'model.test_cfg.mode': 'slide'}.
            tta: Whether to apply the `tta_cfg` of the config.

        Raises:
            CheckpointError: It cannot be read, has no description, names parts that are not registered or not allowed,
                or its weights do not fit.
            ConfigError: `test_cfg`, `tta_cfg` or an override has an unknown key or an unusable value.
        """
        checkpoint = read_checkpoint(path, trust=trust)
        description = description_of(checkpoint, path)
        if not description.classes:
            raise CheckpointError(f'{path}: its description has no class names')
        cfg = Config(description.config)
        # A run may have kept logits to validate its losses; whoever wants them here asks for them.
        cfg.model.test_cfg = {**(cfg.model.get('test_cfg') or {}), 'keep_logits': False}
        check_overrides(cfg, overrides or {})
        cfg.merge_from_dict(dict(overrides or {}))
        if tta:
            apply_tta(cfg)
        init_default_scope('mmseg')
        leave_out_pretrained(cfg.model)
        require_harmless(cfg.model, path)
        try:
            model = revert_sync_batchnorm(MODELS.build(cfg.model))
        except (TypeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f'{path}: its network cannot be built with this version of lale_mmseg; it was written by version '
                f'{description.version} ({error})'
            ) from None
        load_weights(model, rename_weights(checkpoint['state_dict'], [(r'^module\.', '')]), path)
        if getattr(model.data_preprocessor, 'channels_last', False):
            model = model.to(memory_format=torch.channels_last)
        pipeline = _test_pipeline(cfg)
        bands = next((step.get('bands') for step in pipeline if _step_name(step) == 'LoadBands'), None)
        other_steps = [name for name in map(_step_name, pipeline) if name not in _LOADING_STEPS]
        return cls(model.to(device).eval(), description.classes, description.palette, bands, other_steps)

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Predicts one image.

        Args:
            image: (H, W, bands) as `LoadBands` loads it: BGR for three 8-bit bands.

        Returns:
            (H, W) class indexes, uint8 for up to 256 classes.
        """
        sample = self(dict(inputs=[to_tensor(image)]))[0]
        return sample.pred_sem_seg.data[0].cpu().numpy()

    def logits(self, image: np.ndarray) -> Tensor:
        """Predicts one image in one piece, without windows, views or scales.

        Args:
            image: See `predict`.

        Returns:
            Logits (C, H', W') of the size that the network sees, see `input_size`.
        """
        inputs = self._normalized([to_tensor(image)], ['image'], self.input_size((image.shape[0], image.shape[1])))
        return self._logits(inputs, [{}])[0]

    def input_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of an image with the padding that the data preprocessor adds in tests."""
        return _padded_size(size, self.model.data_preprocessor.test_cfg)

    @torch.no_grad()
    def __call__(self, data: Mapping[str, Any], progress: Callable[[int], object] | None = None) -> list[SegDataSample]:
        """Predicts what a data loader gives.

        Args:
            data: `inputs`, a sequence of images (bands, H, W), which may differ in size, and optionally `data_samples`.
            progress: Called with the number of windows that were just predicted.

        Returns:
            The samples with `pred_sem_seg` (1, H, W) of the original size and, if they are kept, `seg_logits`
            (C, H, W), which are probabilities for heads with one channel.
        """
        preprocessor = self.model.data_preprocessor
        samples = preprocessor.cast_data(data.get('data_samples')) or [SegDataSample() for _ in data['inputs']]
        images = [self._start(pixels, sample) for pixels, sample in zip(data['inputs'], samples, strict=True)]
        for batch in self._batches(images):
            self._add(batch)
            if progress is not None:
                progress(len(batch))
        for image in images:
            self._write(image)
        return samples

    def grid(self, size: tuple[int, int]) -> WindowGrid:
        """The windows of an image of (height, width) pixels."""
        padded = self.input_size(size)
        options = self.options
        if options.mode == 'whole' and size[0] * size[1] <= options.max_pixels:
            return WindowGrid(padded, padded, padded)
        return WindowGrid(padded, options.crop_size, options.steps, options.blend)

    def _start(self, pixels: Tensor, sample: SegDataSample) -> _Image:
        size = (pixels.shape[1], pixels.shape[2])
        # Scores that are resized to another size become classes after that.
        keep = self.options.keep_logits or tuple(sample.get('ori_shape', size)[:2]) != size
        return _Image(pixels, sample, WindowMean(self.grid(size), self._classify, keep))

    def _batches(self, images: Sequence[_Image]) -> Iterator[list[tuple[_Image, Window]]]:
        """Batches of (image, window), equal in size and padding; images of one window stay together as they came."""

        def kind(task: tuple[_Image, Window]) -> tuple[Any, ...]:
            image, window = task
            single = len(image.mean.grid) == 1
            return single, window.height, window.width, image.piece(window).shape

        tasks = ((image, window) for image in images for window in image.mean.grid)
        for (single, *_), run in groupby(tasks, key=kind):
            yield from _chunks(run, len(images) if single else self.options.batch_size)

    def _add(self, batch: Sequence[tuple[_Image, Window]]) -> None:
        """Predicts a batch and adds it to the means; on return its logits are freed, before the next batch is made."""
        window = batch[0][1]  # all of one size
        pieces = [image.piece(window) for image, window in batch]
        paths = [image.sample.get('img_path', 'image') for image, _ in batch]
        inputs = self._normalized(pieces, paths, (window.height, window.width))
        scores = self._scores(inputs, [image.sample.metainfo for image, _ in batch])
        del inputs, pieces
        for (image, window), of_window in zip(batch, scores, strict=True):
            image.mean.add(window, of_window)

    def _normalized(self, pieces: Sequence[Tensor], paths: Sequence[str], size: tuple[int, int]) -> Tensor:
        """Normalized windows (N, bands, *size) on the network's device; pieces may lack padding below and right."""
        # The model's own buffers and device, but padded is the image and not each of its windows.
        normalize = copy.copy(self.model.data_preprocessor)
        normalize.test_cfg = None
        samples = [SegDataSample(metainfo=dict(img_path=path)) for path in paths]
        x = normalize(dict(inputs=list(pieces), data_samples=samples), False)['inputs']
        below, right = size[0] - x.shape[2], size[1] - x.shape[3]
        return F.pad(x, (0, right, 0, below), value=normalize.pad_val) if below or right else x

    def _scores(self, inputs: Tensor, metas: Sequence[Mapping[str, Any]]) -> Tensor:
        """Logits (N, C, h, w) of a batch; with views or scales the mean probabilities."""
        options = self.options
        if not options.augmented:
            return self._logits(inputs, metas)
        size = inputs.shape[2:]
        total: Tensor | None = None
        for scale in options.scales:
            scaled = inputs
            if scale != 1.0:
                target = [max(1, round(side * scale)) for side in size]
                scaled = F.interpolate(inputs, size=target, mode='bilinear', align_corners=False)
            for view in VIEWS[options.views]:
                logits = view.undo(self._logits(view.apply(scaled), metas))
                if logits.shape[2:] != size:
                    logits = resize(logits, size=size, mode='bilinear', align_corners=self.model.align_corners)
                found = logits.float().softmax(dim=1) if logits.shape[1] > 1 else logits.float().sigmoid()
                total = found if total is None else total.add_(found)
        assert total is not None
        return total.div_(len(VIEWS[options.views]) * len(options.scales))

    def _logits(self, inputs: Tensor, metas: Sequence[Mapping[str, Any]]) -> Tensor:
        # Heads resize to the size in the meta information: mmsegmentation's to `img_shape` if it is a torch.Size, as in
        # its slide mode, others to `pad_shape`.
        size = inputs.shape[2:]
        return self.model.encode_decode(inputs, [{**meta, 'img_shape': size, 'pad_shape': size} for meta in metas])

    def _classify(self, scores: Tensor) -> Tensor:
        """Classes (rows, W) of mean scores (C, rows, W)."""
        return torch.cat([self._classes_of(rows) for rows in scores.split(_ROWS, dim=1)])

    def _classes_of(self, scores: Tensor) -> Tensor:
        if scores.shape[0] == 1:
            probability = scores[0] if self.options.augmented else scores[0].sigmoid()
            return (probability > self.model.decode_head.threshold).to(torch.uint8)
        found = scores.argmax(dim=0)
        return found.to(torch.uint8) if scores.shape[0] <= 256 else found

    def _write(self, image: _Image) -> None:
        """Puts the result into the sample: padding cut off, flip undone, at the original size."""
        sample, mean = image.sample, image.mean
        height, width = image.pixels.shape[1:]
        found = mean.classes if mean.scores is None else mean.scores
        assert found is not None
        found = found[..., :height, :width]
        if sample.get('flip'):
            found = found.flip(_FLIPPED_AXES[sample.flip_direction])
        if mean.scores is None:
            sample.set_data(dict(pred_sem_seg=PixelData(data=found[None])))
            return
        size = tuple(sample.get('ori_shape', (height, width))[:2])
        if size != (height, width):
            found = resize(found[None], size=size, mode='bilinear', align_corners=self.model.align_corners)[0]
        sample.set_data(dict(pred_sem_seg=PixelData(data=self._classify(found)[None])))
        if self.options.keep_logits:
            sample.set_data(dict(seg_logits=PixelData(data=self._as_logits(found))))

    def _as_logits(self, scores: Tensor) -> Tensor:
        """Scores (C, H, W) as mmsegmentation's samples hold them: logits, or a probability for one channel."""
        if not self.options.augmented:
            return scores if scores.shape[0] > 1 else scores.sigmoid()
        return scores.clamp(min=torch.finfo(scores.dtype).tiny).log_() if scores.shape[0] > 1 else scores


def to_tensor(image: np.ndarray) -> Tensor:
    """An image (H, W, bands) as the tensor (bands, H, W) that a data loader gives."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _padded_size(size: tuple[int, int], padding: Mapping[str, Any] | None) -> tuple[int, int]:
    """Size after the padding below and to the right that `test_cfg` of a data preprocessor asks for."""
    if not padding:
        return size
    divisor, target = padding.get('size_divisor'), padding.get('size')
    if divisor is not None:
        return -(-size[0] // divisor) * divisor, -(-size[1] // divisor) * divisor
    assert target is not None, 'data_preprocessor.test_cfg needs size or size_divisor'
    return max(size[0], target[-2]), max(size[1], target[-1])


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _test_pipeline(cfg: Config) -> list[Mapping]:
    """Steps of the pipeline that the network was tested with; in wrappers that of the first dataset."""
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}
    dataset = loader.get('dataset') or {}
    while 'dataset' in dataset or dataset.get('datasets'):
        dataset = dataset.get('dataset') or dataset['datasets'][0]
    return [step for step in dataset.get('pipeline') or () if isinstance(step, Mapping)]


def _step_name(step: Mapping) -> str:
    return str(step.get('type')).rpartition('.')[2]
