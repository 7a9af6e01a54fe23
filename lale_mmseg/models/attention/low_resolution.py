"""Low-resolution self-attention (LRSA): Low-Resolution Self-Attention for Semantic Segmentation (arXiv 2310.05026).

Queries, keys and values are pooled feature maps of a fixed short side, so only pooling and resizing run over every
pixel: time and memory are linear in pixels. Differences: any size of feature map, including odd ones and strips, whose
aspect ratio is limited; attention dropout is applied; attention through torch's fused kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from ..layers import depthwise_conv, to_map
from .base import POOLED, Attention, Size, split_heads

#: Short side of the pooled queries that `pool_sizes` refers to.
REFERENCE_Q_SIZE = 16
#: Maximum aspect ratio of a pooled feature map. Without it, attention over a strip would cost the square of its aspect
#: ratio; the images of the published networks stay far below it.
MAX_ASPECT_RATIO = 8


def pooled_size(hw: Size, short_side: int) -> Size:
    """Size of a pooled feature map: the given short side, and the aspect ratio of `hw` up to `MAX_ASPECT_RATIO`."""
    height, width = hw
    short, long = min(height, width), max(height, width)
    # The small addition rounds halves up, regardless of parity (Python rounds them to even numbers).
    long_side = min(round(long * short_side / short + 0.001), MAX_ASPECT_RATIO * short_side)
    return (short_side, long_side) if height <= width else (long_side, short_side)


class ResidualDepthwiseConv(nn.Module):
    """x + dw3x3(x)."""

    def __init__(self, embed_dims: int) -> None:
        super().__init__()
        self.conv = depthwise_conv(embed_dims, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x + self.conv(x)


class PoolingPyramid(nn.Module):
    """Average-pools a feature map to several sizes and concatenates their pixels: the context of LRSA before its norm.

    All blocks of a stage may share one pyramid, as in LRFormer.

    Args:
        embed_dims: Number of channels of the feature map.
        q_size: Short side of the pooled queries that attend to this pyramid.
        pool_sizes: Short sides of the pooled feature maps for `q_size=16`; scaled by q_size / 16 and rounded.
        convs: Whether to refine each pooled feature map by a residual depthwise convolution.
    """

    def __init__(self, embed_dims: int, q_size: int, pool_sizes: Sequence[int], convs: bool) -> None:
        super().__init__()
        self.sides = tuple(max(1, round(side * q_size / REFERENCE_Q_SIZE)) for side in pool_sizes)
        self.refine = nn.ModuleList(ResidualDepthwiseConv(embed_dims) if convs else nn.Identity() for _ in self.sides)

    def sizes(self, hw: Size) -> list[Size]:
        """Sizes of the pooled feature maps of a feature map of size `hw`."""
        return [pooled_size(hw, side) for side in self.sides]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, L, C), where L is the sum of the pooled areas."""
        sizes = self.sizes((x.shape[2], x.shape[3]))
        pooled = [
            refine(F.adaptive_avg_pool2d(x, size)).flatten(2)  # (B, C, h * w)
            for size, refine in zip(sizes, self.refine, strict=True)
        ]
        return torch.cat(pooled, dim=2).transpose(1, 2)  # (B, L, C)


class PooledAttention(Attention):
    """Attention from a pooled feature map to a pooling pyramid, resized back to the size of the feature map.

    Args:
        embed_dims: Number of channels C of the feature map.
        num_heads: Number of heads; must divide `embed_dims`.
        q_size: Short side of the pooled queries.
        attn_drop: Dropout rate of the attention weights.
        proj_drop: Dropout rate of the output.
    """

    roles: ClassVar[tuple[str, ...]] = (POOLED,)

    def __init__(
        self, embed_dims: int, num_heads: int, q_size: int, attn_drop: float = 0.0, proj_drop: float = 0.0
    ) -> None:
        super().__init__(embed_dims, num_heads, attn_drop, proj_drop)
        self.q_size = q_size
        self.q = nn.Linear(embed_dims, embed_dims)
        self.norm = nn.LayerNorm(embed_dims, eps=1e-5)
        self.kv = nn.Linear(embed_dims, 2 * embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)

    def forward(self, x: Tensor, pyramid: PoolingPyramid) -> Tensor:
        """Attends at low resolution.

        Args:
            x: Feature map (B, C, H, W).
            pyramid: Makes the context before its norm.

        Returns:
            Feature map (B, C, H, W).
        """
        hw = (x.shape[2], x.shape[3])
        size = pooled_size(hw, self.q_size)
        pooled = F.adaptive_avg_pool2d(x, size).flatten(2).transpose(1, 2)  # (B, h * w, C)
        query = split_heads(self.q(pooled), self.num_heads)[0]  # (B, heads, h * w, d)
        key, value = split_heads(self.kv(self.norm(pyramid(x))), self.num_heads, parts=2)  # 2 x (B, heads, L, d)
        out = self.attend(POOLED, query, key, value, hw, pooled=(size, *pyramid.sizes(hw)))  # (B, h * w, C)
        out = to_map(self.proj_drop(self.proj(out)), size)  # (B, C, h, w)
        return F.interpolate(out, size=hw, mode='bilinear', align_corners=False)  # (B, C, H, W)


@MODELS.register_module()
class LowResolutionSelfAttention(nn.Module):
    """LRSA with a pyramid of its own, as a drop-in for self-attention; cost grows linearly with H * W.

    Args:
        embed_dims: Number of channels C of the tokens.
        num_heads: Number of heads; must divide `embed_dims`.
        q_size: Short side of the pooled queries.
        pool_sizes: Short sides of the pooled keys and values for `q_size=16`, scaled with it.
        pool_convs: Whether to refine each pooled feature map by a residual depthwise convolution.
        attn_drop: Dropout rate of the attention weights.
        proj_drop: Dropout rate of the output.
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
        self.attention = PooledAttention(embed_dims, num_heads, q_size, attn_drop, proj_drop)
        self.pyramid = PoolingPyramid(embed_dims, q_size, pool_sizes, pool_convs)

    def forward(self, x: Tensor, hw: Size) -> Tensor:
        """Attends at low resolution.

        Args:
            x: Tokens (B, N, C).
            hw: Height and width of the feature map, N = H * W.

        Returns:
            Tokens (B, N, C).
        """
        out = self.attention(to_map(x, hw), self.pyramid)  # (B, C, H, W)
        return out.flatten(2).transpose(1, 2)  # (B, N, C)
