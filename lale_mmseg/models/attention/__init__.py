"""Attention variants, one per file, chosen by `attn_cfg`: (x: (B, N, C), hw: (H, W)) -> (B, N, C)."""

from .base import Attention
from .low_resolution import LowResolutionSelfAttention, PooledAttention, PoolingPyramid
from .low_resolution_block import LowResolutionBlock
from .meta_tokens import CrossAttention, DualCrossAttention, GivingCrossAttention, MetaTokenAttention
from .multi_head import MultiHeadAttention

__all__ = [
    'Attention',
    'CrossAttention',
    'DualCrossAttention',
    'GivingCrossAttention',
    'LowResolutionBlock',
    'LowResolutionSelfAttention',
    'MetaTokenAttention',
    'MultiHeadAttention',
    'PooledAttention',
    'PoolingPyramid',
]
