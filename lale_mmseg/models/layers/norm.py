"""Norms over the channels of each pixel, for (B, C, H, W) feature maps in any memory format."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class RMSNorm2d(nn.Module):
    """Root mean square norm over the channels of each pixel, with a learnable scale and no bias.

    Uses `torch.nn.functional.rms_norm` on a channels-last view, which copies nothing if the feature map is already
    channels-last; the result is then channels-last, too.

    Args:
        num_features: Number of channels C.
        eps: Added to the mean square for numerical stability.
    """

    def __init__(self, num_features: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = x.permute(0, 2, 3, 1)  # (B, H, W, C)
        x = F.rms_norm(x, (self.num_features,), self.weight.to(x.dtype), self.eps)
        return x.permute(0, 3, 1, 2)  # (B, C, H, W)

    def extra_repr(self) -> str:
        return f'{self.num_features}, eps={self.eps}'


@MODELS.register_module()
class LayerNorm2d(nn.Module):
    """Layer norm over the channels of each pixel, with a learnable scale and bias.

    Args:
        num_features: Number of channels C.
        eps: Added to the variance for numerical stability.
    """

    def __init__(self, num_features: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = x.permute(0, 2, 3, 1)  # (B, H, W, C)
        x = F.layer_norm(x, (self.num_features,), self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)  # (B, C, H, W)

    def extra_repr(self) -> str:
        return f'{self.num_features}, eps={self.eps}'
