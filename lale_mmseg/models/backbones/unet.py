"""U-Net: Convolutional Networks for Biomedical Image Segmentation (arXiv 1505.04597).

Difference from mmsegmentation's network: channel dropout between the stages of the decoder.
"""

from __future__ import annotations

from typing import Any

from mmseg.models.backbones import UNet
from mmseg.registry import MODELS

from ..layers import drop_behind


@MODELS.register_module()
class DropoutUNet(UNet):
    """mmsegmentation's U-Net, encoder and decoder, with channel dropout between its decoder stages.

    Image sides must be multiples of 2 ** (num_stages - 1): 16 by default.

    Args:
        decoder_dropout: Channel dropout rate behind each decoder stage but the last.
        **kwargs: Arguments of mmsegmentation's `UNet` (`in_channels`, `base_channels`, `num_stages`, `norm_cfg`, ...).
    """

    def __init__(self, decoder_dropout: float = 0.3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        drop_behind(list(self.decoder)[1:], decoder_dropout)  # the first in the list runs last

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Number of channels of each feature map: the coarsest, then those of the decoder stages, the finest last."""
        return tuple(self.base_channels * 2**stage for stage in reversed(range(self.num_stages)))
