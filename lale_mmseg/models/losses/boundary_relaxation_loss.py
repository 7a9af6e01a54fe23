"""Boundary relaxation: near boundaries, the mixture of classes around a pixel matters, not their exact positions.

After the label relaxation of Improving Semantic Segmentation via Video Propagation and Label Relaxation (arXiv
1812.01593), in the form that the light body and edge network uses for its body.
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
    divided by `window` squared, with zeros outside of the image. If every pixel is labelled, this is the published
    formula. Near the border of an image, t and p sum to the share of the window that is inside, so these pixels count
    less.

    The publication does not cover ignored pixels. Here they are treated like pixels outside of the image: t and p are
    zero, so predictions there do not matter, and they are neither summed nor counted. Pixels next to them count less,
    as at a border.

    Args:
        logits: (B, C, H, W) class logits.
        labels: (B, H, W) class indexes and `ignore_index`.
        class_weight: (C,) weight w of each class; None for 2 - f, where f is the share of the class among the
            labelled pixels of the batch.
        ignore_index: Label of pixels to ignore.
        window: Side length of the window in pixels, odd.
        eps: Added to the arguments of the logarithms, to keep them finite.

    Returns:
        Scalar; not negative if weights are equal, and 0 with a zero gradient if no pixel is labelled.
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
            into a list; None to compute these weights from each batch; a list of ones for equal weights.
        window: Side length of the window in pixels, odd.
        eps: Added to the arguments of the logarithms, to keep them finite.
        loss_weight: Weight of this loss in the total.
        loss_name: Name in the log; only losses whose name starts with `loss_` are part of the total.

    Raises:
        ConfigError: `window` is even, or `class_weight` is another string.
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
        if window % 2 == 0:
            raise ConfigError(f'BoundaryRelaxationLoss: window={window}: expected an odd number')
        if isinstance(class_weight, str) and class_weight != 'data':
            raise ConfigError(
                f"BoundaryRelaxationLoss: class_weight={class_weight!r}: expected one number per class, 'data' or None"
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
            weight: Pixel weights of a pixel sampler, which a mean over windows cannot use; must be None.
            ignore_index: Label of pixels to ignore.

        Raises:
            ConfigError: `weight` is given, `class_weight` is still 'data', or it does not have one entry per class.
        """
        if weight is not None:
            raise ConfigError('BoundaryRelaxationLoss does not support pixel weights; use it without a pixel sampler')
        class_weight = None
        if isinstance(self.class_weight, str):
            raise ConfigError(
                "BoundaryRelaxationLoss: class_weight='data' requires LALERunner, which counts the training set; "
                'otherwise set one number per class, or None'
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
