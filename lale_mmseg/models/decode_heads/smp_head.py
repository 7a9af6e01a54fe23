"""SMPHead: decoder and classifier of a network of segmentation_models_pytorch, as a decode head of mmsegmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import ConfigError


@MODELS.register_module()
class SMPHead(BaseDecodeHead):
    """What comes behind the encoder of a network of segmentation_models_pytorch; `SMPSegmentor` builds it.

    The weights are `decoder` and `segmentation_head`, as in the library.

    Args:
        decoder: Module that takes the list of all maps of the encoder.
        segmentation_head: Module that turns what the decoder gives into class logits.
        widths: Width of each map of the encoder.
        align_corners: Of the bilinear resizing of logits, where the network's are smaller than the image.
        **kwargs: The other arguments of `BaseDecodeHead` (`num_classes`, `loss_decode`, `ignore_index`, ...), which
            rejects unknown ones.

    Raises:
        ConfigError: It is built without a network.
    """

    def __init__(
        self,
        decoder: nn.Module | None = None,
        segmentation_head: nn.Module | None = None,
        widths: Sequence[int] = (),
        *,
        align_corners: bool = False,
        **kwargs: Any,
    ) -> None:
        if decoder is None or segmentation_head is None:
            raise ConfigError(
                "SMPHead is built by model=dict(type='SMPSegmentor', ...), from the network that it makes"
            )
        super().__init__(
            in_channels=list(widths),
            channels=1,  # of a classifier that goes again
            in_index=list(range(len(widths))),
            input_transform='multiple_select',
            dropout_ratio=0.0,
            align_corners=align_corners,
            init_cfg=None,
            **kwargs,
        )
        del self.conv_seg
        self.decoder = decoder
        self.segmentation_head = segmentation_head

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Computes class logits.

        Args:
            inputs: All maps of the encoder, (B, C_i, H_i, W_i).

        Returns:
            Logits (B, out_channels, H, W), for most architectures at the size of the image.
        """
        return self.segmentation_head(self.decoder(list(inputs)))
