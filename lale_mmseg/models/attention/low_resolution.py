"""Low-resolution self-attention (LRSA): Low-Resolution Self-Attention for Semantic Segmentation (arXiv 2310.05026).

Queries, keys and values all live on pooled maps whose sizes depend on the shape of the image and not on its size, so
only pooling and resizing see every pixel: time and memory are linear in pixels. Differences: any map size, odd ones
too, and strips without a cost of their own; attention dropout is applied; attention through torch's fused form.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import ConfigError
from ..layers import depthwise_conv, to_map
from .heads import attend, check_drops, check_heads, split_heads

#: Short side of the pooled queries that the short sides of the pooled keys and values are given for.
REFERENCE_Q_SIZE = 16
#: Long side of a pooled map in multiples of its short side, at most. Without a limit, attention over a strip would cost
#: the square of its aspect ratio; images of the published networks are far from it.
MAX_ASPECT_RATIO = 8


def pooled_size(hw: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Size of a pooled map: its short side is given, its long side keeps the aspect ratio of `hw`, within a limit."""
    height, width = hw
    short, long = min(height, width), max(height, width)
    # The small addition rounds halves up, whatever the parity (Python rounds them to even numbers).
    long_side = min(round(long * short_side / short + 0.001), MAX_ASPECT_RATIO * short_side)
    return (short_side, long_side) if height <= width else (long_side, short_side)


class ResidualDepthwiseConv(nn.Module):
    """x + dw3x3(x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = depthwise_conv(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x + self.conv(x)


class PoolingPyramid(nn.Module):
    """Average-pools a map to several sizes and lines their pixels up: the context of LRSA before its norm.

    One pyramid may serve all blocks of a stage, as in LRFormer.

    Args:
        channels: Width of the map.
        q_size: Short side of the pooled queries that this pyramid goes with.
        pool_sizes: Short sides of the pooled maps for queries with a short side of 16; others are scaled by
            q_size / 16 and rounded.
        convs: Add dw3x3 of each pooled map to it.

    Raises:
        ConfigError: `q_size` is under 1, or `pool_sizes` is empty or has an entry under 1.
    """

    def __init__(self, channels: int, q_size: int, pool_sizes: Sequence[int], convs: bool) -> None:
        super().__init__()
        check_q_size(q_size)
        if not pool_sizes or min(pool_sizes) < 1:
            raise ConfigError(f'pool_sizes={tuple(pool_sizes)}: one side or more are due, each at least 1')
        self.sides = tuple(max(1, round(side * q_size / REFERENCE_Q_SIZE)) for side in pool_sizes)
        self.refine = nn.ModuleList(ResidualDepthwiseConv(channels) if convs else nn.Identity() for _ in self.sides)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, sum of the pooled areas, C)."""
        hw = (x.shape[2], x.shape[3])
        maps = [
            refine(F.adaptive_avg_pool2d(x, pooled_size(hw, side)))
            for side, refine in zip(self.sides, self.refine, strict=True)
        ]
        return torch.cat([pooled.flatten(2) for pooled in maps], dim=2).transpose(1, 2)


class PooledAttention(nn.Module):
    """Attention from a pooled map to a pooling pyramid, resized back to the map.

    Args:
        embed_dims: Width C of the map.
        num_heads: Number of heads; must divide `embed_dims`.
        q_size: Short side of the pooled queries.
        attn_drop: Probability to drop an attention weight in training.
        proj_drop: Probability to drop an output value in training.

    Raises:
        ConfigError: `embed_dims` is not divisible by `num_heads`, or `q_size` is under 1.
    """

    def __init__(
        self, embed_dims: int, num_heads: int, q_size: int, attn_drop: float = 0.0, proj_drop: float = 0.0
    ) -> None:
        super().__init__()
        check_heads(embed_dims, num_heads)
        check_q_size(q_size)
        self.num_heads = num_heads
        self.q_size = q_size
        self.attn_drop = attn_drop
        self.q = nn.Linear(embed_dims, embed_dims)
        self.norm = nn.LayerNorm(embed_dims, eps=1e-5)
        self.kv = nn.Linear(embed_dims, 2 * embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, pyramid: nn.Module) -> Tensor:
        """Attends at low resolution.

        Args:
            x: Map (B, C, H, W).
            pyramid: (B, C, H, W) -> (B, L, C), the context before its norm.

        Returns:
            Map (B, C, H, W).
        """
        hw = (x.shape[2], x.shape[3])
        size = pooled_size(hw, self.q_size)
        pooled = F.adaptive_avg_pool2d(x, size).flatten(2).transpose(1, 2)  # (B, h * w, C)
        query = split_heads(self.q(pooled), self.num_heads)[0]  # (B, heads, h * w, d)
        key, value = split_heads(self.kv(self.norm(pyramid(x))), self.num_heads, parts=2)  # 2 x (B, heads, L, d)
        dropout = self.attn_drop if self.training else 0.0
        out = self.proj_drop(self.proj(attend(query, key, value, dropout)))  # (B, h * w, C)
        return F.interpolate(to_map(out, size), size=hw, mode='bilinear', align_corners=False)


@MODELS.register_module()
class LowResolutionSelfAttention(nn.Module):
    """LRSA with a pyramid of its own, as a drop-in for self-attention; cost grows linearly with H * W.

    Args:
        embed_dims: Width C of the tokens.
        num_heads: Number of heads; must divide `embed_dims`.
        q_size: Short side of the pooled queries.
        pool_sizes: Short sides of the pooled keys and values for a `q_size` of 16, scaled with it.
        pool_convs: Add dw3x3 of each pooled map of keys and values to it.
        attn_drop: Probability to drop an attention weight in training.
        proj_drop: Probability to drop an output value in training.

    Raises:
        ConfigError: `embed_dims` is not divisible by `num_heads`, a size is under 1, or a rate is outside 0 to 1.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        q_size: int = 16,
        pool_sizes: Sequence[int] = (11, 8, 6, 4),
        pool_convs: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        check_drops(attn_drop, proj_drop)
        self.attention = PooledAttention(embed_dims, num_heads, q_size, attn_drop, proj_drop)
        self.pyramid = PoolingPyramid(embed_dims, q_size, pool_sizes, pool_convs)

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Attends at low resolution.

        Args:
            x: Tokens (B, N, C).
            hw: Height and width of the map, N = H * W.

        Returns:
            Tokens (B, N, C).
        """
        return self.attention(to_map(x, hw), self.pyramid).flatten(2).transpose(1, 2)


def check_q_size(q_size: int) -> None:
    """Raises ConfigError for a short side of the pooled queries under 1."""
    if q_size < 1:
        raise ConfigError(f'q_size={q_size}: the short side of the pooled queries is at least 1')
