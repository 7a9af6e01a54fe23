"""Boundary scores compared with hand-computed numbers, and with a slow implementation of the definition."""

import json

import numpy as np
import pytest
import torch

from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.evaluation import SegmentationMetric
from lale_mmseg.evaluation import boundary as boundary_module
from lale_mmseg.evaluation.boundary import boundary_counts, boundary_scores, boundary_summary, pixels_of


def counts_of(pred, label, num_classes=2, tolerance=1, ignore=(255,)):
    pred, label = np.asarray(pred, np.uint8), np.asarray(label, np.uint8)
    return boundary_counts(pred, label, num_classes, tolerance, pixels_of(label, ignore))


def slow_counts(pred, label, num_classes, tolerance, ignored):
    """The definition in the module's docstring as loops over pixels and distances."""
    height, width = label.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]

    def near(one, others, distance):
        return any((one[0] - y) ** 2 + (one[1] - x) ** 2 <= distance**2 for y, x in others)

    def boundary(classes, index):
        found = set()
        for y, x in pixels:
            neighbours = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
            inside = [n for n in neighbours if 0 <= n[0] < height and 0 <= n[1] < width and not ignored[n]]
            if not ignored[y, x] and classes[y, x] == index and any(classes[n] != index for n in inside):
                found.add((y, x))
        return found

    unknown = [p for p in pixels if ignored[p]]
    counted = {p for p in pixels if not near(p, unknown, tolerance + 1)}
    rows = []
    for index in range(num_classes):
        predicted, labelled = boundary(pred, index), boundary(label, index)
        bands = [
            {p for p in counted if classes[p] == index and near(p, edge, tolerance)}
            for classes, edge in ((pred, predicted), (label, labelled))
        ]
        rows.append(
            [
                len(predicted & counted),
                sum(near(p, labelled, tolerance) for p in predicted & counted),
                len(labelled & counted),
                sum(near(p, predicted, tolerance) for p in labelled & counted),
                len(bands[0] & bands[1]),
                len(bands[0] | bands[1]),
            ]
        )
    return np.array(rows)


