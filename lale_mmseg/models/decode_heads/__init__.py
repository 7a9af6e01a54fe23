"""Decode heads, one per file."""

from .lale_head import LALEHead
from .lr_head import LRHead
from .mask2former import SemanticMask2FormerHead

__all__ = ['LALEHead', 'LRHead', 'SemanticMask2FormerHead']
