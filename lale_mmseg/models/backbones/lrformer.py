"""LRFormer: Low-Resolution Self-Attention for Semantic Segmentation (arXiv 2310.05026).

Written from the paper's description; the networks are those of the published checkpoints, which
`tools/model_converters/lrformer.py` converts. Differences: images of any size, odd ones too; any number of input
bands; attention dropout is applied; no argument is swallowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from mmcv.cnn import build_activation_layer, build_norm_layer
from mmengine.model import BaseModule
from mmengine.model.weight_init import trunc_normal_init
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import ConfigError
from ..attention import LowResolutionBlock, PoolingPyramid
from ..attention.heads import check_rate
from .archs import arch_settings, block_positions, check_counts, check_out_indices, drop_path_rates

_HEADS = (2, 4, 10, 16)
_RATIOS = (8, 8, 4, 4)
#: Per stage: widths, depths, heads, widths of the hidden layers in multiples of the width; then the rate of stochastic
#: depth of the deepest block, and the blocks (stage, position) in front of which a batch norm stands.
ARCHS: dict[str, dict[str, Any]] = {
    't': dict(widths=(48, 96, 240, 384), depths=(2, 2, 6, 3), num_heads=_HEADS, mlp_ratios=_RATIOS, drop_path=0.1),
    's': dict(widths=(64, 128, 320, 512), depths=(3, 3, 12, 3), num_heads=_HEADS, mlp_ratios=_RATIOS, drop_path=0.2),
    'b': dict(widths=(80, 160, 400, 512), depths=(4, 4, 15, 8), num_heads=_HEADS, mlp_ratios=_RATIOS, drop_path=0.4),
    'l': dict(widths=(96, 192, 480, 640), depths=(4, 6, 18, 8), num_heads=_HEADS, mlp_ratios=_RATIOS, drop_path=0.6),
    'xl': dict(
        widths=(128, 256, 640, 768),
        depths=(4, 8, 22, 8),
        num_heads=_HEADS,
        mlp_ratios=_RATIOS,
        drop_path=0.4,
        pre_norms=((2, 7), (2, 15)),
    ),
}


@MODELS.register_module()
class LRFormer(BaseModule):
    """LRFormer backbone: convolutions and low-resolution self-attention in all four stages.

    Maps keep the memory format of the input: channels-last in, channels-last throughout.

    Args:
        arch: 't', 's', 'b', 'l' or 'xl', or a dict of `widths`, `depths`, `num_heads` and `mlp_ratios` with one entry
            a stage, and of `drop_path` and `pre_norms` ((stage, block) in front of which a batch norm stands, both
            counting from 0) where wanted.
        in_channels: Number of input bands.
        q_size: Short side of the pooled queries; one for all stages, or one a stage.
        pool_sizes: Short sides of the pooled keys and values for a `q_size` of 16, scaled with it.
        drop_rate: Probability to drop a value of a feed-forward part, or an output value of attention, in training.
        attn_drop_rate: Probability to drop an attention weight in training.
        drop_path_rate: Probability to skip the residual branches of the deepest block, falling linearly to none in the
            first; None for the one of `arch`.
        layer_scale: Start of the learned scales of the residual branches of stages 3 and 4; None for no scales.
        norm_cfg: Norm over the channels of each pixel, outside of the stem.
        act_cfg: Activation.
        out_indices: Stages whose maps are returned, counting from 0.
        init_cfg: Initialization of `mmengine.model.BaseModule`, for example a pretrained checkpoint.

    Raises:
        ConfigError: Unknown `arch`, widths that the heads do not divide, a number under 1, a pre-norm in front of no
            block, a rate outside 0 to 1, stages that are not there, or lists of unequal length.
    """

    def __init__(
        self,
        arch: str | dict = 't',
        in_channels: int = 3,
        q_size: int | Sequence[int] = 16,
        pool_sizes: Sequence[int] = (11, 8, 6, 4),
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float | None = None,
        layer_scale: float | None = 1e-6,
        norm_cfg: dict = dict(type='mmseg.LayerNorm2d', eps=1e-6),
        act_cfg: dict = dict(type='GELU'),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        per_stage = ('widths', 'depths', 'num_heads', 'mlp_ratios')
        settings = arch_settings(arch, ARCHS, per_stage, optional=dict(drop_path=0.0, pre_norms=()))
        self.widths = settings['widths']
        depths = settings['depths']
        q_sizes = (q_size,) * len(depths) if isinstance(q_size, int) else tuple(q_size)
        if len(q_sizes) != len(depths):
            raise ConfigError(f'q_size has {len(q_sizes)} entries for {len(depths)} stages; one entry a stage is due')
        check_counts(in_channels=in_channels)
        check_out_indices(out_indices, len(depths))
        check_rate('drop_rate', drop_rate)
        check_rate('attn_drop_rate', attn_drop_rate)
        self.out_indices = tuple(out_indices)

        self.downsamples = nn.ModuleList([_stem(in_channels, self.widths[0], norm_cfg, act_cfg)])
        for before, after in pairwise(self.widths):
            conv = nn.Conv2d(before, after, 3, stride=2, padding=1)
            self.downsamples.append(nn.Sequential(conv, build_norm_layer(norm_cfg, after)[1]))

        rate = settings['drop_path'] if drop_path_rate is None else drop_path_rate
        rates = iter(drop_path_rates(rate, sum(depths)))
        pre_norms = block_positions('arch.pre_norms', settings['pre_norms'], depths)
        self.pyramids = nn.ModuleList()
        self.stages = nn.ModuleList()
        for stage, (width, depth, side) in enumerate(zip(self.widths, depths, q_sizes, strict=True)):
            self.pyramids.append(PoolingPyramid(width, side, pool_sizes, convs=True))
            blocks = [
                LowResolutionBlock(
                    width,
                    settings['num_heads'][stage],
                    settings['mlp_ratios'][stage],
                    side,
                    norm_cfg,
                    act_cfg,
                    layer_scale=layer_scale if stage >= 2 else None,
                    pre_norm=(stage, block) in pre_norms,
                    drop=drop_rate,
                    attn_drop=attn_drop_rate,
                    drop_path=next(rates),
                )
                for block in range(depth)
            ]
            self.stages.append(nn.ModuleList(blocks))

    def init_weights(self) -> None:
        """Loads `init_cfg`, or starts linear layers at a small scale.

        Convolutions keep torch's start: one that keeps the variance would double it in every sum of a map and its
        depthwise convolution, far beyond the range of fp16 in the deep sizes.
        """
        if self.init_cfg is not None:
            super().init_weights()
            return
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_init(module, std=0.02, bias=0.0)
        self._is_init = True

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
        for index, (downsample, pyramid, blocks) in enumerate(
            zip(self.downsamples, self.pyramids, self.stages, strict=True)
        ):
            x = downsample(x)
            for block in blocks:
                x = block(x, pyramid)
            if index in self.out_indices:
                outputs.append(x)
        return tuple(outputs)


def _stem(in_channels: int, width: int, norm_cfg: dict, act_cfg: dict) -> nn.Sequential:
    """Four 3x3 convolutions to stride 4."""
    half = width // 2
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((in_channels, half, 2), (half, half, 1), (half, width, 2)):
        layers.append(nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1))
        layers.append(nn.BatchNorm2d(outputs))
        layers.append(build_activation_layer(act_cfg))
    layers.append(nn.Conv2d(width, width, 3, padding=1))
    layers.append(build_norm_layer(norm_cfg, width)[1])
    return nn.Sequential(*layers)
