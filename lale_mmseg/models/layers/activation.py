"""Activations that torch and mmcv lack."""

from __future__ import annotations

import torch
from mmseg.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class StarReLU(nn.Module):
    """s * relu(x) ** 2 + b with a learnable scale s and a learnable bias b, both scalars.

    Source: MetaFormer Baselines for Vision (arXiv 2210.13452), section 3.4; the initial values give zero mean and unit
    variance for a standard normal input.

    Args:
        scale: Initial value of s.
        bias: Initial value of b.
    """

    def __init__(self, scale: float = 0.8944, bias: float = -0.4472) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([scale]))
        self.bias = nn.Parameter(torch.tensor([bias]))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return self.scale.to(x.dtype) * x.relu().square() + self.bias.to(x.dtype)
