"""GhostNet: More Features from Cheap Operations (arXiv 1911.11907), without its classifier.

Written from the paper; the networks are those of the published weights, which `tools/model_converters/body_edge.py`
converts. Differences: maps of all five strides, images of any size, any number of input bands, and the last 1x1
convolution (960 channels at stride 32), which feeds the classifier alone, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmseg.models.utils import make_divisible
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import ConfigError
from .archs import check_counts, check_out_indices

#: Factor on all widths, by size.
ARCHS: dict[str, dict[str, float]] = {
    'x1.0': dict(multiplier=1.0),
    'x1.3': dict(multiplier=1.3),
    'x1.5': dict(multiplier=1.5),
}
#: All widths are multiples of this.
_DIVISOR = 4
_STEM_WIDTH = 16


class _Block(NamedTuple):
    """A block of x1.0."""

    hidden: int
    width: int
    kernel_size: int = 3
    squeeze: bool = False


#: Blocks of x1.0 at strides 2, 4, 8, 16 and 32; the first of each but the stem's stride halves the map.
_STAGES: tuple[tuple[_Block, ...], ...] = (
    (_Block(16, 16),),
    (_Block(48, 24), _Block(72, 24)),
    (_Block(72, 40, 5, squeeze=True), _Block(120, 40, 5, squeeze=True)),
    (
        _Block(240, 80),
        _Block(200, 80),
        _Block(184, 80),
        _Block(184, 80),
        _Block(480, 112, squeeze=True),
        _Block(672, 112, squeeze=True),
    ),
    (
        _Block(672, 160, 5, squeeze=True),
        _Block(960, 160, 5),
        _Block(960, 160, 5, squeeze=True),
        _Block(960, 160, 5),
        _Block(960, 160, 5, squeeze=True),
    ),
)


def stage_widths(multiplier: float) -> tuple[int, ...]:
    """Widths of the maps at strides 2, 4, 8, 16 and 32."""
    return tuple(make_divisible(blocks[-1].width * multiplier, _DIVISOR) for blocks in _STAGES)


@MODELS.register_module()
class GhostNet(BaseModule):
    """GhostNet backbone: bottlenecks that make half of their channels by depthwise convolutions of the other half.

    Maps keep the memory format of the input: channels-last in, channels-last throughout.

    Args:
        arch: 'x1.0', 'x1.3' or 'x1.5', or a dict of `multiplier`, the factor on the widths of x1.0.
        in_channels: Number of input bands.
        norm_cfg: Norm after each convolution.
        act_cfg: Activation.
        out_indices: Stages whose maps are returned: 0 to 4 for strides 2, 4, 8, 16 and 32. By default those that the
            other backbones return.
        init_cfg: Initialization of `mmengine.model.BaseModule`, for example a pretrained checkpoint.

    Raises:
        ConfigError: Unknown `arch`, a number under 1, or stages that are not there.
    """

    def __init__(
        self,
        arch: str | dict = 'x1.0',
        in_channels: int = 3,
        norm_cfg: dict = dict(type='BN'),
        act_cfg: dict = dict(type='ReLU'),
        out_indices: Sequence[int] = (1, 2, 3, 4),
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        multiplier = _multiplier(arch)
        check_counts(in_channels=in_channels)
        check_out_indices(out_indices, len(_STAGES))
        self.out_indices = tuple(out_indices)
        self.widths = stage_widths(multiplier)

        def scaled(width: int) -> int:
            return make_divisible(width * multiplier, _DIVISOR)

        cfgs: dict[str, Any] = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        before = scaled(_STEM_WIDTH)
        self.stem = ConvModule(in_channels, before, 3, stride=2, padding=1, **cfgs)
        self.stages = nn.ModuleList()
        for stage, settings in enumerate(_STAGES):
            blocks = []
            for position, block in enumerate(settings):
                stride = 2 if stage > 0 and position == 0 else 1
                hidden, width = scaled(block.hidden), scaled(block.width)
                blocks.append(GhostBottleneck(before, hidden, width, block.kernel_size, stride, block.squeeze, **cfgs))
                before = width
            self.stages.append(nn.Sequential(*blocks))

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Width of each map that is returned."""
        return tuple(self.widths[index] for index in self.out_indices)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Computes the maps of the stages in `out_indices`.

        Args:
            x: Normalized image (B, in_channels, H, W), any H and W.

        Returns:
            Maps (B, widths[i], ceil(H / s), ceil(W / s)), strides s of 2, 4, 8, 16, 32.
        """
        outputs = []
        x = self.stem(x)
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.out_indices:
                outputs.append(x)
        return tuple(outputs)


class GhostBottleneck(nn.Module):
    """Widens the map, halves it and weights its channels where wanted, narrows it, and adds the input.

    Args:
        in_channels: Width of the input.
        hidden: Width in between.
        out_channels: Width of the output.
        kernel_size: Side of the kernels that halve the map and of the shortcut's.
        stride: 1 or 2.
        squeeze: Whether channels are weighted by what they hold on average.
        norm_cfg: Norm after each convolution.
        act_cfg: Activation of the wide map.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        squeeze: bool,
        norm_cfg: dict,
        act_cfg: dict,
    ) -> None:
        super().__init__()

        def depthwise(channels: int) -> ConvModule:
            padding = kernel_size // 2
            return ConvModule(
                channels, channels, kernel_size, stride, padding, groups=channels, norm_cfg=norm_cfg, act_cfg=None
            )

        self.expand = GhostModule(in_channels, hidden, norm_cfg, act_cfg)
        self.down = depthwise(hidden) if stride > 1 else nn.Identity()
        self.squeeze = SqueezeExcite(hidden) if squeeze else nn.Identity()
        self.project = GhostModule(hidden, out_channels, norm_cfg, act_cfg=None)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            pointwise = ConvModule(in_channels, out_channels, 1, norm_cfg=norm_cfg, act_cfg=None)
            self.shortcut = nn.Sequential(depthwise(in_channels), pointwise)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        return self.project(self.squeeze(self.down(self.expand(x)))) + self.shortcut(x)


