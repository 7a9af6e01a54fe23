"""Multi-head self-attention over all pixels, through torch's fused scaled dot product."""

from __future__ import annotations

import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import ConfigError


@MODELS.register_module()
class MultiHeadAttention(nn.Module):
    """softmax(q k^T / sqrt(d)) v with one joint projection for q, k and v; cost grows with the square of H * W.

    Source: Attention Is All You Need (arXiv 1706.03762), section 3.2.

    Args:
        embed_dims: Width C of the tokens.
        num_heads: Number of heads; must divide `embed_dims`.

    Raises:
        ConfigError: `embed_dims` is not divisible by `num_heads`.
    """

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()
        if embed_dims % num_heads:
            raise ConfigError(f'embed_dims={embed_dims} is not divisible by num_heads={num_heads}')
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Attends from every token to every token.

        Args:
            x: Tokens (B, N, C).
            hw: Height and width of the map, N = H * W; every variant gets it, this one does not depend on it.

        Returns:
            Tokens (B, N, C).
        """
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, -1))  # (B, N, 3, heads, d)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # 3 x (B, heads, N, d)
        x = F.scaled_dot_product_attention(query, key, value)  # (B, heads, N, d)
        return self.proj(x.transpose(1, 2).flatten(2))  # (B, N, C)
