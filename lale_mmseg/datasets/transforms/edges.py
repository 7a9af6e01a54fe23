"""Edge targets made from labels."""

from __future__ import annotations

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from ...errors import ConfigError


def label_edges(labels: np.ndarray, window: int = 5, ignore_index: int = 255) -> np.ndarray:
    """Marks the pixels where classes meet.

    The published definition treats labels as grey values: second differences along x and y are averaged and smoothed
    with a Gaussian window, and everything above 0 is an edge. The result then depends on the class indexes:
    differences cancel within a ramp of indexes (1, 2, 3), between x and y, and within the window. Here a pixel is a
    boundary pixel exactly where it and one of its four neighbours differ, and an edge is every pixel with a boundary
    pixel in its window. Between two classes this equals the published definition with absolute differences.

    Args:
        labels: (H, W) class indexes and `ignore_index`.
        window: Side of the window in pixels, odd; edges are `window + 1` pixels wide.
        ignore_index: Label of pixels to ignore. There is no edge next to them, since their class is unknown.

    Returns:
        (H, W) uint8: 1 for edges, 0 elsewhere, `ignore_index` where the label is `ignore_index`.
    """
    labelled = labels != ignore_index
    differ = np.zeros(labels.shape, np.uint8)
    for before, after in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        border = (labels[before] != labels[after]) & labelled[before] & labelled[after]
        differ[before] |= border
        differ[after] |= border
    edges = cv2.dilate(differ, np.ones((window, window), np.uint8))
    edges[~labelled] = ignore_index
    return edges


@TRANSFORMS.register_module()
class LabelEdges(BaseTransform):
    """Makes the edge targets of BodyEdgeHead from `gt_seg_map`; see `label_edges` for the definition.

    Put it after all transforms that move pixels, since scaling would change the width of the edges, and before
    PackSegInputs. Eroded labels (ISPRS "noBoundary") have almost no edges: train on full ones.

    Required key: `gt_seg_map`. Added key: `gt_edge_map` (H, W) uint8, also added to `seg_fields`, so that SeededAlbu
    and mmsegmentation's flips, rotations, crops and resizing transform it as well; mmcv's `Pad` does not.

    Args:
        window: Side of the window in pixels, odd; edges are `window + 1` pixels wide.
        ignore_index: Label of ignored pixels.

    Raises:
        ConfigError: `window` is even.
    """

    def __init__(self, window: int = 5, ignore_index: int = 255) -> None:
        if window % 2 == 0:  # the window would not be centred
            raise ConfigError(f'LabelEdges: window={window}: must be odd')
        self.window = window
        self.ignore_index = ignore_index

    def transform(self, results: dict) -> dict:
        """Adds the edges of the labels in `results`."""
        results['gt_edge_map'] = label_edges(results['gt_seg_map'], self.window, self.ignore_index)
        fields = results.setdefault('seg_fields', [])
        if 'gt_edge_map' not in fields:
            fields.append('gt_edge_map')
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(window={self.window}, ignore_index={self.ignore_index})'
