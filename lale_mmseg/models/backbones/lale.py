"""LALE, a light backbone for land-cover segmentation (arXiv 2606.02092).

Written from the paper. What the paper leaves open is chosen so that parameters and sizes equal its tables: S1 to S4
have one to four blocks a stage, expansion 4, and a stem that passes through half of the first width. Differences:
any number of input bands, and any registered attention in any stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from mmcv.cnn import build_activation_layer, build_norm_layer
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import ConfigError
from ..layers import ConvMixerBlock, TransformerBlock
from .archs import arch_settings, check_counts, check_out_indices

#: Blocks in each stage and width of each stage, by size.
ARCHS: dict[str, dict[str, tuple[int, ...]]] = {
    's1': dict(depths=(1, 1, 1, 1), widths=(32, 64, 128, 256)),
    's2': dict(depths=(2, 2, 2, 2), widths=(32, 64, 128, 256)),
    's3': dict(depths=(3, 3, 3, 3), widths=(32, 64, 128, 256)),
    's4': dict(depths=(4, 4, 4, 4), widths=(32, 64, 128, 256)),
}


@MODELS.register_module()
class LALE(BaseModule):
    """LALE backbone: ConvMixer blocks at strides 4 and 8, transformer blocks at strides 16 and 32.

    Maps keep the memory format of the input: channels-last in, channels-last throughout.

    Args:
        arch: 's1' to 's4', or a dict of `depths` and `widths` with one entry a stage.
        in_channels: Number of input bands.
        attn_cfg: Attention of stages 3 and 4; or a list with one entry a stage, None for a stage of ConvMixer blocks.
        head_width: Channels of each attention head.
        expansion: Hidden width of the channel mixing, in multiples of the stage's width.
        kernel_size: Side of the stem's, the downsampling and the depthwise kernels, odd (7 in the K7 ablation).
        norm_cfg: Norm over the channels of each pixel.
        act_cfg: Activation.
        out_indices: Stages whose maps are returned, counting from 0.
        init_cfg: Initialization of `mmengine.model.BaseModule`, for example a pretrained checkpoint.

    Raises:
        ConfigError: Unknown `arch` or attention, a number under 1, an even kernel, a width that the heads do not
            divide, stages that are not there, or lists of unequal length.
    """

    def __init__(
        self,
        arch: str | dict = 's1',
        in_channels: int = 3,
        attn_cfg: dict | Sequence[dict | None] = dict(type='mmseg.MultiHeadAttention'),
        head_width: int = 32,
        expansion: int = 4,
        kernel_size: int = 3,
        norm_cfg: dict = dict(type='mmseg.RMSNorm2d', eps=1e-6),
        act_cfg: dict = dict(type='mmseg.StarReLU'),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        settings = arch_settings(arch, ARCHS, per_stage=('depths', 'widths'))
        depths, self.widths = settings['depths'], settings['widths']
        check_counts(in_channels=in_channels, head_width=head_width, expansion=expansion)
        attentions = _attention_per_stage(attn_cfg, len(depths))
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ConfigError(f'kernel_size={kernel_size}: must be odd')
        check_out_indices(out_indices, len(depths))
        self.out_indices = tuple(out_indices)

        def downsample(inputs: int, outputs: int) -> list[nn.Module]:
            conv = nn.Conv2d(inputs, outputs, kernel_size, stride=2, padding=kernel_size // 2)
            return [conv, build_norm_layer(norm_cfg, outputs)[1]]

        half = self.widths[0] // 2
        stem = [
            *downsample(in_channels, half),
            build_activation_layer(act_cfg),
            *downsample(half, self.widths[0]),
            build_activation_layer(act_cfg),
        ]
        self.downsamples = nn.ModuleList([nn.Sequential(*stem)])
        for previous, width in pairwise(self.widths):
            self.downsamples.append(nn.Sequential(*downsample(previous, width)))

        mixing: dict[str, Any] = dict(expansion=expansion, kernel_size=kernel_size, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.stages = nn.ModuleList()
        for stage, (depth, width, attention) in enumerate(zip(depths, self.widths, attentions, strict=True)):
            if attention is None:
                blocks = [ConvMixerBlock(width, **mixing) for _ in range(depth)]
            else:
                heads = _num_heads(width, head_width, stage)
                blocks = [TransformerBlock(width, heads, attn_cfg=attention, **mixing) for _ in range(depth)]
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
            Maps (B, widths[i], ceil(H / s), ceil(W / s)), strides s of 4, 8, 16, 32.
        """
        outputs = []
        for index, (downsample, stage) in enumerate(zip(self.downsamples, self.stages, strict=True)):
            x = stage(downsample(x))
            if index in self.out_indices:
                outputs.append(x)
        return tuple(outputs)


def _attention_per_stage(attn_cfg: dict | Sequence[dict | None], num_stages: int) -> tuple[dict | None, ...]:
    if isinstance(attn_cfg, (dict, str)):  # a bare name is no list of its letters; its block rejects it
        # The published layout: attention from stage 3 on.
        return tuple(attn_cfg if stage >= 2 else None for stage in range(num_stages))
    if len(attn_cfg) != num_stages:
        raise ConfigError(f'attn_cfg has {len(attn_cfg)} entries for {num_stages} stages; one entry a stage is due')
    return tuple(attn_cfg)


def _num_heads(width: int, head_width: int, stage: int) -> int:
    if width % head_width:
        raise ConfigError(f'width {width} of stage {stage + 1} is not divisible by head_width={head_width}')
    return width // head_width
