"""Parts of networks that tell the bodies of objects from their edges: separation and fusion of maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .decoders import conv_norm_act


class BodyEdgeSeparation(nn.Module):
    """Splits a map into a body, the map pulled along a learned flow towards the inside of objects, and the rest.

    Args:
        channels: Width of the map, of the body and of the edge.
        norm_cfg: Norm of the convolutions that make the coarse map.
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
        """(B, channels, H, W) to body and edge, each (B, channels, H, W); their sum is a 1x1 convolution of x."""
        high = self.high(x)
        low = F.interpolate(self.low(x), size=high.shape[2:], mode='bilinear', align_corners=True)
        body = warp(high, self.flow(torch.cat([high, low], dim=1)))
        return body, high - body


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Samples a map at positions moved by a flow, bilinearly, zeros outside.

    The positions at rest run from -1 to 1, which sampling takes for the outer borders of the map instead of the centres
    of its first and last pixels (`align_corners=False`): they lie size / (size - 1) pixels apart, and half of what is
    sampled at a border is zero. The published weights are trained with it.

    Args:
        x: Map (B, C, H, W).
        flow: Movement in half pixels (B, 2, H, W), first along W, then along H.

    Returns:
        (B, C, H, W) in the type of `x`; positions and sampling are computed in float32, as half precision would round
        positions to a pixel or more.
    """
    height, width = x.shape[2:]
    rows, columns = _positions_at_rest(height, x.device), _positions_at_rest(width, x.device)
    flow = flow.float()
    positions = torch.stack([columns + flow[:, 0] / width, rows[:, None] + flow[:, 1] / height], dim=3)  # (B, H, W, 2)
    return F.grid_sample(x.float(), positions, mode='bilinear', padding_mode='zeros', align_corners=False).to(x.dtype)


def _positions_at_rest(count: int, device: torch.device) -> Tensor:
    """(count,) positions from -1 to 1 at equal distances; -1 alone if there is one.

    In tensors, as `torch.linspace` and conditions on `count` would fix the size of the image in exported networks.
    """
    steps = torch.arange(count, device=device, dtype=torch.float32)
    last = steps[-1:].clamp_min(1)
    return (2 * steps - last) / last


class SpatialFusion(nn.Module):
    """Weighs body against edge in each pixel and channel by what rows, columns and the pixel itself hold.

    Args:
        channels: Width of body and edge.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rows = nn.Conv2d(channels, channels, 3, padding=1)
        self.columns = nn.Conv2d(channels, channels, 3, padding=1)
        self.pixels = nn.Conv2d(channels, channels, 1)

    def forward(self, body: Tensor, edge: Tensor) -> tuple[Tensor, Tensor]:
        """Body and edge (B, channels, H, W) to their weighted sum and the body's weight, each (B, channels, H, W)."""
        x = body + edge
        rows = self.rows(x).mean(dim=3, keepdim=True)  # (B, channels, H, 1)
        columns = self.columns(x).mean(dim=2, keepdim=True)  # (B, channels, 1, W)
        score = (rows * columns + self.pixels(x)).sigmoid()
        return body * score + edge * (1 - score), score
