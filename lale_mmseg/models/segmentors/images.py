"""Images that windows are cut from: raw ones, normalized window by window, and those of a normalized batch."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from mmseg.models import SegDataPreProcessor
from mmseg.structures import SegDataSample
from torch import Tensor

from ...errors import ConfigError
from .window_mean import Window


class Image(Protocol):
    """What windows are cut from.

    Attributes:
        size: (height, width) with the padding.
        padding: Padded pixels (left, right, top, bottom), which results do not have.
        meta: Meta information of the data sample.
    """

    size: tuple[int, int]
    padding: tuple[int, int, int, int]
    meta: Mapping[str, Any]

    def crop(self, window: Window) -> Tensor:
        """The normalized window, (1, bands, height, width) on the network's device."""


class RawImage:
    """An image as it was loaded; what was cut out is normalized, so that no normalized copy of the image is made.

    Args:
        image: (bands, H, W).
        preprocessor: The segmentor's, which normalizes and pads as it does whole images.
        meta: Meta information of the data sample.
    """

    def __init__(self, image: Tensor, preprocessor: SegDataPreProcessor, meta: Mapping[str, Any]) -> None:
        height, width = image.shape[1:]
        self.image = image
        self.meta = meta
        self.size = _padded_size((height, width), preprocessor.test_cfg)
        self.padding = (0, self.size[1] - width, 0, self.size[0] - height)
        self._pad_value = preprocessor.pad_val
        # The same buffers on the same device, but what is padded is the image, not each of its windows.
        self._normalize = copy.copy(preprocessor)
        self._normalize.test_cfg = None
        name = {key: meta[key] for key in ('img_path',) if key in meta}
        self._name = SegDataSample(metainfo=name)  # for its messages

    def crop(self, window: Window) -> Tensor:
        """The normalized window, (1, bands, height, width)."""
        piece = self.image[:, window.rows, window.columns]
        x = self._normalize(dict(inputs=[piece], data_samples=[self._name]), False)['inputs']
        below, right = window.height - x.shape[2], window.width - x.shape[3]
        return F.pad(x, (0, right, 0, below), value=self._pad_value) if below or right else x


class NormalizedImage:
    """One image of a batch that the data preprocessor has been through.

    Args:
        image: (1, bands, H, W).
        meta: Meta information of the data sample; without it results keep the size of the batch.
    """

    def __init__(self, image: Tensor, meta: Mapping[str, Any] | None) -> None:
        self.image = image
        self.meta = meta or {}
        self.size = (image.shape[2], image.shape[3])
        left, right, top, bottom = self.meta.get('img_padding_size', self.meta.get('padding_size', (0, 0, 0, 0)))
        self.padding = (int(left), int(right), int(top), int(bottom))

    def crop(self, window: Window) -> Tensor:
        """The window, (1, bands, height, width)."""
        return self.image[:, :, window.rows, window.columns]


def stack(crops: Sequence[Tensor]) -> Tensor:
    """A batch in the memory format of its parts, which are (1, bands, height, width)."""
    return crops[0] if len(crops) == 1 else torch.cat(list(crops))


def _padded_size(size: tuple[int, int], padding: Mapping[str, Any] | None) -> tuple[int, int]:
    """Size after the padding that `test_cfg` of a data preprocessor asks for, which is below and to the right."""
    if not padding:
        return size
    whole: Any = padding.get('size')
    divisor: Any = padding.get('size_divisor')
    if (whole is None) == (divisor is None):
        raise ConfigError(f'data_preprocessor.test_cfg is {dict(padding)}: one of size, size_divisor is due')
    if divisor is not None:
        return -(-size[0] // divisor) * divisor, -(-size[1] // divisor) * divisor
    return max(size[0], whole[-2]), max(size[1], whole[-1])
