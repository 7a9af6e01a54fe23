"""Boundary F1 and boundary IoU of each class: pure functions on exact int64 counts, which are summed over images.

A boundary pixel of class c is a pixel of class c with a 4-neighbour of another class; the image border is not a
boundary. Distances are Euclidean, between pixel centres, and "near" means at most `tolerance` pixels away.

Boundary F1 (Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC 2013): precision is the
fraction of predicted boundary pixels of a class that are near a boundary pixel of that class in the label, recall the
fraction of label boundary pixels near a predicted one. The paper averages over images; here counts are summed first.

Boundary IoU (Cheng et al., "Boundary IoU", CVPR 2021): IoU of two bands, each consisting of the pixels of a class near
boundary pixels of that class. On a straight edge a band is `tolerance` + 1 pixels thick, boundary pixels included.

Pixels without truth (ignored labels, and classes that a protocol excludes from the labels) and all pixels at most
`tolerance` + 1 from one are not counted, since the pixels to compare them with may be unknown. They do not create
boundaries either, so no prediction or label on such pixels changes a count. Eroded labels ignore all boundaries, so
they have no boundary scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from ..errors import ConfigError, DataError

#: Columns of the counts, in pixels: the predicted boundary and its part near the label's; the label's boundary and its
#: part near the predicted one; pixels in both bands and in at least one.
COUNTS = ('predicted', 'predicted_near', 'labelled', 'labelled_near', 'band_both', 'band_either')

# Side of the blocks that an image is cut into: they fit the CPU cache, and memory does not grow with the image.
BLOCK = 1024


@dataclass(frozen=True)
class BoundaryScores:
    """Boundary scores of each class: float64 arrays of shape (C,) in percent, NaN where `absent`.

    Attributes:
        f1: 2 P R / (P + R); 0 where both are 0.
        iou: Pixels in both bands as a fraction of those in at least one.
        absent: bool; neither labels nor predictions have a boundary of the class.
    """

    f1: np.ndarray
    iou: np.ndarray
    absent: np.ndarray


def check_tolerance(tolerance: int) -> None:
    """Raises ConfigError unless `tolerance` is a whole number of pixels, 0 or more."""
    if isinstance(tolerance, bool) or not isinstance(tolerance, int) or tolerance < 0:
        raise ConfigError(f'boundary_tolerance={tolerance!r}: expected a whole number of pixels, 0 or more, such as 3')


def pixels_of(label: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """Returns (H, W) bool: whether each pixel of a uint8 map has one of the values."""
    table = np.zeros(256, bool)
    table[list(values)] = True
    return table[label]


def boundary_counts(
    pred: np.ndarray, label: np.ndarray, num_classes: int, tolerance: int, ignored: np.ndarray
) -> np.ndarray:
    """Counts the boundary pixels of one image.

    Args:
        pred: (H, W) uint8 predicted classes.
        label: (H, W) uint8 classes; arbitrary where `ignored`.
        num_classes: Number of classes C.
        tolerance: Largest distance between matching boundary pixels, in pixels.
        ignored: (H, W) bool; pixels without truth.

    Returns:
        (C, 6) int64 array with the columns `COUNTS`.
    """
    counts = np.zeros((num_classes, len(COUNTS)), np.int64)
    # Boundaries up to `tolerance` away from a block matter, and one more pixel decides whether they are boundaries.
    for window, inner in _blocks(label.shape, tolerance + 1):
        _add_block(counts, pred[window], label[window], ignored[window], inner, tolerance)
    return counts


def boundary_scores(counts: np.ndarray) -> BoundaryScores:
    """Computes scores from (C, 6) counts; 0 for a class whose boundary occurs only in labels or only in predictions."""
    predicted, predicted_near, labelled, labelled_near, both, either = (
        column.astype(np.float64) for column in counts.T
    )
    absent = (predicted + labelled) == 0
    precision, recall = _ratio(predicted_near, predicted), _ratio(labelled_near, labelled)
    f1 = 100 * _ratio(2 * precision * recall, precision + recall)
    iou = 100 * _ratio(both, either)
    return BoundaryScores(np.where(absent, np.nan, f1), np.where(absent, np.nan, iou), absent)


def boundary_summary(counts: np.ndarray, score_classes: Sequence[int]) -> dict[str, float]:
    """Returns mBF1 and mBIoU in percent: means over those `score_classes` (indexes) that are not absent.

    Raises:
        DataError: The labels have no boundary of these classes.
    """
    wanted = list(score_classes)
    if not has_boundaries(counts, wanted):
        raise DataError(
            'the labels have no boundary of a scored class away from ignored pixels. Eroded labels ignore all '
            'boundaries: use full labels, or remove boundary_tolerance'
        )
    scores = boundary_scores(counts)
    kept = [index for index in wanted if not scores.absent[index]]
    return {'mBF1': float(scores.f1[kept].mean()), 'mBIoU': float(scores.iou[kept].mean())}


def has_boundaries(counts: np.ndarray, score_classes: Sequence[int]) -> bool:
    """Returns whether the labels have a boundary of one of the classes (indexes)."""
    return bool(counts[list(score_classes), COUNTS.index('labelled')].any())


def _add_block(
    counts: np.ndarray, pred: np.ndarray, label: np.ndarray, ignored: np.ndarray, inner: tuple, tolerance: int
) -> None:
    """Adds the counts of the `inner` part of a window."""
    counted = np.ones(label.shape, np.uint8)
    if ignored.any():
        counted = 1 - _grown(ignored.view(np.uint8), tolerance + 1)
    counted = counted[inner]
    pred_edges, label_edges = _edges(pred), _edges(label)
    if not counted.any() or not (pred_edges.any() or label_edges.any()):
        return
    present = np.bincount(pred.ravel(), minlength=256) + np.bincount(label.ravel(), minlength=256)
    for index in np.flatnonzero(present[: len(counts)]):
        in_pred, in_label = (pred == index).view(np.uint8), (label == index).view(np.uint8)
        pred_edge, label_edge = pred_edges & in_pred, label_edges & in_label
        near_pred, near_label = (_grown(edge, tolerance)[inner] for edge in (pred_edge, label_edge))
        predicted, labelled = pred_edge[inner] & counted, label_edge[inner] & counted
        pred_band, label_band = in_pred[inner] & near_pred & counted, in_label[inner] & near_label & counted
        masks = (
            predicted,
            predicted & near_label,
            labelled,
            labelled & near_pred,
            pred_band & label_band,
            pred_band | label_band,
        )
        counts[index] += [cv2.countNonZero(mask) for mask in masks]


def _edges(classes: np.ndarray) -> np.ndarray:
    """Returns (H, W) uint8: 1 where a 4-neighbour has another class."""
    edges = np.zeros(classes.shape, bool)
    for axis in (0, 1):
        before, after = (slice(None),) * axis + (slice(None, -1),), (slice(None),) * axis + (slice(1, None),)
        differs = classes[before] != classes[after]
        edges[before] |= differs
        edges[after] |= differs
    return edges.view(np.uint8)


def _grown(mask: np.ndarray, radius: int) -> np.ndarray:
    """Returns (H, W) uint8: 1 at most `radius` from a 1. Exact, since offsets are compared as integers."""
    if not mask.any():
        return np.zeros(mask.shape, np.uint8)
    return cv2.dilate(np.ascontiguousarray(mask), _disc(radius))


@lru_cache(maxsize=8)
def _disc(radius: int) -> np.ndarray:
    offsets = np.arange(-radius, radius + 1) ** 2
    return (offsets[:, None] + offsets <= radius * radius).astype(np.uint8)


def _blocks(shape: tuple[int, ...], margin: int) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Yields blocks with a margin around them as slices of the image, and the slices of the block in its window."""
    height, width = shape
    for top in range(0, height, BLOCK):
        for left in range(0, width, BLOCK):
            rows, inner_rows = _span(top, height, margin)
            columns, inner_columns = _span(left, width, margin)
            yield (rows, columns), (inner_rows, inner_columns)


def _span(start: int, length: int, margin: int) -> tuple[slice, slice]:
    stop = min(start + BLOCK, length)
    first = max(0, start - margin)
    return slice(first, min(length, stop + margin)), slice(start - first, stop - first)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
