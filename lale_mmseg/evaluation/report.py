"""The result of one evaluation: what is printed, what is written, and what later steps read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np
from prettytable import PrettyTable

from .. import __version__
from ..files import write_atomic
from .confusion import ClassScores, class_scores, summary

#: Files that `EvaluationReport.write` makes.
REPORT_FILES = ('metrics.json', 'confusion_matrix.csv', 'per_class.csv')

_SCORE_NAMES = (('IoU', 'iou'), ('F1', 'f1'), ('precision', 'precision'), ('recall', 'recall'))


@dataclass(frozen=True, eq=False)
class EvaluationReport:
    """Scores of one evaluation, all derived from its confusion matrix.

    Attributes:
        classes: Name of each class, C of them.
        palette: (r, g, b) of each class, or None where the data set has no colours.
        matrix: (C, C) int64 pixel counts; row = label, column = prediction.
        num_images: Number of images that were scored.
        ignore_index: Label of pixels that were not counted.
        score_indexes: Indexes of the classes that the means are over.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] | None
    matrix: np.ndarray
    num_images: int
    ignore_index: int
    score_indexes: tuple[int, ...]

    @cached_property
    def scores(self) -> ClassScores:
        """Scores of each class, in percent."""
        return class_scores(self.matrix)

    @cached_property
    def summary(self) -> dict[str, float]:
        """mIoU, mF1, mP, mR over `score_classes`; OA and kappa over all classes; in percent."""
        return summary(self.matrix, self.score_indexes)

    @property
    def score_classes(self) -> tuple[str, ...]:
        """Names of the classes that the means are over."""
        return tuple(self.classes[index] for index in self.score_indexes)

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the classes that occur neither in labels nor in predictions."""
        return tuple(name for name, absent in zip(self.classes, self.scores.absent, strict=True) if absent)

    def metrics(self) -> dict[str, float]:
        """The summary, then `IoU/<class>` and `F1/<class>` of each class that is not absent: floats in percent."""
        present = [index for index in range(len(self.classes)) if not self.scores.absent[index]]
        values = dict(self.summary)
        values.update({f'IoU/{self.classes[index]}': float(self.scores.iou[index]) for index in present})
        values.update({f'F1/{self.classes[index]}': float(self.scores.f1[index]) for index in present})
        return values

    def text(self) -> str:
        """A table of classes, the summary in one line, and what the means leave out."""
        table = PrettyTable(['class', *(name for name, _ in _SCORE_NAMES), 'label share'])
        table.align = 'r'
        table.align['class'] = 'l'
        shares = self._label_shares()
        for index, name in enumerate(self.classes):
            row = self._score_row(index)
            marked = name if index in self.score_indexes else f'{name} *'
            table.add_row(
                [marked, *('-' if value is None else f'{value:.2f}' for value in row), f'{shares[index]:.2f}']
            )
        lines = [
            f'{self.num_images} images, {int(self.matrix.sum()):,} labelled pixels; scores in percent',
            table.get_string(),
            '  '.join(f'{name} {value:.2f}' for name, value in self.summary.items()),
        ]
        if len(self.score_indexes) < len(self.classes):
            lines.append('* predicted, but not in mIoU, mF1, mP and mR')
        lines += [
            f'left out of the means: class {name!r} occurs neither in labels nor in predictions'
            for name in self.absent
            if name in self.score_classes
        ]
        return '\n'.join(lines)

    def to_dict(self) -> dict:
        """Everything as plain JSON types; scores of absent classes are None."""
        labelled, predicted = self.matrix.sum(axis=1), self.matrix.sum(axis=0)
        per_class = {
            name: {
                **{title: value for (title, _), value in zip(_SCORE_NAMES, self._score_row(index), strict=True)},
                'label_pixels': int(labelled[index]),
                'predicted_pixels': int(predicted[index]),
            }
            for index, name in enumerate(self.classes)
        }
        return {
            'summary': self.summary,
            'per_class': per_class,
            'classes': list(self.classes),
            'palette': None if self.palette is None else [list(color) for color in self.palette],
            'score_classes': list(self.score_classes),
            'absent': list(self.absent),
            'num_images': self.num_images,
            'num_pixels': int(self.matrix.sum()),
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
            ['class', *(name for name, _ in _SCORE_NAMES), 'label_pixels', 'predicted_pixels', 'label_share', 'scored']
        ]
        shares = self._label_shares()
        for index, values in enumerate(self.to_dict()['per_class'].values()):
            scored = int(index in self.score_indexes and not self.scores.absent[index])
            class_rows.append([self.classes[index], *values.values(), shares[index], scored])
        for name, content in zip(REPORT_FILES, (self.to_json(), _csv(matrix_rows), _csv(class_rows)), strict=True):
            write_atomic(Path(folder) / name, content)

    def _score_row(self, index: int) -> list[float | None]:
        """IoU, F1, precision and recall of a class in percent; None where it is absent."""
        if self.scores.absent[index]:
            return [None] * len(_SCORE_NAMES)
        return [float(getattr(self.scores, field)[index]) for _, field in _SCORE_NAMES]

    def _label_shares(self) -> list[float]:
        """Share of each class in the labelled pixels, in percent."""
        return (100 * self.matrix.sum(axis=1) / self.matrix.sum()).tolist()


def _csv(rows: Sequence[Sequence]) -> str:
    """Rows as CSV text; None becomes an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(rows)
    return text.getvalue()
