"""Confusion matrices and scores against numbers worked out by hand.

The example that most tests use, three classes a, b, c and ten labelled pixels:

    label \\ prediction    a  b  c   sum
    a                      3  1  0    4
    b                      1  2  0    3
    c                      2  1  0    3        c occurs and is never predicted
    sum                    6  4  0   10

    class   IoU                 F1                precision    recall
    a       3/(4+6-3) = 3/7     6/(4+6)  = 3/5    3/6 = 1/2    3/4
    b       2/(3+4-2) = 2/5     4/(3+4)  = 4/7    2/4 = 1/2    2/3
    c       0                   0                 0            0

    mIoU = (3/7 + 2/5 + 0)/3 = 29/105             mF1 = (3/5 + 4/7 + 0)/3 = 41/105
    mP   = (1/2 + 1/2 + 0)/3 = 1/3                mR  = (3/4 + 2/3 + 0)/3 = 17/36
    OA = p_o = 5/10; p_e = (4*6 + 3*4 + 3*0)/100 = 0.36; kappa = (0.5 - 0.36)/(1 - 0.36) = 0.21875
"""

import numpy as np
import pytest
import torch

from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.evaluation import class_scores, confusion_matrix, summary
from lale_mmseg.evaluation import confusion as confusion_module

LABEL = torch.tensor([[0, 0, 0, 0, 255], [1, 1, 1, 2, 2], [2, 255, 255, 255, 255]])
PRED = torch.tensor([[0, 0, 0, 1, 2], [0, 1, 1, 0, 0], [1, 2, 2, 0, 1]])
MATRIX = [[3, 1, 0], [1, 2, 0], [2, 1, 0]]


def test_matrix_by_hand():
    matrix = confusion_matrix(PRED, LABEL, 3)
    assert matrix.dtype == torch.int64
    assert matrix.tolist() == MATRIX


def test_class_scores_by_hand():
    scores = class_scores(np.array(MATRIX))
    assert scores.iou == pytest.approx([300 / 7, 40, 0])
    assert scores.f1 == pytest.approx([60, 400 / 7, 0])
    assert scores.precision == pytest.approx([50, 50, 0])
    assert scores.recall == pytest.approx([75, 200 / 3, 0])
    assert scores.iou.dtype == np.float64
    assert not scores.absent.any()


def test_summary_by_hand():
    expected = {'mIoU': 2900 / 105, 'mF1': 4100 / 105, 'mP': 100 / 3, 'mR': 1700 / 36, 'OA': 50, 'kappa': 21.875}
    assert summary(torch.tensor(MATRIX)) == pytest.approx(expected)


def test_score_classes_change_means_alone():
    scores = summary(np.array(MATRIX), score_classes=[0, 1])
    assert scores['mIoU'] == pytest.approx((300 / 7 + 40) / 2)
    assert scores['mF1'] == pytest.approx((60 + 400 / 7) / 2)
    assert scores['mP'] == pytest.approx(50)
    assert scores['mR'] == pytest.approx((75 + 200 / 3) / 2)
    assert scores['OA'] == pytest.approx(50)
    assert scores['kappa'] == pytest.approx(21.875)


def test_class_that_is_predicted_but_never_occurs_scores_zero():
    scores = class_scores(np.array([[4, 1], [0, 0]]))
    assert [scores.iou[1], scores.f1[1], scores.precision[1], scores.recall[1]] == [0, 0, 0, 0]
    assert not scores.absent[1]
    assert summary(np.array([[4, 1], [0, 0]]))['mIoU'] == pytest.approx(40)  # (4/5 + 0) / 2


def test_class_absent_from_both_is_left_out():
    matrix = np.array([[3, 0, 1], [0, 0, 0], [0, 0, 4]])
    scores = class_scores(matrix)
    assert scores.absent.tolist() == [False, True, False]
    assert np.isnan([scores.iou[1], scores.f1[1], scores.precision[1], scores.recall[1]]).all()
    assert summary(matrix)['mIoU'] == pytest.approx(100 * (3 / 4 + 4 / 5) / 2)


@pytest.mark.parametrize(
    ('matrix', 'kappa'),
    [
        ([[5, 0], [0, 0]], 100),  # one class everywhere: chance agreement is 1, and all is right
        ([[0, 5], [5, 0]], -100),  # p_o = 0, p_e = 1/2
        ([[1, 1], [1, 1]], 0),  # p_o = p_e = 1/2
        ([[0, 7], [0, 0]], 0),  # p_o = p_e = 0
        ([[45, 15], [25, 15]], 100 * (0.60 - 0.54) / (1 - 0.54)),
        (np.array([[45, 15], [25, 15]]) * 10**15, 100 * 0.06 / 0.46),  # the products exceed 64 bits
    ],
)
def test_kappa_by_hand(matrix, kappa):
    assert summary(np.array(matrix))['kappa'] == pytest.approx(kappa)


