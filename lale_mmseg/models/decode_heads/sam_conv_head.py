"""SAMConvHead: a plain convolutional decoder for the single feature map of a vision transformer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class SAMConvHead(BaseDecodeHead):
    """Doubles the size of a feature map in stages (resizing, 3x3 convolution, norm, activation), and classifies.

    The four stages of the default turn SAM's neck at stride 16 into logits at full resolution, as outlines of buildings
    at a ground sample distance of 30 cm need. 1,757,186 parameters with two classes; each stage after the first costs
    the same.

    Args:
        in_channels: Number of channels of the feature map.
        decoder_channels: Number of channels after each stage; each stage halves the stride.
        in_index: Index of the feature map in the backbone's output.
        decoder_dropout: Channel dropout rate between stages.
        norm_cfg: Norm of the convolutions.
        dropout_ratio: Channel dropout rate before the classifier.
        align_corners: Whether bilinear resizing aligns corners.
        init_cfg: Initialization of the classifier; torch's default if None. Convolutions are initialized by
            `ConvModule`.
        **kwargs: The other arguments of `BaseDecodeHead` (`num_classes`, `loss_decode`, `ignore_index`, ...).
    """

    def __init__(
        self,
        in_channels: int = 256,
        decoder_channels: Sequence[int] = (384, 192, 96, 48),
        *,
        in_index: int = 0,
        decoder_dropout: float = 0.3,
        norm_cfg: dict = dict(type='SyncBN'),
        dropout_ratio: float = 0.0,
        align_corners: bool = False,
        init_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            channels=decoder_channels[-1],
            in_index=in_index,
            norm_cfg=norm_cfg,
            dropout_ratio=dropout_ratio,
            align_corners=align_corners,
            init_cfg=init_cfg,
            **kwargs,
        )
        cfgs: dict[str, Any] = dict(bias=False, norm_cfg=norm_cfg, act_cfg=self.act_cfg)
        self.stages = nn.ModuleList(
            ConvModule(*pair, 3, padding=1, **cfgs) for pair in pairwise((in_channels, *decoder_channels))
        )
        self.between = nn.ModuleList(nn.Dropout2d(decoder_dropout) for _ in decoder_channels[1:])

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Computes class logits.

        Args:
            inputs: Feature maps of the backbone; the one of `in_index` is (B, in_channels, h, w).

        Returns:
            Logits (B, out_channels, h * 2 ** n, w * 2 ** n) after n stages.
        """
        x = self._transform_inputs(inputs)  # (B, in_channels, h, w)
        for position, stage in enumerate(self.stages):
            if position:
                x = self.between[position - 1](x)
            size = (2 * x.shape[2], 2 * x.shape[3])
            x = stage(resize(x, size=size, mode='bilinear', align_corners=self.align_corners))  # (B, C_i, 2 h, 2 w)
        return self.cls_seg(x)
