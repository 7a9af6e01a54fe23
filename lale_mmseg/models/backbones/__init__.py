"""Backbones, one family per file."""

from .ghostnet import GhostNet
from .lale import LALE
from .lemevit import LeMeViT
from .lrformer import LRFormer
from .sam_vit import SAMViT
from .unet import DropoutUNet

__all__ = ['DropoutUNet', 'GhostNet', 'LALE', 'LRFormer', 'LeMeViT', 'SAMViT']
