"""Meta tokens: a few learned tokens that gather from the image and give back to it.

LeMeViT: Efficient Vision Transformer with Learnable Meta Tokens for Remote Sensing Image Interpretation (arXiv
2405.09789). With M meta tokens for N pixels, each direction costs N * M, linear in pixels. Differences: attention
through torch's fused kernel; `MetaTokenAttention` is an addition, a drop-in for self-attention.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from .base import GATHER, GIVE, Attention, Size, split_heads


def scale_for_image(key: Tensor, embed_dims: int, num_pixels: int) -> Tensor:
    """Multiplies keys of meta tokens by the softmax scale of pixels that attend to them: C ** -0.5 * log(M) / log(N).

    This is the published scale of dual cross-attention, with the full width C. Logarithms are taken of at least 2, so
    that feature maps of a single pixel work.

    Args:
        key: Keys of M meta tokens, (B, heads, M, d).
        embed_dims: Number of channels C of all tokens.
        num_pixels: Number N of pixels.

    Returns:
        Keys (B, heads, M, d), for a softmax with scale 1.
    """
    # The logarithm of a tensor: a Python number would fix the image size in exported and compiled networks. Scaling
    # the keys instead of the products costs nothing, as there are few of them.
    log_pixels = torch.full((), num_pixels, dtype=torch.float32, device=key.device).clamp(min=2).log()
    return key * (embed_dims**-0.5 * math.log(max(key.shape[2], 2)) / log_pixels).to(key.dtype)


class CrossAttention(Attention):
    """Meta tokens attend to the image; scale head_dim ** -0.5.

    Args:
        embed_dims: Number of channels C of all tokens.
        num_heads: Number of heads; must divide `embed_dims`.
        attn_drop: Dropout rate of the attention weights.
        proj_drop: Dropout rate of the output.
    """

    roles: ClassVar[tuple[str, ...]] = (GATHER,)

    def __init__(self, embed_dims: int, num_heads: int, attn_drop: float = 0.0, proj_drop: float = 0.0) -> None:
        super().__init__(embed_dims, num_heads, attn_drop, proj_drop)
        self.q = nn.Linear(embed_dims, embed_dims)
        self.kv = nn.Linear(embed_dims, 2 * embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)

    def forward(self, meta: Tensor, x: Tensor, hw: Size) -> Tensor:
        """Meta tokens (B, M, C) gather from image tokens (B, H * W, C): (B, M, C)."""
        query = split_heads(self.q(meta), self.num_heads)[0]  # (B, heads, M, d)
        key, value = split_heads(self.kv(x), self.num_heads, parts=2)  # 2 x (B, heads, N, d)
        return self.proj_drop(self.proj(self.attend(GATHER, query, key, value, hw)))  # (B, M, C)


class GivingCrossAttention(Attention):
    """The image's half of dual cross-attention, for blocks after which nothing reads the meta tokens.

    Parameters have the names and shapes of `DualCrossAttention`, so that its weights load. There is no output
    projection of the meta tokens, and the rows of the joint projections that only they need are not computed.

    Args:
        embed_dims: Number of channels C of all tokens.
        num_heads: Number of heads; must divide `embed_dims`.
        attn_drop: Dropout rate of the attention weights.
        proj_drop: Dropout rate of the output.
    """

    roles: ClassVar[tuple[str, ...]] = (GIVE,)

    def __init__(self, embed_dims: int, num_heads: int, attn_drop: float = 0.0, proj_drop: float = 0.0) -> None:
        super().__init__(embed_dims, num_heads, attn_drop, proj_drop)
        self.qkv1 = nn.Linear(embed_dims, 3 * embed_dims)
        self.qkv2 = nn.Linear(embed_dims, 3 * embed_dims)
        self.proj_x = nn.Linear(embed_dims, embed_dims)

    def forward(self, x: Tensor, meta: Tensor, hw: Size) -> Tensor:
        """Image tokens (B, H * W, C) read meta tokens (B, M, C): (B, H * W, C)."""
        dims = self.embed_dims
        query = F.linear(x, self.qkv1.weight[:dims], self.qkv1.bias[:dims])  # (B, N, C)
        query = split_heads(query, self.num_heads)[0]  # (B, heads, N, d)
        context = F.linear(meta, self.qkv2.weight[dims:], self.qkv2.bias[dims:])  # (B, M, 2 * C)
        key, value = split_heads(context, self.num_heads, parts=2)  # 2 x (B, heads, M, d)
        key = scale_for_image(key, dims, x.shape[1])
        return self.proj_drop(self.proj_x(self.attend(GIVE, query, key, value, hw, scale=1.0)))  # (B, N, C)


class DualCrossAttention(GivingCrossAttention):
    """Image tokens attend to the meta tokens while meta tokens attend to the image tokens.

    Args:
        embed_dims: Number of channels C of all tokens.
        num_heads: Number of heads; must divide `embed_dims`.
        attn_drop: Dropout rate of the attention weights.
        proj_drop: Dropout rate of the output.
    """

    roles: ClassVar[tuple[str, ...]] = (GIVE, GATHER)

    def __init__(self, embed_dims: int, num_heads: int, attn_drop: float = 0.0, proj_drop: float = 0.0) -> None:
        super().__init__(embed_dims, num_heads, attn_drop, proj_drop)
        self.proj_c = nn.Linear(embed_dims, embed_dims)

    def forward(self, x: Tensor, meta: Tensor, hw: Size) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Image tokens (B, H * W, C) and meta tokens (B, M, C) -> the same shapes."""
        query_x, key_x, value_x = split_heads(self.qkv1(x), self.num_heads, parts=3)  # 3 x (B, heads, N, d)
        query_c, key_c, value_c = split_heads(self.qkv2(meta), self.num_heads, parts=3)  # 3 x (B, heads, M, d)
        key_c = scale_for_image(key_c, self.embed_dims, x.shape[1])
        out_x = self.proj_x(self.attend(GIVE, query_x, key_c, value_c, hw, scale=1.0))  # (B, N, C)
        # The published scale of this direction, with the full width instead of the width of a head.
        out_c = self.proj_c(self.attend(GATHER, query_c, key_x, value_x, hw, self.embed_dims**-0.5))  # (B, M, C)
        return self.proj_drop(out_x), self.proj_drop(out_c)


