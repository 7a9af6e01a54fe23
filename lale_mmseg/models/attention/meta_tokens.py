"""Meta tokens: a few learned tokens that gather from the image and give back to it.

LeMeViT: Efficient Vision Transformer with Learnable Meta Tokens for Remote Sensing Image Interpretation (arXiv
2405.09789). With M meta tokens for N pixels, both directions cost N * M, linear in pixels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import ConfigError
from .heads import attend, check_drops, check_heads, split_heads


def scale_for_image(key: Tensor, embed_dims: int, num_pixels: int) -> Tensor:
    """Multiplies keys of meta tokens by the softmax scale of pixels that attend to them: C ** -0.5 * log(M) / log(N).

    The published scale of dual cross-attention, with the full width C; its logarithms are taken of 2 at least, so that
    maps of a single pixel work. The logarithm is one of a tensor: a number would fix the size of the image in exported
    and compiled networks. Keys are few, so this costs nothing.

    Args:
        key: Keys of M meta tokens, (B, heads, M, d).
        embed_dims: Width C of all tokens.
        num_pixels: Number N of pixels.

    Returns:
        Keys (B, heads, M, d), for a softmax without a scale of its own.
    """
    log_pixels = torch.full((), num_pixels, dtype=torch.float32, device=key.device).clamp(min=2).log()
    return key * (embed_dims**-0.5 * math.log(max(key.shape[2], 2)) / log_pixels).to(key.dtype)


def token_scale(embed_dims: int) -> float:
    """Softmax scale of meta tokens that attend to pixels in dual cross-attention: C ** -0.5, with the full width C."""
    return embed_dims**-0.5


class CrossAttention(nn.Module):
    """Meta tokens attend to the image; scale head_dim ** -0.5.

    Args:
        embed_dims: Width C of all tokens.
        num_heads: Number of heads; must divide `embed_dims`.
        attn_drop: Probability to drop an attention weight in training.
        proj_drop: Probability to drop an output value in training.
    """

    def __init__(self, embed_dims: int, num_heads: int, attn_drop: float = 0.0, proj_drop: float = 0.0) -> None:
        super().__init__()
        check_heads(embed_dims, num_heads)
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        self.q = nn.Linear(embed_dims, embed_dims)
        self.kv = nn.Linear(embed_dims, 2 * embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, meta: Tensor, x: Tensor) -> Tensor:
        """Meta tokens (B, M, C) gather from image tokens (B, N, C): (B, M, C)."""
        query = split_heads(self.q(meta), self.num_heads)[0]  # (B, heads, M, d)
        key, value = split_heads(self.kv(x), self.num_heads, parts=2)  # 2 x (B, heads, N, d)
        dropout = self.attn_drop if self.training else 0.0
        return self.proj_drop(self.proj(attend(query, key, value, dropout)))


class GivingCrossAttention(nn.Module):
    """The image's half of dual cross-attention, for where nothing reads the meta tokens afterwards.

    Its parameters have the names and shapes of `DualCrossAttention`, so that its weights load; there is no output
    projection of the meta tokens, and the rows of the joint projections that only they would need are not computed.

    Args:
        embed_dims: Width C of all tokens.
        num_heads: Number of heads; must divide `embed_dims`.
        attn_drop: Probability to drop an attention weight in training.
        proj_drop: Probability to drop an output value in training.
    """

    def __init__(self, embed_dims: int, num_heads: int, attn_drop: float = 0.0, proj_drop: float = 0.0) -> None:
        super().__init__()
        check_heads(embed_dims, num_heads)
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        self.qkv1 = nn.Linear(embed_dims, 3 * embed_dims)
        self.qkv2 = nn.Linear(embed_dims, 3 * embed_dims)
        self.proj_x = nn.Linear(embed_dims, embed_dims)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, meta: Tensor) -> Tensor:
        """Image tokens (B, N, C) read meta tokens (B, M, C): (B, N, C)."""
        dims = self.embed_dims
        query = F.linear(x, self.qkv1.weight[:dims], self.qkv1.bias[:dims])
        query = split_heads(query, self.num_heads)[0]  # (B, heads, N, d)
        context = F.linear(meta, self.qkv2.weight[dims:], self.qkv2.bias[dims:])
        key, value = split_heads(context, self.num_heads, parts=2)  # 2 x (B, heads, M, d)
        dropout = self.attn_drop if self.training else 0.0
        key = scale_for_image(key, dims, x.shape[1])
        return self.proj_drop(self.proj_x(attend(query, key, value, dropout, scale=1.0)))


class DualCrossAttention(GivingCrossAttention):
    """Image tokens attend to the meta tokens and, at the same time, meta tokens to the image tokens.

    Args:
        embed_dims: Width C of all tokens.
        num_heads: Number of heads; must divide `embed_dims`.
        attn_drop: Probability to drop an attention weight in training.
        proj_drop: Probability to drop an output value in training.
    """

    def __init__(self, embed_dims: int, num_heads: int, attn_drop: float = 0.0, proj_drop: float = 0.0) -> None:
        super().__init__(embed_dims, num_heads, attn_drop, proj_drop)
        self.proj_c = nn.Linear(embed_dims, embed_dims)

    def forward(self, x: Tensor, meta: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Image tokens (B, N, C) and meta tokens (B, M, C) to the same."""
        query_x, key_x, value_x = split_heads(self.qkv1(x), self.num_heads, parts=3)  # 3 x (B, heads, N, d)
        query_c, key_c, value_c = split_heads(self.qkv2(meta), self.num_heads, parts=3)  # 3 x (B, heads, M, d)
        dropout = self.attn_drop if self.training else 0.0
        key_c = scale_for_image(key_c, self.embed_dims, x.shape[1])
        out_x = self.proj_x(attend(query_x, key_c, value_c, dropout, scale=1.0))  # (B, N, C)
        scale = token_scale(self.embed_dims)
        out_c = self.proj_c(attend(query_c, key_x, value_x, dropout, scale))  # (B, M, C)
        return self.proj_drop(out_x), self.proj_drop(out_c)


