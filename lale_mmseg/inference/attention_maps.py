"""What attention looks at: weights of the light attentions, recorded while a network runs, without touching it.

The weights are computed beside each call of torch's fused attention, as softmax(q k^T * scale) in float32. Recorded are
what stays linear in pixels: meta tokens and pixels that look at each other, and low-resolution attention. Of
self-attention over all pixels only the row of one pixel is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import ConfigError
from ..models.attention import (
    CrossAttention,
    DualCrossAttention,
    GivingCrossAttention,
    LowResolutionSelfAttention,
    MetaTokenAttention,
    MultiHeadAttention,
    PooledAttention,
    PoolingPyramid,
)
from ..models.attention.low_resolution import pooled_size

#: Who looks at what in one call of attention.
GATHER = 'gather'  # meta tokens at pixels
GIVE = 'give'  # pixels at meta tokens
POOLED = 'pooled'  # pooled pixels at a pooling pyramid
SELF = 'self'  # pixels at pixels

#: The calls of each attention, in the order in which its `forward` makes them.
CALLS: dict[type[nn.Module], tuple[str, ...]] = {
    CrossAttention: (GATHER,),
    DualCrossAttention: (GIVE, GATHER),
    GivingCrossAttention: (GIVE,),
    MetaTokenAttention: (GATHER, GIVE),
    MultiHeadAttention: (SELF,),
    PooledAttention: (POOLED,),
}

Size = tuple[int, int]


@dataclass(frozen=True)
class Place:
    """One call of attention in a network.

    Attributes:
        module: Dotted name of the attention module.
        kind: Its class, or that of the registered attention around it.
        role: GATHER, GIVE, POOLED or SELF.
        call: Which of the module's calls of fused attention it is, counting from 0.
        stage: Number of the backbone's stage, counting from 1, or the name of another part, such as 'decode_head'.
        block: Number of the block in the stage, counting from 1.
    """

    module: str
    kind: str
    role: str
    call: int
    stage: str
    block: int


@dataclass(frozen=True)
class AttentionMap:
    """Attention of one image at one place.

    Attributes:
        place: Where in the network.
        weights: (queries, keys) float32 on the CPU, averaged over heads; rows sum to 1. Tokens by pixels for GATHER,
            pixels by tokens for GIVE, pooled pixels by pooled keys for POOLED, one pixel by pixels for SELF.
        num_heads: Heads that were averaged.
        hw: Height and width of the map that the attention works on.
        query_hw: Height and width of the queries' map for POOLED, else `hw`.
        key_grids: Heights and widths of the maps of the pooling pyramid for POOLED, else `hw` alone.
        stride: Pixels of the network's input for one of the map.
    """

    place: Place
    weights: Tensor
    num_heads: int
    hw: Size
    query_hw: Size
    key_grids: tuple[Size, ...]
    stride: int


def attention_places(model: nn.Module) -> list[Place]:
    """All calls of known attention that prediction makes, in the order of the network's modules."""
    places: list[Place] = []
    blocks: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        roles = CALLS.get(type(module))
        if roles is None or name.startswith('auxiliary_head'):
            continue
        numbered = re.match(r'backbone\.stages\.(\d+)\.(\d+)\.', name)
        if numbered:
            stage, block = str(int(numbered[1]) + 1), int(numbered[2]) + 1
        else:
            stage = name.partition('.')[0]
            blocks.setdefault(stage, []).append(name)
            block = len(blocks[stage])
        parent = model.get_submodule(name.rpartition('.')[0])
        # The registered name is the one that users know.
        kind = type(parent if isinstance(parent, LowResolutionSelfAttention) else module).__name__
        places += [Place(name, kind, role, call, stage, block) for call, role in enumerate(roles)]
    return places


def choose_places(places: Sequence[Place], stages: Sequence[str] = (), block: int | None = None) -> list[Place]:
    """Places of some stages and of one block in each.

    Args:
        places: Of `attention_places`.
        stages: As of `Place.stage`; none for all.
        block: Number of the block; None for the last one of each stage that has a call of the same role.

    Raises:
        ConfigError: A stage or the block is not among the places.
    """
    known: dict[str, set[str]] = {}
    for place in places:
        known.setdefault(place.stage, set()).add(place.kind)
    for stage in stages:
        if stage not in known:
            there = ', '.join(f'{name} ({", ".join(sorted(kinds))})' for name, kinds in known.items())
            raise ConfigError(f'stage={stage}: no attention to show there; this network has it in {there}')
    chosen = [place for place in places if not stages or place.stage in stages]
    if block is None:
        last: dict[tuple[str, str], int] = {}
        for place in chosen:
            key = (place.stage, place.role)
            last[key] = max(place.block, last.get(key, 0))
        return [place for place in chosen if place.block == last[place.stage, place.role]]
    found = [place for place in chosen if place.block == block]
    if not found:
        numbers = ', '.join(map(str, sorted({place.block for place in chosen})))
        raise ConfigError(f'block={block}: no attention to show there; blocks with some: {numbers}')
    return found


