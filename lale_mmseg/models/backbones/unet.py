"""U-Net: Convolutional Networks for Biomedical Image Segmentation (arXiv 1505.04597), with dropout in its decoder."""

from __future__ import annotations

from typing import Any

from mmseg.models.backbones import UNet
from mmseg.registry import MODELS

from ..layers import check_dropout, drop_behind


@MODELS.register_module()
class DropoutUNet(UNet):
    """mmsegmentation's U-Net, encoder and decoder, with channel dropout between its decoder stages.

    The sides of the image are multiples of 2 ** (num_stages - 1): 16 by default.

    Args:
        decoder_dropout: Probability to drop a channel behind each decoder stage but the last, in training.
        **kwargs: Arguments of mmsegmentation's `UNet` (`in_channels`, `base_channels`, `num_stages`, `norm_cfg`, ...),
            which rejects unknown ones.

    Raises:
        ConfigError: `decoder_dropout` is no probability.
    """

    def __init__(self, decoder_dropout: float = 0.3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_dropout('decoder_dropout', decoder_dropout)
        drop_behind(list(self.decoder)[1:], decoder_dropout)  # the first one is the last that runs

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Width of each map that is returned: the coarsest, then those of the decoder stages, the finest last."""
        return tuple(self.base_channels * 2**stage for stage in reversed(range(self.num_stages)))
