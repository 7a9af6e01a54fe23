"""A segmentor that slides over large images in tile-sized work, with test-time augmentation of each window."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder, SegDataPreProcessor
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from .images import Image, NormalizedImage, RawImage, stack
from .options import SlidingOptions
from .progress import WindowProgress
from .views import VIEWS
from .window_mean import Window, WindowGrid, WindowMean

#: Rows that become classes at once, so that no index map of 8 bytes a pixel is made.
_ROWS = 512
#: Axes of (C, H, W) that a flip of mmcv's `RandomFlip` reverses.
_FLIPPED_AXES = {'horizontal': (2,), 'vertical': (1,), 'diagonal': (1, 2)}


@MODELS.register_module()
class SlidingEncoderDecoder(EncoderDecoder):
    """mmsegmentation's `EncoderDecoder` with another slide mode and with test-time augmentation, both by `test_cfg`.

    `test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341))` gives the averaged logits of mmsegmentation's
    slide mode, from windows at the same places, with these differences in how:

    * Images of a data loader are normalized window by window; there is no normalized copy of the image.
    * Logits are added where the window lies; mmsegmentation pads each window to the whole image.
    * Results hold classes (uint8 for up to 256 classes) and no logits, so that logits are kept for one row of windows
      only. `keep_logits=True` keeps all. They are kept, too, for images that the pipeline resized or flipped: resized
      logits are brought to the original size before they become classes, and `SegTTAModel` averages them.
    * Batches may hold images of different sizes.

    With `views` other than 'none' or `scales` other than (1.0,), class probabilities (softmax; sigmoid for one
    channel) are averaged over all views and scales of a window, then over windows; `seg_logits` are the logarithms of
    the means, whose softmax they are. mode='whole' does the same with the whole image in the place of the window, and
    is mmsegmentation's without them. Scales resize the normalized window bilinearly, and its logits back.

    Args:
        backbone: As of `EncoderDecoder`.
        decode_head: As of `EncoderDecoder`.
        test_cfg: Options of testing, see `SlidingOptions`.
        **kwargs: The other arguments of `EncoderDecoder`, which rejects unknown ones.

    Raises:
        ConfigError: `test_cfg` has an unknown key or a value that cannot be used.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        decode_head: Mapping[str, Any],
        test_cfg: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        SlidingOptions.parse(test_cfg)
        test_cfg = ConfigDict({'mode': 'whole', **(test_cfg or {})})
        super().__init__(backbone=backbone, decode_head=decode_head, test_cfg=test_cfg, **kwargs)

    @property
    def test_options(self) -> SlidingOptions:
        """`test_cfg` as it is now, checked."""
        return SlidingOptions.parse(self.test_cfg)

    def val_step(self, data: Any) -> list[SegDataSample]:
        """Predicts what a data loader gives; in slide mode each window is normalized when its turn comes."""
        preprocessor = self.data_preprocessor
        sliding = self.test_options.mode == 'slide' and isinstance(preprocessor, SegDataPreProcessor)
        if not sliding or not isinstance(data, Mapping):
            return super().val_step(data)
        samples = preprocessor.cast_data(data.get('data_samples'))
        metas = [sample.metainfo for sample in samples] if samples else [{}] * len(data['inputs'])
        images = [RawImage(image, preprocessor, meta) for image, meta in zip(data['inputs'], metas, strict=True)]
        return self._predict_images(images, samples)

    def test_step(self, data: Any) -> list[SegDataSample]:
        """The same as `val_step`."""
        return self.val_step(data)

    def predict(self, inputs: Tensor, data_samples: Sequence[SegDataSample] | None = None) -> list[SegDataSample]:
        """Predicts a normalized batch.

        Args:
            inputs: (N, bands, H, W).
            data_samples: Samples to write into; new ones by default.

        Returns:
            The samples, with `pred_sem_seg` (1, H, W), and `seg_logits` (C, H, W) where they are kept.
        """
        if self.test_options.mode != 'slide':
            return super().predict(inputs, data_samples)
        metas = [sample.metainfo for sample in data_samples] if data_samples else [None] * len(inputs)
        images = [NormalizedImage(inputs[i : i + 1], meta) for i, meta in enumerate(metas)]
        return self._predict_images(images, data_samples)

    def slide_inference(self, inputs: Tensor, batch_img_metas: Sequence[dict]) -> Tensor:
        """Averaged logits of a normalized batch, all of them in memory.

        Args:
            inputs: (N, bands, H, W).
            batch_img_metas: Meta information of each image.

        Returns:
            Logits (N, C, H, W); with views or scales the logarithms of the mean probabilities.
        """
        images = [NormalizedImage(inputs[i : i + 1], meta) for i, meta in enumerate(batch_img_metas)]
        scores = [mean.scores[None] for mean in self._slide(images, [True] * len(images)) if mean.scores is not None]
        return self._as_logits(stack(scores), self.test_options)

    def whole_inference(self, inputs: Tensor, batch_img_metas: Sequence[dict]) -> Tensor:
        """Logits of a normalized batch, each image in one piece; arguments and result as of `slide_inference`."""
        options = self.test_options
        if not options.augmented:
            return super().whole_inference(inputs, list(batch_img_metas))
        return self._as_logits(self._scores(inputs, batch_img_metas, options), options)

    def _predict_images(self, images: Sequence[Image], samples: Sequence[SegDataSample] | None) -> list[SegDataSample]:
        keep = [self.test_options.keep_logits or _is_transformed(image) for image in images]
        results = list(samples) if samples else [SegDataSample() for _ in images]
        for image, mean, sample in zip(images, self._slide(images, keep), results, strict=True):
            self._write(sample, image, mean)
        return results

    @torch.inference_mode()
    def _slide(self, images: Sequence[Image], keep: Sequence[bool]) -> list[WindowMean]:
        """Means over the windows of each image."""
        options = self.test_options
        assert options.crop_size is not None
        assert options.stride is not None
        grids = [WindowGrid(image.size, options.crop_size, options.stride) for image in images]
        means = [WindowMean(grid, self._classify, kept) for grid, kept in zip(grids, keep, strict=True)]
        progress = WindowProgress(sum(len(grid) for grid in grids), _name_of(images[0]))
        tasks = ((position, window) for position, grid in enumerate(grids) for window in grid)
        for batch in _batches(tasks, options.batch_size):
            self._add_windows(batch, images, means, options)
            progress.advance(len(batch))
        return means

    def _add_windows(
        self,
        batch: Sequence[tuple[int, Window]],
        images: Sequence[Image],
        means: Sequence[WindowMean],
        options: SlidingOptions,
    ) -> None:
        """Predicts (position of the image, window) pairs of one size, and adds each to the mean of its image."""
        inputs = stack([images[position].crop(window) for position, window in batch])
        scores = self._scores(inputs, [images[position].meta for position, _ in batch], options)
        for (position, window), of_window in zip(batch, scores, strict=True):
            means[position].add(window, of_window)

    def _scores(self, inputs: Tensor, metas: Sequence[Mapping[str, Any]], options: SlidingOptions) -> Tensor:
        """Logits (N, C, H, W) of a batch; with views or scales the mean of the probabilities."""
        if not options.augmented:
            return self._logits(inputs, metas)
        size = inputs.shape[2:]
        views = VIEWS[options.views]
        total: Tensor | None = None
        for scale in options.scales:
            scaled = inputs
            if scale != 1.0:
                smaller = [max(1, round(side * scale)) for side in size]
                scaled = F.interpolate(inputs, size=smaller, mode='bilinear', align_corners=False)
            for view in views:
                logits = view.undo(self._logits(view.apply(scaled), metas))
                if logits.shape[2:] != size:
                    logits = resize(logits, size=size, mode='bilinear', align_corners=self.align_corners)
                found = logits.float().softmax(dim=1) if logits.shape[1] > 1 else logits.float().sigmoid()
                total = found if total is None else total.add_(found)
        assert total is not None
        return total.div_(len(views) * len(options.scales))

    def _logits(self, inputs: Tensor, metas: Sequence[Mapping[str, Any]]) -> Tensor:
        # Heads resize to what they are told is the size: mmsegmentation's to `img_shape` if it is a torch.Size, as in
        # its slide mode, others to `pad_shape`.
        size = inputs.shape[2:]
        return self.encode_decode(inputs, [{**meta, 'img_shape': size, 'pad_shape': size} for meta in metas])

    def _classify(self, scores: Tensor) -> Tensor:
        """(C, rows, W) mean scores to (rows, W) classes."""
        if scores.shape[0] == 1:
            probability = scores[0] if self.test_options.augmented else scores[0].sigmoid()
            return (probability > self.decode_head.threshold).to(torch.uint8)
        found = scores.argmax(dim=0)
        return found.to(torch.uint8) if scores.shape[0] <= 256 else found

    def _as_logits(self, scores: Tensor, options: SlidingOptions) -> Tensor:
        """What a softmax (a sigmoid, for one channel) makes the mean probabilities of."""
        if not options.augmented:
            return scores
        finite = torch.finfo(scores.dtype)
        return scores.logit(finite.eps) if scores.shape[1] == 1 else scores.clamp(min=finite.tiny).log_()

    def _write(self, sample: SegDataSample, image: Image, mean: WindowMean) -> None:
        """Puts the result of an image into its sample, without padding, unflipped and at the original size."""
        left, right, top, bottom = image.padding
        rows, columns = slice(top, image.size[0] - bottom), slice(left, image.size[1] - right)
        if mean.scores is None:
            assert mean.classes is not None
            sample.set_data(dict(pred_sem_seg=PixelData(data=mean.classes[None, rows, columns])))
            return
        scores = mean.scores[:, rows, columns]
        if image.meta.get('flip'):
            scores = scores.flip(_FLIPPED_AXES[image.meta['flip_direction']])
        size = tuple(image.meta.get('ori_shape', scores.shape[1:])[:2])
        if tuple(scores.shape[1:]) != size:
            scores = resize(scores[None], size=size, mode='bilinear', align_corners=self.align_corners)[0]
        classes = torch.cat([self._classify(rows) for rows in scores.split(_ROWS, dim=1)])
        options = self.test_options
        if scores.shape[0] == 1:  # mmsegmentation's samples hold the probability there
            scores = scores if options.augmented else scores.sigmoid()
        else:
            scores = self._as_logits(scores[None], options)[0]
        sample.set_data(dict(seg_logits=PixelData(data=scores), pred_sem_seg=PixelData(data=classes[None])))


def _is_transformed(image: Image) -> bool:
    """Whether the pipeline resized the image, or has a step that flips: then more is done with its logits."""
    left, right, top, bottom = image.padding
    size = (image.size[0] - top - bottom, image.size[1] - left - right)
    return tuple(image.meta.get('ori_shape', size)[:2]) != size or image.meta.get('flip') is not None


def _name_of(image: Image) -> str:
    return Path(image.meta.get('img_path') or 'image').name


def _batches(tasks: Iterable[tuple[int, Window]], size: int) -> Iterator[list[tuple[int, Window]]]:
    """Runs of at most `size` tasks whose windows are equally large."""
    for _, run in groupby(tasks, key=lambda task: (task[1].height, task[1].width)):
        while batch := list(islice(run, size)):
            yield batch
