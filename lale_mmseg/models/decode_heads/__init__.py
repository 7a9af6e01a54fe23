"""Decode heads, one per file."""

from .lale_head import LALEHead
from .lr_head import LRHead

__all__ = ['LALEHead', 'LRHead']
