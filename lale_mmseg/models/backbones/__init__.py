"""Backbones, one family per file."""

from .lale import LALE
from .lemevit import LeMeViT
from .lrformer import LRFormer

__all__ = ['LALE', 'LRFormer', 'LeMeViT']
