"""The result of one evaluation: what is printed, what is written, and what later steps read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from prettytable import PrettyTable

from .. import __version__
from ..errors import DataError
from ..files import write_atomic
from ..metainfo.protocol import Protocol
from .boundary import COUNTS, BoundaryScores, boundary_scores, boundary_summary
from .confusion import ClassScores, ScoringRules, class_scores, counted_matrix, dropped_pixels, summary

#: Files that `EvaluationReport.write` makes.
REPORT_FILES = ('metrics.json', 'confusion_matrix.csv', 'per_class.csv')

_SCORE_NAMES = (('IoU', 'iou'), ('F1', 'f1'), ('precision', 'precision'), ('recall', 'recall'))


@dataclass(frozen=True)
class BoundaryResult:
    """Boundaries of one evaluation.

    Attributes:
        tolerance: Largest distance of pixels that match, in pixels.
        counts: (C, 6) int64, see `boundary.COUNTS`.
    """

    tolerance: int
    counts: np.ndarray

    @cached_property
    def scores(self) -> BoundaryScores:
        """Boundary scores of each class, in percent."""
        return boundary_scores(self.counts)

    def row(self, index: int) -> list[float | None]:
        """BF1 and BIoU of a class; None where it is absent."""
        return [_value(values, index) for values in (self.scores.f1, self.scores.iou)]

    def to_dict(self, classes: Sequence[str]) -> dict:
        """Tolerance and pixel counts by class."""
        counts = (dict(zip(COUNTS, row, strict=True)) for row in self.counts.tolist())
        return {'tolerance': self.tolerance, 'counts': dict(zip(classes, counts, strict=True))}


@dataclass(frozen=True, eq=False)
class EvaluationReport:
    """Scores of one evaluation, all derived from its confusion matrix and, where asked for, counts of boundaries.

    Attributes:
        classes: Name of each class, C of them.
        palette: (r, g, b) of each class, or None where the data set has no colours.
        matrix: (C, C) int64 pixel counts; row = label, column = prediction. All of them, whatever the rules leave out.
        num_images: Number of images that were scored.
        ignore_index: Label of pixels that were not counted.
        rules: Which classes are averaged, and what of the matrix is left out.
        protocol: Whose rules these are, or None.
        boundary: Boundaries, or None where they were not scored.
        source: What the data set says of itself: city, protocol, split, tiles and so on; None where it says nothing.
        run: What was tested: checkpoint, epoch, iter, digest, mode and views; None in validations.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] | None
    matrix: np.ndarray
    num_images: int
    ignore_index: int
    rules: ScoringRules
    protocol: Protocol | None = None
    boundary: BoundaryResult | None = None
    source: Mapping[str, Any] | None = None
    run: Mapping[str, Any] | None = None

    @cached_property
    def counted(self) -> np.ndarray:
        """The matrix without what the rules leave out."""
        return counted_matrix(self.matrix, self.rules)

    @cached_property
    def scores(self) -> ClassScores:
        """Scores of each class, in percent."""
        return class_scores(self.counted, self._labelled)

    @cached_property
    def summary(self) -> dict[str, float]:
        """Means over `score_classes`: mIoU, mF1, mP, mR, with boundaries mBF1 and mBIoU; OA and kappa; in percent.

        OA and kappa are over all pixels that are counted.

        Raises:
            DataError: There is nothing to score.
        """
        if self.protocol is not None and self.matrix.any() and not self.counted.any():
            raise DataError(
                f'nothing to score: {self._protocol_name()} leaves out all {int(self.matrix.sum()):,} labelled pixels '
                f'({self.protocol.says})'
            )
        values = summary(self.counted, self.rules.averaged, self._labelled)
        if self.boundary is not None:
            values.update(boundary_summary(self.boundary.counts, self.rules.averaged))
        return values

    @property
    def score_classes(self) -> tuple[str, ...]:
        """Names of the classes that the means are over."""
        return tuple(self.classes[index] for index in self.rules.averaged)

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the classes that occur neither in labels nor in predictions, of what is counted."""
        return tuple(
            name
            for index, name in enumerate(self.classes)
            if self.scores.absent[index] and index not in self.rules.left_out_labels
        )

    def metrics(self) -> dict[str, float]:
        """The summary, then `IoU/<class>`, `F1/<class>` and with boundaries `BF1/<class>`, `BIoU/<class>`, in percent.

        Absent classes and those that the rules leave out have no score. Where a protocol leaves out predictions,
        `dropped` is the share of pixels that it drops for what is predicted there.
        """
        values = dict(self.summary)
        dropped = self._dropped()
        if dropped is not None:
            values['dropped'] = dropped['share']
        rows = [dict(zip(self._titles(), self._score_row(index), strict=True)) for index in range(len(self.classes))]
        for title in ('IoU', 'F1', 'BF1', 'BIoU'):
            for name, row in zip(self.classes, rows, strict=True):
                value = row.get(title)
                if value is not None:
                    values[f'{title}/{name}'] = value
        return values

    def text(self) -> str:
        """A table of classes, the summary in one line, and what is left out."""
        table = PrettyTable(['class', *self._titles(), 'label share'])
        table.align = 'r'
        table.align['class'] = 'l'
        shares = self._label_shares()
        for index, name in enumerate(self.classes):
            marked = name if index in self.rules.averaged else f'{name} *'
            row = ('-' if value is None else f'{value:.2f}' for value in self._score_row(index))
            table.add_row([marked, *row, f'{shares[index]:.2f}'])
        lines = [] if self.protocol is None else [f'{self._protocol_name()}: {self.protocol.says}']
        lines += _source_lines(self.source)
        lines += [
            f'{self.num_images} images, {int(self.matrix.sum()):,} labelled pixels; scores in percent',
            table.get_string(),
            '  '.join(f'{name} {value:.2f}' for name, value in self.summary.items()),
        ]
        return '\n'.join(lines + self._notes())

    def to_dict(self) -> dict:
        """Everything as plain JSON types; scores of absent classes and of those that are left out are None."""
        labelled, predicted = self.matrix.sum(axis=1), self.matrix.sum(axis=0)
        per_class = {
            name: {
                **dict(zip(self._titles(), self._score_row(index), strict=True)),
                'label_pixels': int(labelled[index]),
                'predicted_pixels': int(predicted[index]),
            }
            for index, name in enumerate(self.classes)
        }
        return {
            'protocol': None if self.protocol is None else self.protocol.to_dict(),
            'source': None if self.source is None else dict(self.source),
            'run': None if self.run is None else dict(self.run),
            'summary': self.summary,
            'per_class': per_class,
            'classes': list(self.classes),
            'palette': None if self.palette is None else [list(color) for color in self.palette],
            'score_classes': list(self.score_classes),
            'absent': list(self.absent),
            'num_images': self.num_images,
            'num_pixels': int(self.matrix.sum()),
            'num_counted_pixels': int(self.counted.sum()),
            'dropped': self._dropped(),
            'boundary': None if self.boundary is None else self.boundary.to_dict(self.classes),
            'ignore_index': self.ignore_index,
            'matrix_axes': 'row = label, column = prediction, values in pixels',
            'matrix': self.matrix.tolist(),
            'lale_mmseg_version': __version__,
        }

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + '\n'

    def write(self, folder: str | PathLike[str]) -> None:
        """Writes metrics.json, confusion_matrix.csv and per_class.csv into a folder, each whole or not at all."""
        matrix_rows = [['label \\ prediction', *self.classes]]
        matrix_rows += [[name, *row] for name, row in zip(self.classes, self.matrix.tolist(), strict=True)]
        class_rows: list[list] = [
            ['class', *self._titles(), 'label_pixels', 'predicted_pixels', 'label_share', 'scored']
            + ['protocol'] * (self.protocol is not None)
        ]
        shares = self._label_shares()
        for index, values in enumerate(self.to_dict()['per_class'].values()):
            scored = int(index in self.rules.averaged and not self.scores.absent[index])
            row = [self.classes[index], *values.values(), shares[index], scored]
            class_rows.append(row if self.protocol is None else [*row, self.protocol.name])
        for name, content in zip(
            REPORT_FILES, (self.to_json(), csv_text(matrix_rows), csv_text(class_rows)), strict=True
        ):
            write_atomic(Path(folder) / name, content)

    @property
    def _labelled(self) -> np.ndarray:
        """bool (C,): classes that are labelled where it counts; they have a score, however they are predicted."""
        labelled = self.matrix.sum(axis=1) > 0
        labelled[list(self.rules.left_out_labels)] = False
        return labelled

    def _protocol_name(self) -> str:
        return (
            f'protocol {self.protocol.letter} {self.protocol.name!r} ({self.protocol.title})' if self.protocol else ''
        )

    def _dropped(self) -> dict[str, float] | None:
        """Pixels left out for what is predicted there alone, and their share in percent; None if no rule does so."""
        if not self.rules.left_out_predictions:
            return None
        dropped, labelled = dropped_pixels(self.matrix, self.rules)
        return {'pixels': dropped, 'of': labelled, 'share': 100 * dropped / labelled if labelled else 0.0}

    def _notes(self) -> list[str]:
        """Lines below the table: what the scores leave out."""
        lines = []
        others = [index for index in range(len(self.classes)) if index not in self.rules.averaged]
        if others and not self.rules.left_out_labels:
            lines.append('* predicted, but not in mIoU, mF1, mP and mR')
        elif others:
            names = ', '.join(self.classes[index] for index in self.rules.left_out_labels)
            lines.append(f'* not in mIoU, mF1, mP and mR; pixels labelled {names} are not counted')
        dropped = self._dropped()
        if dropped is not None:
            names = ', '.join(self.classes[index] for index in self.rules.left_out_predictions)
            lines.append(
                f'dropped, which flatters: {dropped["pixels"]:,} of {dropped["of"]:,} pixels of the other classes '
                f'({dropped["share"]:.2f} %), for {names} is predicted there'
            )
        if self.boundary is not None:
            lines.append(f'boundary scores (BF1, BIoU): within {self.boundary.tolerance} pixel(s)')
        of_what = '' if self.protocol is None else ' that are counted'
        lines += [
            f'left out of the means: class {name!r} occurs neither in labels nor in predictions{of_what}'
            for name in self.absent
            if name in self.score_classes
        ]
        return lines

    def _titles(self) -> list[str]:
        """Names of the scores of a class."""
        return [name for name, _ in _SCORE_NAMES] + (['BF1', 'BIoU'] if self.boundary is not None else [])

    def _score_row(self, index: int) -> list[float | None]:
        """Scores of a class in percent, in the order of `_titles`; None where it is absent or left out."""
        if index in self.rules.left_out_labels:
            return [None] * len(self._titles())
        row = [_value(getattr(self.scores, field), index) for _, field in _SCORE_NAMES]
        return row if self.boundary is None else row + self.boundary.row(index)

    def _label_shares(self) -> list[float]:
        """Share of each class in the labelled pixels, in percent."""
        return (100 * self.matrix.sum(axis=1) / self.matrix.sum()).tolist()


def _value(values: np.ndarray, index: int) -> float | None:
    """A score; None where it is NaN, that is the class absent."""
    return None if np.isnan(values[index]) else float(values[index])


def csv_text(rows: Sequence[Sequence]) -> str:
    """Rows as CSV text; None becomes an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(rows)
    return text.getvalue()


def _source_lines(source: Mapping[str, Any] | None) -> list[str]:
    """What was scored, and what of it was not there."""
    source = source or {}
    reads = [f'held out: read {source["test_read"]} of it by this attempt'] if 'test_read' in source else []
    if 'tiles' not in source:
        return reads
    tiles, missing = source['tiles'], source['missing_tiles']
    clean = ', clean' if source['clean'] else ''
    line = f'{source["city"]}, split {source["split"]!r} of {source["protocol"]!r}{clean}, {source["labels"]} labels'
    if not missing:
        return [f'{line}: all {len(tiles)} tiles', *reads]
    return [f'{line}: ONLY {len(tiles)} of {len(tiles) + len(missing)} tiles; missing: {", ".join(missing)}', *reads]
