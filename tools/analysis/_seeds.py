"""Trainings of one config with several seeds as one attempt: its mean and spread."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from _attempts import SCORES, Attempt
from lale_mmseg.engine.ledger import config_hash
from mmengine.config import Config

#: What stands between the name of an attempt and that of its seed.
_BETWEEN = r'[ _\-.=]*'


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

    @property
    def predicted(self) -> set[tuple[Any, Any]]:
        """In which ways the tests were predicted: views and mode."""
        runs = [attempt.test_run or {} for attempt in self.attempts if attempt.test is not None]
        return {(run.get('views'), run.get('mode')) for run in runs}

    def spreads(self) -> dict[str, dict[str, tuple[float, float | None] | None]]:
        """(mean, standard deviation (n - 1)) of each score in percent, by split.

        None unless all attempts have it, and those of a test were predicted in one way.
        """
        found: dict[str, dict[str, tuple[float, float | None] | None]] = {'val': {}, 'test': {}}
        for split, scores in found.items():
            rows = [attempt.to_dict()[split] or {} for attempt in self.attempts]
            for name in SCORES:
                values = [row.get(name) for row in rows]
                known = [value for value in values if value is not None]
                mixed = split == 'test' and len(self.predicted) > 1
                scores[name] = None if mixed or len(known) < len(values) else _spread(known)
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
        # The same training twice is no second seed.
        groups += [[attempt] for attempt in ordered] if _repeated(ordered) else [ordered]
    taken = {attempt.label for attempt in attempts}
    made = []
    for group in groups:
        label = group[0].label if len(group) == 1 else _common_label(group)
        label = label if label is not None and (len(group) == 1 or label not in taken) else f'{group[0].label} (mean)'
        taken.add(label)
        made.append(Group(label, tuple(seed_of(attempt.config) for attempt in group), tuple(group)))
    return sorted(made, key=lambda group: -group.val_iou)


def repeated_seeds(attempts: Sequence[Attempt]) -> list[str]:
    """Names of attempts that have one config and one seed, each set of them in a text."""
    members: dict[tuple[str, int | None], list[str]] = {}
    for attempt in attempts:
        members.setdefault((_identity(attempt.config), seed_of(attempt.config)), []).append(attempt.label)
    return [', '.join(labels) for labels in members.values() if len(labels) > 1]


def seed_of(config: Mapping[str, Any]) -> int | None:
    """The seed of a training; None where its config leaves it to chance."""
    return (config.get('randomness') or {}).get('seed')


def have_equal_seeds(groups: Sequence[Group]) -> bool:
    """Whether each attempt was trained with the same seeds, and with several."""
    return len({group.seeds for group in groups}) == 1 and len(groups[0].seeds) > 1


def _repeated(group: Sequence[Attempt]) -> bool:
    return len({seed_of(attempt.config) for attempt in group}) < len(group)


def _identity(config: Mapping[str, Any]) -> str:
    """What is the same for all seeds of an attempt: the config of its training, what it started from, the processes."""
    randomness = {**(config.get('randomness') or {}), 'seed': None}
    content = config_hash(Config({**config, 'randomness': randomness}))
    return f'{content} {config.get("load_from")} {config.get("processes")}'


def _common_label(group: Sequence[Attempt]) -> str | None:
    """Name of an attempt from those of its trainings, without their seeds: 'unet' of 'unet_seed-1' and 'unet_seed-2'.

    None where that is no name, or not the same for all.
    """
    names = set()
    for attempt in group:
        number = rf'(?<!\d){seed_of(attempt.config)}(?!\d)'
        # The last such number: others may be of the network.
        match = re.fullmatch(rf'(.*?){_BETWEEN}(?:seed{_BETWEEN})?{number}((?:(?!{number}).)*)', attempt.label)
        names.add('' if match is None else re.sub(rf'^{_BETWEEN}|{_BETWEEN}$', '', match[1] + match[2]))
    return names.pop() or None if len(names) == 1 else None


def _spread(values: Sequence[float]) -> tuple[float, float | None]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
