"""LRHead, the head of LRFormer: low-resolution attention over fused feature maps.

Low-Resolution Self-Attention for Semantic Segmentation (arXiv 2310.05026). Difference: any size of feature maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import Tensor

from ..attention import LowResolutionBlock, PoolingPyramid


@MODELS.register_module()
class LRHead(BaseDecodeHead):
    """Fuses feature maps at the finest stride, mixes them, adds the coarsest again, mixes, and classifies each pixel.

    Args:
        in_channels: Number of channels of each feature map, finest first.
        channels: Number of channels of the fused feature map; must be divisible by `num_heads`.
        in_index: Index of each feature map in the backbone's output.
        num_heads: Number of attention heads.
        mlp_ratio: Hidden width of the blocks in multiples of `channels`.
        q_size: Short side of the pooled queries.
        pool_sizes: Short sides of the pooled keys and values for `q_size=16`, scaled with it.
        layer_scale: Initial value of the learned scales of the blocks' residual branches.
        norm_cfg: Norm of the convolutions and of the blocks.
        act_cfg: Activation of the convolutions; the blocks use GELU.
        dropout_ratio: Channel dropout rate before the classifier.
        align_corners: Whether bilinear resizing of the inputs aligns corners.
        **kwargs: The other arguments of `BaseDecodeHead` (`num_classes`, `loss_decode`, `ignore_index`, ...).
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (96, 240, 384),
        channels: int = 256,
        *,
        in_index: Sequence[int] = (1, 2, 3),
        num_heads: int = 8,
        mlp_ratio: int = 4,
        q_size: int = 32,
        pool_sizes: Sequence[int] = (11, 8, 6, 4),
        layer_scale: float = 1e-6,
        norm_cfg: dict = dict(type='SyncBN'),
        act_cfg: dict = dict(type='ReLU'),
        dropout_ratio: float = 0.1,
        align_corners: bool = False,
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
            **kwargs,
        )

        def squeeze(inputs: int) -> ConvModule:
            return ConvModule(inputs, channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)

        def block() -> LowResolutionBlock:
            gelu = dict(type='GELU')
            return LowResolutionBlock(channels, num_heads, mlp_ratio, q_size, norm_cfg, gelu, layer_scale=layer_scale)

        self.squeeze1 = squeeze(sum(in_channels))
        self.fuse_block1 = block()
        self.squeeze2 = squeeze(channels + in_channels[-1])
        self.fuse_block2 = block()
        self.pyramid = PoolingPyramid(channels, q_size, pool_sizes, convs=False)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Computes class logits at the stride of the finest feature map.

        Args:
            inputs: Feature maps of the backbone, (B, C_i, H_i, W_i).

        Returns:
            Logits (B, out_channels, H_0, W_0).
        """
        inputs = self._transform_inputs(inputs)
        size = inputs[0].shape[2:]
        inputs = [resize(x, size=size, mode='bilinear', align_corners=self.align_corners) for x in inputs]
        x = self.squeeze1(torch.cat(inputs, dim=1))  # (B, sum C_i, H_0, W_0) -> (B, channels, H_0, W_0)
        x = self.fuse_block1(x, self.pyramid)
        x = self.squeeze2(torch.cat([x, inputs[-1]], dim=1))  # (B, channels, H_0, W_0)
        x = self.fuse_block2(x, self.pyramid)
        return self.cls_seg(x)