@MODELS.register_module()
class MetaTokenAttention(nn.Module):
    """Meta tokens as a drop-in for self-attention: gather from the image, then give back to it.

    The layer owns its tokens and starts every call from them, so blocks pass nothing on but the map. In LeMeViT tokens
    travel from block to block, and the two directions of dual cross-attention run side by side; here the image reads
    tokens that have just read the image, so that one layer alone reaches from every pixel to every other. Scales are
    those of dual cross-attention.

    Args:
        embed_dims: Width C of the tokens.
        num_heads: Number of heads; must divide `embed_dims`.
        num_meta_tokens: Number M of meta tokens.
        attn_drop: Probability to drop an attention weight in training.
        proj_drop: Probability to drop an output value in training.

    Raises:
        ConfigError: `embed_dims` is not divisible by `num_heads`, `num_meta_tokens` is under 1, or a rate is outside 0
            to 1.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        num_meta_tokens: int = 16,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        check_heads(embed_dims, num_heads)
        check_num_meta_tokens(num_meta_tokens)
        check_drops(attn_drop, proj_drop)
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        self.meta_tokens = nn.Parameter(torch.empty(num_meta_tokens, embed_dims))
        nn.init.trunc_normal_(self.meta_tokens, std=1.0)
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims)
        self.meta_q = nn.Linear(embed_dims, embed_dims)
        self.meta_proj = nn.Linear(embed_dims, embed_dims)
        self.meta_norm = nn.LayerNorm(embed_dims, eps=1e-6)
        self.meta_kv = nn.Linear(embed_dims, 2 * embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Carries information between all tokens through the meta tokens.

        Args:
            x: Tokens (B, N, C).
            hw: Height and width of the map, N = H * W; this variant does not depend on it.

        Returns:
            Tokens (B, N, C).
        """
        dropout = self.attn_drop if self.training else 0.0
        query, key, value = split_heads(self.qkv(x), self.num_heads, parts=3)  # 3 x (B, heads, N, d)
        meta = self.meta_tokens.expand(x.shape[0], -1, -1)  # (B, M, C)
        asked = split_heads(self.meta_q(meta), self.num_heads)[0]  # (B, heads, M, d)
        scale = token_scale(self.embed_dims)
        gathered = attend(asked, key, value, dropout, scale)  # (B, M, C)
        meta = self.meta_norm(meta + self.meta_proj(gathered))
        key, value = split_heads(self.meta_kv(meta), self.num_heads, parts=2)  # 2 x (B, heads, M, d)
        key = scale_for_image(key, self.embed_dims, x.shape[1])
        return self.proj_drop(self.proj(attend(query, key, value, dropout, scale=1.0)))  # (B, N, C)


def check_num_meta_tokens(num_meta_tokens: int) -> None:
    """Raises ConfigError for fewer meta tokens than one."""
    if num_meta_tokens < 1:
        raise ConfigError(f'num_meta_tokens={num_meta_tokens}: at least 1 is due')
