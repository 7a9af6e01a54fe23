"""LeMeViT: Efficient Vision Transformer with Learnable Meta Tokens for Remote Sensing Image Interpretation.

arXiv 2405.09789. Written from the paper's description; the networks are those of the published checkpoints, which
`tools/model_converters/lemevit.py` converts. Differences: images of any size; any number of input bands; layers that
feed no feature map (those of the meta tokens after the last dual cross-attention) are left out, so every parameter has
a gradient.
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
from ..attention import Attention, CrossAttention, DualCrossAttention, GivingCrossAttention, MultiHeadAttention
from ..layers import depthwise_conv, to_map
from .archs import arch_settings, check_out_indices, drop_path_rates, num_heads_of

#: One entry per step; the first two run at stride 4.
ARCHS: dict[str, dict[str, tuple[int, ...]]] = {
    'tiny': dict(depths=(1, 2, 2, 8, 2), embed_dims=(64, 64, 128, 192, 320)),
    'small': dict(depths=(1, 2, 2, 6, 2), embed_dims=(96, 96, 192, 320, 384)),
    'base': dict(depths=(2, 4, 4, 18, 4), embed_dims=(96, 96, 192, 384, 512)),
}


class _Block(nn.Module):
    """Base of all blocks: dw3x3, and two norms and an MLP that image and meta tokens share; pre-norm residuals.

    Args:
        embed_dims: Number of channels C of all tokens.
        attention: Attention of the block.
        mlp_ratio: Hidden width of the MLP in multiples of `embed_dims`.
        norm_cfg: Norm over the channels of each token.
        act_cfg: Activation of the MLP.
        drop_rate: Dropout rate of the MLP's hidden layer and output.
        drop_path_rate: Stochastic depth rate of the residual branches.
    """

    def __init__(
        self,
        embed_dims: int,
        attention: Attention,
        mlp_ratio: int,
        norm_cfg: dict,
        act_cfg: dict,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.pos_embed = depthwise_conv(embed_dims, 3)
        self.norm1 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.attn = attention
        self.norm2 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.mlp = nn.Sequential(
            nn.Linear(embed_dims, mlp_ratio * embed_dims),
            build_activation_layer(act_cfg),
            nn.Dropout(drop_rate),
            nn.Linear(mlp_ratio * embed_dims, embed_dims),
            nn.Dropout(drop_rate),
        )
        self.drop_path = DropPath(drop_path_rate)

    def tokens_of(self, x: Tensor) -> Tensor:
        """Feature map (B, C, H, W) to tokens with positions (B, H * W, C)."""
        return (x + self.pos_embed(x)).flatten(2).transpose(1, 2)

    def add(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Adds the output of the attention, then the MLP of the sum; all (B, N, C)."""
        tokens = tokens + self.drop_path(attended)
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class CrossBlock(_Block):
    """C step: the meta tokens read the image; the feature map passes through unchanged."""

    def forward(self, x: Tensor, meta: Tensor) -> tuple[Tensor, Tensor]:
        """Feature map (B, C, H, W) and meta tokens (B, M, C) -> the same shapes."""
        return x, self.add(meta, self.attn(self.norm1(meta), self.norm1(self.tokens_of(x)), _size(x)))


class DualBlock(_Block):
    """D step: image and meta tokens read each other."""

    def forward(self, x: Tensor, meta: Tensor) -> tuple[Tensor, Tensor]:
        """Feature map (B, C, H, W) and meta tokens (B, M, C) -> the same shapes."""
        tokens = self.tokens_of(x)  # (B, H * W, C)
        attended, gathered = self.attn(self.norm1(tokens), self.norm1(meta), _size(x))
        return to_map(self.add(tokens, attended), _size(x)), self.add(meta, gathered)


class GivingBlock(_Block):
    """The last block of the last D step: the image's half alone, as nothing reads the meta tokens afterwards."""

    def forward(self, x: Tensor, meta: Tensor) -> tuple[Tensor, Tensor]:
        """Feature map (B, C, H, W) and meta tokens (B, M, C) -> the same shapes; the meta tokens unchanged."""
        tokens = self.tokens_of(x)  # (B, H * W, C)
        attended = self.attn(self.norm1(tokens), self.norm1(meta), _size(x))
        return to_map(self.add(tokens, attended), _size(x)), meta


class SelfBlock(_Block):
    """S step: self-attention over the image; the meta tokens are not used."""

    def forward(self, x: Tensor, meta: Tensor) -> tuple[Tensor, Tensor]:
        """Feature map (B, C, H, W) and meta tokens (B, M, C) -> the same shapes; the meta tokens unchanged."""
        tokens = self.tokens_of(x)  # (B, H * W, C)
        return to_map(self.add(tokens, self.attn(self.norm1(tokens), _size(x))), _size(x)), meta


def _size(x: Tensor) -> tuple[int, int]:
    """Height and width of a feature map."""
    return x.shape[2], x.shape[3]


