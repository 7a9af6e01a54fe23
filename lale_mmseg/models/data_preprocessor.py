"""Stacks and normalizes batches in the memory format that is fastest for convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.models import SegDataPreProcessor
from mmseg.registry import MODELS

from ..errors import ConfigError, DataError


@MODELS.register_module()
class ChannelsLastDataPreProcessor(SegDataPreProcessor):
    """mmsegmentation's data preprocessor for any number of bands, with the batch in channels-last memory format.

    Args:
        mean: Mean of each band, in the order after conversion from BGR to RGB; mmengine's own supports 1 or 3 values.
        std: Standard deviation of each band.
        channels_last: Whether batches, and the weights of a model in `LALERunner`, are converted to channels-last.
        **kwargs: The other arguments of `SegDataPreProcessor`.

    Raises:
        ConfigError: `mean` and `std` differ in length, only one is given, or a `std` is not positive.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        channels_last: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.channels_last = channels_last
        if (mean is None) != (std is None) or (mean is not None and len(mean) != len(std or ())):
            raise ConfigError(f'data_preprocessor: mean={mean} and std={std} must both have one value per band')
        if std is not None and min(std) <= 0:
            raise ConfigError(f'data_preprocessor: std={list(std)}: expected positive values')
        if mean is not None and std is not None:
            self._enable_normalize = True
            self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
            self.register_buffer('std', torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict[str, Any]:
        """Stacks and normalizes a batch.

        Raises:
            DataError: Images of a test batch differ in size, or an image has another number of bands than `mean`.
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
                    f'{name}: size {tuple(image.shape[1:])} in a batch of size {tuple(inputs[0].shape[1:])}; set '
                    'batch_size=1 in the dataloader for images of different sizes'
                )
