"""Backbones, one family per file."""

from .ghostnet import GhostNet
from .lale import LALE
from .lemevit import LeMeViT
from .lrformer import LRFormer

__all__ = ['LALE', 'GhostNet', 'LRFormer', 'LeMeViT']
