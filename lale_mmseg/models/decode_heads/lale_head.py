"""LALEHead, the all-MLP decoder of LALE (arXiv 2606.02092).

After the decoder of SegFormer (arXiv 2105.15203). Differences: no activation between the projections and the fusing
convolution, so that projecting, resizing and fusing are one linear operation that deployment may merge; StarReLU and
channel dropout after the fusing convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import build_activation_layer, build_norm_layer
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..layers import fuse_projected


@MODELS.register_module()
class LALEHead(BaseDecodeHead):
    """Projects every feature map to one width, fuses them at the finest stride and classifies each pixel.

    Works with any mmsegmentation backbone.

    Args:
        in_channels: Number of channels of each feature map, finest first.
        channels: Number of channels of the projections and of the fused feature map.
        in_index: Index of each feature map in the backbone's output.
        norm_cfg: Norm of the fusing convolution.
        act_cfg: Activation of the fusing convolution.
        dropout_ratio: Channel dropout rate of the fused feature map.
        align_corners: Whether bilinear resizing aligns corners.
        init_cfg: Initialization; torch's default if None, while `BaseDecodeHead` starts its classifier with weights
            five times smaller.
        **kwargs: The other arguments of `BaseDecodeHead` (`num_classes`, `loss_decode`, `ignore_index`, ...).
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (32, 64, 128, 256),
        channels: int = 128,
        *,
        in_index: Sequence[int] = (0, 1, 2, 3),
        norm_cfg: dict = dict(type='SyncBN'),
        act_cfg: dict = dict(type='mmseg.StarReLU'),
        dropout_ratio: float = 0.1,
        align_corners: bool = False,
        init_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            in_channels=list(in_channels),
            channels=channels,
            in_index=list(in_index),
            input_transform='multiple_select',
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
            dropout_ratio=dropout_ratio,
            align_corners=align_corners,
            init_cfg=init_cfg,
            **kwargs,
        )
        self.projections = nn.ModuleList(nn.Conv2d(inputs, channels, 1) for inputs in in_channels)
        self.fuse = nn.Conv2d(channels * len(in_channels), channels, 1, bias=False)
        self.norm = build_norm_layer(norm_cfg, channels)[1]
        self.act = build_activation_layer(act_cfg)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Computes class logits at the stride of the finest map.

        Args:
            inputs: Feature maps of the backbone, (B, C_i, H_i, W_i).

        Returns:
            Logits (B, out_channels, H_0, W_0).
        """
        inputs = self._transform_inputs(inputs)
        x = fuse_projected(inputs, list(self.projections), self.fuse, self.align_corners)  # (B, channels, H_0, W_0)
        return self.cls_seg(self.act(self.norm(x)))
