"""LeMeViT: Efficient Vision Transformer with Learnable Meta Tokens for Remote Sensing Image Interpretation.

arXiv 2405.09789. Written from the paper's description; the networks are those of the published checkpoints, which
`tools/model_converters/lemevit.py` converts. Differences: images of any size; any number of input bands; what feeds no
map (the meta tokens' way after the last dual cross-attention) is not there, so every parameter has a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from mmcv.cnn import build_activation_layer, build_norm_layer
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from mmengine.model.weight_init import trunc_normal_init
from mmseg.registry import MODELS
from torch import Tensor, nn

from ...errors import ConfigError
from ..attention import CrossAttention, DualCrossAttention, GivingCrossAttention, MultiHeadAttention
from ..attention.heads import check_rate
from ..attention.meta_tokens import check_num_meta_tokens
from ..layers import depthwise_conv, to_map
from .archs import arch_settings, check_counts, check_out_indices, drop_path_rates

#: Blocks and width of each of the five steps, by size. The first two run at stride 4.
ARCHS: dict[str, dict[str, tuple[int, ...]]] = {
    'tiny': dict(depths=(1, 2, 2, 8, 2), widths=(64, 64, 128, 192, 320)),
    'small': dict(depths=(1, 2, 2, 6, 2), widths=(96, 96, 192, 320, 384)),
    'base': dict(depths=(2, 4, 4, 18, 4), widths=(96, 96, 192, 384, 512)),
}


class _Block(nn.Module):
    """What all blocks have: dw3x3, two norms and an MLP that image and meta tokens share, pre-norm residuals.

    Args:
        dims: Width C of all tokens.
        attention: Attention of the block.
        mlp_ratio: Width of the hidden layer of the MLP, in multiples of `dims`.
        norm_cfg: Norm over the channels of each token.
        act_cfg: Activation of the MLP.
        drop: Probability to drop a value of the MLP's hidden layer or output in training.
        drop_path: Probability to skip a residual branch of a sample in training.
    """

    def __init__(
        self,
        dims: int,
        attention: nn.Module,
        mlp_ratio: int,
        norm_cfg: dict,
        act_cfg: dict,
        drop: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.pos_embed = depthwise_conv(dims, 3)
        self.norm1 = build_norm_layer(norm_cfg, dims)[1]
        self.attn = attention
        self.norm2 = build_norm_layer(norm_cfg, dims)[1]
        self.mlp = nn.Sequential(
            nn.Linear(dims, mlp_ratio * dims),
            build_activation_layer(act_cfg),
            nn.Dropout(drop),
            nn.Linear(mlp_ratio * dims, dims),
            nn.Dropout(drop),
        )
        self.drop_path = DropPath(drop_path)

    def place(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to tokens (B, H * W, C) that know their surroundings."""
        return (x + self.pos_embed(x)).flatten(2).transpose(1, 2)

    def add(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Adds what attention found, then the MLP of the sum."""
        tokens = tokens + self.drop_path(attended)
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class CrossBlock(_Block):
    """C step: the meta tokens read the image; the map leaves as it came."""

    def forward(self, x: Tensor, meta: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C, H, W) and meta tokens (B, M, C) to the same."""
        return x, self.add(meta, self.attn(self.norm1(meta), self.norm1(self.place(x))))


class DualBlock(_Block):
    """D step: image and meta tokens read each other."""

    def forward(self, x: Tensor, meta: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C, H, W) and meta tokens (B, M, C) to the same."""
        tokens = self.place(x)
        attended, gathered = self.attn(self.norm1(tokens), self.norm1(meta))
        return to_map(self.add(tokens, attended), _size(x)), self.add(meta, gathered)


class GivingBlock(_Block):
    """The last block of the last D step: only the image's half, as nothing reads the meta tokens afterwards."""

    def forward(self, x: Tensor, meta: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C, H, W) and meta tokens (B, M, C) to the same; the meta tokens leave as they came."""
        tokens = self.place(x)
        return to_map(self.add(tokens, self.attn(self.norm1(tokens), self.norm1(meta))), _size(x)), meta


class SelfBlock(_Block):
    """S step: self-attention over the image; the meta tokens pass by."""

    def forward(self, x: Tensor, meta: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C, H, W) and meta tokens (B, M, C) to the same; the meta tokens leave as they came."""
        tokens = self.place(x)
        return to_map(self.add(tokens, self.attn(self.norm1(tokens), _size(x))), _size(x)), meta


def _size(x: Tensor) -> tuple[int, int]:
    """Height and width of a map."""
    return x.shape[2], x.shape[3]


@MODELS.register_module()
class LeMeViT(BaseModule):
    """LeMeViT backbone: meta tokens gather (C), exchange with the image (D, D), then self-attention (S, S).

    The five steps run at strides 4, 4, 8, 16 and 32; the maps of the last four are returned. Self-attention at strides
    16 and 32 is quadratic in pixels. Maps keep the memory format of the input.

    Args:
        arch: 'tiny', 'small' or 'base', or a dict of `widths` and `depths` with one entry for each of the five steps.
        in_channels: Number of input bands.
        num_meta_tokens: Number M of meta tokens.
        head_width: Channels of each attention head.
        mlp_ratio: Width of the hidden layers of the MLPs, in multiples of the step's width.
        drop_rate: Probability to drop a value of an MLP, or an output value of attention, in training.
        attn_drop_rate: Probability to drop an attention weight in training.
        drop_path_rate: Probability to skip the residual branches of the deepest block, falling linearly to none in the
            first.
        norm_cfg: Norm over the channels of each token in the blocks.
        act_cfg: Activation.
        out_indices: Maps that are returned, counting from 0 (stride 4) to 3 (stride 32).
        init_cfg: Initialization of `mmengine.model.BaseModule`, for example a pretrained checkpoint.

    Raises:
        ConfigError: Unknown `arch`, a width that the heads do not divide, a number under 1, a rate outside 0 to 1, or
            maps that are not there.
    """

    def __init__(
        self,
        arch: str | dict = 'tiny',
        in_channels: int = 3,
        num_meta_tokens: int = 16,
        head_width: int = 32,
        mlp_ratio: int = 4,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        norm_cfg: dict = dict(type='LN', eps=1e-6),
        act_cfg: dict = dict(type='GELU'),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        settings = arch_settings(arch, ARCHS, per_stage=('widths', 'depths'))
        widths, depths = settings['widths'], settings['depths']
        if len(widths) != 5 or widths[0] != widths[1]:
            raise ConfigError(f'arch={arch!r}: widths of five steps are due, the first two of them equal')
        check_counts(in_channels=in_channels, head_width=head_width, mlp_ratio=mlp_ratio)
        check_num_meta_tokens(num_meta_tokens)
        check_rate('drop_rate', drop_rate)
        check_rate('attn_drop_rate', attn_drop_rate)
        self.widths = widths[1:]
        check_out_indices(out_indices, len(self.widths))
        self.out_indices = tuple(out_indices)

        self.meta_tokens = nn.Parameter(torch.empty(num_meta_tokens, widths[0]))
        # The paper's description does not state a start; this one makes sure that tokens differ from the first step on.
        nn.init.normal_(self.meta_tokens)
        self.downsample_layers = nn.ModuleList([_stem(in_channels, widths[0], act_cfg), nn.Identity()])
        for before, after in pairwise(self.widths):
            conv = nn.Conv2d(before, after, 3, stride=2, padding=1)
            self.downsample_layers.append(nn.Sequential(conv, nn.BatchNorm2d(after)))
        # The meta tokens go no further than the D steps.
        self.meta_token_downsample = nn.ModuleList(
            _meta_projection(before, after, act_cfg)
            for before, after in zip((widths[0], *widths[:2]), widths[:3], strict=True)
        )

        mixing: dict[str, Any] = dict(mlp_ratio=mlp_ratio, norm_cfg=norm_cfg, act_cfg=act_cfg, drop=drop_rate)
        kinds = block_kinds(depths)
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        self.stages = nn.ModuleList()
        for width, step in zip(widths, kinds, strict=True):
            if width % head_width:
                raise ConfigError(f'width {width} of arch={arch!r} is not divisible by head_width={head_width}')
            blocks = []
            for block, attention in step:
                attn = attention(width, width // head_width, attn_drop_rate, drop_rate)
                blocks.append(block(width, attn, drop_path=next(rates), **mixing))
            self.stages.append(nn.ModuleList(blocks))

    def init_weights(self) -> None:
        """Loads `init_cfg`, or starts linear layers at a small scale."""
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
        """Computes the maps in `out_indices`.

        Args:
            x: Normalized image (B, in_channels, H, W), any H and W.

        Returns:
            Maps (B, widths[i], ceil(H / s), ceil(W / s)), strides s of 4, 8, 16, 32.
        """
        meta = self.meta_tokens.expand(x.shape[0], -1, -1)  # (B, M, C)
        outputs = []
        for index, (downsample, blocks) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            x = downsample(x)
            if index < len(self.meta_token_downsample):
                meta = self.meta_token_downsample[index](meta)
            for block in blocks:
                x, meta = block(x, meta)
            if index - 1 in self.out_indices:
                outputs.append(x)
        return tuple(outputs)


def block_kinds(depths: Sequence[int]) -> list[list[tuple[type[_Block], type[nn.Module]]]]:
    """Block and attention classes of each block of the steps C, D, D, S, S."""
    cross, dual, alone = (CrossBlock, CrossAttention), (DualBlock, DualCrossAttention), (SelfBlock, MultiHeadAttention)
    steps: list[list[tuple[type[_Block], type[nn.Module]]]] = [
        [kind] * depth for kind, depth in zip((cross, dual, dual, alone, alone), depths, strict=True)
    ]
    steps[2][-1] = (GivingBlock, GivingCrossAttention)
    return steps


def _stem(in_channels: int, width: int, act_cfg: dict) -> nn.Sequential:
    """Two 3x3 convolutions to stride 4."""
    half = width // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, half, 3, stride=2, padding=1),
        nn.BatchNorm2d(half),
        build_activation_layer(act_cfg),
        nn.Conv2d(half, width, 3, stride=2, padding=1),
        nn.BatchNorm2d(width),
    )


def _meta_projection(before: int, after: int, act_cfg: dict) -> nn.Sequential:
    """The way of the meta tokens into a step."""
    return nn.Sequential(
        nn.Linear(before, 4 * before),
        nn.LayerNorm(4 * before),
        build_activation_layer(act_cfg),
        nn.Linear(4 * before, after),
        nn.LayerNorm(after),
    )
