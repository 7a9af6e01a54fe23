"""Decode heads, one per file."""

from .body_edge_head import BodyEdgeHead, BodyEdgeOutputs
from .lale_head import LALEHead
from .lr_head import LRHead
from .mask2former import SemanticMask2FormerHead

__all__ = ['BodyEdgeHead', 'BodyEdgeOutputs', 'LALEHead', 'LRHead', 'SemanticMask2FormerHead']
