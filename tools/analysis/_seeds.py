"""Trainings of one config with several seeds as one attempt: its mean and spread."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from _attempts import SCORES, Attempt

#: Fields of a config that are of one run. Where weights came from is not among them.
_OF_THE_RUN = ('work_dir', 'experiment_name', 'resume', 'launcher', 'trust_checkpoint', 'log_level')
#: What stands between the name of an attempt and that of its seed.
_BETWEEN = ' _-.='


@dataclass(frozen=True)
class Group:
    """Attempts whose configs are equal but for the seed.

    Attributes:
        label: What their names have in common.
        seeds: Seed of each, in ascending order.
        attempts: The attempts, by seed.
    """

    label: str
    seeds: tuple[int | None, ...]
    attempts: tuple[Attempt, ...]

    @property
    def val_iou(self) -> float:
        """Mean of the validation IoU of the best epochs, in percent."""
        return statistics.fmean(attempt.val_iou for attempt in self.attempts)

    def spreads(self) -> dict[str, dict[str, tuple[float, float | None] | None]]:
        """(mean, standard deviation (n - 1)) of each score in percent, by split; None unless all attempts have it."""
        found: dict[str, dict[str, tuple[float, float | None] | None]] = {'val': {}, 'test': {}}
        for split, scores in found.items():
            rows = [attempt.to_dict()[split] or {} for attempt in self.attempts]
            for name in SCORES:
                values = [row.get(name) for row in rows]
                known = [value for value in values if value is not None]
                scores[name] = None if len(known) < len(values) else _spread(known)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain data for attempts.json."""
        return dict(
            label=self.label,
            seeds=list(self.seeds),
            attempts=[attempt.label for attempt in self.attempts],
            **{
                split: {
                    name: None if spread is None else dict(mean=spread[0], std=spread[1])
                    for name, spread in scores.items()
                }
                for split, scores in self.spreads().items()
            },
        )


def grouped(attempts: Sequence[Attempt]) -> list[Group]:
    """The attempts by config, the best mean on validation first; one that no other shares its config with is alone."""
    members: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        members.setdefault(_identity(attempt.config), []).append(attempt)
    groups = []
    for found in members.values():
        ordered = sorted(found, key=lambda attempt: seed_of(attempt.config) or 0)
        several = len({seed_of(attempt.config) for attempt in ordered}) == len(ordered)
        # The same training twice is no second seed.
        groups += [ordered] if several else [[attempt] for attempt in ordered]
    labels = [
        _common_label([attempt.label for attempt in group]) if len(group) > 1 else group[0].label for group in groups
    ]
    if len(set(labels)) < len(labels):
        labels = [group[0].label for group in groups]
    made = [
        Group(label, tuple(seed_of(attempt.config) for attempt in group), tuple(group))
        for label, group in zip(labels, groups, strict=True)
    ]
    return sorted(made, key=lambda group: -group.val_iou)


def seed_of(config: Mapping[str, Any]) -> int | None:
    """The seed of a training; None where its config leaves it to chance."""
    return (config.get('randomness') or {}).get('seed')


def have_equal_seeds(groups: Sequence[Group]) -> bool:
    """Whether each attempt was trained with the same seeds, and with several."""
    return len({group.seeds for group in groups}) == 1 and len(groups[0].seeds) > 1


def _identity(config: Mapping[str, Any]) -> str:
    fields = {name: value for name, value in config.items() if name not in _OF_THE_RUN and value is not None}
    fields['randomness'] = {**(config.get('randomness') or {}), 'seed': None}
    return json.dumps(fields, sort_keys=True, default=repr)


def _common_label(labels: Sequence[str]) -> str:
    """What the names of trainings begin with, without that of the seed: 'unet' of 'unet_seed-1' and 'unet_seed-2'."""
    if len(labels) == 1:
        return labels[0]
    stem = os.path.commonprefix(list(labels))  # noqa: RUF071 (characters are meant)
    if any(label[len(stem) : len(stem) + 1].isdigit() for label in labels):  # amid a number, such as 1 of 10 and 11
        stem = stem.rstrip('0123456789')
    stem = stem.rstrip(_BETWEEN)
    return stem.removesuffix('seed').rstrip(_BETWEEN) or labels[0]


def _spread(values: Sequence[float]) -> tuple[float, float | None]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