def mean_attention(query: Tensor, key: Tensor, scale: float | None = None) -> Tensor:
    """softmax(q k^T * scale) in float32, averaged over heads; one head at a time, so that one matrix is held, not all.

    Args:
        query: (heads, Q, d).
        key: (heads, K, d).
        scale: Of the products; None for d ** -0.5, as in torch.

    Returns:
        (Q, K) on the CPU, rows sum to 1.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    total = torch.zeros(query.shape[1], key.shape[1], device=query.device)
    for queries, keys in zip(query.float(), key.float(), strict=True):
        total += (queries @ keys.T * scale).softmax(dim=1)
    return (total / len(query)).cpu()


def record_attention(
    model: nn.Module, run: Callable[[], Any], places: Sequence[Place], input_hw: Size, pixel: Size
) -> list[AttentionMap]:
    """Runs a network and records its attention at some places.

    Args:
        model: The network, in evaluation mode.
        run: Calls it on one image.
        places: Of `attention_places`.
        input_hw: Height and width of the network's input.
        pixel: Row and column in the input of the pixel whose row of self-attention is recorded.

    Returns:
        Maps in the order of `places`; places that did not run are left out.
    """
    wanted = {(place.module, place.call): place for place in places}
    found: dict[Place, AttentionMap] = {}
    frames: list[_Frame] = []

    def observe(query: Tensor, key: Tensor, scale: float | None) -> None:
        if not frames or not frames[-1].is_attention:
            return
        place = wanted.get((frames[-1].module, frames[-1].calls))
        frames[-1].calls += 1
        if place is not None:
            found[place] = _record(place, query[0], key[0], scale, frames, input_hw, pixel)

    names = {place.module for place in places}
    with _followed(model, names, frames), _Listener(observe), torch.inference_mode():
        run()
    return [found[place] for place in places if place in found]


def pyramid_grids(values: Tensor, grids: Sequence[Size]) -> list[np.ndarray]:
    """Splits one value for each pooled key (L,) into the maps of the pyramid."""
    parts = values.split([height * width for height, width in grids])
    return [part.reshape(grid).numpy() for part, grid in zip(parts, grids, strict=True)]


def cell_at(pixel: Size, input_hw: Size, grid: Size) -> Size:
    """Row and column of the cell of a map laid over the input in which a pixel lies."""
    row, column = (
        min(at * cells // length, cells - 1) for at, length, cells in zip(pixel, input_hw, grid, strict=True)
    )
    return row, column


def pooled_row(found: AttentionMap, input_hw: Size, pixel: Size) -> Tensor:
    """Weights (L,) of the pooled query in which a pixel of the input lies."""
    row, column = cell_at(pixel, input_hw, found.query_hw)
    return found.weights[row * found.query_hw[1] + column]


def entropy(weights: Tensor) -> Tensor:
    """Entropy of each row in nats: 0 for one key alone, log K for all K keys alike."""
    return torch.special.entr(weights).sum(dim=-1)


def spread(weights: Tensor) -> Tensor:
    """Share of keys that each row is spread over: exp(entropy) / K, from 1 / K for one key alone to 1 for all alike."""
    return entropy(weights).exp() / weights.shape[-1]


def listening_shares(weights: Tensor) -> list[float]:
    """Share of pixels that look at each meta token most, of (pixels, tokens)."""
    counts = torch.bincount(weights.argmax(dim=1), minlength=weights.shape[1])
    return (counts / len(weights)).tolist()


def summary_of(found: AttentionMap) -> dict[str, Any]:
    """Figures of a map, as plain values: where it is, shapes, and what is looked at most.

    GATHER and SELF: `entropy` and `spread` of each row, `peak` (highest weight, in equal shares 1 / keys) and
    `peak_cell` (row, column). GIVE: `listening`, see `listening_shares`, and the mean `entropy` and `spread` of pixels.
    POOLED: the same as GATHER of the mean over queries, `pyramid_shares` (sum of weights of each map of the pyramid)
    and `equal_shares` (the sums if all keys were alike).
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
    keys = weights.argmax(dim=1).tolist()
    return figures | dict(
        entropy=entropy(weights).tolist(),
        spread=spread(weights).tolist(),
        peak=(weights.amax(dim=1) * weights.shape[1]).tolist(),
        peak_cell=[_cell_of(key, found.key_grids) for key in keys],
    )


