"""Blocks that mix neighbouring pixels and channels: ConvMixer, convolutional MLP, transformer block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmcv.cnn import build_activation_layer, build_norm_layer
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import ConfigError

#: Module of the registered attentions of this package, which build on these layers: read through the registry alone.
_ATTENTION_MODULE = 'lale_mmseg.models.attention.'


def depthwise_conv(channels: int, kernel_size: int) -> nn.Conv2d:
    """Depthwise convolution that keeps the size of its input."""
    return nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)


def to_map(tokens: Tensor, hw: tuple[int, int]) -> Tensor:
    """Tokens (B, H * W, C) as a channels-last view (B, C, H, W).

    In this order of steps the strides of a batch of one also say so; otherwise pooling and resizing would copy the map.
    """
    return tokens.unflatten(1, hw).permute(0, 3, 1, 2)


class ConvMixerBlock(nn.Module):
    """x + dw(norm(x)), then x + pw2(act(pw1(norm(x)))): spatial, then channel mixing.

    Args:
        channels: Width of the map.
        expansion: Width of the hidden layer of the channel mixing, in multiples of `channels`.
        kernel_size: Side of the depthwise kernel, odd.
        norm_cfg: Norm over channels.
        act_cfg: Activation.
    """

    def __init__(self, channels: int, expansion: int, kernel_size: int, norm_cfg: dict, act_cfg: dict) -> None:
        super().__init__()
        self.norm1 = build_norm_layer(norm_cfg, channels)[1]
        self.spatial = depthwise_conv(channels, kernel_size)
        self.norm2 = build_norm_layer(norm_cfg, channels)[1]
        self.expand = nn.Conv2d(channels, expansion * channels, 1)
        self.act = build_activation_layer(act_cfg)
        self.reduce = nn.Conv2d(expansion * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = x + self.spatial(self.norm1(x))
        return x + self.reduce(self.act(self.expand(self.norm2(x))))


class ConvMLP(nn.Module):
    """Pointwise expansion, depthwise convolution, activation, pointwise reduction.

    Args:
        channels: Width of the map.
        expansion: Width of the hidden layer, in multiples of `channels`.
        kernel_size: Side of the depthwise kernel, odd.
        act_cfg: Activation.
    """

    def __init__(self, channels: int, expansion: int, kernel_size: int, act_cfg: dict) -> None:
        super().__init__()
        hidden = expansion * channels
        self.expand = nn.Conv2d(channels, hidden, 1)
        self.spatial = depthwise_conv(hidden, kernel_size)
        self.act = build_activation_layer(act_cfg)
        self.reduce = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return self.reduce(self.act(self.spatial(self.expand(x))))


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + ConvMLP(norm(x)).

    Args:
        channels: Width of the map.
        num_heads: Number of attention heads.
        expansion: Width of the hidden layer of the ConvMLP, in multiples of `channels`.
        kernel_size: Side of the depthwise kernel of the ConvMLP, odd.
        attn_cfg: Registered attention, built with `embed_dims` and `num_heads` added; called as
            (x: (B, N, C), hw: (H, W)) -> (B, N, C).
        norm_cfg: Norm over channels.
        act_cfg: Activation.

    Raises:
        ConfigError: `attn_cfg` is no dict with a `type`, names an attention that is not registered, or sets
            `embed_dims` or `num_heads`.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        expansion: int,
        kernel_size: int,
        attn_cfg: dict,
        norm_cfg: dict,
        act_cfg: dict,
    ) -> None:
        super().__init__()
        self.norm1 = build_norm_layer(norm_cfg, channels)[1]
        self.attention = _build_attention(attn_cfg, channels, num_heads)
        self.norm2 = build_norm_layer(norm_cfg, channels)[1]
        self.mlp = ConvMLP(channels, expansion, kernel_size, act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        height, width = x.shape[2:]
        tokens = self.norm1(x).flatten(2).transpose(1, 2)  # (B, H * W, C), a view of a channels-last map
        tokens = self.attention(tokens, (height, width))
        x = x + to_map(tokens, (height, width))
        return x + self.mlp(self.norm2(x))


def _build_attention(attn_cfg: Mapping[str, Any], embed_dims: int, num_heads: int) -> nn.Module:
    """Builds a registered attention for a width and a number of heads, which are not the config's to choose."""
    if not isinstance(attn_cfg, Mapping) or 'type' not in attn_cfg:
        raise ConfigError(f'attn_cfg={attn_cfg!r}: a dict with `type` is due; {_known_attentions()}')
    for name in ('embed_dims', 'num_heads'):
        if name in attn_cfg:
            raise ConfigError(
                f'attn_cfg.{name}={attn_cfg[name]!r}: not to be set, it follows from the width of the stage and the '
                'width of a head'
            )
    kind = attn_cfg['type']
    if isinstance(kind, str):
        with MODELS.switch_scope_and_registry(None) as registry:  # where `build` will look
            try:
                found = registry.get(kind)
            except RuntimeError:  # a dotted name that cannot be imported
                found = None
        if found is None:
            raise ConfigError(f'attn_cfg.type={kind!r}: nothing is registered under this name; {_known_attentions()}')
    return MODELS.build({**attn_cfg, 'embed_dims': embed_dims, 'num_heads': num_heads})


def _known_attentions() -> str:
    parts = MODELS.module_dict.items()
    names = sorted(name for name, part in parts if part.__module__.startswith(_ATTENTION_MODULE))
    return f'attentions of this package are {", ".join(names)}'
