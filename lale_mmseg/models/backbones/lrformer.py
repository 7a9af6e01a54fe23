"""LRFormer: Low-Resolution Self-Attention for Semantic Segmentation (arXiv 2310.05026).

Written from the paper's description; the networks are those of the published checkpoints, which
`tools/model_converters/lrformer.py` converts. Differences: images of any size, odd ones too; any number of input
bands; attention dropout is applied.
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
from .archs import arch_settings, check_out_indices, drop_path_rates

_SHARED: dict[str, Any] = dict(num_heads=(2, 4, 10, 16), mlp_ratios=(8, 8, 4, 4))
#: One entry per stage, at strides 4, 8, 16 and 32. `drop_path_rate` is that of the last block; `pre_norms` are the
#: blocks (stage, index) with a batch norm in front, which keeps the deepest size within the range of fp16.
ARCHS: dict[str, dict[str, Any]] = {
    't': dict(embed_dims=(48, 96, 240, 384), depths=(2, 2, 6, 3), drop_path_rate=0.1, **_SHARED),
    's': dict(embed_dims=(64, 128, 320, 512), depths=(3, 3, 12, 3), drop_path_rate=0.2, **_SHARED),
    'b': dict(embed_dims=(80, 160, 400, 512), depths=(4, 4, 15, 8), drop_path_rate=0.4, **_SHARED),
    'l': dict(embed_dims=(96, 192, 480, 640), depths=(4, 6, 18, 8), drop_path_rate=0.6, **_SHARED),
    'xl': dict(
        embed_dims=(128, 256, 640, 768),
        depths=(4, 8, 22, 8),
        drop_path_rate=0.4,
        pre_norms=((2, 7), (2, 15)),
        **_SHARED,
    ),
}


@MODELS.register_module()
class LRFormer(BaseModule):
    """LRFormer backbone: convolutions and low-resolution self-attention in all four stages.

    Feature maps keep the memory format of the input: channels-last in, channels-last throughout.

    Args:
        arch: 't', 's', 'b', 'l' or 'xl', or a dict of `embed_dims`, `depths`, `num_heads` and `mlp_ratios` with one
            entry per stage, and optionally `drop_path_rate` and `pre_norms` ((stage, block) pairs with a batch norm in
            front, both starting from 0).
        in_channels: Number of input bands.
        q_size: Short side of the pooled queries; one for all stages, or one per stage.
        pool_sizes: Short sides of the pooled keys and values for `q_size=16`, scaled with it.
        drop_rate: Dropout rate of the feed-forward parts and of the attention's output.
        attn_drop_rate: Dropout rate of the attention weights.
        drop_path_rate: Stochastic depth rate of the last block, decreasing linearly to 0 in the first; None for the
            rate of `arch`.
        layer_scale: Initial value of the learned scales of the residual branches of stages 3 and 4; None for no scales.
        norm_cfg: Norm over the channels of each pixel, outside of the stem.
        act_cfg: Activation.
        out_indices: Indices of the stages whose feature maps are returned, starting from 0.
        init_cfg: Initialization of `mmengine.model.BaseModule`, for example a pretrained checkpoint.

    Raises:
        ConfigError: `arch`, `q_size` or `out_indices` is invalid.
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
        settings = arch_settings(arch, ARCHS, drop_path_rate=0.0, pre_norms=())
        self.embed_dims, depths = tuple(settings['embed_dims']), settings['depths']
        q_sizes = (q_size,) * len(depths) if isinstance(q_size, int) else tuple(q_size)
        if len(q_sizes) != len(depths):
            raise ConfigError(f'q_size has {len(q_sizes)} entries; expected one for each of the {len(depths)} stages')
        pre_norms = {tuple(position) for position in settings['pre_norms']}
        if not pre_norms <= {(stage, block) for stage, depth in enumerate(depths) for block in range(depth)}:
            raise ConfigError(f'arch.pre_norms={settings["pre_norms"]}: not all of these (stage, block) pairs exist')
        self.out_indices = check_out_indices(out_indices, len(depths))

        self.downsamples = nn.ModuleList([_stem(in_channels, self.embed_dims[0], norm_cfg, act_cfg)])
        for before, after in pairwise(self.embed_dims):
            conv = nn.Conv2d(before, after, 3, stride=2, padding=1)
            self.downsamples.append(nn.Sequential(conv, build_norm_layer(norm_cfg, after)[1]))

        rate = settings['drop_path_rate'] if drop_path_rate is None else drop_path_rate
        rates = iter(drop_path_rates(rate, sum(depths)))
        self.pyramids = nn.ModuleList()
        self.stages = nn.ModuleList()
        for stage, (dims, depth, side) in enumerate(zip(self.embed_dims, depths, q_sizes, strict=True)):
            self.pyramids.append(PoolingPyramid(dims, side, pool_sizes, convs=True))
            blocks = [
                LowResolutionBlock(
                    dims,
                    settings['num_heads'][stage],
                    settings['mlp_ratios'][stage],
                    side,
                    norm_cfg,
                    act_cfg,
                    layer_scale=layer_scale if stage >= 2 else None,
                    pre_norm=(stage, block) in pre_norms,
                    drop_rate=drop_rate,
                    attn_drop_rate=attn_drop_rate,
                    drop_path_rate=next(rates),
                )
                for block in range(depth)
            ]
            self.stages.append(nn.ModuleList(blocks))

    def init_weights(self) -> None:
        """Loads the weights of `init_cfg`, or initializes linear layers with small values.

        Convolutions keep torch's initialization: one that preserves the variance would double it in every sum of a
        feature map and its depthwise convolution, far beyond the range of fp16 in the deep sizes.
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
        for index, (downsample, pyramid, blocks) in enumerate(
            zip(self.downsamples, self.pyramids, self.stages, strict=True)
        ):
            x = downsample(x)
            for block in blocks:
                x = block(x, pyramid)
            if index in self.out_indices:
                outputs.append(x)
        return tuple(outputs)


def _stem(in_channels: int, embed_dims: int, norm_cfg: dict, act_cfg: dict) -> nn.Sequential:
    """Four 3x3 convolutions to stride 4."""
    half = embed_dims // 2
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((in_channels, half, 2), (half, half, 1), (half, embed_dims, 2)):
        layers.append(nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1))
        layers.append(nn.BatchNorm2d(outputs))
        layers.append(build_activation_layer(act_cfg))
    layers.append(nn.Conv2d(embed_dims, embed_dims, 3, padding=1))
    layers.append(build_norm_layer(norm_cfg, embed_dims)[1])
    return nn.Sequential(*layers)
