"""Sizes of a family of backbones: an entry of its table by name, or a dict of the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import ConfigError


def arch_settings(
    arch: str | Mapping[str, Any], known: Mapping[str, Mapping[str, Any]], **defaults: Any
) -> dict[str, Any]:
    """Looks up the settings of an `arch` argument.

    Args:
        arch: Name of a size, in upper or lower case, or a dict with the same keys as the entries of the table.
        known: The table of sizes.
        **defaults: Settings that may be omitted, with their default values.

    Raises:
        ConfigError: The name is unknown, a setting is missing or unknown, or lists per stage differ in length.
    """
    if isinstance(arch, str):
        if arch.lower() not in known:
            raise ConfigError(f'arch={arch!r}: unknown size; expected one of {", ".join(known)}, or a dict of settings')
        return {**defaults, **known[arch.lower()]}
    required = set.intersection(*map(set, known.values())) - set(defaults)
    if not isinstance(arch, Mapping) or not required <= set(arch) <= required | set(defaults):
        optional = f' (optional: {", ".join(defaults)})' if defaults else ''
        raise ConfigError(
            f'arch={arch!r}: expected one of {", ".join(known)}, or a dict of {", ".join(sorted(required))}{optional}'
        )
    lengths = {len(arch[name]) for name in required if isinstance(arch[name], Sequence)}
    if len(lengths) > 1:
        raise ConfigError(f'arch={dict(arch)}: lists differ in length; expected one entry per stage in each')
    return {**defaults, **arch}


def check_out_indices(out_indices: Sequence[int], num_stages: int) -> tuple[int, ...]:
    """Returns `out_indices` as a tuple; raises ConfigError unless they are increasing numbers of stages."""
    indices = tuple(out_indices)
    if not indices or list(indices) != sorted(set(indices) & set(range(num_stages))):
        raise ConfigError(f'out_indices={out_indices!r}: expected increasing indices from 0 to {num_stages - 1}')
    return indices


def num_heads_of(embed_dims: int, head_dim: int) -> int:
    """Number of heads of width `head_dim`; raises ConfigError if it does not divide `embed_dims`."""
    if embed_dims % head_dim:
        raise ConfigError(f'embed_dims={embed_dims} must be divisible by head_dim={head_dim}')
    return embed_dims // head_dim


def drop_path_rates(rate: float, num_blocks: int) -> list[float]:
    """Stochastic depth rates of all blocks in order, increasing linearly from 0 in the first to `rate` in the last."""
    return [rate * position / max(num_blocks - 1, 1) for position in range(num_blocks)]
