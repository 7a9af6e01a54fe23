"""Sizes of a family of backbones: one by name from its table, or one of the user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import ConfigError
from ..attention.heads import check_rate


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
        ConfigError: Neither a name nor settings, unknown name, missing or unknown settings, lists of unequal length,
            or an entry that is no whole number from 1 up.
    """
    optional = optional or {}
    if isinstance(arch, str):
        if arch.lower() not in known:
            raise ConfigError(f'arch={arch!r}: known sizes are {", ".join(known)}')
        arch = known[arch.lower()]
    if not isinstance(arch, Mapping):
        raise ConfigError(f'arch={arch!r}: a name or a dict is due; known sizes are {", ".join(known)}')
    if not set(per_stage) <= set(arch) <= {*per_stage, *optional}:
        more = f', and may have {", ".join(optional)}' if optional else ''
        wrong = [f'{name} is missing' for name in per_stage if name not in arch]
        wrong += [f'{name} is unknown' for name in arch if name not in (*per_stage, *optional)]
        raise ConfigError(f'arch={dict(arch)}: it must have {", ".join(per_stage)}{more}; {", ".join(wrong)}')
    for name in per_stage:
        if not _are_whole_numbers(arch[name]):
            raise ConfigError(f'arch={dict(arch)}: {name} is a list of whole numbers, one for each stage')
    settings = {**optional, **arch, **{name: tuple(arch[name]) for name in per_stage}}
    lengths = {len(settings[name]) for name in per_stage}
    if len(lengths) != 1 or not lengths.pop():
        raise ConfigError(f'arch={dict(arch)}: {", ".join(per_stage)} need one entry for each stage')
    if any(value < 1 for name in per_stage for value in settings[name]):
        raise ConfigError(f'arch={dict(arch)}: every entry of {", ".join(per_stage)} is at least 1')
    return settings


def check_out_indices(out_indices: Sequence[int], num_stages: int) -> None:
    """Raises ConfigError for what is no list, no stages, a stage twice, or one that is not there."""
    if (
        not _are_whole_numbers(out_indices)
        or not 0 < len(out_indices) == len(set(out_indices))
        or not set(out_indices) <= set(range(num_stages))
    ):
        raise ConfigError(
            f'out_indices={out_indices!r}: a list of stages is due, each once; stages are 0 to {num_stages - 1}'
        )


def check_counts(**counts: int) -> None:
    """Raises ConfigError for the first of some arguments, by name, that is no whole number from 1 up."""
    for name, value in counts.items():
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f'{name}={value!r}: a whole number is due, at least 1')


def block_positions(name: str, positions: Sequence[Sequence[int]], depths: Sequence[int]) -> set[tuple[int, int]]:
    """Pairs (stage, block) that each name a block of a network.

    Args:
        name: What they are, for messages.
        positions: Pairs of stage and block, both counting from 0.
        depths: Blocks in each stage.

    Raises:
        ConfigError: An entry is no pair, or no block is there.
    """
    due = f'{name}={positions!r}: a list of pairs (stage, block) is due, both counting from 0'
    if not isinstance(positions, Sequence):
        raise ConfigError(due)
    blocks = {(stage, block) for stage, depth in enumerate(depths) for block in range(depth)}
    for position in positions:
        if not _are_whole_numbers(position) or len(position) != 2:
            raise ConfigError(f'{due}; {position!r} is none')
        if tuple(position) not in blocks:
            raise ConfigError(f'{due}; no block is {tuple(position)}, the stages have {tuple(depths)} blocks')
    return {(stage, block) for stage, block in positions}


def drop_path_rates(rate: float, num_blocks: int) -> list[float]:
    """Rates of stochastic depth of all blocks in order, rising linearly from 0 in the first to `rate` in the last.

    Raises:
        ConfigError: `rate` is under 0, or so high that nothing is ever kept.
    """
    check_rate('drop_path_rate', rate)
    return [rate * position / max(num_blocks - 1, 1) for position in range(num_blocks)]


def _are_whole_numbers(values: Any) -> bool:
    """Whether this is a list or tuple of whole numbers."""
    return isinstance(values, Sequence) and all(isinstance(value, int) for value in values)
