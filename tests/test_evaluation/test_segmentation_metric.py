"""SegmentationMetric: results, reports and errors in one process (two are in test_distributed_metric.py)."""

import csv
import json
import logging

import numpy as np
import pandas as pd
import pytest
import torch
from mmengine.logging import MMLogger
from mmseg.evaluation import IoUMetric
from PIL import Image

import lale_mmseg
from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.evaluation import SegmentationMetric

CLASSES = ('land', 'water', 'car')


def sample(pred, label, name='a'):
    result = dict(
        pred_sem_seg=dict(data=torch.as_tensor(pred)[None]),
        img_path=f'/img/{name}.jpg',
        seg_map_path=f'/ann/{name}.png',
    )
    if label is not None:
        result['gt_sem_seg'] = dict(data=torch.as_tensor(label)[None])
    return result


def make_metric(classes=CLASSES, **kwargs):
    metric = SegmentationMetric(**kwargs)
    metric.dataset_meta = dict(classes=classes, palette=[[10 * i, 0, 0] for i in range(len(classes))])
    return metric


def evaluated(*samples, **kwargs):
    metric = make_metric(**kwargs)
    metric.process(None, samples)
    return metric.evaluate(len(samples))


@pytest.fixture
def log():
    """Messages of the current mmengine logger."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


# Labels: 3 land, 3 water. land: 2 of 3 right, 1 called water. water: 2 right, 1 called land. No car.
PRED = [[0, 0, 1], [1, 1, 0]]
LABEL = [[0, 0, 0], [1, 1, 1]]


def test_result_by_hand(log):
    # land, water: IoU 2/4, F1 4/6; p_o = 4/6, p_e = 1/2, kappa = 1/3
    third = 200 / 3
    assert evaluated(sample(PRED, LABEL)) == pytest.approx(
        {
            **{'mIoU': 50, 'mF1': third, 'mP': third, 'mR': third, 'OA': third, 'kappa': 100 / 3},
            **{'IoU/land': 50, 'IoU/water': 50, 'F1/land': third, 'F1/water': third},
        }
    )
    text = '\n'.join(log)
    assert "not averaged: class 'car' occurs neither in labels nor in predictions" in text
    assert 'mIoU 50.00' in text
    assert '| land  | 50.00 | 66.67 |     66.67 |  66.67 |       50.00 |' in text
    assert evaluated(sample(PRED, LABEL), prefix='a')['a/mIoU'] == 50


def test_never_predicted_class_scores_zero_unlike_in_mmseg():
    """mmsegmentation divides 0 by 0 for such a class and averages the rest: 75 where the mean of three is 50."""
    samples = [sample([[0, 0, 0, 1]], [[0, 2, 2, 1]])]
    result = evaluated(*samples)
    assert result['IoU/car'] == result['F1/car'] == 0
    assert result['mF1'] == pytest.approx((50 + 100 + 0) / 3)
    theirs = IoUMetric(iou_metrics=['mIoU', 'mFscore'], prefix='mmseg')
    theirs.dataset_meta = dict(classes=CLASSES)
    theirs.process(None, samples)
    assert theirs.evaluate(1)['mmseg/mFscore'] == pytest.approx(75)


def test_equal_to_mmseg_where_all_classes_occur():
    generator = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(5):
        label = torch.randint(0, 4, (24, 24), generator=generator)
        wrong = torch.rand(label.shape, generator=generator) < 0.3
        pred = torch.where(wrong, torch.randint(0, 4, label.shape, generator=generator), label)
        label[torch.rand(label.shape, generator=generator) < 0.1] = 255
        samples.append(sample(pred, label))
    theirs = IoUMetric(iou_metrics=['mIoU', 'mFscore'], prefix='mmseg')
    theirs.dataset_meta = dict(classes=('a', 'b', 'c', 'd'))
    theirs.process(None, samples)
    areas = [sum(column) for column in zip(*theirs.results, strict=True)]
    expected = theirs.total_area_to_metrics(*areas, ['mIoU', 'mFscore'])
    result = evaluated(*samples, classes=('a', 'b', 'c', 'd'))
    for index, name in enumerate('abcd'):
        assert result[f'IoU/{name}'] == pytest.approx(100 * expected['IoU'][index], abs=1e-4)
        assert result[f'F1/{name}'] == pytest.approx(100 * expected['Fscore'][index], abs=1e-4)
    for theirs_name, ours_name in dict(Precision='mP', Recall='mR').items():
        assert result[ours_name] == pytest.approx(100 * expected[theirs_name].mean(), abs=1e-4)
    assert result['OA'] == pytest.approx(100 * float(expected['aAcc']), abs=1e-4)


@pytest.mark.parametrize('score_classes', [['land', 'car'], [0, 2]])
def test_score_classes(score_classes, log):
    result = evaluated(sample([[0, 0, 1, 1, 2]], [[0, 1, 1, 1, 2]]), score_classes=score_classes)
    assert result['mIoU'] == pytest.approx((50 + 100) / 2)
    assert result['OA'] == pytest.approx(80)
    assert result['IoU/water'] == pytest.approx(200 / 3)
    assert '| water * |' in '\n'.join(log)


@pytest.mark.parametrize('score_classes', [['land', 'boat'], [3], ['land', 0], []])
def test_wrong_score_classes_are_reported_at_the_first_sample(score_classes):
    with pytest.raises(ConfigError, match=r"score_classes=.* its classes are 0 'land', 1 'water', 2 'car'"):
        evaluated(sample(PRED, LABEL), score_classes=score_classes)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(label=[[0, 0, 0], [1, 1, 9]]), r'^/ann/scene7\.png: label 9 at row 1, column 2 is not a class'),
        (dict(pred=PRED[:1]), r'/ann/scene7\.png: the label is 2 x 3, the prediction 1 x 3'),
        (dict(label=None), r'/img/scene7\.jpg: no label .*tools/predict\.py'),
    ],
)
def test_bad_samples_name_the_file(changes, message):
    with pytest.raises(DataError, match=message):
        evaluated(sample(**(dict(pred=PRED, label=LABEL, name='scene7') | changes)))


def test_dataset_without_classes():
    with pytest.raises(ConfigError, match='no classes in its metainfo'):
        SegmentationMetric().process(None, [sample(PRED, LABEL)])


def test_an_evaluation_starts_anew_even_after_an_error():
    metric = make_metric()
    metric.process(None, [sample(PRED, np.full((2, 3), 255))])
    with pytest.raises(DataError, match='no pixel is labelled'):
        metric.evaluate(1)
    for _ in range(2):
        metric.process(None, [sample([[0, 0]], [[0, 1]]), sample([[1]], [[1]])])
        assert metric.evaluate(2)['OA'] == pytest.approx(200 / 3)


@pytest.mark.parametrize('size', [1, 3])
def test_wrong_number_of_images_is_an_error(size):
    metric = make_metric()
    metric.process(None, [sample(PRED, LABEL), sample(PRED, LABEL)])
    with pytest.raises(RuntimeError, match=f'2 of {size} images were scored'):
        metric.evaluate(size)


def test_report_files(tmp_path):
    result = evaluated(sample(PRED, LABEL), output_dir=str(tmp_path))
    names = ['confusion_matrix.csv', 'confusion_matrix.png', 'metrics.json', 'per_class.csv']
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    read = json.loads((tmp_path / 'metrics.json').read_text(encoding='utf-8'))
    assert read['matrix'] == [[2, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert read['summary'] == {name: result[name] for name in ('mIoU', 'mF1', 'mP', 'mR', 'OA', 'kappa')}
    assert read['per_class']['car'] == dict(
        IoU=None, F1=None, precision=None, recall=None, label_pixels=0, predicted_pixels=0
    )
    assert read['per_class']['land']['F1'] == result['F1/land']
    assert read['classes'] == read['score_classes'] == list(CLASSES)
    assert read['palette'] == [[0, 0, 0], [10, 0, 0], [20, 0, 0]]
    assert (read['num_images'], read['num_pixels'], read['ignore_index']) == (1, 6, 255)
    assert read['absent'] == ['car']
    assert read['lale_mmseg_version'] == lale_mmseg.__version__
    with open(tmp_path / 'confusion_matrix.csv', newline='') as file:
        assert list(csv.reader(file))[1:] == [['land', '2', '1', '0'], ['water', '1', '2', '0'], ['car', '0', '0', '0']]
    table = pd.read_csv(tmp_path / 'per_class.csv', index_col='class')
    assert table['IoU'].fillna(-1).tolist() == [50, 50, -1]
    assert table['scored'].tolist() == [1, 1, 0]
    assert table['label_share'].tolist() == [50, 50, 0]


def test_pred_dir(tmp_path):
    evaluated(sample(PRED, LABEL, 'a'), sample([[2, 0, 1], [0, 0, 0]], LABEL, 'b'), pred_dir=str(tmp_path))
    with Image.open(tmp_path / 'a.png') as first, Image.open(tmp_path / 'b.png') as second:
        assert first.mode == second.mode == 'L'
        assert np.asarray(first).tolist() == PRED
        assert np.asarray(second).tolist() == [[2, 0, 1], [0, 0, 0]]


def test_pred_dir_with_two_images_of_one_stem(tmp_path):
    other = sample(PRED, LABEL, 'a') | dict(img_path='/other/a.tif')
    with pytest.raises(DataError, match=r'/img/a\.jpg and /other/a\.tif have the same stem'):
        evaluated(sample(PRED, LABEL, 'a'), other, pred_dir=str(tmp_path))