@MODELS.register_module()
class MetaTokenAttention(Attention):
    """Meta tokens as a drop-in for self-attention: gather from the image, then give back to it.

    The layer owns its tokens and starts every call from them, so blocks pass on the feature map alone. In LeMeViT
    tokens travel from block to block, and the two directions of dual cross-attention run in parallel. Here the image
    reads tokens that have just read the image, so a single layer connects every pixel with every other. Scales are
    those of dual cross-attention.

    Args:
        embed_dims: Number of channels C of the tokens.
        num_heads: Number of heads; must divide `embed_dims`.
        num_meta_tokens: Number M of meta tokens.
        attn_drop: Dropout rate of the attention weights.
        proj_drop: Dropout rate of the output.
    """

    roles: ClassVar[tuple[str, ...]] = (GATHER, GIVE)

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        num_meta_tokens: int = 16,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(embed_dims, num_heads, attn_drop, proj_drop)
        self.meta_tokens = nn.Parameter(torch.empty(num_meta_tokens, embed_dims))
        nn.init.trunc_normal_(self.meta_tokens, std=1.0)
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims)
        self.meta_q = nn.Linear(embed_dims, embed_dims)
        self.meta_proj = nn.Linear(embed_dims, embed_dims)
        self.meta_norm = nn.LayerNorm(embed_dims, eps=1e-6)
        self.meta_kv = nn.Linear(embed_dims, 2 * embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)

    def forward(self, x: Tensor, hw: Size) -> Tensor:
        """Passes information between all tokens through the meta tokens.

        Args:
            x: Tokens (B, N, C).
            hw: Height and width of the feature map, N = H * W.

        Returns:
            Tokens (B, N, C).
        """
        query, key, value = split_heads(self.qkv(x), self.num_heads, parts=3)  # 3 x (B, heads, N, d)
        meta = self.meta_tokens.expand(x.shape[0], -1, -1)  # (B, M, C)
        meta_query = split_heads(self.meta_q(meta), self.num_heads)[0]  # (B, heads, M, d)
        gathered = self.attend(GATHER, meta_query, key, value, hw, self.embed_dims**-0.5)  # (B, M, C)
        meta = self.meta_norm(meta + self.meta_proj(gathered))
        key, value = split_heads(self.meta_kv(meta), self.num_heads, parts=2)  # 2 x (B, heads, M, d)
        key = scale_for_image(key, self.embed_dims, x.shape[1])
        return self.proj_drop(self.proj(self.attend(GIVE, query, key, value, hw, scale=1.0)))  # (B, N, C)
