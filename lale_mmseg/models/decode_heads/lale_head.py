"""LALEHead, the all-MLP decoder of LALE (arXiv 2606.02092).

After the decoder of SegFormer (arXiv 2105.15203), with three differences: no activation between the projections and
the fusing convolution (so that projection, resizing and fusing are one linear map, which deployment may merge), and
StarReLU and channel dropout after the fusing convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import build_activation_layer, build_norm_layer
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import ConfigError
from ..layers import fuse_projected


@MODELS.register_module()
class LALEHead(BaseDecodeHead):
    """Projects every map to one width, fuses them at the finest stride and classifies each pixel.

    Takes the maps of any mmsegmentation backbone: `in_channels` and `in_index` name them, finest first.

    Args:
        in_channels: Width of each map.
        channels: Width of the projections and of the fused map.
        in_index: Position of each map in the backbone's output.
        norm_cfg: Norm of the fusing convolution.
        act_cfg: Activation of the fusing convolution.
        dropout_ratio: Probability to drop a channel of the fused map in training.
        align_corners: Of every bilinear resizing.
        init_cfg: Initialization; torch's own by default, where `BaseDecodeHead` starts its classifier with weights five
            times smaller.
        **kwargs: The other arguments of `BaseDecodeHead` (`num_classes`, `loss_decode`, `ignore_index`, ...), which
            rejects unknown ones.
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
            init_cfg=init_cfg,
            **kwargs,
        )
        self.projections = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in in_channels)
        self.fuse = nn.Conv2d(channels * len(in_channels), channels, 1, bias=False)
        self.norm = build_norm_layer(norm_cfg, channels)[1]
        self.act = build_activation_layer(act_cfg)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Computes class logits at the stride of the finest map.

        Args:
            inputs: Maps of the backbone, (B, C_i, H_i, W_i).

        Returns:
            Logits (B, out_channels, H_0, W_0).
        """
        maps = self._transform_inputs(inputs)
        x = fuse_projected(maps, list(self.projections), self.fuse, self.align_corners)  # (B, channels, H_0, W_0)
        return self.cls_seg(self.act(self.norm(x)))
