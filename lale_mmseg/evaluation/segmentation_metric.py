"""Semantic segmentation scores from one exact confusion matrix, summed over images and processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, all_reduce, get_dist_info, is_main_process
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


@dataclass
class _Counts:
    """Pixels of images: confusion matrix (C, C), boundaries (C, 6; zero where they are not scored), and how many."""

    matrix: np.ndarray
    boundary: np.ndarray
    num_images: int = 1

    def add(self, other: _Counts) -> None:
        """Adds the counts of other images."""
        self.matrix += other.matrix
        self.boundary += other.boundary
        self.num_images += other.num_images


@dataclass
class _Scored:
    """One image that was scored: its counts, its path, and what `pred_dir` needs of it."""

    counts: _Counts
    img_path: str = ''
    stem: str = ''
    index_map: np.ndarray | None = None


@METRICS.register_module()
class SegmentationMetric(BaseMetric):
    """IoU, F1, precision and recall of each class; mIoU, mF1, mP, mR, OA and kappa of the data set, in percent.

    The means are over classes: `mF1` is the macro F1. A class that occurs in the labels and is never predicted scores
    0; only a class absent from labels and predictions is left out, and the log says so. OA and kappa are over every
    labelled pixel. Counts are int64, so they are exact for any number of pixels, and the sum over processes equals
    the result of one process. Samples that a distributed sampler repeats to fill its last round are not counted.

    A protocol says which pixels are counted and which classes are averaged; its name goes into every saved result.
    The saved matrix holds all labelled pixels all the same.

    The result is a flat dict: `mIoU`, `mF1`, `mP`, `mR`, `OA`, `kappa`, with boundaries `mBF1` and `mBIoU`, then
    `IoU/<class>` and `F1/<class>` (with boundaries `BF1/<class>` and `BIoU/<class>`) of each class that is not absent;
    `dropped` is the share of pixels that a protocol drops for what is predicted there. The last result stays in
    `report`.

    Args:
        ignore_index: Label of pixels that are not counted, 0 to 255.
        score_classes: Names or indexes of the classes that the means are over (the others are predicted and count in
            OA and kappa); all by default.
        output_dir: Folder for metrics.json, confusion_matrix.csv and per_class.csv; nothing is written by default. It
            may be set as an attribute later, before the evaluation ends.
        pred_dir: Folder for one 8-bit grey PNG of class indexes an image, named by the stem of the image; none by
            default.
        prefix: Put before each name of the result, with a slash.
        protocol: Name or letter of a published protocol (`metainfo.protocols`), such as 'geoseg' or 'A', for data sets
            of its classes; not together with `score_classes`. Without it every labelled pixel is counted.
        boundary_tolerance: Distance in pixels within which boundaries match (see `boundary`), such as 3; no boundary
            scores by default. It needs full labels: boundaries that are eroded are ignored.

    Raises:
        ConfigError: `score_classes` has an unknown or repeated class, the data set has no classes, the model predicts a
            class that the data set lacks, the protocol is unknown or is for other classes, or it tests on eroded labels
            and `boundary_tolerance` is set.
        DataError: A label is outside the classes, label and prediction differ in size, an image has no label, two
            images have the same stem (with `pred_dir`), or there is nothing to score.
    """

    # An empty prefix is a decision, None would be warned about.
    default_prefix = ''

    def __init__(
        self,
        ignore_index: int = IGNORE_INDEX,
        score_classes: Sequence[str | int] | None = None,
        output_dir: str | None = None,
        pred_dir: str | None = None,
        prefix: str | None = None,
        protocol: str | None = None,
        boundary_tolerance: int | None = None,
    ) -> None:
        super().__init__(prefix=prefix)
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
                    f'boundary_tolerance={boundary_tolerance} with protocol={protocol!r}: it tests on eroded labels, '
                    'whose boundaries are ignored; boundary scores need full labels. Leave boundary_tolerance out, or '
                    'take a protocol of full labels'
                )
        self.boundary_tolerance = boundary_tolerance
        self.ignore_index = ignore_index
        self.score_classes = score_classes
        self.output_dir = output_dir
        self.pred_dir = pred_dir
        #: What is tested, for the report; the runner sets it.
        self.run: Mapping[str, Any] | None = None
        self.report: EvaluationReport | None = None
        self._reset()

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Scores a batch.

        Args:
            data_batch: Not used.
            data_samples: Dicts with `pred_sem_seg` and `gt_sem_seg`, each with `data` of shape (1, H, W), and the
                paths `img_path` and `seg_map_path` where known.
        """
        for data_sample in data_samples:
            scored = self._score(data_sample)
            self._keep_waiting()
            # The newest sample waits: it may turn out to be one that the sampler repeated.
            self._waiting.append(scored)
            self._num_seen += 1

    def evaluate(self, size: int) -> dict[str, float]:
        """Sums over processes, computes, reports and resets.

        Args:
            size: Number of images of the data set.

        Returns:
            The scores (see the class), the same on every process.

        Raises:
            RuntimeError: More or fewer than `size` images were scored, repeated ones not counted.
        """
        try:
            self._settle_waiting(size)
            total = self._sum_over_ranks()
            if total.num_images != size:
                raise RuntimeError(
                    f'{total.num_images} of {size} images were scored: each must be scored once. Does the sampler of '
                    'the dataloader skip or repeat images? DefaultSampler does not'
                )
            self._check_stems()
            metrics = self.compute_metrics([total])
        finally:
            self._reset()
        return {f'{self.prefix}/{name}': value for name, value in metrics.items()} if self.prefix else metrics

    def compute_metrics(self, results: list[_Counts]) -> dict[str, float]:
        """Scores of summed counts; sets `report`, logs it and (main process) writes it into `output_dir`.

        Args:
            results: Counts of images.
        """
        classes = self._classes()
        total = self._no_counts()
        for counts in results:
            total.add(counts)
        boundary = None
        if self.boundary_tolerance is not None:
            boundary = BoundaryResult(self.boundary_tolerance, total.boundary)
        report = self._report(total, classes, boundary)
        metrics = report.metrics()
        self.report = report
        if is_main_process():
            MMLogger.get_current_instance().info('\n' + report.text())
            if self.output_dir is not None:
                report.write(self.output_dir)
        return metrics

    def _report(self, total: _Counts, classes: tuple[str, ...], boundary: BoundaryResult | None) -> EvaluationReport:
        """The report of counts that are summed over images and processes."""
        palette = (self.dataset_meta or {}).get('palette')
        return EvaluationReport(
            classes=classes,
            palette=tuple((int(r), int(g), int(b)) for r, g, b in palette) if palette else None,
            matrix=total.matrix,
            num_images=total.num_images,
            ignore_index=self.ignore_index,
            rules=self._rules(classes),
            protocol=self.protocol,
            source=(self.dataset_meta or {}).get('source'),
            boundary=boundary,
            run=self.run,
        )

    def _reset(self) -> None:
        self._total: _Counts | None = None
        self._waiting: list[_Scored] = []
        self._num_seen = 0
        self._written: dict[str, str] = {}

    def _score(self, data_sample: dict) -> _Scored:
        classes = self._classes()
        if self._num_seen == 0:
            self._rules(classes)
        img_path = str(data_sample.get('img_path', ''))
        source = str(data_sample.get('seg_map_path') or img_path or 'label')
        if data_sample.get('gt_sem_seg') is None:
            raise DataError(
                f'{img_path or "image"}: has no label (gt_sem_seg), so it cannot be scored; give the data set its '
                'masks, or predict images without masks with tools/predict.py'
            )
        pred = _as_map(data_sample['pred_sem_seg']['data'])
        label = _as_map(data_sample['gt_sem_seg']['data'])
        if pred.shape != label.shape:
            raise DataError(
                f'{source}: the label is {_size(label)}, the prediction {_size(pred)} (height x width); they must be '
                'equal. Is the mask as large as its image, and loaded after the resizing of the test pipeline?'
            )
        matrix = confusion_matrix(pred, label, len(classes), self.ignore_index, source).numpy()
        counts = _Counts(matrix, self._boundary_counts(pred, label, classes))
        if self.pred_dir is None:
            return _Scored(counts, img_path)
        if not img_path:
            raise DataError('pred_dir is set, but the data samples have no img_path to name the PNG files by')
        # A copy: the model may use the memory of its output again.
        index_map = pred.to(torch.uint8, copy=True).cpu().numpy()
        return _Scored(counts, img_path, Path(img_path).stem, index_map)

    def _boundary_counts(self, pred: torch.Tensor, label: torch.Tensor, classes: tuple[str, ...]) -> np.ndarray:
        """Counts of an image whose values were checked; zeros where boundaries are not scored."""
        if self.boundary_tolerance is None:
            return np.zeros((len(classes), len(COUNTS)), np.int64)
        pred_map, label_map = (values.to(torch.uint8).cpu().numpy() for values in (pred, label))
        ignored = pixels_of(label_map, [self.ignore_index, *self._rules(classes).left_out_labels])
        return boundary_counts(pred_map, label_map, len(classes), self.boundary_tolerance, ignored)

    def _keep_waiting(self) -> None:
        """Counts the waiting sample and writes its prediction."""
        if not self._waiting:
            return
        scored = self._waiting.pop()
        if self._total is None:
            self._total = self._no_counts()
        self._total.add(scored.counts)
        self._count_image(scored)
        if self.pred_dir is not None and scored.index_map is not None:
            if scored.stem in self._written:
                raise DataError(_same_stem_message(scored.stem, self._written[scored.stem], scored.img_path))
            self._written[scored.stem] = scored.img_path
            save_png(Path(self.pred_dir) / f'{scored.stem}.png', scored.index_map)

    def _count_image(self, scored: _Scored) -> None:
        """Takes note of an image that counts, once for each; for subclasses."""

    def _settle_waiting(self, size: int) -> None:
        """Drops the waiting sample if it is a repeated one, else keeps it.

        DefaultSampler gives rank r of W the images r, r + W, r + 2 W, ... and repeats images at the end until all
        ranks have equally many. So a rank has at most one repeated image, and it is its last.
        """
        rank, world_size = get_dist_info()
        own = max(0, -(-(size - rank) // world_size))
        if world_size > 1 and self._num_seen == own + 1:
            self._waiting.clear()
        else:
            self._keep_waiting()

    def _no_counts(self) -> _Counts:
        count = len(self._classes())
        return _Counts(np.zeros((count, count), np.int64), np.zeros((count, len(COUNTS)), np.int64), 0)

    def _sum_over_ranks(self) -> _Counts:
        total = self._total or self._no_counts()
        parts = (total.matrix.ravel(), total.boundary.ravel(), np.array([total.num_images], np.int64))
        flat = torch.from_numpy(np.concatenate(parts))
        # mmengine moves the tensor to where the backend needs it (NCCL: GPU) and back.
        all_reduce(flat, op='sum')
        matrix, boundary, num_images = np.split(flat.numpy(), np.cumsum([part.size for part in parts[:2]]))
        return _Counts(matrix.reshape(total.matrix.shape), boundary.reshape(total.boundary.shape), int(num_images[0]))

    def _check_stems(self) -> None:
        """Raises on every process if two of them wrote a prediction under the same name."""
        if self.pred_dir is None:
            return
        written: dict[str, str] = {}
        for of_rank in all_gather_object(self._written):
            for stem, img_path in of_rank.items():
                if stem in written:
                    raise DataError(_same_stem_message(stem, written[stem], img_path))
                written[stem] = img_path

    def _classes(self) -> tuple[str, ...]:
        classes = (self.dataset_meta or {}).get('classes')
        if not classes:
            raise ConfigError('the data set states no classes (metainfo), so there is nothing to score by')
        return tuple(classes)

    def _rules(self, classes: tuple[str, ...]) -> ScoringRules:
        if self.protocol is not None:
            source = (self.dataset_meta or {}).get('source')
            if source is not None and 'protocol' in source:
                self.protocol.check_source(source)
            return protocol_rules(self.protocol, classes)
        return ScoringRules(averaged=self._score_indexes(classes))

    def _score_indexes(self, classes: tuple[str, ...]) -> tuple[int, ...]:
        if self.score_classes is None:
            return tuple(range(len(classes)))
        known = ', '.join(f'{index} {name!r}' for index, name in enumerate(classes))
        indexes: list[int] = []
        for entry in self.score_classes:
            if isinstance(entry, str) and entry in classes:
                index = classes.index(entry)
            elif isinstance(entry, int) and 0 <= entry < len(classes):
                index = entry
            else:
                raise ConfigError(f'score_classes: {entry!r} is not a class of the data set; known: {known}')
            if index in indexes:
                raise ConfigError(f'score_classes: class {classes[index]!r} is listed twice')
            indexes.append(index)
        if not indexes:
            raise ConfigError(
                f'score_classes is empty; name at least one class, or leave it out for all; known: {known}'
            )
        return tuple(indexes)


def _as_map(data: torch.Tensor) -> torch.Tensor:
    """(1, H, W) or (H, W) to (H, W); `squeeze` would also drop a side of one pixel."""
    return data[0] if data.ndim == 3 and data.shape[0] == 1 else data


def _size(data: torch.Tensor) -> str:
    return ' x '.join(str(side) for side in data.shape)


def _same_stem_message(stem: str, first: str, second: str) -> str:
    return (
        f'{first} and {second} have the same stem, so both predictions would be {stem}.png; rename one of the images, '
        'or leave pred_dir out'
    )
