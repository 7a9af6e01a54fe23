"""The block of LRFormer, shared by its backbone and its head (arXiv 2310.05026)."""

from __future__ import annotations

from mmcv.cnn import build_activation_layer, build_norm_layer
from mmcv.cnn.bricks import DropPath, LayerScale
from torch import Tensor, nn

from ..layers import depthwise_conv
from .low_resolution import PooledAttention


class InvertedResidualFFN(nn.Module):
    """Pointwise expansion and activation, plus a depthwise 3x3 of that, then pointwise reduction.

    Args:
        channels: Width of the map.
        expansion: Width of the hidden layer, in multiples of `channels`.
        act_cfg: Activation.
        drop: Probability to drop a value of the hidden layer, and of the output, in training.
    """

    def __init__(self, channels: int, expansion: int, act_cfg: dict, drop: float = 0.0) -> None:
        super().__init__()
        hidden = expansion * channels
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.act = build_activation_layer(act_cfg)
        self.conv = depthwise_conv(hidden, 3)
        self.fc2 = nn.Conv2d(hidden, channels, 1)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = self.act(self.fc1(x))
        x = self.drop(x + self.conv(x))
        return self.drop(self.fc2(x))


class LowResolutionBlock(nn.Module):
    """x + dw3x3(x), then x + g1 * LRSA(norm(x)), then x + g2 * FFN(norm(x)).

    Args:
        channels: Width of the map.
        num_heads: Number of heads; must divide `channels`.
        expansion: Width of the hidden layer of the feed-forward part, in multiples of `channels`.
        q_size: Short side of the pooled queries.
        norm_cfg: Norm over channels.
        act_cfg: Activation.
        layer_scale: Start of the learned scales g1 and g2; None for none.
        pre_norm: Batch norm in front of the block, which keeps deep networks inside the range of fp16.
        drop: Probability to drop an output value of attention, or a value of the feed-forward part, in training.
        attn_drop: Probability to drop an attention weight in training.
        drop_path: Probability to skip a residual branch of a sample in training.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        expansion: int,
        q_size: int,
        norm_cfg: dict,
        act_cfg: dict,
        layer_scale: float | None = None,
        pre_norm: bool = False,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()

        def scale() -> nn.Module:
            if layer_scale is None:
                return nn.Identity()
            return LayerScale(channels, data_format='channels_first', scale=layer_scale)

        self.pre_norm = nn.BatchNorm2d(channels) if pre_norm else nn.Identity()
        self.cpe = depthwise_conv(channels, 3)
        self.norm1 = build_norm_layer(norm_cfg, channels)[1]
        self.attn = PooledAttention(channels, num_heads, q_size, attn_drop, drop)
        self.scale1 = scale()
        self.norm2 = build_norm_layer(norm_cfg, channels)[1]
        self.mlp = InvertedResidualFFN(channels, expansion, act_cfg, drop)
        self.scale2 = scale()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, pyramid: nn.Module) -> Tensor:
        """Mixes a map at low resolution and around each pixel.

        Args:
            x: Map (B, C, H, W).
            pyramid: Context of the attention, (B, C, H, W) -> (B, L, C).

        Returns:
            Map (B, C, H, W).
        """
        x = self.pre_norm(x)
        x = x + self.cpe(x)
        x = x + self.drop_path(self.scale1(self.attn(self.norm1(x), pyramid)))
        return x + self.drop_path(self.scale2(self.mlp(self.norm2(x))))
