"""SegmentationMetric: results, reports and errors in one process (two are in test_distributed_metric.py)."""

import csv
import json
import logging

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from mmseg.structures import SegDataSample
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


def random_samples(count, num_classes, side=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for index in range(count):
        label = torch.randint(0, num_classes, (side, side), generator=generator)
        wrong = torch.rand(label.shape, generator=generator) < 0.3
        pred = torch.where(wrong, torch.randint(0, num_classes, label.shape, generator=generator), label)
        label[torch.rand(label.shape, generator=generator) < 0.1] = 255
        samples.append(sample(pred, label, f'{index:03d}'))
    return samples


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


def test_registered_and_fed_by_the_evaluator():
    assert METRICS.get('SegmentationMetric') is SegmentationMetric
    evaluator = Evaluator(dict(type='mmseg.SegmentationMetric', prefix='val_a'))
    evaluator.dataset_meta = dict(classes=CLASSES)
    data_sample = SegDataSample(metainfo=dict(img_path='/img/a.jpg'))
    data_sample.pred_sem_seg = PixelData(data=torch.tensor([PRED]))
    data_sample.gt_sem_seg = PixelData(data=torch.tensor([LABEL]))
    evaluator.process([data_sample])
    assert evaluator.evaluate(1)['val_a/OA'] == pytest.approx(400 / 6)


def test_result_by_hand_and_absent_class_is_said(log):
    metric = make_metric()
    metric.process(None, [sample(PRED, LABEL)])
    result = metric.evaluate(1)
    # land, water: IoU 2/4, F1 4/6; p_o = 4/6, p_e = 1/2, kappa = 1/3
    assert result == pytest.approx(
        {
            'mIoU': 50,
            'mF1': 200 / 3,
            'mP': 200 / 3,
            'mR': 200 / 3,
            'OA': 200 / 3,
            'kappa': 100 / 3,
            'IoU/land': 50,
            'IoU/water': 50,
            'F1/land': 200 / 3,
            'F1/water': 200 / 3,
        }
    )
    assert all(type(value) is float for value in result.values())
    assert metric.report.absent == ('car',)
    text = '\n'.join(log)
    assert "left out of the means: class 'car' occurs neither in labels nor in predictions" in text
    assert 'mIoU 50.00' in text
    assert '| land  | 50.00 | 66.67 |     66.67 |  66.67 |       50.00 |' in text


def test_never_predicted_class_scores_zero():
    metric = make_metric()
    metric.process(None, [sample([[0, 0, 0, 1]], [[0, 2, 2, 1]])])
    result = metric.evaluate(1)
    assert result['IoU/car'] == result['F1/car'] == 0
    assert result['mF1'] == pytest.approx((50 + 100 + 0) / 3)
    assert metric.report.absent == ()


def test_mmseg_mean_f1_leaves_out_what_is_never_predicted():
    """mmsegmentation divides 0 by 0 for such a class and averages the rest: 75 where the mean of three is 50."""
    samples = [sample([[0, 0, 0, 1]], [[0, 2, 2, 1]])]
    theirs = IoUMetric(iou_metrics=['mIoU', 'mFscore'], prefix='mmseg')
    theirs.dataset_meta = dict(classes=CLASSES)
    theirs.process(None, samples)
    assert theirs.evaluate(1)['mmseg/mFscore'] == pytest.approx(75)
    ours = make_metric()
    ours.process(None, samples)
    assert ours.evaluate(1)['mF1'] == pytest.approx(50)


def test_equal_to_mmseg_where_all_classes_occur():
    samples = random_samples(5, 4)
    classes = ('a', 'b', 'c', 'd')
    ours = make_metric(classes)
    theirs = IoUMetric(iou_metrics=['mIoU', 'mFscore'], prefix='mmseg')
    theirs.dataset_meta = dict(classes=classes)
    ours.process(None, samples)
    theirs.process(None, samples)
    areas = [sum(column) for column in zip(*theirs.results, strict=True)]
    per_class = theirs.total_area_to_metrics(*areas, ['mIoU', 'mFscore'])
    expected, result = theirs.evaluate(5), ours.evaluate(5)
    # mmsegmentation rounds to two decimals.
    pairs = dict(mIoU='mIoU', mFscore='mF1', mPrecision='mP', mRecall='mR', aAcc='OA')
    for theirs_name, ours_name in pairs.items():
        assert round(result[ours_name], 2) == pytest.approx(float(expected[f'mmseg/{theirs_name}']), abs=0.0101)
    scores = ours.report.scores
    assert scores.iou == pytest.approx(100 * per_class['IoU'], abs=1e-4)
    assert scores.f1 == pytest.approx(100 * per_class['Fscore'], abs=1e-4)
    assert scores.recall == pytest.approx(100 * per_class['Acc'], abs=1e-4)
    assert scores.precision == pytest.approx(100 * per_class['Precision'], abs=1e-4)


@pytest.mark.parametrize('score_classes', [['land', 'car'], [0, 2], ['land', 2]])
def test_score_classes(score_classes, log):
    metric = make_metric(score_classes=score_classes)
    metric.process(None, [sample([[0, 0, 1, 1, 2]], [[0, 1, 1, 1, 2]])])
    result = metric.evaluate(1)
    assert result['mIoU'] == pytest.approx((50 + 100) / 2)
    assert result['OA'] == pytest.approx(80)
    assert result['IoU/water'] == pytest.approx(200 / 3)
    assert metric.report.score_classes == ('land', 'car')
    assert '| water * |' in '\n'.join(log)


@pytest.mark.parametrize(
    ('score_classes', 'message'),
    [
        (['land', 'boat'], r"'boat' is not a class of the data set; known: 0 'land', 1 'water', 2 'car'"),
        ([3], '3 is not a class'),
        ([-1], '-1 is not a class'),
        (['land', 0], "'land' is listed twice"),
        ([], 'score_classes is empty'),
    ],
)
def test_wrong_score_classes_are_told_at_the_first_sample(score_classes, message):
    metric = make_metric(score_classes=score_classes)
    with pytest.raises(ConfigError, match=message):
        metric.process(None, [sample(PRED, LABEL)])


def test_label_outside_the_classes_names_file_value_and_pixel():
    metric = make_metric()
    with pytest.raises(DataError, match=r'^/ann/scene7\.png: label 9 at row 1, column 2 is not a class'):
        metric.process(None, [sample(PRED, [[0, 0, 0], [1, 1, 9]], 'scene7')])


def test_label_error_falls_back_to_the_image_path():
    metric = make_metric()
    bad = sample(PRED, [[0, 0, 0], [1, 1, 9]], 'scene7')
    del bad['seg_map_path']
    with pytest.raises(DataError, match=r'^/img/scene7\.jpg: label 9'):
        metric.process(None, [bad])


def test_sizes_that_differ_and_missing_labels():
    metric = make_metric()
    with pytest.raises(DataError, match=r'/ann/b\.png: the label is 2 x 3, the prediction 1 x 3'):
        metric.process(None, [sample(PRED[:1], LABEL, 'b')])
    with pytest.raises(DataError, match=r'/img/b\.jpg: has no label .*tools/predict\.py'):
        metric.process(None, [sample(PRED, None, 'b')])


def test_data_set_without_classes():
    with pytest.raises(ConfigError, match='states no classes'):
        SegmentationMetric().process(None, [sample(PRED, LABEL)])


def test_all_ignored_is_an_error_and_resets():
    metric = make_metric()
    metric.process(None, [sample(PRED, np.full((2, 3), 255))])
    with pytest.raises(DataError, match='no pixel is labelled'):
        metric.evaluate(1)
    metric.process(None, [sample(PRED, LABEL)])
    assert metric.evaluate(1)['OA'] == pytest.approx(400 / 6)


def test_images_of_one_row_or_pixel():
    metric = make_metric()
    metric.process(None, [sample([[1]], [[1]]), sample([[0, 1]], [[1, 1]])])
    assert metric.evaluate(2)['OA'] == pytest.approx(200 / 3)


def test_rounds_do_not_mix():
    metric = make_metric()
    for _ in range(2):
        metric.process(None, [sample([[0, 0]], [[0, 1]])])
        metric.process(None, [sample([[0, 1]], [[0, 1]])])
        assert metric.evaluate(2)['OA'] == pytest.approx(75)
        assert metric.report.num_images == 2


@pytest.mark.parametrize('size', [1, 3])
def test_wrong_number_of_images_is_an_error(size):
    metric = make_metric()
    metric.process(None, [sample(PRED, LABEL), sample(PRED, LABEL)])
    with pytest.raises(RuntimeError, match=f'2 of {size} images were scored'):
        metric.evaluate(size)


def test_report_files(tmp_path):
    metric = make_metric()
    metric.process(None, [sample(PRED, LABEL)])
    metric.output_dir = tmp_path / 'scores'  # set late, as a hook does
    result = metric.evaluate(1)
    assert sorted(path.name for path in metric.output_dir.iterdir()) == [
        'confusion_matrix.csv',
        'metrics.json',
        'per_class.csv',
    ]
    read = json.loads((metric.output_dir / 'metrics.json').read_text(encoding='utf-8'))
    assert read == metric.report.to_dict()
    assert read['matrix'] == [[2, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert read['summary'] == {name: result[name] for name in ('mIoU', 'mF1', 'mP', 'mR', 'OA', 'kappa')}
    assert read['per_class']['car']['IoU'] is None
    assert read['per_class']['land']['F1'] == result['F1/land']
    assert read['classes'] == read['score_classes'] == list(CLASSES)
    assert read['palette'] == [[0, 0, 0], [10, 0, 0], [20, 0, 0]]
    assert (read['num_images'], read['num_pixels'], read['ignore_index']) == (1, 6, 255)
    assert read['absent'] == ['car']
    assert read['lale_mmseg_version'] == lale_mmseg.__version__
    with open(metric.output_dir / 'confusion_matrix.csv', newline='') as file:
        assert list(csv.reader(file))[1:] == [['land', '2', '1', '0'], ['water', '1', '2', '0'], ['car', '0', '0', '0']]
    with open(metric.output_dir / 'per_class.csv', newline='') as file:
        rows = {row['class']: row for row in csv.DictReader(file)}
    assert float(rows['water']['IoU']) == 50
    assert (rows['car']['IoU'], rows['car']['scored'], rows['land']['scored']) == ('', '0', '1')
    assert float(rows['land']['label_share']) == 50


def test_pred_dir(tmp_path):
    metric = make_metric(pred_dir=str(tmp_path / 'pred'))
    pred = torch.tensor(PRED, dtype=torch.uint8)
    metric.process(None, [sample(pred, LABEL, 'a')])
    pred.fill_(2)  # the model uses its memory again before the file is written
    metric.process(None, [sample([[2, 0, 1], [0, 0, 0]], LABEL, 'b')])
    metric.evaluate(2)
    with Image.open(tmp_path / 'pred' / 'a.png') as first, Image.open(tmp_path / 'pred' / 'b.png') as second:
        assert first.mode == second.mode == 'L'
        assert np.asarray(first).tolist() == PRED
        assert np.asarray(second).tolist() == [[2, 0, 1], [0, 0, 0]]
    assert len(list((tmp_path / 'pred').iterdir())) == 2


def test_pred_dir_with_two_images_of_one_stem(tmp_path):
    metric = make_metric(pred_dir=str(tmp_path))
    other = sample(PRED, LABEL, 'a')
    other['img_path'] = '/other/a.tif'
    metric.process(None, [sample(PRED, LABEL, 'a'), other])
    with pytest.raises(DataError, match=r'/img/a\.jpg and /other/a\.tif have the same stem'):
        metric.evaluate(2)


def test_pred_dir_needs_image_paths(tmp_path):
    metric = make_metric(pred_dir=str(tmp_path))
    nameless = sample(PRED, LABEL)
    del nameless['img_path']
    with pytest.raises(DataError, match='no img_path'):
        metric.process(None, [nameless])


def test_wrong_ignore_index():
    with pytest.raises(ConfigError, match='ignore_index=-100'):
        SegmentationMetric(ignore_index=-100)
