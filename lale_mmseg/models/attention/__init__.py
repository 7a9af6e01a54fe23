"""Attention variants, one per file, chosen by `attn_cfg`: (x: (B, N, C), hw: (H, W)) -> (B, N, C)."""

from .multi_head import MultiHeadAttention

__all__ = ['MultiHeadAttention']