@dataclass
class _Frame:
    """A module that is running."""

    module: str
    is_attention: bool
    hw: Size | None
    q_size: int
    sides: tuple[int, ...]
    calls: int = 0


class _Listener(TorchFunctionMode):
    """Tells `observe` of each call of fused attention, and lets it go on as it is."""

    def __init__(self, observe: Callable[[Tensor, Tensor, float | None], None]) -> None:
        super().__init__()
        self.observe = observe

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            operands = [*args, *(kwargs[name] for name in ('query', 'key') if name in kwargs)]
            self.observe(operands[0], operands[1], kwargs.get('scale'))
        return func(*args, **kwargs)


@contextmanager
def _followed(model: nn.Module, names: set[str], frames: list[_Frame]) -> Iterator[None]:
    """Keeps `frames` the stack of those modules that run, with the modules around them, which know the map's size."""
    around = {'', *(name[:end] for name in names for end, letter in enumerate(name) if letter == '.')}
    handles = []
    for name in names | around:
        module = model.get_submodule(name)

        def enter(module: nn.Module, args: tuple, kwargs: dict, name: str = name) -> None:
            values = [*args, *kwargs.values()]
            q_size = module.q_size if isinstance(module, PooledAttention) else 0
            sides = next((value.sides for value in values if isinstance(value, PoolingPyramid)), ())
            frames.append(_Frame(name, name in names, _map_size(values), q_size, sides))

        def leave(*_: Any) -> None:
            frames.pop()

        handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        frames.clear()


def _map_size(values: Sequence[Any]) -> Size | None:
    """Height and width from a module's arguments: those of a map (B, C, H, W), or a pair of whole numbers."""
    for value in values:
        if isinstance(value, Tensor) and value.ndim == 4:
            return value.shape[2], value.shape[3]
        if isinstance(value, tuple) and len(value) == 2 and all(isinstance(side, int) for side in value):
            return value
    return None


def _record(
    place: Place,
    query: Tensor,
    key: Tensor,
    scale: float | None,
    frames: Sequence[_Frame],
    input_hw: Size,
    pixel: Size,
) -> AttentionMap:
    """The map of a call that is being made; query (heads, Q, d), key (heads, K, d)."""
    sizes = [frame.hw for frame in reversed(frames) if frame.hw is not None]
    if place.role != POOLED:
        pixels = query.shape[1] if place.role == GIVE else key.shape[1]
        sizes = [size for size in sizes if size[0] * size[1] == pixels]
    if not sizes:
        raise RuntimeError(f'{place.module}: no module around it was given a map of the size of its tokens')
    hw = query_hw = sizes[0]
    grids: tuple[Size, ...] = (hw,)
    if place.role == POOLED:
        query_hw = pooled_size(hw, frames[-1].q_size)
        grids = tuple(pooled_size(hw, side) for side in frames[-1].sides)
    elif place.role == SELF:
        row, column = cell_at(pixel, input_hw, hw)
        at = row * hw[1] + column
        query = query[:, at : at + 1]
    weights = mean_attention(query, key, scale)
    return AttentionMap(place, weights, len(query), hw, query_hw, grids, _stride(input_hw, hw))


def _stride(input_hw: Size, hw: Size) -> int:
    """Pixels of the input for one of the map: the power of two that rounding up explains, else the nearest number."""
    ratio = max(length / cells for length, cells in zip(input_hw, hw, strict=True))
    power = 2 ** max(0, math.ceil(math.log2(ratio)))
    explained = all(-(-length // power) == cells for length, cells in zip(input_hw, hw, strict=True))
    return power if explained else max(1, round(ratio))


def _cell_of(key: int, grids: Sequence[Size]) -> list[int]:
    """Row and column of a key, after the number of its map in a pyramid of several."""
    for number, (height, width) in enumerate(grids):
        if key < height * width:
            cell = [key // width, key % width]
            return [number, *cell] if len(grids) > 1 else cell
        key -= height * width
    raise IndexError(key)
