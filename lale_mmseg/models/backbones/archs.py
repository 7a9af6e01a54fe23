"""Sizes of a family of backbones: one by name from its table, or one of the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import ConfigError


def arch_settings(
    arch: str | Mapping[str, Any],
    known: Mapping[str, Mapping[str, Any]],
    per_stage: tuple[str, ...],
    optional: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The settings that `arch` stands for.

    Args:
        arch: Name of a size, in any case, or the settings themselves.
        known: The table of sizes.
        per_stage: Settings that must be there, with one entry a stage.
        optional: Settings that may be left out, with what they are then.

    Returns:
        All settings, those per stage as tuples of one length.

    Raises:
        ConfigError: Unknown name, missing or unknown settings, lists of unequal length, or an entry that is no
            whole number from 1 up.
    """
    optional = optional or {}
    if isinstance(arch, str):
        if arch.lower() not in known:
            raise ConfigError(f'arch={arch!r}: known sizes are {", ".join(known)}')
        arch = known[arch.lower()]
    if not set(per_stage) <= set(arch) <= {*per_stage, *optional}:
        more = f', and may have {", ".join(optional)}' if optional else ''
        wrong = [f'{name} is missing' for name in per_stage if name not in arch]
        wrong += [f'{name} is unknown' for name in arch if name not in (*per_stage, *optional)]
        raise ConfigError(f'arch={dict(arch)}: it must have {", ".join(per_stage)}{more}; {", ".join(wrong)}')
    for name in per_stage:
        if not isinstance(arch[name], Sequence) or not all(isinstance(value, int) for value in arch[name]):
            raise ConfigError(f'arch={dict(arch)}: {name} is a list of whole numbers, one for each stage')
    settings = {**optional, **arch, **{name: tuple(arch[name]) for name in per_stage}}
    lengths = {len(settings[name]) for name in per_stage}
    if len(lengths) != 1 or not lengths.pop():
        raise ConfigError(f'arch={dict(arch)}: {", ".join(per_stage)} need one entry for each stage')
    if any(value < 1 for name in per_stage for value in settings[name]):
        raise ConfigError(f'arch={dict(arch)}: every entry of {", ".join(per_stage)} is at least 1')
    return settings


def check_out_indices(out_indices: tuple[int, ...], num_stages: int) -> None:
    """Raises ConfigError for no stages, or a stage that is not there."""
    if not out_indices or any(not 0 <= index < num_stages for index in out_indices):
        raise ConfigError(f'out_indices={out_indices}: stages are 0 to {num_stages - 1}')


def drop_path_rates(rate: float, num_blocks: int) -> list[float]:
    """Rates of stochastic depth of all blocks in order, rising linearly from 0 in the first to `rate` in the last.

    Raises:
        ConfigError: `rate` is under 0, or so high that nothing is ever kept.
    """
    if not 0 <= rate < 1:
        raise ConfigError(f'drop_path_rate={rate}: at least 0 and under 1 is due')
    return [rate * position / max(num_blocks - 1, 1) for position in range(num_blocks)]
