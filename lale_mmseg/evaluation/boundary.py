"""Boundary F1 and boundary IoU of each class: pure functions, exact int64 counts that are summed over images.

A boundary pixel of class c is a pixel of class c with a 4-neighbour of another class; the border of the image is no
boundary. Distances are Euclidean, between centres of pixels, and "near" means at most `tolerance` pixels away.

Boundary F1 (Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC 2013): precision is the
share of predicted boundary pixels of a class that are near a boundary pixel of that class in the label, recall the
share of the label's boundary pixels near a predicted one. There it is a mean of images; here counts are summed first.

Boundary IoU (Cheng et al., "Boundary IoU", CVPR 2021): IoU of two bands, of which each holds the pixels of a class near
boundary pixels of that class. On a straight edge a band is `tolerance` + 1 pixels thick, boundary pixels included.

Pixels without truth (ignored labels, and classes that a protocol leaves out of the labels) and all pixels at most
`tolerance` + 1 from one are not counted: what they should be compared with may lie where nothing is known. So nothing
that is predicted on such pixels, or would be labelled there, changes a count, and they make no boundary. Where labels
are eroded, all boundaries are such pixels, and there are no boundary scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from ..errors import ConfigError, DataError

#: Columns of the counts, in pixels: predicted boundary and how much of it is near the label's; the label's boundary and
#: how much of it is near a predicted one; pixels in both bands and in at least one.
COUNTS = ('predicted', 'predicted_near', 'labelled', 'labelled_near', 'band_both', 'band_either')

# Side of the blocks that an image is cut into: they stay in the cache, and memory does not grow with the image.
BLOCK = 1024


@dataclass(frozen=True)
class BoundaryScores:
    """Boundary scores of each class: float64 arrays of shape (C,) in percent, NaN where `absent`.

    Attributes:
        f1: 2 P R / (P + R); 0 where both are 0.
        iou: Share of the pixels of both bands in those of at least one.
        absent: bool; the class has a boundary neither in labels nor in predictions.
    """

    f1: np.ndarray
    iou: np.ndarray
    absent: np.ndarray


def check_tolerance(tolerance: int) -> None:
    """Raises ConfigError unless `tolerance` is a whole number of pixels, 0 or more."""
    if isinstance(tolerance, bool) or not isinstance(tolerance, int) or tolerance < 0:
        raise ConfigError(f'boundary_tolerance={tolerance!r}: a whole number of pixels is due, 0 or more, such as 3')


def pixels_of(label: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """(H, W) bool: where a uint8 map has one of the values."""
    table = np.zeros(256, bool)
    table[list(values)] = True
    return table[label]


def boundary_counts(
    pred: np.ndarray, label: np.ndarray, num_classes: int, tolerance: int, ignored: np.ndarray
) -> np.ndarray:
    """Counts of one image, see `COUNTS`.

    Args:
        pred: (H, W) uint8 predicted classes.
        label: (H, W) uint8 classes; values where `ignored` do not matter.
        num_classes: Number of classes C.
        tolerance: Largest distance of pixels that match, in pixels.
        ignored: (H, W) bool; pixels without truth.

    Returns:
        (C, 6) int64 array.
    """
    counts = np.zeros((num_classes, len(COUNTS)), np.int64)
    # Boundaries up to `tolerance` away from a block matter, and whether they are some depends on one pixel more.
    for window, inner in _blocks(label.shape, tolerance + 1):
        _add_block(counts, pred[window], label[window], ignored[window], inner, tolerance)
    return counts


def boundary_scores(counts: np.ndarray) -> BoundaryScores:
    """Scores of (C, 6) counts; 0 for a class whose boundary is missed altogether or occurs in predictions alone."""
    predicted, predicted_near, labelled, labelled_near, both, either = (
        column.astype(np.float64) for column in counts.T
    )
    absent = (predicted + labelled) == 0
    precision, recall = _ratio(predicted_near, predicted), _ratio(labelled_near, labelled)
    f1 = 100 * _ratio(2 * precision * recall, precision + recall)
    iou = 100 * _ratio(both, either)
    return BoundaryScores(np.where(absent, np.nan, f1), np.where(absent, np.nan, iou), absent)


def boundary_summary(counts: np.ndarray, score_classes: Sequence[int]) -> dict[str, float]:
    """mBF1 and mBIoU: means over `score_classes` (indexes) that are not absent, in percent.

    Raises:
        DataError: No label has a boundary of these classes.
    """
    wanted = list(score_classes)
    if not has_boundaries(counts, wanted):
        raise DataError(
            'nothing to score: the labels have no boundary of a scored class, away from ignored pixels. Are they '
            'eroded labels, whose boundaries are ignored? Boundary scores need full labels; without those leave '
            'boundary_tolerance out'
        )
    scores = boundary_scores(counts)
    kept = [index for index in wanted if not scores.absent[index]]
    return {'mBF1': float(scores.f1[kept].mean()), 'mBIoU': float(scores.iou[kept].mean())}


def has_boundaries(counts: np.ndarray, score_classes: Sequence[int]) -> bool:
    """Whether the labels have a boundary of one of the classes (indexes)."""
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
    """(H, W) uint8, 1 where a 4-neighbour has another class."""
    edges = np.zeros(classes.shape, bool)
    for axis in (0, 1):
        before, after = (slice(None),) * axis + (slice(None, -1),), (slice(None),) * axis + (slice(1, None),)
        differs = classes[before] != classes[after]
        edges[before] |= differs
        edges[after] |= differs
    return edges.view(np.uint8)


def _grown(mask: np.ndarray, radius: int) -> np.ndarray:
    """(H, W) uint8, 1 at most `radius` away from a 1; exact, since offsets are compared as whole numbers."""
    if not mask.any():
        return np.zeros(mask.shape, np.uint8)
    return cv2.dilate(np.ascontiguousarray(mask), _disc(radius))


@lru_cache(maxsize=8)
def _disc(radius: int) -> np.ndarray:
    offsets = np.arange(-radius, radius + 1) ** 2
    return (offsets[:, None] + offsets <= radius * radius).astype(np.uint8)


def _blocks(shape: tuple[int, ...], margin: int) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Windows of a grid with a margin around each block, and where the block lies in its window."""
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
    """0 where there is nothing to divide by."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
