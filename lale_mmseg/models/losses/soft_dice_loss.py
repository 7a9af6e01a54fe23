"""Soft Dice loss of each class over the whole batch, the training loss of LALE (arXiv 2606.02092).

mmsegmentation's DiceLoss sums over all classes of an image before dividing, so that large classes dominate small ones,
and its ignore index is a class channel. Differences: every class has the same weight, and ignored pixels and classes
without a label in the batch are left out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import ConfigError


def soft_dice_loss(
    logits: Tensor, labels: Tensor, class_weight: Tensor | None = None, ignore_index: int = 255, eps: float = 1e-7
) -> Tensor:
    """1 - 2 sum(p t) / sum(p + t) for each class that occurs in `labels`, averaged over those classes.

    Args:
        logits: (B, C, H, W) class logits; C = 1 means binary with a sigmoid and labels 0 and 1.
        labels: (B, H, W) class indexes and `ignore_index`.
        class_weight: (C,) weight of each class in the average.
        ignore_index: Label of pixels to ignore.
        eps: Lower bound of the denominator.

    Returns:
        Scalar from 0 to 1; 0 with a zero gradient if no pixel is labelled.
    """
    num_classes = logits.shape[1]
    # In half precision, sums over millions of pixels would saturate or lose small classes.
    logits = logits.float()
    valid = labels != ignore_index  # (B, H, W)
    if num_classes == 1:
        probabilities = logits.sigmoid()
        targets = (labels == 1).unsqueeze(1)
    else:
        probabilities = logits.softmax(dim=1)
        targets = F.one_hot(labels.where(valid, 0).long(), num_classes).permute(0, 3, 1, 2)
    mask = valid.unsqueeze(1).to(probabilities)  # (B, 1, H, W)
    targets = targets.to(probabilities) * mask
    probabilities = probabilities * mask

    intersection = (probabilities * targets).sum(dim=(0, 2, 3))  # (C,)
    cardinality = (probabilities + targets).sum(dim=(0, 2, 3))  # (C,)
    losses = 1 - 2 * intersection / cardinality.clamp_min(eps)
    weight = (targets.sum(dim=(0, 2, 3)) > 0).to(losses)
    if class_weight is not None:
        weight = weight * class_weight.to(weight)
    return (losses * weight).sum() / weight.sum().clamp_min(eps)


@MODELS.register_module()
class SoftDiceLoss(nn.Module):
    """Module of `soft_dice_loss` for `loss_decode`.

    Args:
        class_weight: Weight of each class in the average.
        loss_weight: Weight of this loss in the total.
        loss_name: Name in the log; only losses whose name starts with `loss_` are part of the total.
        eps: Lower bound of the denominator.
    """

    def __init__(
        self,
        class_weight: list[float] | None = None,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_dice',
        eps: float = 1e-7,
    ) -> None:
        super().__init__()
        self.class_weight = class_weight
        self.loss_weight = loss_weight
        self.eps = eps
        self._loss_name = loss_name

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: int = 255) -> Tensor:
        """Computes the loss as mmsegmentation's decode heads call it.

        Args:
            pred: (B, C, H, W) logits.
            target: (B, H, W) labels.
            weight: Pixel weights of a pixel sampler, which a ratio of sums cannot use; must be None.
            ignore_index: Label of pixels to ignore.

        Raises:
            ConfigError: `weight` is given.
        """
        if weight is not None:
            raise ConfigError('SoftDiceLoss does not support pixel weights; use it without a pixel sampler')
        class_weight = None if self.class_weight is None else torch.tensor(self.class_weight, device=pred.device)
        return self.loss_weight * soft_dice_loss(pred, target, class_weight, ignore_index, self.eps)

    @property
    def loss_name(self) -> str:
        """Name of this loss in the log."""
        return self._loss_name
