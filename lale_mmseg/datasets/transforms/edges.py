"""Transform that makes edge targets from labels."""

from __future__ import annotations

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from ...errors import ConfigError


def label_edges(labels: np.ndarray, window: int = 5, ignore_index: int = 255) -> np.ndarray:
    """Where classes meet.

    The published definition takes the labels for grey values: their second differences along x and y, averaged, then
    a Gaussian window, and anything above 0 is an edge. What is above 0 then depends on which class indexes meet:
    differences of 1, 2, 3 in a row are 0 in the middle, those along x and y may cancel, and so may those that the
    window averages. Here every class is taken for itself and every difference for its absolute value: second
    differences along x or y are not 0 exactly where a pixel and one of its four neighbours differ, and no Gaussian
    weight is 0, so an edge is what has such a pixel within the window. Between two classes this is the published
    definition with absolute differences, which cannot cancel where boundaries along x and y meet.

    Args:
        labels: (H, W) class indexes and `ignore_index`.
        window: Side of the window, odd; edges are `window + 1` pixels wide.
        ignore_index: Label of pixels that are neither edge nor not; next to them is no edge, since nothing is known of
            the class there.

    Returns:
        (H, W) uint8: 1 for edges, 0 elsewhere, `ignore_index` where the label is that.
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
class LaplacianEdges(BaseTransform):
    """Makes edge targets from `gt_seg_map`, for BodyEdgeHead; `label_edges` says what an edge is.

    Its place is behind all transforms that move pixels and in front of PackSegInputs: scaling after it would scale the
    width of edges, too. Labels whose boundaries are ignored (ISPRS "noBoundary") have hardly an edge: train on
    full ones.

    Required key: `gt_seg_map`. Added key: `gt_edge_map` (H, W) uint8, also an entry of `seg_fields`, so that SeededAlbu
    and the flips, rotations, crops and resizing of mmsegmentation move it along. mmcv's `Pad` moves `gt_seg_map` alone.

    Args:
        window: Side of the window in pixels, odd; edges are `window + 1` pixels wide.
        ignore_index: Label of ignored pixels.

    Raises:
        ConfigError: `window` is even or under 1, or `ignore_index` is 0 or 1 or no 8-bit value.
    """

    def __init__(self, window: int = 5, ignore_index: int = 255) -> None:
        if window < 1 or window % 2 == 0:
            raise ConfigError(f'LaplacianEdges: window={window}: must be odd')
        if not 2 <= ignore_index <= 255:
            raise ConfigError(f'LaplacianEdges: ignore_index={ignore_index}: a value from 2 to 255 is due')
        self.window = window
        self.ignore_index = ignore_index

    def transform(self, results: dict) -> dict:
        """Adds the edges of the labels of `results`."""
        results['gt_edge_map'] = label_edges(results['gt_seg_map'], self.window, self.ignore_index)
        fields = results.setdefault('seg_fields', [])
        if 'gt_edge_map' not in fields:
            fields.append('gt_edge_map')
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(window={self.window}, ignore_index={self.ignore_index})'
