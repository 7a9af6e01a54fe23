"""Blocks that mix neighbouring pixels and channels: ConvMixer, convolutional MLP, transformer block.

ConvMixer after Patches Are All You Need? (arXiv 2201.09792) and transformer blocks with a convolutional MLP, as LALE
(arXiv 2606.02092) combines them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmcv.cnn import build_activation_layer, build_norm_layer
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import ConfigError


def depthwise_conv(channels: int, kernel_size: int) -> nn.Conv2d:
    """Depthwise convolution that keeps the size of its input."""
    return nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)


def to_map(tokens: Tensor, hw: tuple[int, int]) -> Tensor:
    """Tokens (B, H * W, C) as a channels-last view (B, C, H, W)."""
    # This order of steps gives channels-last strides for a batch of one, too; with others, pooling and resizing would
    # copy the feature map.
    return tokens.unflatten(1, hw).permute(0, 3, 1, 2)  # (B, H, W, C) -> (B, C, H, W)


class ConvMixerBlock(nn.Module):
    """x + dw(norm(x)), then x + pw2(act(pw1(norm(x)))): spatial, then channel mixing.

    Args:
        embed_dims: Number of channels of the feature map.
        mlp_ratio: Hidden width of the channel mixing in multiples of `embed_dims`.
        kernel_size: Size of the depthwise kernel, odd.
        norm_cfg: Norm over channels.
        act_cfg: Activation.
    """

    def __init__(self, embed_dims: int, mlp_ratio: int, kernel_size: int, norm_cfg: dict, act_cfg: dict) -> None:
        super().__init__()
        self.norm1 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.spatial = depthwise_conv(embed_dims, kernel_size)
        self.norm2 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.expand = nn.Conv2d(embed_dims, mlp_ratio * embed_dims, 1)
        self.act = build_activation_layer(act_cfg)
        self.reduce = nn.Conv2d(mlp_ratio * embed_dims, embed_dims, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = x + self.spatial(self.norm1(x))
        return x + self.reduce(self.act(self.expand(self.norm2(x))))


class ConvMLP(nn.Module):
    """Pointwise expansion, depthwise convolution, activation, pointwise reduction.

    Args:
        embed_dims: Number of channels of the feature map.
        mlp_ratio: Hidden width in multiples of `embed_dims`.
        kernel_size: Size of the depthwise kernel, odd.
        act_cfg: Activation.
    """

    def __init__(self, embed_dims: int, mlp_ratio: int, kernel_size: int, act_cfg: dict) -> None:
        super().__init__()
        hidden = mlp_ratio * embed_dims
        self.expand = nn.Conv2d(embed_dims, hidden, 1)
        self.spatial = depthwise_conv(hidden, kernel_size)
        self.act = build_activation_layer(act_cfg)
        self.reduce = nn.Conv2d(hidden, embed_dims, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return self.reduce(self.act(self.spatial(self.expand(x))))


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + ConvMLP(norm(x)).

    Args:
        embed_dims: Number of channels of the feature map.
        num_heads: Number of attention heads.
        mlp_ratio: Hidden width of the ConvMLP in multiples of `embed_dims`.
        kernel_size: Size of the ConvMLP's depthwise kernel, odd.
        attn_cfg: Registered attention, built with `embed_dims` and `num_heads` added; called as
            (x: (B, N, C), hw: (H, W)) -> (B, N, C).
        norm_cfg: Norm over channels.
        act_cfg: Activation.

    Raises:
        ConfigError: `attn_cfg` has no `type`, or sets `embed_dims` or `num_heads`.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        mlp_ratio: int,
        kernel_size: int,
        attn_cfg: dict,
        norm_cfg: dict,
        act_cfg: dict,
    ) -> None:
        super().__init__()
        self.norm1 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.attention = build_attention(attn_cfg, embed_dims, num_heads)
        self.norm2 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.mlp = ConvMLP(embed_dims, mlp_ratio, kernel_size, act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        hw = (x.shape[2], x.shape[3])
        tokens = self.norm1(x).flatten(2).transpose(1, 2)  # (B, H * W, C), a view of channels-last x
        x = x + to_map(self.attention(tokens, hw), hw)  # (B, C, H, W)
        return x + self.mlp(self.norm2(x))


def build_attention(attn_cfg: Mapping[str, Any], embed_dims: int, num_heads: int) -> nn.Module:
    """Builds a registered attention; its width and number of heads follow from the stage, not from `attn_cfg`.

    Raises:
        ConfigError: `attn_cfg` has no `type`, or sets `embed_dims` or `num_heads`.
    """
    if not isinstance(attn_cfg, Mapping) or 'type' not in attn_cfg:
        raise ConfigError(f"attn_cfg={attn_cfg!r}: expected a dict such as dict(type='MultiHeadAttention')")
    if fixed := {'embed_dims', 'num_heads'} & set(attn_cfg):
        raise ConfigError(f'attn_cfg.{fixed.pop()} follows from the width of the stage and head_dim; leave it out')
    return MODELS.build({**attn_cfg, 'embed_dims': embed_dims, 'num_heads': num_heads})
