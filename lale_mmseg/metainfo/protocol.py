"""What a published evaluation does, as data: tiles of each split, kind of labels, and what is counted and averaged.

Scores are comparable inside one protocol only, so a config, a table and a saved result name theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import ConfigError


@dataclass(frozen=True)
class Split:
    """Tiles of a protocol on one data set."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class Protocol:
    """A published way to train, to test and to count.

    Attributes:
        name: Short name, as configs and files have it.
        letter: Letter in tables.
        title: Who evaluates so.
        splits: Published tiles, by data set.
        clean_splits: The same with validation tiles taken out of the training tiles, for protocols that publish none of
            their own and so select checkpoints on the test tiles; equal to `splits` for the others.
        train_labels: 'full' labels in training, or 'eroded' ones, whose boundary pixels are ignored.
        test_labels: The same for validation and test.
        classes: Classes that a network predicts.
        averaged: Classes that mIoU and mF1 are means of.
        left_out_labels: Classes whose labelled pixels are not counted in evaluation.
        left_out_predictions: Classes whose predicted pixels are not counted in evaluation. A class that stands in
            `left_out_labels` alone is an error where it is predicted for a pixel of another class.
        says: The rules in words.
    """

    name: str
    letter: str
    title: str
    splits: Mapping[str, Split]
    clean_splits: Mapping[str, Split]
    train_labels: Literal['full', 'eroded']
    test_labels: Literal['full', 'eroded']
    classes: tuple[str, ...]
    averaged: tuple[str, ...]
    left_out_labels: tuple[str, ...]
    left_out_predictions: tuple[str, ...]
    says: str

    def selects_on_test(self, dataset: str) -> bool:
        """Whether the published validation tiles are test tiles."""
        return bool(set(self.splits[dataset].val) & set(self.splits[dataset].test))

    def split(self, dataset: str, clean: bool = False) -> Split:
        """Tiles of a data set.

        Raises:
            ConfigError: The protocol is not stated for this data set.
        """
        if dataset not in self.splits:
            raise ConfigError(
                f'protocol {self.name!r} ({self.letter}) has no tiles of {dataset!r}; it is stated for '
                f'{", ".join(self.splits)}'
            )
        return (self.clean_splits if clean else self.splits)[dataset]

    def check_source(self, source: Mapping[str, Any], where: str = 'the data set') -> None:
        """Checks that data were read as this protocol tests, before they are scored under its name.

        Args:
            source: What the data set says of itself: `protocol`, `labels` and `split`.
            where: Name of the data set, for messages.

        Raises:
            ConfigError: It is of another protocol, or has the other kind of labels.
        """
        if source['protocol'] != self.name:
            raise ConfigError(
                f'{where} is read under protocol {source["protocol"]!r}, but scored under {self.name!r} '
                f'({self.letter}); set `protocol` of both to the same (one set of predictions under all: '
                'tools/analysis/compare_protocols.py)'
            )
        if source['labels'] != self.test_labels:
            raise ConfigError(
                f'{where} has {source["labels"]} labels (split {source["split"]!r}), but protocol {self.name!r} '
                f'({self.letter}) scores {self.test_labels} ones; score split val or test, or leave `protocol` of the '
                'evaluator out'
            )

    def to_dict(self) -> dict[str, Any]:
        """What a saved result says of its protocol."""
        return dict(
            name=self.name,
            letter=self.letter,
            title=self.title,
            labels=self.test_labels,
            averaged=list(self.averaged),
            left_out_labels=list(self.left_out_labels),
            left_out_predictions=list(self.left_out_predictions),
            says=self.says,
        )
