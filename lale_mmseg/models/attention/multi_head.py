"""Multi-head self-attention over all pixels: Attention Is All You Need (arXiv 1706.03762), section 3.2."""

from __future__ import annotations

from typing import ClassVar

from mmseg.registry import MODELS
from torch import Tensor, nn

from .base import SELF, Attention, Size, split_heads


@MODELS.register_module()
class MultiHeadAttention(Attention):
    """softmax(q k^T / sqrt(d)) v with one joint projection for q, k and v; cost grows with the square of H * W.

    Args:
        embed_dims: Number of channels C of the tokens.
        num_heads: Number of heads; must divide `embed_dims`.
        attn_drop: Dropout rate of the attention weights.
        proj_drop: Dropout rate of the output.
    """

    roles: ClassVar[tuple[str, ...]] = (SELF,)

    def __init__(self, embed_dims: int, num_heads: int, attn_drop: float = 0.0, proj_drop: float = 0.0) -> None:
        super().__init__(embed_dims, num_heads, attn_drop, proj_drop)
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)

    def forward(self, x: Tensor, hw: Size) -> Tensor:
        """Attends from every token to every token.

        Args:
            x: Tokens (B, N, C).
            hw: Height and width of the feature map, N = H * W.

        Returns:
            Tokens (B, N, C).
        """
        query, key, value = split_heads(self.qkv(x), self.num_heads, parts=3)  # 3 x (B, heads, N, d)
        return self.proj_drop(self.proj(self.attend(SELF, query, key, value, hw)))  # (B, N, C)
