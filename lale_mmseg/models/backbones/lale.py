"""LALE, a light backbone for land-cover segmentation (arXiv 2606.02092).

Written from the paper. Details that the paper leaves open are chosen so that parameter counts and sizes match its
tables: S1 to S4 have one to four blocks per stage, `mlp_ratio=4`, and a stem that passes through half of the first
width. Differences: any number of input bands, and any registered attention in any stage.
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
from .archs import arch_settings, check_out_indices, num_heads_of

#: One entry per stage, at strides 4, 8, 16 and 32.
ARCHS: dict[str, dict[str, tuple[int, ...]]] = {
    's1': dict(depths=(1, 1, 1, 1), embed_dims=(32, 64, 128, 256)),
    's2': dict(depths=(2, 2, 2, 2), embed_dims=(32, 64, 128, 256)),
    's3': dict(depths=(3, 3, 3, 3), embed_dims=(32, 64, 128, 256)),
    's4': dict(depths=(4, 4, 4, 4), embed_dims=(32, 64, 128, 256)),
}


@MODELS.register_module()
class LALE(BaseModule):
    """LALE backbone: ConvMixer blocks at strides 4 and 8, transformer blocks at strides 16 and 32.

    Feature maps keep the memory format of the input: channels-last in, channels-last throughout.

    Args:
        arch: 's1' to 's4', or a dict of `depths` and `embed_dims` with one entry per stage.
        in_channels: Number of input bands.
        attn_cfg: Attention of stages 3 and 4; or a list with one entry per stage, None for a stage of ConvMixer blocks.
        head_dim: Number of channels of each attention head.
        mlp_ratio: Hidden width of the channel mixing in multiples of the stage's width.
        kernel_size: Kernel size of the stem, the downsampling and the depthwise convolutions; odd (7 in the paper's K7
            ablation).
        norm_cfg: Norm over the channels of each pixel.
        act_cfg: Activation.
        out_indices: Indices of the stages whose feature maps are returned, starting from 0.
        init_cfg: Initialization of `mmengine.model.BaseModule`, for example a pretrained checkpoint.

    Raises:
        ConfigError: `arch`, `attn_cfg`, `head_dim`, `kernel_size` or `out_indices` is invalid.
    """

    def __init__(
        self,
        arch: str | dict = 's1',
        in_channels: int = 3,
        attn_cfg: dict | Sequence[dict | None] = dict(type='mmseg.MultiHeadAttention'),
        head_dim: int = 32,
        mlp_ratio: int = 4,
        kernel_size: int = 3,
        norm_cfg: dict = dict(type='mmseg.RMSNorm2d', eps=1e-6),
        act_cfg: dict = dict(type='mmseg.StarReLU'),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        settings = arch_settings(arch, ARCHS)
        depths, self.embed_dims = settings['depths'], tuple(settings['embed_dims'])
        if kernel_size % 2 == 0:
            raise ConfigError(f'kernel_size={kernel_size}: expected an odd number')
        self.out_indices = check_out_indices(out_indices, len(depths))

        def downsample(inputs: int, outputs: int) -> list[nn.Module]:
            conv = nn.Conv2d(inputs, outputs, kernel_size, stride=2, padding=kernel_size // 2)
            return [conv, build_norm_layer(norm_cfg, outputs)[1]]

        half = self.embed_dims[0] // 2
        stem = [
            *downsample(in_channels, half),
            build_activation_layer(act_cfg),
            *downsample(half, self.embed_dims[0]),
            build_activation_layer(act_cfg),
        ]
        self.downsamples = nn.ModuleList([nn.Sequential(*stem)])
        for previous, dims in pairwise(self.embed_dims):
            self.downsamples.append(nn.Sequential(*downsample(previous, dims)))

        mixing: dict[str, Any] = dict(mlp_ratio=mlp_ratio, kernel_size=kernel_size, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.stages = nn.ModuleList()
        for depth, dims, attention in zip(depths, self.embed_dims, _per_stage(attn_cfg, len(depths)), strict=True):
            if attention is None:
                blocks = [ConvMixerBlock(dims, **mixing) for _ in range(depth)]
            else:
                num_heads = num_heads_of(dims, head_dim)
                blocks = [TransformerBlock(dims, num_heads, attn_cfg=attention, **mixing) for _ in range(depth)]
            self.stages.append(nn.Sequential(*blocks))

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Number of channels of each returned feature map."""
        return tuple(self.embed_dims[index] for index in self.out_indices)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Computes the feature maps of the stages in `out_indices`.

        Args:
            x: Normalized image (B, in_channels, H, W), any H and W.

        Returns:
            Feature maps (B, embed_dims[i], ceil(H / s), ceil(W / s)) with strides s of 4, 8, 16, 32.
        """
        outputs = []
        for index, (downsample, stage) in enumerate(zip(self.downsamples, self.stages, strict=True)):
            x = stage(downsample(x))
            if index in self.out_indices:
                outputs.append(x)
        return tuple(outputs)


def _per_stage(attn_cfg: dict | Sequence[dict | None], num_stages: int) -> tuple[dict | None, ...]:
    if isinstance(attn_cfg, (dict, str)):  # the attention that a string names would be an error of the block
        # The published layout: attention from stage 3 on.
        return tuple(attn_cfg if stage >= 2 else None for stage in range(num_stages))
    if len(attn_cfg) != num_stages:
        raise ConfigError(f'attn_cfg has {len(attn_cfg)} entries; expected one for each of the {num_stages} stages')
    return tuple(attn_cfg)
