"""Sizes of a family of backbones: one by name from its table, or one of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
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
        ConfigError: Unknown name, missing or unknown settings, lists of unequal length, or an entry under 1.
    """
    optional = optional or {}
    if isinstance(arch, str):
        if arch.lower() not in known:
            raise ConfigError(f'arch={arch!r}: known sizes are {", ".join(known)}')
        arch = known[arch.lower()]
    if not set(per_stage) <= set(arch) <= {*per_stage, *optional}:
        more = f', and may have {", ".join(optional)}' if optional else ''
        raise ConfigError(f'arch={dict(arch)}: it must have {", ".join(per_stage)}{more}')
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
