"""Confusion matrices and the scores computed from them: pure functions, exact in int64, all scores in percent.

A matrix has one row per label class and one column per predicted class. It is summed over images and processes before
any score is computed, so every score describes the whole dataset and is never a mean over images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import ConfigError, DataError
from ..metainfo import IGNORE_INDEX
from ..metainfo.protocol import Protocol

#: Labels are 8-bit values; pairs are counted in a table with a row for each of them.
LABEL_VALUES = 256

# Pixels per step, so that memory does not grow with the image.
CHUNK = 1 << 18


@dataclass(frozen=True)
class ClassScores:
    """Scores of each class: float64 arrays of shape (C,) in percent, NaN where `absent`.

    Attributes:
        iou: TP / (TP + FP + FN).
        f1: 2 TP / (2 TP + FP + FN).
        precision: TP / (TP + FP); 0 for a class that occurs but is never predicted.
        recall: TP / (TP + FN); 0 for a class that is predicted but never occurs.
        absent: bool; the class occurs in neither labels nor predictions.
    """

    iou: np.ndarray
    f1: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    absent: np.ndarray


@dataclass(frozen=True)
class ScoringRules:
    """Which parts of a confusion matrix are counted and averaged, as class indexes.

    Attributes:
        averaged: Classes that means are computed over.
        left_out_labels: Classes whose labelled pixels are not counted.
        left_out_predictions: Classes whose predicted pixels are not counted.
    """

    averaged: tuple[int, ...]
    left_out_labels: tuple[int, ...] = ()
    left_out_predictions: tuple[int, ...] = ()


def protocol_rules(protocol: Protocol, classes: Sequence[str]) -> ScoringRules:
    """Returns the rules of a protocol for a dataset with these classes, matched by name.

    Raises:
        ConfigError: The dataset lacks a class of the protocol, or has one that the protocol neither scores nor leaves
            out.
    """
    if not set(protocol.classes) <= set(classes) <= {*protocol.classes, *protocol.left_out_labels}:
        raise ConfigError(
            f'protocol {protocol.name!r} ({protocol.letter}) scores the classes {list(protocol.classes)}, but the '
            f'dataset has {list(classes)}'
        )

    def indexes(names: Sequence[str]) -> tuple[int, ...]:
        # A dataset may ignore a left-out class and so not have it.
        return tuple(list(classes).index(name) for name in names if name in classes)

    return ScoringRules(
        averaged=indexes(protocol.averaged),
        left_out_labels=indexes(protocol.left_out_labels),
        left_out_predictions=indexes(protocol.left_out_predictions),
    )


def counted_matrix(matrix: np.ndarray, rules: ScoringRules) -> np.ndarray:
    """Returns a copy of a (C, C) matrix in which the rows and columns that the rules leave out are zero."""
    counted = np.array(matrix)
    counted[list(rules.left_out_labels), :] = 0
    counted[:, list(rules.left_out_predictions)] = 0
    return counted


def dropped_pixels(matrix: np.ndarray, rules: ScoringRules) -> tuple[int, int]:
    """Counts the pixels with a counted label: those left out because of their prediction, and all of them.

    Leaving out errors flatters a network, so results report how many there were.
    """
    labelled = counted_matrix(matrix, ScoringRules((), rules.left_out_labels))
    return int(labelled[:, list(rules.left_out_predictions)].sum()), int(labelled.sum())


def confusion_matrix(
    pred: torch.Tensor | np.ndarray,
    label: torch.Tensor | np.ndarray,
    num_classes: int,
    ignore_index: int = IGNORE_INDEX,
    source: str = 'label',
) -> torch.Tensor:
    """Counts the pixels for each pair of label and predicted class.

    Args:
        pred: Predicted class indexes of any shape, each from 0 to `num_classes` - 1, also where the label is ignored.
            Floating point is accepted if every value is whole (heads with one output channel return that).
        label: Class indexes of the same shape, of an integer type.
        num_classes: Number of classes C.
        ignore_index: Label of pixels that are not counted, 0 to 255. It may be the index of a class: that row of the
            matrix is then zero.
        source: Name of the label, for error messages.

    Returns:
        (C, C) int64 tensor on the CPU; row = label, column = prediction.

    Raises:
        DataError: Shapes differ, or a label is neither a class nor `ignore_index` (the message gives the value, row and
            column of the first such pixel).
        ConfigError: A prediction is not a class, or `ignore_index` is not from 0 to 255.
    """
    check_ignore_index(ignore_index)
    pred, label = _as_countable(pred), _as_countable(label)
    if pred.shape != label.shape:
        raise DataError(f'{source}: label has shape {tuple(label.shape)}, prediction has {tuple(pred.shape)}')
    if label.is_floating_point():
        raise DataError(f'{source}: labels must be integers, found {label.dtype}')
    table = _count_pairs(_as_indexes(pred).reshape(-1), label.to(pred.device).reshape(-1), num_classes)
    if table is None or _has_unknown(table, num_classes, ignore_index):
        raise DataError(_unknown_message(label, num_classes, ignore_index, source))
    matrix = table[:num_classes]
    if ignore_index < num_classes:
        matrix[ignore_index] = 0
    return torch.from_numpy(matrix)


def check_ignore_index(ignore_index: int) -> None:
    """Raises ConfigError unless `ignore_index` is an 8-bit value."""
    if not 0 <= ignore_index < LABEL_VALUES:
        raise ConfigError(f'ignore_index={ignore_index}: must be from 0 to {LABEL_VALUES - 1}')


def class_scores(matrix: torch.Tensor | np.ndarray, present: np.ndarray | None = None) -> ClassScores:
    """IoU, F1, precision and recall of each class.

    A class that occurs in labels or in predictions has a score, which is 0 if none of its pixels is correct: never
    predicting a class is a failure, not a gap in the scores. Only a class absent from both is left out (NaN).

    Args:
        matrix: (C, C) integer matrix; row = label, column = prediction.
        present: bool (C,); classes that count as present even if the matrix has none of their pixels, because rules
            left these out.
    """
    matrix = np.asarray(matrix)
    hits = np.diag(matrix).astype(np.float64)
    labelled = matrix.sum(axis=1)
    predicted = matrix.sum(axis=0)
    absent = (labelled + predicted) == 0
    if present is not None:
        absent &= ~present

    def percent(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
        ratio = np.where(absent, np.nan, 0.0)
        np.divide(100 * numerator, denominator, out=ratio, where=denominator > 0)
        return ratio

    return ClassScores(
        iou=percent(hits, labelled + predicted - np.diag(matrix)),
        f1=percent(2 * hits, labelled + predicted),
        precision=percent(hits, predicted),
        recall=percent(hits, labelled),
        absent=absent,
    )


def summary(
    matrix: torch.Tensor | np.ndarray, score_classes: Sequence[int] | None = None, present: np.ndarray | None = None
) -> dict[str, float]:
    """Computes the scores of the whole dataset, in percent.

    Args:
        matrix: (C, C) integer matrix; row = label, column = prediction.
        score_classes: Indexes of the classes to average; all by default. Absent classes are left out.
        present: See `class_scores`.

    Returns:
        mIoU, mF1, mP, mR: means over `score_classes`. OA and kappa: over all labelled pixels and all C classes,
        whatever `score_classes` is. OA is the fraction of correct pixels. Kappa is (p_o - p_e) / (1 - p_e) (Cohen,
        1960); if chance agreement p_e is 1, all labels and predictions are of one class, and kappa is 100.

    Raises:
        DataError: No pixel is labelled, or all `score_classes` are absent.
    """
    matrix = np.asarray(matrix)
    scores = class_scores(matrix, present)
    wanted = list(range(len(matrix))) if score_classes is None else list(score_classes)
    kept = [index for index in wanted if not scores.absent[index]]
    # Python integers: the products of pixel counts below do not fit 64 bits for large sets.
    total, right = int(matrix.sum()), int(np.trace(matrix))
    if total == 0:
        raise DataError('nothing to score: all labels are the ignore index, no pixel is labelled')
    if not kept:
        raise DataError(f'nothing to average: none of the scored classes {wanted} occurs in labels or predictions')
    rows, columns = matrix.sum(axis=1).tolist(), matrix.sum(axis=0).tolist()
    by_chance = sum(row * column for row, column in zip(rows, columns, strict=True))
    best = total * total - by_chance
    return {
        'mIoU': float(scores.iou[kept].mean()),
        'mF1': float(scores.f1[kept].mean()),
        'mP': float(scores.precision[kept].mean()),
        'mR': float(scores.recall[kept].mean()),
        'OA': 100 * right / total,
        'kappa': 100 * (total * right - by_chance) / best if best else 100.0,
    }


def _as_countable(values: torch.Tensor | np.ndarray) -> torch.Tensor:
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(np.ascontiguousarray(values))
    # torch has few operations for the other unsigned types.
    return values.to(torch.int64) if values.dtype in (torch.uint16, torch.uint32, torch.bool) else values


def _as_indexes(pred: torch.Tensor) -> torch.Tensor:
    """Converts floating point class indexes to integers."""
    if not pred.is_floating_point():
        return pred
    whole = pred.to(torch.int64)
    if not torch.equal(whole.to(pred.dtype), pred):
        raise ConfigError('predictions must be class indexes, found fractions: take the argmax of the logits first')
    return whole


def _count_pairs(pred: torch.Tensor, label: torch.Tensor, num_classes: int) -> np.ndarray | None:
    """Returns (256, C) int64 counts of flat integer `label` and `pred`, or None if a label is not from 0 to 255."""
    bins = LABEL_VALUES * num_classes
    # The smallest type that holds every index moves the fewest bytes (measured with benchmarks/metric.py).
    dtype = torch.int16 if bins <= 1 << 15 else torch.int32
    table = torch.zeros(bins, dtype=torch.int64, device=pred.device)
    for some_pred, some_label in zip(pred.split(CHUNK), label.split(CHUNK), strict=True):
        if some_pred.numel() == 0:
            continue
        (low, high), (lowest, highest) = _range(some_pred), _range(some_label)
        if low < 0 or high >= num_classes:
            raise ConfigError(
                f'predicted classes range from {low} to {high}, but the dataset has {num_classes} (0 to '
                f'{num_classes - 1}): set num_classes of the model to that of the dataset'
            )
        if lowest < 0 or highest >= LABEL_VALUES:
            return None
        index = some_label.to(dtype, copy=True).mul_(num_classes).add_(some_pred.to(dtype))
        table += torch.bincount(index, minlength=bins)
    return table.cpu().numpy().reshape(LABEL_VALUES, num_classes)


def _range(values: torch.Tensor) -> tuple[int, int]:
    low, high = values.aminmax()
    return int(low), int(high)


def _has_unknown(table: np.ndarray, num_classes: int, ignore_index: int) -> bool:
    unknown = np.count_nonzero(table[num_classes:])
    if ignore_index >= num_classes:
        unknown -= np.count_nonzero(table[ignore_index])
    return unknown > 0


def _unknown_message(label: torch.Tensor, num_classes: int, ignore_index: int, source: str) -> str:
    values = label.cpu().to(torch.int64).numpy()
    outside = ((values < 0) | (values >= num_classes)) & (values != ignore_index)
    where = np.unravel_index(int(outside.argmax()), outside.shape)
    place = f'row {where[-2]}, column {where[-1]}' if outside.ndim > 1 else f'pixel {where[0]}'
    return (
        f'{source}: label {int(values[where])} at {place} is not a class ({int(outside.sum())} such pixels); '
        f'classes are 0 to {num_classes - 1}, and {ignore_index} is ignored'
    )
