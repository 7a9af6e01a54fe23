"""Separation of a feature map into bodies and edges of objects, and the fusion of both.

After DecoupleSegNets (arXiv 2007.10035), whose learned flow separates bodies from edges; layers and sampling are those
of the light body and edge network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .decoders import conv_norm_act


class BodyEdgeSeparation(nn.Module):
    """Splits a feature map into a body, warped along a learned flow towards the inside of objects, and the rest.

    Args:
        channels: Number of channels of the feature map, of the body and of the edge.
        norm_cfg: Norm of the convolutions that make the coarse feature map.
    """

    def __init__(self, channels: int, norm_cfg: dict) -> None:
        super().__init__()
        self.high = nn.Conv2d(channels, channels, 1)
        self.low = nn.Sequential(
            conv_norm_act(channels, channels, 3, norm_cfg, act_cfg=None, stride=2),
            conv_norm_act(channels, channels, 3, norm_cfg, act_cfg=None, stride=2),
            nn.Conv2d(channels, channels, 1),
        )
        self.flow = nn.Conv2d(2 * channels, 2, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> body and edge, each (B, C, H, W); their sum is a 1x1 convolution of x."""
        high = self.high(x)  # (B, C, H, W)
        low = F.interpolate(self.low(x), size=high.shape[2:], mode='bilinear', align_corners=True)
        flow = self.flow(torch.cat([high, low], dim=1))  # (B, 2, H, W)
        body = warp(high, flow)
        return body, high - body


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Samples a feature map bilinearly at positions displaced by a flow, with zeros outside.

    Without a flow, positions run from -1 to 1. `grid_sample` with `align_corners=False` takes these for the outer
    borders of the feature map instead of the centres of its first and last pixels, so positions are size / (size - 1)
    pixels apart and samples at a border are half zero. The published weights are trained with this.

    Args:
        x: Feature map (B, C, H, W).
        flow: Displacement in half pixels (B, 2, H, W), first along W, then along H.

    Returns:
        (B, C, H, W) in the dtype of `x`.
    """
    # Positions and sampling in float32: half precision would round positions to a pixel or more.
    height, width = x.shape[2:]
    rows, columns = _positions_at_rest(height, x.device), _positions_at_rest(width, x.device)
    flow = flow.float()
    positions = torch.stack([columns + flow[:, 0] / width, rows[:, None] + flow[:, 1] / height], dim=3)  # (B, H, W, 2)
    return F.grid_sample(x.float(), positions, mode='bilinear', padding_mode='zeros', align_corners=False).to(x.dtype)


def _positions_at_rest(count: int, device: torch.device) -> Tensor:
    """(count,) evenly spaced positions from -1 to 1; -1 alone if `count` is 1."""
    # In tensors: `torch.linspace` and conditions on `count` would fix the image size in exported networks.
    steps = torch.arange(count, device=device, dtype=torch.float32)
    last = steps[-1:].clamp_min(1)
    return (2 * steps - last) / last


class SpatialFusion(nn.Module):
    """Weighs body against edge in each pixel and channel, from the content of its row, its column and itself.

    Args:
        channels: Number of channels of body and edge.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rows = nn.Conv2d(channels, channels, 3, padding=1)
        self.columns = nn.Conv2d(channels, channels, 3, padding=1)
        self.pixels = nn.Conv2d(channels, channels, 1)

    def forward(self, body: Tensor, edge: Tensor) -> tuple[Tensor, Tensor]:
        """Body and edge (B, C, H, W) -> their weighted sum and the body's weight, each (B, C, H, W)."""
        x = body + edge
        rows = self.rows(x).mean(dim=3, keepdim=True)  # (B, C, H, 1)
        columns = self.columns(x).mean(dim=2, keepdim=True)  # (B, C, 1, W)
        score = (rows * columns + self.pixels(x)).sigmoid()  # (B, C, H, W)
        return body * score + edge * (1 - score), score
