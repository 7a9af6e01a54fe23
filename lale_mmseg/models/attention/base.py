"""The base class of all attentions: heads, the one call of fused attention, and a recorder of these calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ConfigError

#: Roles: which tokens attend to which in one call of attention.
GATHER = 'gather'  # meta tokens to pixels
GIVE = 'give'  # pixels to meta tokens
POOLED = 'pooled'  # pooled pixels to a pooling pyramid
SELF = 'self'  # pixels to pixels

Size = tuple[int, int]


@dataclass(frozen=True)
class AttentionCall:
    """The operands of one call of attention, as passed to a recorder.

    Attributes:
        module: The attention.
        role: GATHER, GIVE, POOLED or SELF.
        query: (B, heads, Q, d).
        key: (B, heads, K, d).
        scale: Softmax scale; None for d ** -0.5.
        hw: Height and width of the feature map that the attention works on.
        pooled: For POOLED, the sizes of the queries' feature map and then of each level of the pyramid.
    """

    module: Attention
    role: str
    query: Tensor
    key: Tensor
    scale: float | None
    hw: Size
    pooled: Sequence[Size] = ()


_recorders: list[Callable[[AttentionCall], None]] = []


@contextmanager
def recording(recorder: Callable[[AttentionCall], None]) -> Iterator[None]:
    """Passes every call of attention to `recorder` while the context is open; the network's outputs do not change."""
    _recorders.append(recorder)
    try:
        yield
    finally:
        _recorders.remove(recorder)


def split_heads(x: Tensor, num_heads: int, parts: int = 1) -> Tensor:
    """(B, N, parts * C) -> (parts, B, heads, N, C / heads)."""
    x = x.unflatten(2, (parts, num_heads, -1))  # (B, N, parts, heads, d)
    return x.permute(2, 0, 3, 1, 4)  # (parts, B, heads, N, d)


class Attention(nn.Module):
    """Base class of attentions.

    Args:
        embed_dims: Number of channels C of the tokens.
        num_heads: Number of heads; must divide `embed_dims`.
        attn_drop: Dropout rate of the attention weights.
        proj_drop: Dropout rate of the output.

    Raises:
        ConfigError: `embed_dims` is not divisible by `num_heads`.
    """

    #: The calls of `attend` that `forward` makes, in order.
    roles: ClassVar[tuple[str, ...]] = ()

    def __init__(self, embed_dims: int, num_heads: int, attn_drop: float = 0.0, proj_drop: float = 0.0) -> None:
        super().__init__()
        if num_heads < 1 or embed_dims % num_heads:
            raise ConfigError(f'embed_dims={embed_dims} must be divisible by num_heads={num_heads}')
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        self.proj_drop = nn.Dropout(proj_drop)

    def attend(
        self,
        role: str,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        hw: Size,
        scale: float | None = None,
        pooled: Sequence[Size] = (),
    ) -> Tensor:
        """Computes softmax(q k^T * scale) v of each head with torch's fused kernel and concatenates the heads.

        Args:
            role: Which tokens attend to which, for the recorder.
            query: (B, heads, Q, d).
            key: (B, heads, K, d).
            value: (B, heads, K, d).
            hw: Height and width of the feature map, for the recorder.
            scale: Softmax scale; None for d ** -0.5.
            pooled: See `AttentionCall`.

        Returns:
            (B, Q, heads * d).
        """
        for recorder in _recorders:
            recorder(AttentionCall(self, role, query, key, scale, hw, pooled))
        dropout = self.attn_drop if self.training else 0.0
        x = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scale)  # (B, heads, Q, d)
        return x.transpose(1, 2).flatten(2)  # (B, Q, heads * d)