def test_nothing_to_score_is_an_error():
    with pytest.raises(DataError, match='no pixel is labelled'):
        summary(np.zeros((2, 2), np.int64))
    with pytest.raises(DataError, match=r'none of the scored classes \[1\]'):
        summary(np.array([[3, 0], [0, 0]]), score_classes=[1])


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize('pred_dtype', [torch.uint8, torch.int64, torch.float32])
def test_types_of_labels_and_predictions(dtype, pred_dtype):
    label, pred = LABEL.to(dtype), PRED.to(pred_dtype)
    before = label.clone(), pred.clone()
    assert confusion_matrix(pred, label, 3).tolist() == MATRIX
    assert torch.equal(label, before[0])
    assert torch.equal(pred, before[1])


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_numpy_arrays_in_any_memory_order(dtype):
    label, pred = LABEL.numpy().astype(dtype), PRED.numpy().astype(dtype)
    assert confusion_matrix(pred[:, ::-1], label[:, ::-1], 3).tolist() == MATRIX
    assert confusion_matrix(pred.T, label.T, 3).tolist() == MATRIX


def test_images_of_several_chunks(monkeypatch):
    monkeypatch.setattr(confusion_module, 'CHUNK', 6)
    assert confusion_matrix(PRED, LABEL, 3).tolist() == MATRIX
    pred = PRED.clone()
    pred[2, 4] = 3
    with pytest.raises(ConfigError, match=r'predicted classes range from . to 3'):
        confusion_matrix(pred, LABEL, 3)
    label = LABEL.clone()
    label[2, 4] = 256
    with pytest.raises(DataError, match='label 256 at row 2, column 4'):
        confusion_matrix(PRED, label, 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_gpu_tensors_give_the_same_matrix():
    assert confusion_matrix(PRED.cuda(), LABEL.cuda(), 3).tolist() == MATRIX
    assert confusion_matrix(PRED.cuda(), LABEL, 3).tolist() == MATRIX
    with pytest.raises(DataError, match='label 7 at row 0, column 0'):
        confusion_matrix(PRED.cuda(), torch.full_like(LABEL, 7).cuda(), 3)


def test_many_classes():
    # 200 classes: the index of a pair no longer fits 16 bits.
    pred = torch.arange(200).repeat(3)
    label = torch.arange(199, -1, -1).repeat(3)
    matrix = confusion_matrix(pred, label, 200)
    assert torch.equal(matrix, 3 * torch.eye(200, dtype=torch.int64).flip(0))


def test_all_ignored_and_empty():
    assert confusion_matrix(PRED, torch.full_like(LABEL, 255), 3).sum() == 0
    assert confusion_matrix(PRED[:0], LABEL[:0], 3).tolist() == [[0] * 3] * 3


def test_ignore_index_that_is_a_class_empties_its_row():
    label = torch.tensor([0, 0, 1, 1, 2])
    pred = torch.tensor([0, 1, 1, 0, 0])
    assert confusion_matrix(pred, label, 3, ignore_index=0).tolist() == [[0, 0, 0], [1, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize('value', [3, 254, 256, -1])
def test_label_outside_the_classes_names_value_and_pixel(value):
    label = LABEL.clone()
    label[1, 3] = value
    label[2, 0] = value
    message = rf'masks/a\.png: label {value} at row 1, column 3 .*2 such pixels.* 0 to 2, and 255 is ignored'
    with pytest.raises(DataError, match=message):
        confusion_matrix(PRED, label, 3, source='masks/a.png')


@pytest.mark.parametrize('value', [3, -1, 259])
def test_prediction_outside_the_classes_is_an_error(value):
    # Unchecked, 3 would be counted in column 0 of the next row, and so would 256 + 3 as a byte.
    pred = PRED.clone()
    pred[0, 4] = value  # even where the label is ignored
    with pytest.raises(ConfigError, match='num_classes of the model'):
        confusion_matrix(pred, LABEL, 3)


@pytest.mark.parametrize(
    ('arguments', 'error', 'message'),
    [
        (dict(pred=PRED + 0.5), ConfigError, 'argmax'),
        (dict(label=LABEL.float()), DataError, 'integers'),
        (dict(pred=PRED[:, 1:]), DataError, r'label has shape \(3, 5\), prediction has \(3, 4\)'),
        (dict(ignore_index=256), ConfigError, 'ignore_index=256'),
    ],
)
def test_wrong_arguments_are_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        confusion_matrix(**{'pred': PRED, 'label': LABEL, 'num_classes': 3, **arguments})


def test_36_million_pixels_of_one_class_are_exact():
    pred = torch.ones(6000, 6000, dtype=torch.uint8)
    label = pred.clone()
    label[0, :5] = 0
    assert confusion_matrix(pred, label, 2).tolist() == [[0, 5], [0, 35_999_995]]
