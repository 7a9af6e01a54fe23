"""Maps of what attention looks at, recorded while a network runs.

The weights are computed from the operands of each recorded call, as softmax(q k^T * scale) in float32. Recorded is what
stays linear in pixels: meta tokens and low-resolution attention. Of self-attention over all pixels, only the row of one
pixel is recorded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..models.attention import Attention, LowResolutionSelfAttention
from ..models.attention.base import GIVE, POOLED, SELF, AttentionCall, Size, recording


@dataclass(frozen=True)
class Place:
    """A call of attention in a network.

    Attributes:
        module: Dotted name of the attention module.
        kind: Its class, or that of the registered attention around it.
        role: GATHER, GIVE, POOLED or SELF of `models.attention.base`.
        stage: Number of the backbone's stage, starting from 1, or the name of another part, such as 'decode_head'.
        block: Number of the block in the stage, starting from 1.
    """

    module: str
    kind: str
    role: str
    stage: str
    block: int


@dataclass(frozen=True)
class AttentionMap:
    """Attention weights of one image at one place.

    Attributes:
        place: Position in the network.
        weights: (queries, keys) float32 on the CPU, averaged over heads; rows sum to 1. Tokens by pixels for GATHER,
            pixels by tokens for GIVE, pooled pixels by pooled keys for POOLED, one pixel by pixels for SELF.
        num_heads: Number of averaged heads.
        hw: Height and width of the feature map.
        query_hw: Height and width of the queries' feature map for POOLED, else `hw`.
        key_grids: Heights and widths of the levels of the pooling pyramid for POOLED, else `hw` alone.
        stride: Stride of the feature map.
    """

    place: Place
    weights: Tensor
    num_heads: int
    hw: Size
    query_hw: Size
    key_grids: tuple[Size, ...]
    stride: int


def attention_places(model: nn.Module) -> list[Place]:
    """All calls of attention that a prediction makes, in the order of the network's modules."""
    places: list[Place] = []
    counts: dict[str, int] = {}
    for name, module in model.named_modules():
        if not isinstance(module, Attention) or name.startswith('auxiliary_head'):
            continue
        numbered = re.match(r'backbone\.stages\.(\d+)\.(\d+)\.', name)
        if numbered:
            stage, block = str(int(numbered[1]) + 1), int(numbered[2]) + 1
        else:
            stage = name.partition('.')[0]
            block = counts[stage] = counts.get(stage, 0) + 1
        # Users know attentions by their registered names.
        parent = model.get_submodule(name.rpartition('.')[0])
        kind = type(parent if isinstance(parent, LowResolutionSelfAttention) else module).__name__
        places += [Place(name, kind, role, stage, block) for role in module.roles]
    return places


def choose_places(places: Sequence[Place], stages: Sequence[str] = (), block: int | None = None) -> list[Place]:
    """Selects the places of some stages and of one block in each.

    Args:
        places: Result of `attention_places`.
        stages: Stages as in `Place.stage`; empty for all.
        block: Number of the block; None for the last block of each stage and role.

    Raises:
        ConfigError: There is no place in one of the stages, or in the block.
    """
    known = list(dict.fromkeys(place.stage for place in places))
    for stage in stages:
        if stage not in known:
            raise ConfigError(f'stage={stage}: no attention to show there; expected one of {", ".join(known)}')
    chosen = [place for place in places if not stages or place.stage in stages]
    if block is None:
        last = {(place.stage, place.role): place for place in chosen}  # blocks are in order
        return [place for place in chosen if place.block == last[place.stage, place.role].block]
    found = [place for place in chosen if place.block == block]
    if not found:
        numbers = ', '.join(map(str, sorted({place.block for place in chosen})))
        raise ConfigError(f'block={block}: no attention to show there; expected one of {numbers}')
    return found


