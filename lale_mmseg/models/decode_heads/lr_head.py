"""LRHead, the head of LRFormer (arXiv 2310.05026): low-resolution attention over fused maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import Tensor

from ...errors import ConfigError
from ..attention import LowResolutionBlock, PoolingPyramid


@MODELS.register_module()
class LRHead(BaseDecodeHead):
    """Fuses maps at the finest stride given, mixes them, adds the coarsest map again, mixes, classifies.

    Args:
        in_channels: Width of each map, finest first.
        channels: Width of the fused map; must be divisible by `num_heads`.
        in_index: Position of each map in the backbone's output.
        num_heads: Number of attention heads.
        mlp_ratio: Width of the hidden layers of the blocks, in multiples of `channels`.
        q_size: Short side of the pooled queries.
        pool_sizes: Short sides of the pooled keys and values for a `q_size` of 16, scaled with it.
        layer_scale: Start of the learned scales of the blocks' residual branches.
        norm_cfg: Norm of the convolutions and of the blocks.
        act_cfg: Activation of the convolutions; the blocks have GELU.
        dropout_ratio: Probability to drop a channel of the last map in training.
        align_corners: Of every bilinear resizing of the inputs.
        **kwargs: The other arguments of `BaseDecodeHead` (`num_classes`, `loss_decode`, `ignore_index`, ...), which
            rejects unknown ones.

    Raises:
        ConfigError: `in_channels` and `in_index` differ in length, `channels` is not divisible by `num_heads`, or
            `q_size` is under 1.
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
        if len(in_channels) != len(in_index):
            raise ConfigError(f'{len(in_channels)} in_channels for {len(in_index)} entries of in_index')
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
        """Computes class logits at the stride of the finest map given.

        Args:
            inputs: Maps of the backbone, (B, C_i, H_i, W_i).

        Returns:
            Logits (B, out_channels, H_0, W_0).
        """
        maps = self._transform_inputs(inputs)
        size = maps[0].shape[2:]
        maps = [resize(x, size=size, mode='bilinear', align_corners=self.align_corners) for x in maps]
        x = self.squeeze1(torch.cat(maps, dim=1))  # (B, channels, H_0, W_0)
        x = self.fuse_block1(x, self.pyramid)
        x = self.squeeze2(torch.cat([x, maps[-1]], dim=1))
        x = self.fuse_block2(x, self.pyramid)
        return self.cls_seg(x)
