"""Semantic segmentation scores from exact confusion matrices, gathered over images and processes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_world_size
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmseg.registry import METRICS

from ..errors import ConfigError, DataError
from ..files import save_png
from ..metainfo import IGNORE_INDEX
from ..metainfo.protocols import find_protocol
from .boundary import COUNTS, boundary_counts, check_tolerance, pixels_of
from .confusion import ScoringRules, check_ignore_index, confusion_matrix, protocol_rules
from .report import BoundaryResult, EvaluationReport
from .tiles import TileScores, group_by_tile, tile_of


@METRICS.register_module()
class SegmentationMetric(BaseMetric):
    """IoU, F1, precision and recall of each class; mIoU, mF1, mP, mR, OA and kappa of the dataset, in percent.

    The means are over classes: `mF1` is the macro F1. A class that occurs in the labels and is never predicted scores
    0; only a class absent from labels and predictions is not averaged, and the log names it. OA and kappa are over
    every labelled pixel. Counts are int64, so they are exact for any number of pixels and processes. Samples that a
    distributed sampler repeats to fill its last round are not counted.

    A protocol defines which pixels are counted and which classes are averaged; its name goes into every saved result.
    The saved matrix holds all labelled pixels all the same.

    The result is a flat dict: `mIoU`, `mF1`, `mP`, `mR`, `OA`, `kappa`, with boundaries `mBF1` and `mBIoU`, then
    `IoU/<class>` and `F1/<class>` (with boundaries `BF1/<class>` and `BIoU/<class>`) of each class that is not absent.
    With `per_tile` also `mean_tile_IoU`, `mean_tile_F1`, `worst_tile_IoU` and scores of cities (see `TileScores`).
    `dropped` is the share of pixels that a protocol excludes because of their prediction.

    Args:
        ignore_index: Label of pixels that are not counted, 0 to 255.
        score_classes: Names or indexes of the classes that the means are over (the others are predicted and count in
            OA and kappa); all by default.
        output_dir: Folder for metrics.json, the tables and the confusion matrix; by default the validation and test
            loops of this package take `val/` and `test/` of the work dir.
        pred_dir: Folder for one 8-bit grey PNG of class indexes per image, named by the stem of the image; none by
            default.
        prefix: Put before each name of the result, with a slash.
        protocol: Name or letter of a published protocol (`metainfo.protocols`), such as 'geoseg' or 'A', for datasets
            of its classes; excludes `score_classes`. Without it every labelled pixel is counted.
        boundary_tolerance: Distance in pixels within which boundaries match (see `boundary`), such as 3; no boundary
            scores by default. Needs full labels: the boundaries of eroded labels are ignored.
        per_tile: Whether each tile (and city) is scored, too.
        tile_pattern: Regular expression for the whole stem of an image file, with a group `tile` and optionally a group
            `city`; windows of one tile are summed. By default the dataset's (`tile_pattern` of its metainfo), else
            every image is a tile.

    Raises:
        ConfigError: An argument cannot be used for the dataset, or the model predicts a class that the dataset lacks.
        DataError: A label is outside the classes, label and prediction differ in size, an image has no label, two
            images have the same stem (with `pred_dir`), or there is nothing to score.
    """

    # An empty prefix is intended; mmengine warns about None.
    default_prefix = ''
    #: Tells the loops of this package to set `output_dir`.
    writes_report = True

    def __init__(
        self,
        ignore_index: int = IGNORE_INDEX,
        score_classes: Sequence[str | int] | None = None,
        output_dir: str | None = None,
        pred_dir: str | None = None,
        prefix: str | None = None,
        protocol: str | None = None,
        boundary_tolerance: int | None = None,
        per_tile: bool = False,
        tile_pattern: str | None = None,
    ) -> None:
        # 'gpu' gathers objects over the process group, gloo included; 'cpu' would exchange files in a shared folder.
        super().__init__(collect_device='gpu', prefix=prefix)
        check_ignore_index(ignore_index)
        self.protocol = None if protocol is None else find_protocol(protocol)
        if self.protocol is not None and score_classes is not None:
            raise ConfigError(
                f'protocol={protocol!r} and score_classes={list(score_classes)!r}: the protocol averages over '
                f'{list(self.protocol.averaged)}; set one of the two'
            )
        if boundary_tolerance is not None:
            check_tolerance(boundary_tolerance)
            if self.protocol is not None and self.protocol.test_labels == 'eroded':
                raise ConfigError(
                    f'boundary_tolerance={boundary_tolerance} with protocol={protocol!r}: the protocol tests on eroded '
                    'labels, whose boundaries are ignored; remove boundary_tolerance or use a protocol of full labels'
                )
        self.boundary_tolerance = boundary_tolerance
        self.ignore_index = ignore_index
        self.score_classes = score_classes
        self.output_dir = output_dir
        self.pred_dir = pred_dir
        self.per_tile = per_tile
        self.tile_pattern = None if tile_pattern is None else compiled(tile_pattern)
        self._stems: dict[str, str] = {}

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Scores a batch.

        Args:
            data_batch: Not used.
            data_samples: Dicts with `pred_sem_seg` and `gt_sem_seg`, each with `data` of shape (1, H, W), and the
                paths `img_path` and `seg_map_path` if known.
        """
        classes, rules = self._classes_and_rules()
        for sample in data_samples:
            img_path = str(sample.get('img_path') or '')
            self._check_name(img_path)  # before hours of prediction, not after
            source = str(sample.get('seg_map_path') or img_path or 'label')
            if sample.get('gt_sem_seg') is None:
                raise DataError(
                    f'{img_path or "image"}: no label (gt_sem_seg) to score against; give the dataset its masks, or '
                    'predict images without masks with tools/predict.py'
                )
            pred, label = (sample[key]['data'].reshape(sample[key]['data'].shape[-2:]) for key in _KEYS)
            if pred.shape != label.shape:
                raise DataError(
                    f'{source}: the label is {_size(label)}, the prediction {_size(pred)} (height x width); they must '
                    'be equal. Is the mask as large as its image, and loaded after the resizing of the test pipeline?'
                )
            matrix = confusion_matrix(pred, label, len(classes), self.ignore_index, source).numpy()
            cells = np.flatnonzero(matrix)
            boundary = None
            if self.boundary_tolerance is not None:
                pred_map, label_map = (values.to(torch.uint8).cpu().numpy() for values in (pred, label))
                ignored = pixels_of(label_map, [self.ignore_index, *rules.left_out_labels])
                boundary = boundary_counts(pred_map, label_map, len(classes), self.boundary_tolerance, ignored)
            if self.pred_dir is not None:
                save_png(Path(self.pred_dir) / f'{Path(img_path).stem}.png', pred.to(torch.uint8).cpu().numpy())
            self.results.append((img_path, cells, matrix.ravel()[cells], boundary))

    def evaluate(self, size: int) -> dict[str, float]:
        """Gathers the counts of all processes, computes the scores and writes the report.

        Args:
            size: Number of images in the dataset.

        Returns:
            The scores (see the class), the same on every process.

        Raises:
            RuntimeError: More or fewer than `size` images were scored, not counting those repeated to fill a round.
        """
        counts = all_gather_object(len(self.results))
        # DefaultSampler gives rank r the images r, r + W, ... and fills the last round with repeated ones, or does not.
        world = get_world_size()
        own = [-(-max(0, size - rank) // world) for rank in range(world)]
        if counts not in (own, [-(-size // world)] * world):
            self.results.clear()
            raise RuntimeError(
                f'{sum(counts)} of {size} images were scored: each must be scored once. Does the sampler of the '
                'dataloader skip or repeat images? DefaultSampler does not'
            )
        try:
            return super().evaluate(size)
        finally:
            self.results.clear()
            self._stems.clear()

    def compute_metrics(self, results: list[tuple]) -> dict[str, float]:
        """Scores of all images; logs the report and writes it into `output_dir`. Runs in the main process alone.

        Args:
            results: Path, cells and values of the confusion matrix, and boundary counts of each image.
        """
        classes, rules = self._classes_and_rules()
        for path, *_ in results:  # those of other processes
            self._check_name(path)
        count = len(classes)
        total = np.zeros(count * count, np.int64)
        for _, cells, values, _ in results:
            total[cells] += values
        boundary = None
        if self.boundary_tolerance is not None:
            edges = sum((counts for *_, counts in results), np.zeros((count, len(COUNTS)), np.int64))
            boundary = BoundaryResult(self.boundary_tolerance, edges)
        meta = self.dataset_meta or {}
        tiles = None
        if self.per_tile:
            images = [(path, _matrix(cells, values, count)) for path, cells, values, _ in results]
            tiles = TileScores(*group_by_tile(images, self._pattern()), classes, rules)
        palette = meta.get('palette')
        report = EvaluationReport(
            classes=classes,
            palette=tuple((int(r), int(g), int(b)) for r, g, b in palette) if palette else None,
            matrix=total.reshape(count, count),
            num_images=len(results),
            ignore_index=self.ignore_index,
            rules=rules,
            protocol=self.protocol,
            boundary=boundary,
            source=meta.get('source'),
            tiles=tiles,
        )
        metrics = report.metrics()
        MMLogger.get_current_instance().info('\n' + report.text())
        if self.output_dir is not None:
            report.write(self.output_dir)
        return metrics

    def _check_name(self, img_path: str) -> None:
        """Checks that an image can be named: its prediction by its stem, its tile by the pattern."""
        if not img_path and (self.per_tile or self.pred_dir is not None):
            raise DataError('per_tile and pred_dir need the img_path of each data sample; add it to the meta keys')
        pattern = self._pattern() if self.per_tile else None
        if pattern is not None:
            tile_of(img_path, pattern)
        if self.pred_dir is None:
            return
        stem = Path(img_path).stem
        if self._stems.setdefault(stem, img_path) != img_path:
            raise DataError(
                f'{self._stems[stem]} and {img_path} have the same stem, so both predictions would be {stem}.png; '
                'rename one of the images, or remove pred_dir'
            )

    def _pattern(self) -> re.Pattern[str] | None:
        of_data = (self.dataset_meta or {}).get('tile_pattern')
        return self.tile_pattern or (None if of_data is None else compiled(of_data))

    def _classes_and_rules(self) -> tuple[tuple[str, ...], ScoringRules]:
        classes = tuple((self.dataset_meta or {}).get('classes') or ())
        if not classes:
            raise ConfigError('the dataset has no classes in its metainfo, so its labels cannot be scored')
        if self.protocol is None:
            return classes, ScoringRules(averaged=self._score_indexes(classes))
        source = (self.dataset_meta or {}).get('source')
        if source is not None and 'protocol' in source:
            self.protocol.check_source(source)
        return classes, protocol_rules(self.protocol, classes)

    def _score_indexes(self, classes: tuple[str, ...]) -> tuple[int, ...]:
        if self.score_classes is None:
            return tuple(range(len(classes)))
        by_entry: dict[str | int, int] = {
            **{name: i for i, name in enumerate(classes)},
            **{i: i for i in range(len(classes))},
        }
        unknown = [entry for entry in self.score_classes if entry not in by_entry]
        indexes = [by_entry[entry] for entry in self.score_classes if entry in by_entry]
        if unknown or not indexes or len(set(indexes)) < len(indexes):
            known = ', '.join(f'{index} {name!r}' for index, name in enumerate(classes))
            raise ConfigError(
                f'score_classes={list(self.score_classes)!r}: expected at least one class of the dataset, each once; '
                f'its classes are {known}'
            )
        return tuple(indexes)


#: Entries of a data sample: prediction and label.
_KEYS = ('pred_sem_seg', 'gt_sem_seg')


def compiled(pattern: str) -> re.Pattern[str]:
    """A `tile_pattern` as a regular expression.

    Raises:
        ConfigError: It is not a regular expression, or has no group `tile`.
    """
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f'tile_pattern={pattern!r} is not a regular expression: {error}') from None
    if 'tile' not in found.groupindex:
        raise ConfigError(f'tile_pattern={pattern!r}: expected a group (?P<tile>...)')
    return found


def _matrix(cells: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    matrix = np.zeros(count * count, np.int64)
    matrix[cells] = values
    return matrix.reshape(count, count)


def _size(data: torch.Tensor) -> str:
    return ' x '.join(str(side) for side in data.shape)