def mean_attention(query: Tensor, key: Tensor, scale: float | None = None) -> Tensor:
    """Computes softmax(q k^T * scale) in float32, averaged over heads.

    Args:
        query: (heads, Q, d).
        key: (heads, K, d).
        scale: Softmax scale; None for d ** -0.5.

    Returns:
        (Q, K) on the CPU, rows sum to 1.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    total = torch.zeros(query.shape[1], key.shape[1], device=query.device)
    for queries, keys in zip(query.float(), key.float(), strict=True):  # one head at a time, to save memory
        total += (queries @ keys.T * scale).softmax(dim=1)
    return (total / len(query)).cpu()


def record_attention(
    model: nn.Module, run: Callable[[], Any], places: Sequence[Place], input_hw: Size, pixel: Size
) -> list[AttentionMap]:
    """Runs a network and records its attention at some places.

    Args:
        model: The network, in evaluation mode.
        run: Calls the network on one image.
        places: Places to record, from `attention_places`.
        input_hw: Height and width of the network's input.
        pixel: Row and column in the input of the pixel whose row of self-attention is recorded.

    Returns:
        Maps in the order of `places`.
    """
    wanted = {(model.get_submodule(place.module), place.role): place for place in places}
    found: dict[Place, AttentionMap] = {}

    def record(call: AttentionCall) -> None:
        place = wanted.get((call.module, call.role))
        if place is None:
            return
        query, key = call.query[0], call.key[0]  # (heads, Q, d), (heads, K, d)
        if call.role == SELF:
            row, column = cell_at(pixel, input_hw, call.hw)
            at = row * call.hw[1] + column
            query = query[:, at : at + 1]
        query_hw, *key_grids = call.pooled or (call.hw, call.hw)
        weights = mean_attention(query, key, call.scale)
        stride = _stride(input_hw, call.hw)
        found[place] = AttentionMap(place, weights, len(query), call.hw, query_hw, tuple(key_grids), stride)

    with recording(record), torch.inference_mode():
        run()
    return [found[place] for place in places]


def pyramid_levels(values: Tensor, grids: Sequence[Size]) -> list[np.ndarray]:
    """Splits one value per pooled key (L,) into the levels of the pyramid."""
    parts = values.split([height * width for height, width in grids])
    return [part.reshape(grid).numpy() for part, grid in zip(parts, grids, strict=True)]


def cell_at(pixel: Size, input_hw: Size, grid: Size) -> Size:
    """Row and column of the cell that contains a pixel, in a grid over the input."""
    row, column = (
        min(at * cells // length, cells - 1) for at, length, cells in zip(pixel, input_hw, grid, strict=True)
    )
    return row, column


def pooled_row(found: AttentionMap, input_hw: Size, pixel: Size) -> Tensor:
    """Weights (L,) of the pooled query that contains a pixel of the input."""
    row, column = cell_at(pixel, input_hw, found.query_hw)
    return found.weights[row * found.query_hw[1] + column]


def entropy(weights: Tensor) -> Tensor:
    """Entropy of each row in nats: 0 for a single key, log K for K equal keys."""
    return torch.special.entr(weights).sum(dim=-1)


def spread(weights: Tensor) -> Tensor:
    """Share of keys that each row is spread over: exp(entropy) / K, from 1 / K for a single key to 1 for equal keys."""
    return entropy(weights).exp() / weights.shape[-1]


def listening_shares(weights: Tensor) -> list[float]:
    """For (pixels, tokens), the share of pixels that attend most to each meta token."""
    counts = torch.bincount(weights.argmax(dim=1), minlength=weights.shape[1])
    return (counts / len(weights)).tolist()


def summary_of(found: AttentionMap) -> dict[str, Any]:
    """Figures of a map as plain values.

    GATHER and SELF: `entropy` and `spread` of each row, `peak` (highest weight in multiples of 1 / keys) and
    `peak_cell` (row, column). GIVE: `listening`, see `listening_shares`, and the mean `entropy` and `spread` of pixels.
    POOLED: the figures of GATHER for the mean over queries, `pyramid_shares` (sum of the weights of each level) and
    `equal_shares` (the sums if all keys had equal weights).
    """
    place, weights = found.place, found.weights
    figures: dict[str, Any] = dict(
        stage=place.stage,
        block=place.block,
        module=place.module,
        attention=place.kind,
        role=place.role,
        num_heads=found.num_heads,
        map=list(found.hw),
        stride=found.stride,
        weights=list(weights.shape),
    )
    if place.role == GIVE:
        figures |= dict(entropy=entropy(weights).mean().item(), spread=spread(weights).mean().item())
        return figures | dict(listening=listening_shares(weights))
    if place.role == POOLED:
        areas = [height * width for height, width in found.key_grids]
        mean = weights.mean(dim=0)
        figures |= dict(
            query_map=list(found.query_hw),
            pyramid=[list(grid) for grid in found.key_grids],
            pyramid_shares=[part.sum().item() for part in mean.split(areas)],
            equal_shares=[area / sum(areas) for area in areas],
        )
        weights = mean[None]
    return figures | dict(
        entropy=entropy(weights).tolist(),
        spread=spread(weights).tolist(),
        peak=(weights.amax(dim=1) * weights.shape[1]).tolist(),
        peak_cell=[_cell_of(key, found.key_grids) for key in weights.argmax(dim=1).tolist()],
    )


def _stride(input_hw: Size, hw: Size) -> int:
    """The power of two nearest to the ratio of input and feature map, whose sides are rounded up."""
    ratio = max(length / cells for length, cells in zip(input_hw, hw, strict=True))
    return 2 ** math.ceil(math.log2(ratio))


def _cell_of(key: int, grids: Sequence[Size]) -> list[int]:
    """Row and column of a key, after the index of its level if there are several."""
    level = 0
    while key >= grids[level][0] * grids[level][1]:
        key -= grids[level][0] * grids[level][1]
        level += 1
    cell = [key // grids[level][1], key % grids[level][1]]
    return [level, *cell] if len(grids) > 1 else cell
