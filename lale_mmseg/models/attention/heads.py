"""Heads of attention: checks of their number and of rates, splitting them, and attending with them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ...errors import ConfigError


def check_heads(embed_dims: int, num_heads: int) -> None:
    """Checks that the heads share the width equally.

    Raises:
        ConfigError: `num_heads` is under 1 or does not divide `embed_dims`.
    """
    if num_heads < 1:
        raise ConfigError(f'num_heads={num_heads}: at least 1 is due')
    if embed_dims % num_heads:
        raise ConfigError(f'embed_dims={embed_dims} is not divisible by num_heads={num_heads}')


def check_rate(name: str, value: float) -> None:
    """Raises ConfigError for a rate of dropping that is no number from 0 up and under 1."""
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise ConfigError(f'{name}={value!r}: at least 0 and under 1 is due')


def check_drops(attn_drop: float, proj_drop: float) -> None:
    """Raises ConfigError for rates of dropping of an attention that are not from 0 up and under 1."""
    check_rate('attn_drop', attn_drop)
    check_rate('proj_drop', proj_drop)


def split_heads(x: Tensor, num_heads: int, parts: int = 1) -> Tensor:
    """(B, N, parts * C) -> (parts, B, heads, N, C / heads)."""
    return x.unflatten(2, (parts, num_heads, -1)).permute(2, 0, 3, 1, 4)


def attend(query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0, scale: float | None = None) -> Tensor:
    """softmax(q k^T * scale) v of each head through torch's fused form, the heads side by side.

    Args:
        query: (B, heads, N, d).
        key: (B, heads, L, d).
        value: (B, heads, L, d).
        dropout: Probability to drop an attention weight, now.
        scale: Softmax scale; None for d ** -0.5.

    Returns:
        (B, N, heads * d).
    """
    x = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scale)  # (B, heads, N, d)
    return x.transpose(1, 2).flatten(2)
