"""Binary cross-entropy of edge logits, averaged over the pixels that are not ignored.

Differences from mmsegmentation's CrossEntropyLoss(use_sigmoid=True): batches without a labelled pixel work, and the
number of labelled pixels is not copied to the CPU in every step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import ConfigError


def binary_edge_loss(
    logits: Tensor, targets: Tensor, pos_weight: Tensor | None = None, ignore_index: int = 255
) -> Tensor:
    """Mean binary cross-entropy over the pixels that are not ignored.

    Args:
        logits: (B, 1, H, W) edge logits.
        targets: (B, H, W) 1 for edges, 0 elsewhere, and `ignore_index`.
        pos_weight: Factor on the loss of edge pixels.
        ignore_index: Label of pixels to ignore.

    Returns:
        Scalar; 0 with a zero gradient if every pixel is ignored.
    """
    logits = logits.squeeze(1).float()  # (B, H, W)
    valid = targets != ignore_index
    losses = F.binary_cross_entropy_with_logits(
        logits, targets.where(valid, 0).to(logits), pos_weight=pos_weight, reduction='none'
    )
    return (losses * valid).sum() / valid.sum().clamp_min(1)


@MODELS.register_module()
class BinaryEdgeLoss(nn.Module):
    """Module of `binary_edge_loss`.

    Args:
        pos_weight: Factor on the loss of edge pixels, which are rare.
        loss_weight: Weight of this loss in the total.
        loss_name: Name in the log; only losses whose name starts with `loss_` are part of the total.

    Raises:
        ConfigError: `pos_weight` is not positive.
    """

    def __init__(self, pos_weight: float = 1.0, loss_weight: float = 1.0, loss_name: str = 'loss_edge') -> None:
        super().__init__()
        if not pos_weight > 0:
            raise ConfigError(f'BinaryEdgeLoss: pos_weight={pos_weight}: expected a number above 0')
        self.pos_weight = pos_weight
        self.loss_weight = loss_weight
        self._loss_name = loss_name

    def forward(self, pred: Tensor, target: Tensor, ignore_index: int = 255) -> Tensor:
        """Computes the loss of logits (B, 1, H, W) and targets (B, H, W)."""
        pos_weight = torch.tensor(self.pos_weight, device=pred.device)
        return self.loss_weight * binary_edge_loss(pred, target, pos_weight, ignore_index)

    @property
    def loss_name(self) -> str:
        """Name of this loss in the log."""
        return self._loss_name
