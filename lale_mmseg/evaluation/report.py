"""The result of one evaluation: scores, tables, JSON and the confusion matrix as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from prettytable import PrettyTable

from .. import __version__
from ..errors import DataError
from ..files import write_atomic
from ..metainfo.protocol import Protocol
from .boundary import COUNTS, boundary_scores, boundary_summary
from .confusion import ScoringRules, class_scores, counted_matrix, dropped_pixels, summary
from .plots import plot_confusion
from .tiles import TileScores, plain_rows

if TYPE_CHECKING:
    import pandas as pd

#: Score columns of `EvaluationReport.per_class`; the last two exist only where boundaries were scored.
CLASS_SCORES = ('IoU', 'F1', 'precision', 'recall', 'BF1', 'BIoU')


@dataclass(frozen=True)
class BoundaryResult:
    """Boundary pixels of one evaluation.

    Attributes:
        tolerance: Largest distance at which boundaries match, in pixels.
        counts: (C, 6) int64, see `boundary.COUNTS`.
    """

    tolerance: int
    counts: np.ndarray


@dataclass(frozen=True, eq=False)
class EvaluationReport:
    """Scores of one evaluation, all derived from its confusion matrix and, if requested, boundary and tile counts.

    Attributes:
        classes: Name of each class, C of them.
        palette: (r, g, b) of each class, or None if the dataset has no colours.
        matrix: (C, C) int64 pixel counts of all pixels, whatever the rules exclude; row = label, column = prediction.
        num_images: Number of images that were scored.
        ignore_index: Label of pixels that were not counted.
        rules: Which classes are averaged and which pixels are excluded.
        protocol: The published protocol that defines the rules, or None.
        boundary: Boundary counts, or None.
        source: The dataset's own description (dataset, protocol, split, tiles), or None.
        tiles: Scores of each tile and city, or None.
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
    tiles: TileScores | None = None

    @cached_property
    def counted(self) -> np.ndarray:
        """The matrix without the pixels that the rules exclude."""
        return counted_matrix(self.matrix, self.rules)

    @cached_property
    def summary(self) -> dict[str, float]:
        """mIoU, mF1, mP, mR over `score_classes` (with boundaries mBF1 and mBIoU), OA and kappa, in percent.

        OA and kappa are over all counted pixels.

        Raises:
            DataError: There is nothing to score.
        """
        if self.protocol is not None and self.matrix.any() and not self.counted.any():
            raise DataError(
                f'nothing to score: protocol {self.protocol.name!r} excludes all {int(self.matrix.sum()):,} labelled '
                f'pixels ({self.protocol.summary})'
            )
        values = summary(self.counted, self.rules.averaged, self._labelled)
        if self.boundary is not None:
            values.update(boundary_summary(self.boundary.counts, self.rules.averaged))
        return values

    @cached_property
    def per_class(self) -> pd.DataFrame:
        """One row per class: scores in percent (NaN if absent or excluded), label and predicted pixels, label share.

        `scored` is 1 for the classes that the means are over.
        """
        import pandas as pd  # where tables are made, since it delays the start of every tool

        scores = class_scores(self.counted, self._labelled)
        columns: dict[str, Any] = dict(
            zip(CLASS_SCORES, (scores.iou, scores.f1, scores.precision, scores.recall), strict=False)
        )
        if self.boundary is not None:
            found = boundary_scores(self.boundary.counts)
            columns |= dict(BF1=found.f1, BIoU=found.iou)
        table = pd.DataFrame(columns, index=pd.Index(self.classes, name='class'))
        table.iloc[list(self.rules.left_out_labels)] = np.nan
        table['label_pixels'] = self.matrix.sum(axis=1)
        table['predicted_pixels'] = self.matrix.sum(axis=0)
        table['label_share'] = 100 * table['label_pixels'] / self.matrix.sum()
        table['scored'] = np.isin(np.arange(len(self.classes)), self.rules.averaged) & ~scores.absent
        return table.astype({'scored': int})

    @property
    def score_classes(self) -> tuple[str, ...]:
        """Names of the classes that the means are over."""
        return tuple(self.classes[index] for index in self.rules.averaged)

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the classes that occur neither in the counted labels nor in the counted predictions."""
        missing = self.per_class['IoU'].isna()
        return tuple(
            name for i, name in enumerate(self.classes) if missing.iloc[i] and i not in self.rules.left_out_labels
        )

    def metrics(self) -> dict[str, float]:
        """The flat result: the summary, tile scores, then `IoU/<class>`, `F1/<class>` (`BF1/`, `BIoU/`), in percent.

        Absent and excluded classes have no score. Where a protocol excludes predictions, `dropped` is the share of
        pixels that it excludes because of their prediction alone.
        """
        values = dict(self.summary)
        if self.tiles is not None:
            values |= self.tiles.metrics()
        if self._dropped is not None:
            values['dropped'] = self._dropped['share']
        for title in ('IoU', 'F1', 'BF1', 'BIoU'):
            if title in self.per_class:
                values |= {f'{title}/{name}': float(value) for name, value in self.per_class[title].dropna().items()}
        return values

    def text(self) -> str:
        """The printed report: a table of classes, the summary in one line, and notes on what the means exclude."""
        titles = [name for name in CLASS_SCORES if name in self.per_class]
        table = PrettyTable(['class', *titles, 'label share'], align='r')
        table.align['class'] = 'l'
        for index, (name, row) in enumerate(self.per_class.iterrows()):
            marked = name if index in self.rules.averaged else f'{name} *'
            cells = ('-' if np.isnan(row[title]) else f'{row[title]:.2f}' for title in titles)
            table.add_row([marked, *cells, f'{row["label_share"]:.2f}'])
        protocol = self.protocol
        lines = []
        if protocol is not None:
            lines.append(f'protocol {protocol.letter} {protocol.name!r} ({protocol.title}): {protocol.summary}')
        lines += [
            *_source_lines(self.source),
            f'{self.num_images} images, {int(self.matrix.sum()):,} labelled pixels; scores in percent',
            table.get_string(),
            '  '.join(f'{name} {value:.2f}' for name, value in self.summary.items()),
            *self._notes(),
        ]
        return '\n'.join(lines if self.tiles is None else [*lines, *self.tiles.text_lines()])

    def to_dict(self) -> dict:
        """The content of metrics.json; scores of absent and excluded classes are None."""
        per_class = self.per_class.drop(columns=['label_share', 'scored'])
        boundary = None
        if self.boundary is not None:
            counts = (dict(zip(COUNTS, row, strict=True)) for row in self.boundary.counts.tolist())
            boundary = dict(tolerance=self.boundary.tolerance, counts=dict(zip(self.classes, counts, strict=True)))
        return {
            'protocol': None if self.protocol is None else self.protocol.to_dict(),
            'source': None if self.source is None else dict(self.source),
            'summary': self.summary,
            'per_class': plain_rows(per_class),
            'classes': list(self.classes),
            'palette': None if self.palette is None else [list(color) for color in self.palette],
            'score_classes': list(self.score_classes),
            'absent': list(self.absent),
            'num_images': self.num_images,
            'num_pixels': int(self.matrix.sum()),
            'num_counted_pixels': int(self.counted.sum()),
            'dropped': self._dropped,
            'boundary': boundary,
            **({} if self.tiles is None else self.tiles.to_dict()),
            'ignore_index': self.ignore_index,
            'matrix_axes': 'row = label, column = prediction, values in pixels',
            'matrix': self.matrix.tolist(),
            'lale_mmseg_version': __version__,
        }

    def write(self, folder: str | PathLike[str]) -> None:
        """Writes metrics.json, per_class.csv, confusion_matrix.csv and .png, and with tiles per_tile.csv, per_city.csv.

        Each file appears under its name only when it is complete.
        """
        import pandas as pd

        folder = Path(folder)
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        write_atomic(folder / 'metrics.json', text + '\n')
        per_class = self.per_class
        if self.protocol is not None:
            per_class = per_class.assign(protocol=self.protocol.name)
        write_atomic(folder / 'per_class.csv', per_class.to_csv())
        matrix = pd.DataFrame(self.matrix, pd.Index(self.classes, name='label \\ prediction'), self.classes)
        write_atomic(folder / 'confusion_matrix.csv', matrix.to_csv())
        title = 'Confusion matrix'
        if self.protocol is not None:
            title += f', all labelled pixels (protocol {self.protocol.letter}, {self.protocol.test_labels} labels)'
        plot_confusion(self.matrix, self.classes, folder / 'confusion_matrix.png', title)
        if self.tiles is not None:
            write_atomic(folder / 'per_tile.csv', self.tiles.per_tile.to_csv())
            write_atomic(folder / 'per_city.csv', self.tiles.per_city.to_csv())

    @property
    def _labelled(self) -> np.ndarray:
        """bool (C,): classes with counted label pixels; they have a score even if every prediction is excluded."""
        labelled = self.matrix.sum(axis=1) > 0
        labelled[list(self.rules.left_out_labels)] = False
        return labelled

    @cached_property
    def _dropped(self) -> dict[str, float] | None:
        """Pixels excluded because of their prediction alone, and their share in percent; None without such a rule."""
        if not self.rules.left_out_predictions:
            return None
        dropped, labelled = dropped_pixels(self.matrix, self.rules)
        return {'pixels': dropped, 'of': labelled, 'share': 100 * dropped / labelled if labelled else 0.0}

    def _notes(self) -> list[str]:
        """Lines below the table about what the scores exclude."""
        lines = []
        excluded = ', '.join(self.classes[index] for index in self.rules.left_out_labels)
        if excluded:
            lines.append(f'* not in mIoU, mF1, mP and mR; pixels labelled {excluded} are not counted')
        elif len(self.rules.averaged) < len(self.classes):
            lines.append('* predicted, but not in mIoU, mF1, mP and mR')
        if self._dropped is not None:
            names = ', '.join(self.classes[index] for index in self.rules.left_out_predictions)
            lines.append(
                f'excluded, which flatters the scores: {self._dropped["pixels"]:,} of {self._dropped["of"]:,} pixels '
                f'of the other classes ({self._dropped["share"]:.2f} %), because {names} is predicted there'
            )
        if self.boundary is not None:
            lines.append(f'boundary scores (BF1, BIoU): within {self.boundary.tolerance} pixel(s)')
        lines += [
            f'not averaged: class {name!r} occurs neither in labels nor in predictions'
            for name in self.absent
            if name in self.score_classes
        ]
        return lines


def _source_lines(source: Mapping[str, Any] | None) -> Sequence[str]:
    """Which tiles were scored, and which of the split were missing."""
    if source is None or 'tiles' not in source:
        return []
    tiles, missing = source['tiles'], source['missing_tiles']
    clean = ', clean' if source['clean'] else ''
    line = f'{source["dataset"]}, split {source["split"]!r} of {source["protocol"]!r}{clean}, {source["labels"]} labels'
    if not missing:
        return [f'{line}: all {len(tiles)} tiles']
    return [f'{line}: ONLY {len(tiles)} of {len(tiles) + len(missing)} tiles; missing: {", ".join(missing)}']
