"""Heads of attention: the check of their number, and the shapes before and after."""

from __future__ import annotations

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


def split_heads(x: Tensor, num_heads: int, parts: int = 1) -> Tensor:
    """(B, N, parts * C) -> (parts, B, heads, N, C / heads)."""
    return x.unflatten(2, (parts, num_heads, -1)).permute(2, 0, 3, 1, 4)


def merge_heads(x: Tensor) -> Tensor:
    """(B, heads, N, d) -> (B, N, heads * d)."""
    return x.transpose(1, 2).flatten(2)
