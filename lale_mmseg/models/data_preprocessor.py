"""Batches on the device, normalized, in the memory format that convolutions are fastest in."""

from __future__ import annotations

from typing import Any

import torch
from mmseg.models import SegDataPreProcessor
from mmseg.registry import MODELS

from ..errors import DataError


@MODELS.register_module()
class ChannelsLastDataPreProcessor(SegDataPreProcessor):
    """mmsegmentation's data preprocessor with the batch in channels-last memory format.

    Args:
        channels_last: Whether batches, and the weights of a model that `LaleRunner` wraps, become channels-last.
        **kwargs: Arguments of `SegDataPreProcessor`, which rejects unknown ones.
    """

    def __init__(self, channels_last: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels_last = channels_last

    def forward(self, data: dict, training: bool = False) -> dict[str, Any]:
        """Stacks and normalizes a batch.

        Raises:
            DataError: Images of different sizes in one test batch, or a band count unlike that of `mean`.
        """
        self._check(data['inputs'], data.get('data_samples'), training)
        batch = super().forward(data, training)
        if self.channels_last:
            batch['inputs'] = batch['inputs'].contiguous(memory_format=torch.channels_last)
        return batch

    def _check(self, inputs: Any, samples: Any, training: bool) -> None:
        bands = self.mean.shape[0] if self._enable_normalize else None
        for position, image in enumerate(inputs):
            name = samples[position].get('img_path', f'image {position}') if samples else f'image {position}'
            if bands is not None and image.shape[0] != bands:
                raise DataError(f'{name}: {image.shape[0]} bands, but data_preprocessor.mean has {bands} values')
            if not training and image.shape[1:] != inputs[0].shape[1:]:
                raise DataError(
                    f'{name}: {tuple(image.shape[1:])} pixels in a batch of {tuple(inputs[0].shape[1:])} ones; set '
                    'batch_size=1 in the dataloader for images of different sizes'
                )
