"""Multi-head self-attention over all pixels, through torch's fused scaled dot product."""

from __future__ import annotations

from mmseg.registry import MODELS
from torch import Tensor, nn

from .heads import attend, check_drops, check_heads, split_heads


@MODELS.register_module()
class MultiHeadAttention(nn.Module):
    """softmax(q k^T / sqrt(d)) v with one joint projection for q, k and v; cost grows with the square of H * W.

    Source: Attention Is All You Need (arXiv 1706.03762), section 3.2.

    Args:
        embed_dims: Width C of the tokens.
        num_heads: Number of heads; must divide `embed_dims`.
        attn_drop: Probability to drop an attention weight in training.
        proj_drop: Probability to drop an output value in training.

    Raises:
        ConfigError: `embed_dims` is not divisible by `num_heads`, or a rate is outside 0 to 1.
    """

    def __init__(self, embed_dims: int, num_heads: int, attn_drop: float = 0.0, proj_drop: float = 0.0) -> None:
        super().__init__()
        check_heads(embed_dims, num_heads)
        check_drops(attn_drop, proj_drop)
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Attends from every token to every token.

        Args:
            x: Tokens (B, N, C).
            hw: Height and width of the map, N = H * W; every variant gets it, this one does not depend on it.

        Returns:
            Tokens (B, N, C).
        """
        query, key, value = split_heads(self.qkv(x), self.num_heads, parts=3)  # 3 x (B, heads, N, d)
        dropout = self.attn_drop if self.training else 0.0
        return self.proj_drop(self.proj(attend(query, key, value, dropout)))  # (B, N, C)
