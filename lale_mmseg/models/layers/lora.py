"""LoRA: Low-Rank Adaptation of Large Language Models (arXiv 2106.09685), for the linear layers of any network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ConfigError


class LoRALinear(nn.Linear):
    """A linear layer with frozen weights and a trained low-rank update: W x + b + alpha / rank * B A x.

    The frozen part keeps the names `weight` and `bias`, so that weights of the plain layer load. B is initialized with
    zeros: the layer starts as the plain one.

    Args:
        in_features: Size of each input sample.
        out_features: Size of each output sample.
        bias: Whether to add a bias b.
        rank: Number of rows of A and columns of B.
        alpha: Scale of the update, times `rank`.
        dropout: Dropout rate of the input of A.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        rank: int = 4,
        alpha: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.weight.requires_grad_(False)
        if self.bias is not None:
            self.bias.requires_grad_(False)
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.lora_a = nn.Parameter(torch.empty(rank, in_features))
        self.lora_b = nn.Parameter(torch.zeros(out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    @classmethod
    def from_linear(cls, linear: nn.Linear, rank: int, alpha: float, dropout: float) -> LoRALinear:
        """Makes an adapted layer with the weights of a plain one."""
        has_bias = linear.bias is not None
        layer = cls(linear.in_features, linear.out_features, has_bias, rank, alpha, dropout)
        layer = layer.to(device=linear.weight.device, dtype=linear.weight.dtype)
        if not linear.weight.is_meta:
            layer.load_state_dict(linear.state_dict(), strict=False)
        return layer

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        update = F.linear(F.linear(self.dropout(input), self.lora_a), self.lora_b)
        return super().forward(input) + self.scale * update

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """Makes a plain, trainable layer with the same output."""
        layer = nn.Linear(self.in_features, self.out_features, self.bias is not None)
        layer = layer.to(device=self.weight.device, dtype=self.weight.dtype)
        layer.weight.copy_(self.weight + self.scale * self.lora_b @ self.lora_a)
        if self.bias is not None:
            layer.bias.copy_(self.bias)
        return layer

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, rank={self.lora_a.shape[0]}, scale={self.scale:g}'


def add_lora(
    network: nn.Module, rank: int = 4, alpha: float = 4.0, targets: Sequence[str] = ('qkv',), dropout: float = 0.0
) -> list[LoRALinear]:
    """Freezes a network and adapts all its linear layers of the given names, in place.

    Args:
        network: Any network.
        rank: Rank of the updates.
        alpha: Scale of the updates, times `rank`.
        targets: Last parts of the names of the layers, such as 'qkv'.
        dropout: Dropout rate of the input of an update.

    Returns:
        The adapted layers.

    Raises:
        ConfigError: No linear layer has the name of a target.
    """
    linear = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    known = sorted({name.rpartition('.')[2] for name in linear})
    if not targets or not set(targets) <= set(known):
        raise ConfigError(f'lora_cfg.targets={targets!r}: expected a list of names out of {", ".join(known)}')
    network.requires_grad_(False)
    adapted = []
    for name, module in linear.items():
        parent, _, last = name.rpartition('.')
        if last in targets:
            layer = LoRALinear.from_linear(module, rank, alpha, dropout)
            setattr(network.get_submodule(parent), last, layer)
            adapted.append(layer)
    return adapted


def merge_lora(network: nn.Module) -> int:
    """Replaces all adapted layers of a network by plain ones with the same output, in place; returns their number."""
    adapted = [(name, module) for name, module in network.named_modules() if isinstance(module, LoRALinear)]
    for name, module in adapted:
        parent, _, last = name.rpartition('.')
        setattr(network.get_submodule(parent), last, module.merge())
    return len(adapted)
