"""The block of LRFormer, shared by its backbone and its head (arXiv 2310.05026)."""

from __future__ import annotations

from mmcv.cnn import build_activation_layer, build_norm_layer
from mmcv.cnn.bricks import DropPath, LayerScale
from torch import Tensor, nn

from ..layers import depthwise_conv
from .low_resolution import PooledAttention, PoolingPyramid


class InvertedResidualFFN(nn.Module):
    """Pointwise expansion and activation, a residual depthwise 3x3 convolution, then pointwise reduction.

    Args:
        embed_dims: Number of channels of the feature map.
        mlp_ratio: Hidden width in multiples of `embed_dims`.
        act_cfg: Activation.
        drop_rate: Dropout rate of the hidden layer and of the output.
    """

    def __init__(self, embed_dims: int, mlp_ratio: int, act_cfg: dict, drop_rate: float = 0.0) -> None:
        super().__init__()
        hidden = mlp_ratio * embed_dims
        self.fc1 = nn.Conv2d(embed_dims, hidden, 1)
        self.act = build_activation_layer(act_cfg)
        self.conv = depthwise_conv(hidden, 3)
        self.fc2 = nn.Conv2d(hidden, embed_dims, 1)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = self.act(self.fc1(x))  # (B, mlp_ratio * C, H, W)
        x = self.drop(x + self.conv(x))
        return self.drop(self.fc2(x))


class LowResolutionBlock(nn.Module):
    """x + dw3x3(x), then x + g1 * LRSA(norm(x)), then x + g2 * FFN(norm(x)).

    Args:
        embed_dims: Number of channels of the feature map.
        num_heads: Number of heads; must divide `embed_dims`.
        mlp_ratio: Hidden width of the feed-forward part in multiples of `embed_dims`.
        q_size: Short side of the pooled queries.
        norm_cfg: Norm over channels.
        act_cfg: Activation.
        layer_scale: Initial value of the learned scales g1 and g2; None for no scales.
        pre_norm: Whether to put a batch norm before the block, which keeps deep networks within the range of fp16.
        drop_rate: Dropout rate of the attention's output and of the feed-forward part.
        attn_drop_rate: Dropout rate of the attention weights.
        drop_path_rate: Stochastic depth rate of the residual branches.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        mlp_ratio: int,
        q_size: int,
        norm_cfg: dict,
        act_cfg: dict,
        layer_scale: float | None = None,
        pre_norm: bool = False,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()

        def scale() -> nn.Module:
            if layer_scale is None:
                return nn.Identity()
            return LayerScale(embed_dims, data_format='channels_first', scale=layer_scale)

        self.pre_norm = nn.BatchNorm2d(embed_dims) if pre_norm else nn.Identity()
        self.cpe = depthwise_conv(embed_dims, 3)
        self.norm1 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.attn = PooledAttention(embed_dims, num_heads, q_size, attn_drop_rate, drop_rate)
        self.scale1 = scale()
        self.norm2 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.mlp = InvertedResidualFFN(embed_dims, mlp_ratio, act_cfg, drop_rate)
        self.scale2 = scale()
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, pyramid: PoolingPyramid) -> Tensor:
        """Feature map (B, C, H, W) -> (B, C, H, W); `pyramid` makes the context of the attention."""
        x = self.pre_norm(x)
        x = x + self.cpe(x)
        x = x + self.drop_path(self.scale1(self.attn(self.norm1(x), pyramid)))
        return x + self.drop_path(self.scale2(self.mlp(self.norm2(x))))