class GhostModule(nn.Module):
    """A 1x1 convolution to half of the channels, and a 3x3 depthwise convolution of these for the other half.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output, even.
        norm_cfg: Norm after each convolution.
        act_cfg: Activation after each norm, None for none.
    """

    def __init__(self, in_channels: int, out_channels: int, norm_cfg: dict, act_cfg: dict | None) -> None:
        super().__init__()
        half = out_channels // 2
        self.primary = ConvModule(in_channels, half, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.cheap = ConvModule(half, half, 3, padding=1, groups=half, norm_cfg=norm_cfg, act_cfg=act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H, W)."""
        primary = self.primary(x)
        return torch.cat([primary, self.cheap(primary)], dim=1)


class SqueezeExcite(nn.Module):
    """Scales each channel by a hard sigmoid of all channels' means.

    Args:
        channels: Width of the map; a quarter of it in between.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        reduced = make_divisible(channels // 4, _DIVISOR)
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.expand = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to the same."""
        means = x.mean(dim=(2, 3), keepdim=True)  # (B, channels, 1, 1)
        return x * F.hardsigmoid(self.expand(F.relu(self.reduce(means))))


def _multiplier(arch: str | Mapping[str, Any]) -> float:
    """The factor on all widths that `arch` stands for."""
    if isinstance(arch, str):
        if arch.lower() not in ARCHS:
            raise ConfigError(f'arch={arch!r}: known sizes are {", ".join(ARCHS)}')
        arch = ARCHS[arch.lower()]
    if not isinstance(arch, Mapping) or set(arch) != {'multiplier'}:
        raise ConfigError(
            f'arch={arch!r}: a name or a dict of multiplier alone is due; known sizes are {", ".join(ARCHS)}'
        )
    multiplier = arch['multiplier']
    if not isinstance(multiplier, (int, float)) or not 0 < multiplier < float('inf'):
        raise ConfigError(f'arch.multiplier={multiplier!r}: a number above 0 is due')
    return multiplier
