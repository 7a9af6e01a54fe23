"""Published evaluation protocols as data: tiles of each split, kind of labels, counted pixels and averaged classes.

Scores are comparable within one protocol only, so every config, table and saved result names its protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import ConfigError


@dataclass(frozen=True)
class Split:
    """Tiles of a protocol on one dataset."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class Protocol:
    """A published way to train, test and score.

    Attributes:
        name: Short name used in configs and files.
        letter: Letter used in tables.
        title: Who evaluates this way.
        splits: Published tiles by dataset.
        clean_splits: The same with validation tiles taken out of the training tiles, for protocols that publish none of
            their own and so select checkpoints on the test tiles; equal to `splits` for the others.
        train_labels: 'full' labels in training, or 'eroded' ones, whose boundary pixels are ignored.
        test_labels: The same for validation and test.
        classes: Classes that a network predicts.
        averaged: Classes that mIoU and mF1 average over.
        left_out_labels: Classes whose labelled pixels are not counted in evaluation.
        left_out_predictions: Classes whose predicted pixels are not counted in evaluation. A class in `left_out_labels`
            alone is an error where it is predicted for a pixel of another class.
        summary: The rules in a sentence.
        held_out: Splits that are tested once, after all tuning (see `lale_mmseg.engine.held_out`).
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
    summary: str
    held_out: tuple[str, ...] = ()

    def selects_on_test(self, dataset: str) -> bool:
        """Whether the published validation tiles are test tiles."""
        return bool(set(self.splits[dataset].val) & set(self.splits[dataset].test))

    def split(self, dataset: str, clean: bool = False) -> Split:
        """Tiles of a dataset.

        Raises:
            ConfigError: The protocol is not defined for this dataset.
        """
        if dataset not in self.splits:
            raise ConfigError(
                f'protocol {self.name!r} ({self.letter}) has no tiles of {dataset!r}; it is defined for '
                f'{", ".join(self.splits)}'
            )
        return (self.clean_splits if clean else self.splits)[dataset]

    def check_source(self, source: Mapping[str, Any], where: str = 'the dataset') -> None:
        """Checks that data were read under this protocol before they are scored under it.

        Args:
            source: `metainfo['source']` of the dataset: `protocol`, `labels` and `split`.
            where: Name of the dataset for messages.

        Raises:
            ConfigError: The data were read under another protocol, or have the other kind of labels.
        """
        if source['protocol'] != self.name:
            raise ConfigError(
                f'{where} is read under protocol {source["protocol"]!r} but scored under {self.name!r} '
                f'({self.letter}); set `protocol` of both to the same name (tools/analysis/compare_protocols.py scores '
                'one set of predictions under all protocols)'
            )
        if source['labels'] != self.test_labels:
            raise ConfigError(
                f'{where} has {source["labels"]} labels (split {source["split"]!r}), but protocol {self.name!r} '
                f'({self.letter}) scores {self.test_labels} ones; score split val or test, or remove `protocol` from '
                'the evaluator'
            )

    def to_dict(self) -> dict[str, Any]:
        """Description of the protocol for saved results."""
        return dict(
            name=self.name,
            letter=self.letter,
            title=self.title,
            labels=self.test_labels,
            averaged=list(self.averaged),
            left_out_labels=list(self.left_out_labels),
            left_out_predictions=list(self.left_out_predictions),
            summary=self.summary,
        )
