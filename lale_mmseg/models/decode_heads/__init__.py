"""Decode heads, one per file."""

from .body_edge_head import BodyEdgeHead, BodyEdgeOutputs
from .lale_head import LALEHead
from .lr_head import LRHead
from .mask2former import SemanticMask2FormerHead
from .sam_conv_head import SAMConvHead
from .sam_unet_head import SAMUNetHead

__all__ = [
    'BodyEdgeHead',
    'BodyEdgeOutputs',
    'LALEHead',
    'LRHead',
    'SAMConvHead',
    'SAMUNetHead',
    'SemanticMask2FormerHead',
]