@MODELS.register_module()
class LeMeViT(BaseModule):
    """LeMeViT backbone: meta tokens gather (C), exchange with the image (D, D), then self-attention (S, S).

    The five steps run at strides 4, 4, 8, 16 and 32; the feature maps of the last four are returned. Self-attention at
    strides 16 and 32 is quadratic in pixels. Feature maps keep the memory format of the input.

    Args:
        arch: 'tiny', 'small' or 'base', or a dict of `embed_dims` and `depths` with one entry for each of the five
            steps.
        in_channels: Number of input bands.
        num_meta_tokens: Number M of meta tokens.
        head_dim: Number of channels of each attention head.
        mlp_ratio: Hidden width of the MLPs in multiples of the step's width.
        drop_rate: Dropout rate of the MLPs and of the attention's output.
        attn_drop_rate: Dropout rate of the attention weights.
        drop_path_rate: Stochastic depth rate of the last block, decreasing linearly to 0 in the first.
        norm_cfg: Norm over the channels of each token in the blocks.
        act_cfg: Activation.
        out_indices: Indices of the feature maps that are returned, from 0 (stride 4) to 3 (stride 32).
        init_cfg: Initialization of `mmengine.model.BaseModule`, for example a pretrained checkpoint.

    Raises:
        ConfigError: `arch`, `head_dim` or `out_indices` is invalid.
    """

    def __init__(
        self,
        arch: str | dict = 'tiny',
        in_channels: int = 3,
        num_meta_tokens: int = 16,
        head_dim: int = 32,
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
        settings = arch_settings(arch, ARCHS)
        steps, depths = tuple(settings['embed_dims']), settings['depths']
        if len(steps) != 5 or steps[0] != steps[1]:
            raise ConfigError(f'arch={arch!r}: expected embed_dims of five steps, the first two of them equal')
        self.embed_dims = steps[1:]
        self.out_indices = check_out_indices(out_indices, len(self.embed_dims))

        self.meta_tokens = nn.Parameter(torch.empty(num_meta_tokens, steps[0]))
        # The paper does not state an initialization; this one makes the tokens differ from the first step on.
        nn.init.normal_(self.meta_tokens)
        self.downsample_layers = nn.ModuleList([_stem(in_channels, steps[0], act_cfg), nn.Identity()])
        for before, after in pairwise(self.embed_dims):
            conv = nn.Conv2d(before, after, 3, stride=2, padding=1)
            self.downsample_layers.append(nn.Sequential(conv, nn.BatchNorm2d(after)))
        # The meta tokens are not used after the D steps.
        self.meta_token_downsample = nn.ModuleList(
            _meta_projection(before, after, act_cfg)
            for before, after in zip((steps[0], *steps[:2]), steps[:3], strict=True)
        )

        mixing: dict[str, Any] = dict(mlp_ratio=mlp_ratio, norm_cfg=norm_cfg, act_cfg=act_cfg, drop_rate=drop_rate)
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        self.stages = nn.ModuleList()
        for dims, kinds in zip(steps, block_kinds(depths), strict=True):
            blocks = []
            for block, attention in kinds:
                attn = attention(dims, num_heads_of(dims, head_dim), attn_drop_rate, drop_rate)
                blocks.append(block(dims, attn, drop_path_rate=next(rates), **mixing))
            self.stages.append(nn.ModuleList(blocks))

    def init_weights(self) -> None:
        """Loads the weights of `init_cfg`, or initializes linear layers with small values."""
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
        """Computes the feature maps in `out_indices`.

        Args:
            x: Normalized image (B, in_channels, H, W), any H and W.

        Returns:
            Feature maps (B, embed_dims[i], ceil(H / s), ceil(W / s)) with strides s of 4, 8, 16, 32.
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


def block_kinds(depths: Sequence[int]) -> list[list[tuple[type[_Block], type[Attention]]]]:
    """Block and attention classes of each block of the steps C, D, D, S, S."""
    cross, dual, alone = (CrossBlock, CrossAttention), (DualBlock, DualCrossAttention), (SelfBlock, MultiHeadAttention)
    steps: list[list[tuple[type[_Block], type[Attention]]]] = [
        [kind] * depth for kind, depth in zip((cross, dual, dual, alone, alone), depths, strict=True)
    ]
    steps[2][-1] = (GivingBlock, GivingCrossAttention)
    return steps


def _stem(in_channels: int, embed_dims: int, act_cfg: dict) -> nn.Sequential:
    """Two 3x3 convolutions to stride 4."""
    half = embed_dims // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, half, 3, stride=2, padding=1),
        nn.BatchNorm2d(half),
        build_activation_layer(act_cfg),
        nn.Conv2d(half, embed_dims, 3, stride=2, padding=1),
        nn.BatchNorm2d(embed_dims),
    )


def _meta_projection(before: int, after: int, act_cfg: dict) -> nn.Sequential:
    """Projects the meta tokens to the width of the next step: (B, M, before) -> (B, M, after)."""
    return nn.Sequential(
        nn.Linear(before, 4 * before),
        nn.LayerNorm(4 * before),
        build_activation_layer(act_cfg),
        nn.Linear(4 * before, after),
        nn.LayerNorm(after),
    )
