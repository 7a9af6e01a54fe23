"""Boundary relaxation: near boundaries, the mixture of classes around a pixel is to be right, not their exact places.

In the manner of the label relaxation of arXiv 1812.01593, as the light body and edge network trains its body with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import ConfigError


def boundary_relaxation_loss(
    logits: Tensor,
    labels: Tensor,
    class_weight: Tensor | None = None,
    ignore_index: int = 255,
    window: int = 5,
    eps: float = 1e-14,
) -> Tensor:
    """Sum over classes of w t (log(t + eps) - log(p + eps)), averaged over the labelled pixels of the batch.

    t and p are the one-hot labels and the probabilities of a class, averaged over the window around a pixel: sums
    divided by `window` squared, with zeros outside of the image. Where every pixel is labelled this is the published
    formula, whose average is the sum divided by the pixels of an image and by the images of the batch. Near the border
    of an image t and p sum to the share of the window that is inside, so these pixels count less.

    The published rule says nothing of ignored pixels. Here they are as if outside of the image: zeros in both t and p,
    so what is predicted there does not matter, without a term of their own, and not among the pixels that the sum is
    divided by. Pixels next to them count less, as those at a border do.

    Args:
        logits: (B, C, H, W) class logits.
        labels: (B, H, W) class indexes and `ignore_index`.
        class_weight: (C,) weight w of each class; None for 2 - f, f being the share of the class among the labelled
            pixels of the batch.
        ignore_index: Label of pixels that take no part.
        window: Side of the window, odd.
        eps: Addend that keeps the logarithms finite.

    Returns:
        Scalar; with equal weights 0 or more, and 0, with a gradient of 0, if no pixel is labelled.
    """
    # Half precision has no 1e-14, and sums over up to millions of pixels would saturate.
    logits = logits.float()
    valid = labels != ignore_index  # (B, H, W)
    targets = F.one_hot(labels.where(valid, 0).long(), logits.shape[1]).permute(0, 3, 1, 2)
    mask = valid.unsqueeze(1).to(logits)  # (B, 1, H, W)
    targets = targets.to(logits) * mask
    labelled = mask.sum().clamp_min(1)
    if class_weight is None:
        class_weight = 2 - targets.sum(dim=(0, 2, 3)) / labelled

    t, p = (
        F.avg_pool2d(x, window, stride=1, padding=window // 2, count_include_pad=True)
        for x in (targets, logits.softmax(dim=1) * mask)
    )
    terms = t * ((t + eps).log() - (p + eps).log()) * mask  # (B, C, H, W)
    return (terms.sum(dim=(0, 2, 3)) * class_weight.to(terms)).sum() / labelled


@MODELS.register_module()
class BoundaryRelaxationLoss(nn.Module):
    """Module of `boundary_relaxation_loss`.

    Args:
        class_weight: Weight of each class; 'data' for 1 + (1 - its share of the training set), which `LALERunner` turns
            into a list; None to compute these weights of each batch anew; a list of ones for no weights.
        window: Side of the window in pixels, odd.
        eps: Addend that keeps the logarithms finite.
        loss_weight: Factor of this loss in the total.
        loss_name: Name in the log; only names that begin with `loss_` take part in the total.

    Raises:
        ConfigError: `window` is even or under 1, or `class_weight` is another word or has an entry under 0.
    """

    def __init__(
        self,
        class_weight: Sequence[float] | str | None = None,
        window: int = 5,
        eps: float = 1e-14,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_body',
    ) -> None:
        super().__init__()
        if window < 1 or window % 2 == 0:
            raise ConfigError(f'BoundaryRelaxationLoss: window={window}: must be odd')
        if class_weight not in (None, 'data') and (isinstance(class_weight, str) or min(class_weight, default=-1) < 0):
            raise ConfigError(
                f'BoundaryRelaxationLoss: class_weight={class_weight!r}: one number a class, none under 0, is due, or '
                "'data', or None"
            )
        self.class_weight = class_weight
        self.window = window
        self.eps = eps
        self.loss_weight = loss_weight
        self._loss_name = loss_name

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: int = 255) -> Tensor:
        """Computes the loss as mmsegmentation's decode heads call it.

        Args:
            pred: (B, C, H, W) logits.
            target: (B, H, W) labels.
            weight: Weights of pixels from a pixel sampler; a mean over windows has no use for them.
            ignore_index: Label of pixels that take no part.

        Raises:
            ConfigError: `weight` is given, or `class_weight` is still 'data' or has not one entry for each class.
        """
        if weight is not None:
            raise ConfigError('BoundaryRelaxationLoss takes no pixel weights: use it without a pixel sampler')
        class_weight = None
        if isinstance(self.class_weight, str):
            raise ConfigError(
                "BoundaryRelaxationLoss: class_weight='data' is for runs of LALERunner, which counts the training set; "
                'give one number a class, or None'
            )
        if self.class_weight is not None:
            if len(self.class_weight) != pred.shape[1]:
                raise ConfigError(
                    f'BoundaryRelaxationLoss: class_weight has {len(self.class_weight)} entries for {pred.shape[1]} '
                    'classes'
                )
            class_weight = torch.tensor(self.class_weight, device=pred.device)
        loss = boundary_relaxation_loss(pred, target, class_weight, ignore_index, self.window, self.eps)
        return self.loss_weight * loss

    @property
    def loss_name(self) -> str:
        """Name of this loss in the log."""
        return self._loss_name
