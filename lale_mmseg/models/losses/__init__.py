"""Losses that mmsegmentation lacks or computes differently."""

from .binary_edge_loss import BinaryEdgeLoss, binary_edge_loss
from .boundary_relaxation_loss import BoundaryRelaxationLoss, boundary_relaxation_loss
from .soft_dice_loss import SoftDiceLoss, soft_dice_loss

__all__ = [
    'BinaryEdgeLoss',
    'BoundaryRelaxationLoss',
    'SoftDiceLoss',
    'binary_edge_loss',
    'boundary_relaxation_loss',
    'soft_dice_loss',
]
