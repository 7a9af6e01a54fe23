"""Decoders that heads build from a config: all feature maps of a backbone to one at the finest stride."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.cnn import build_activation_layer, build_norm_layer
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import Tensor, nn


def conv_norm_act(
    in_channels: int, out_channels: int, kernel_size: int, norm_cfg: dict, act_cfg: dict | None, stride: int = 1
) -> nn.Sequential:
    """Convolution with a bias, norm, and activation if given.

    The bias is redundant before a norm, but published networks have it; mmcv's `ConvModule` would warn about it.
    """
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)
    layers = [conv, build_norm_layer(norm_cfg, out_channels)[1]]
    if act_cfg is not None:
        layers.append(build_activation_layer(act_cfg))
    return nn.Sequential(*layers)


def fuse_projected(
    inputs: Sequence[Tensor], projections: Sequence[nn.Module], fuse: nn.Module, align_corners: bool
) -> Tensor:
    """Projects feature maps (B, C_i, H_i, W_i), resizes them to the first and fuses them: (B, channels, H_0, W_0)."""
    size = inputs[0].shape[2:]
    projected = [
        resize(projection(x), size=size, mode='bilinear', align_corners=align_corners)
        for projection, x in zip(projections, inputs, strict=True)
    ]
    return fuse(torch.cat(projected, dim=1))  # (B, n * channels, H_0, W_0) -> (B, channels, H_0, W_0)


@MODELS.register_module()
class MLPDecoder(nn.Module):
    """The decoder inside `LALEHead`: projects every feature map to one width and fuses them at the finest stride.

    Args:
        in_channels: Number of channels of each feature map, finest first.
        channels: Number of channels of the projections and of the fused feature map.
        norm_cfg: Norm of the fusing convolution.
        act_cfg: Activation of the fusing convolution.
        align_corners: Whether bilinear resizing aligns corners.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 128,
        norm_cfg: dict = dict(type='SyncBN'),
        act_cfg: dict = dict(type='mmseg.StarReLU'),
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.out_channels = channels
        self.projections = nn.ModuleList(nn.Conv2d(inputs, channels, 1) for inputs in in_channels)
        self.fuse = nn.Conv2d(channels * len(in_channels), channels, 1, bias=False)
        self.norm = build_norm_layer(norm_cfg, channels)[1]
        self.act = build_activation_layer(act_cfg)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Feature maps (B, C_i, H_i, W_i), finest first -> (B, channels, H_0, W_0)."""
        return self.act(self.norm(fuse_projected(inputs, list(self.projections), self.fuse, self.align_corners)))


@MODELS.register_module()
class UShapedDecoder(nn.Module):
    """Merges the coarsest feature map into the next finer one, the result into the next, and so on to the finest.

    Args:
        in_channels: Number of channels of each feature map, finest first; the result has those of the finest.
        norm_cfg: Norm after each convolution.
        act_cfg: Activation after each norm.
        align_corners: Whether bilinear resizing aligns corners.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        norm_cfg: dict = dict(type='SyncBN'),
        act_cfg: dict = dict(type='ReLU'),
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.out_channels = in_channels[0]
        self.merges = nn.ModuleList(  # coarsest first
            Merge(low, high, norm_cfg, act_cfg, align_corners)
            for low, high in zip(in_channels[:0:-1], in_channels[-2::-1], strict=True)
        )

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Feature maps (B, C_i, H_i, W_i), finest first -> (B, C_0, H_0, W_0)."""
        x = inputs[-1]
        for merge, high in zip(self.merges, inputs[-2::-1], strict=True):
            x = merge(x, high)
        return x


class Merge(nn.Module):
    """Resizes a feature map to the size of a finer one, reduces it to its width, and mixes both.

    Args:
        low: Number of channels of the coarser feature map.
        high: Number of channels of the finer feature map and of the result.
        norm_cfg: Norm after each convolution.
        act_cfg: Activation after each norm.
        align_corners: Whether bilinear resizing aligns corners.
    """

    def __init__(self, low: int, high: int, norm_cfg: dict, act_cfg: dict, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.narrow = conv_norm_act(low, high, 3, norm_cfg, act_cfg)
        self.mix = conv_norm_act(2 * high, high, 1, norm_cfg, act_cfg)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """(B, low, h, w) and (B, high, H, W) -> (B, high, H, W)."""
        low = resize(low, size=high.shape[2:], mode='bilinear', align_corners=self.align_corners)  # (B, low, H, W)
        return self.mix(torch.cat([high, self.narrow(low)], dim=1))
