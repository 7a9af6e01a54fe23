"""Edge targets from labels."""

import cv2
import numpy as np
import pytest
from mmseg.datasets.transforms import PackSegInputs
from mmseg.registry import TRANSFORMS

from lale_mmseg.datasets.transforms import label_edges
from lale_mmseg.errors import ConfigError


def text(map_: np.ndarray) -> list[str]:
    return [''.join('.' if v == 0 else '#' if v == 1 else '?' for v in line) for line in map_]


def test_by_hand():
    """Two classes meet between columns 3 and 4; a window of 3 reaches one pixel further.

    The ignored corner at the bottom right has no edge of its own.
    """
    labels = np.array(
        [
            [2, 2, 2, 2, 0, 0, 0, 0],
            [2, 2, 2, 2, 0, 0, 0, 0],
            [2, 2, 2, 2, 0, 0, 0, 255],
            [2, 2, 2, 2, 0, 0, 255, 255],
        ],
        np.uint8,
    )
    assert text(label_edges(labels, window=3)) == ['..####..', '..####..', '..####.?', '..####??']
    assert text(label_edges(labels, window=1)) == ['...##...', '...##...', '...##..?', '...##.??']
    assert text(label_edges(labels)) == ['.######.', '.######.', '.######?', '.#####??']


def test_an_ignored_line_between_classes_is_no_edge():
    labels = np.array([[0, 0, 0, 255, 1, 1, 1]] * 3, np.uint8)
    assert text(label_edges(labels)) == ['...?...'] * 3


def test_indexes_of_the_classes_do_not_matter():
    labels = np.kron(np.random.default_rng(0).integers(0, 6, (6, 8)), np.ones((5, 4), int)).astype(np.uint8)
    labels[3:9, 7:20] = 255
    expected = label_edges(labels)
    for _ in range(3):
        order = np.append(np.random.default_rng(1).permutation(6), np.full(250, 255)).astype(np.uint8)
        assert np.array_equal(label_edges(order[labels]), expected)


def grey_edges(labels: np.ndarray) -> np.ndarray:
    """The published definition with absolute differences: second differences along x and y, their mean, a Gaussian."""
    grey = labels.astype(np.float64)
    differences = [np.abs(cv2.filter2D(grey, -1, kernel)) for kernel in (_SECOND, _SECOND.T)]
    return (cv2.GaussianBlur(sum(differences) / 2, (5, 5), 0) > 0).astype(np.uint8)


_SECOND = np.array([[1.0, -2.0, 1.0]])


def test_between_two_classes_it_is_the_published_definition():
    labels = np.kron(np.random.default_rng(0).integers(0, 2, (8, 6)), np.ones((9, 7), int)).astype(np.uint8)
    expected = grey_edges(labels)
    assert 0.2 < expected.mean() < 0.9
    assert np.array_equal(label_edges(labels), expected)


def test_differences_of_grey_values_that_cancel_hide_no_edge():
    ramp = np.arange(9, dtype=np.uint8)[None].repeat(3, axis=0)
    assert not grey_edges(ramp)[:, 4].any()  # 3, 4, 5: 3 - 2 * 4 + 5 = 0, for two pixels to each side
    assert label_edges(ramp).all()


def test_maps_are_added_to_the_fields_that_are_transformed_and_packed():
    labels = np.kron(np.array([[0, 3], [255, 3]], np.uint8), np.ones((10, 12), np.uint8))
    results = dict(
        img=np.zeros((20, 24, 3), np.uint8), img_shape=(20, 24), gt_seg_map=labels, seg_fields=['gt_seg_map']
    )
    for step in (dict(type='LabelEdges', window=3), dict(type='RandomFlip', prob=1.0, direction='horizontal')):
        results = TRANSFORMS.build(step)(results)
    assert results['seg_fields'] == ['gt_seg_map', 'gt_edge_map']
    assert np.array_equal(results['gt_edge_map'], label_edges(labels[:, ::-1], window=3))
    assert PackSegInputs()(results)['data_samples'].gt_edge_map.data.shape == (1, 20, 24)


@pytest.mark.parametrize(
    'step',
    [
        dict(type='RandomFlip', prob=1.0, direction='diagonal'),
        dict(type='Resize', scale=(31, 17)),
        dict(type='RandomResize', scale=(24, 20), ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type='RandomCrop', crop_size=(9, 11)),
        dict(type='RandomRotate', prob=1.0, degree=30),
        dict(type='SeededAlbu', transforms=[dict(type='RandomRotate90', p=1.0), dict(type='Affine', rotate=30, p=1.0)]),
    ],
    ids=lambda step: step['type'],
)
def test_transforms_that_move_pixels_move_edges_as_they_move_labels(step):
    np.random.seed(1)  # noqa: NPY002
    labels = np.kron(np.random.default_rng(0).integers(0, 4, (5, 6)), np.ones((4, 4), int)).astype(np.uint8)
    results = dict(img=np.zeros((20, 24, 3), np.uint8), img_shape=(20, 24), gt_seg_map=labels.copy())
    results = TRANSFORMS.build(dict(type='LabelEdges'))({**results, 'seg_fields': ['gt_seg_map']})
    results['gt_edge_map'] = labels.copy()  # what it holds does not matter here
    moved = TRANSFORMS.build(step)(results)
    assert not np.array_equal(moved['gt_seg_map'], labels)
    if step['type'] == 'RandomRotate':  # outside of the image edges are ignored, as labels are
        assert 255 in moved['gt_seg_map']
    assert np.array_equal(moved['gt_edge_map'], moved['gt_seg_map'])


def test_even_windows_are_refused():
    with pytest.raises(ConfigError, match='window=2: must be odd'):
        TRANSFORMS.build(dict(type='LabelEdges', window=2))