def random_maps(seed, num_classes, ignored_share, shape=(13, 17)):
    """Patches of classes, shifted and speckled predictions, and ignored patches."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, num_classes, (4, 5))
    label = np.kron(patches, np.ones((4, 4)))[: shape[0], : shape[1]].astype(np.uint8)
    pred = np.roll(label, rng.integers(-2, 3, 2), (0, 1))
    speckles = rng.random(shape) < 0.03
    pred[speckles] = rng.integers(0, num_classes, speckles.sum())
    return pred, label, rng.random(shape) < ignored_share


def test_a_straight_edge_by_hand():
    """Class 0 is 4 columns wide, and 6 in the prediction; rows of 12, three of them; tolerance 1.

    Label: edge of 0 in column 3, of 1 in column 4. Prediction: 5 and 6. Two columns apart, so none is near the other.
    Bands are two columns: label 2-3 and 4-5, prediction 4-5 (0) and 6-7 (1): none in common, 4 columns in one of them.
    """
    label = np.repeat([[0] * 4 + [1] * 8], 3, axis=0)
    pred = np.repeat([[0] * 6 + [1] * 6], 3, axis=0)
    assert counts_of(pred, label, tolerance=1).tolist() == [[3, 0, 3, 0, 0, 12]] * 2
    # Tolerance 2: all edges are near. Bands of 3: label 1-3 and 4-6, prediction 3-5 and 6-8: one column in common of 5.
    assert counts_of(pred, label, tolerance=2).tolist() == [[3, 3, 3, 3, 3, 15]] * 2
    assert boundary_summary(counts_of(pred, label, tolerance=2), [0, 1]) == pytest.approx({'mBF1': 100, 'mBIoU': 20})
    # Tolerance 0: the edges themselves.
    assert counts_of(label, label, tolerance=0).tolist() == [[3, 3, 3, 3, 3, 3]] * 2


def test_a_false_pixel_by_hand():
    """5x5 of class 0 with a pixel of 1 in the middle, which the prediction puts two pixels to the right; tolerance 1.

    Edges of 0: the four neighbours of (2, 2) in the label; of (2, 4) in the prediction the three that are inside.
    (2, 3) is common to both; (1, 4) and (3, 4) are sqrt(2) from (2, 3); (1, 2), (3, 2), (2, 1) as far or further.
    So 1 of 3 predicted is near, 1 of 4 labelled. P 1/3, R 1/4, F1 2/7. Class 1: 0 of 1 and 0 of 1.
    Bands of 0: pixels of 0 at most 1 from an edge of 0. Label: (1,2) with (0,2) (1,1) (1,3); (3,2) with (4,2) (3,1)
    (3,3); (2,1) with (2,0) and two of those; (2,3) with (2,4) and two of those: 4 + 8 = 12 pixels.
    Prediction: (1,4) with (0,4) (1,3); (3,4) with (4,4) (3,3); (2,3) with (2,2) and (1,3) (3,3): 3 + 5 = 8 pixels.
    In common: (1,3) (3,3) (2,3). Of class 1: a pixel each, none in common.
    """
    label, pred = np.zeros((5, 5)), np.zeros((5, 5))
    label[2, 2] = pred[2, 4] = 1
    counts = counts_of(pred, label)
    assert counts.tolist() == [[3, 1, 4, 1, 3, 17], [1, 0, 1, 0, 0, 2]]
    scores = boundary_scores(counts)
    assert scores.f1 == pytest.approx([200 / 7, 0])
    assert scores.iou == pytest.approx([300 / 17, 0])


def test_the_distance_is_euclidean():
    """A corner of class 1 at (0, 0) of the label, at (3, 4) of the prediction: 5 pixels apart, and not 4.9 or 7."""
    label, pred = np.zeros((9, 9)), np.zeros((9, 9))
    label[0, 0] = pred[3, 4] = 1
    assert counts_of(pred, label, tolerance=5)[1, :4].tolist() == [1, 1, 1, 1]
    assert counts_of(pred, label, tolerance=4)[1, :4].tolist() == [1, 0, 1, 0]


def test_the_border_of_the_image_and_one_class_have_no_boundary():
    assert not counts_of(np.zeros((5, 5)), np.zeros((5, 5)), tolerance=3).any()
    with pytest.raises(DataError, match='the labels have no boundary of a scored class'):
        boundary_summary(counts_of(np.eye(5), np.zeros((5, 5))), [0, 1])


def test_pixels_beside_ignored_ones_are_no_boundary_and_not_counted():
    """Class 0 left of an ignored column, 1 right of it: where they meet is not known, so nothing is counted."""
    label = np.repeat([[0, 0, 0, 255, 1, 1, 1]], 4, axis=0)
    for edge in (3, 4):
        pred = np.repeat([[0] * edge + [1] * (7 - edge)], 4, axis=0)
        assert not counts_of(pred, label, tolerance=1).any()
    # Far from it a false edge is one: the prediction changes to 1 three pixels from the ignored column.
    label = np.repeat([[255] + [0] * 9], 4, axis=0)
    pred = np.repeat([[0] * 7 + [1] * 3], 4, axis=0)
    assert counts_of(pred, label, tolerance=1).tolist() == [[4, 0, 0, 0, 0, 8], [4, 0, 0, 0, 0, 8]]


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('ignored_share', [0, 0.02])
def test_equal_to_the_definition(seed, ignored_share, monkeypatch):
    pred, label, ignored = random_maps(seed, 4, ignored_share)
    label_copy = np.where(ignored, 255, label).astype(np.uint8)  # values of ignored pixels do not matter
    for tolerance in (0, 1, 2, 4):
        expected = slow_counts(pred, label, 4, tolerance, ignored).tolist()
        for block in (5, 1024):  # several blocks, and one
            monkeypatch.setattr(boundary_module, 'BLOCK', block)
            assert boundary_counts(pred, label, 4, tolerance, ignored).tolist() == expected
            assert boundary_counts(pred, label_copy, 4, tolerance, ignored).tolist() == expected
    assert ignored_share or np.any(expected)


def test_absent_missed_and_invented_classes():
    """The boundary of class 0 is found, that of 1 is missed, 2 is predicted only, and 3 is absent."""
    counts = np.array([[8, 8, 8, 8, 10, 10], [0, 0, 5, 0, 0, 7], [4, 0, 0, 0, 0, 6], [0, 0, 0, 0, 0, 0]])
    scores = boundary_scores(counts)
    assert scores.f1[:3].tolist() == scores.iou[:3].tolist() == [100, 0, 0]
    assert np.isnan([scores.f1[3], scores.iou[3]]).all()
    assert scores.absent.tolist() == [False, False, False, True]
    assert boundary_summary(counts, [0, 1, 2, 3])['mBF1'] == pytest.approx(100 / 3)
    assert boundary_summary(counts, [0, 3]) == {'mBF1': 100, 'mBIoU': 100}


def metric_with(samples, classes=('land', 'water', 'car'), **settings):
    metric = SegmentationMetric(**settings)
    metric.dataset_meta = dict(classes=classes)
    for index, (pred, label) in enumerate(samples):
        data = dict(
            pred_sem_seg=dict(data=torch.as_tensor(pred)[None]), gt_sem_seg=dict(data=torch.as_tensor(label)[None])
        )
        metric.process(None, [dict(img_path=f'{index}.png', **data)])
    return metric


def straight_edges():
    """Two images as in the first test: the edge is exact in one and two columns off in the other; no cars."""
    label = np.repeat([[0] * 4 + [1] * 8], 3, axis=0)
    return [(label, label), (np.repeat([[0] * 6 + [1] * 6], 3, axis=0), label)]


def test_metric_sums_counts_over_images(tmp_path):
    """Tolerance 1: of 6 edge pixels a class 3 are found. Bands: 6 of 6 pixels in image 1, 0 of 12 in image 2."""
    metric = metric_with(straight_edges(), boundary_tolerance=1, output_dir=str(tmp_path))
    result = metric.evaluate(2)
    assert result['mBF1'] == result['BF1/land'] == result['BF1/water'] == pytest.approx(50)
    assert result['mBIoU'] == result['BIoU/land'] == pytest.approx(100 * 6 / 18)
    assert not [name for name in result if name.endswith('/car')]
    saved = json.loads((tmp_path / 'metrics.json').read_text())
    assert saved['boundary']['tolerance'] == 1
    assert saved['boundary']['counts']['land'] == dict(
        predicted=6, predicted_near=3, labelled=6, labelled_near=3, band_both=6, band_either=18
    )
    assert saved['summary']['mBF1'] == pytest.approx(50)
    assert saved['per_class']['water']['BF1'] == pytest.approx(50)
    assert saved['per_class']['car']['BF1'] is None
    header, *rows = (tmp_path / 'per_class.csv').read_text().splitlines()
    assert header == 'class,IoU,F1,precision,recall,BF1,BIoU,label_pixels,predicted_pixels,label_share,scored'
    assert rows[2].startswith('car,,,,,,,0,0,')


def test_means_are_over_score_classes():
    pred, label = np.array([[0, 0, 1, 1, 2, 2]]), np.array([[0, 0, 1, 1, 2, 2]])
    worse = pred.copy()
    worse[0, 3:] = 2
    metric = metric_with([(worse, label)], boundary_tolerance=0, score_classes=['land', 'water'])
    result = metric.evaluate(1)
    # water: predicted at 2 only (2 of 2 in the label, one of two edges found): P 1, R 1/2. car: 3 against 4.
    assert result['BF1/water'] == pytest.approx(200 / 3)
    assert result['BF1/car'] == 0
    assert result['mBF1'] == pytest.approx((100 + 200 / 3) / 2)


@pytest.mark.parametrize('tolerance', [-1, 2.5])
def test_wrong_tolerances_are_errors(tolerance):
    with pytest.raises(ConfigError, match='boundary_tolerance='):
        SegmentationMetric(boundary_tolerance=tolerance)
