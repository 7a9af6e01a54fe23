"""Test-time augmentation of windows: views that are undone, and means worked out by hand."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config

from lale_mmseg.errors import ConfigError
from lale_mmseg.inference import apply_tta
from lale_mmseg.inference.views import VIEWS
from tests.test_inference.segmentors import data, predictor

SLIDE = dict(mode='slide', crop_size=(32, 48), stride=(32, 48))


@pytest.mark.parametrize('position', range(8))
def test_each_view_is_one_of_eight_and_is_undone(position):
    x = torch.arange(6.0).view(1, 1, 2, 3)
    view = VIEWS['d4'][position]
    seen = view.apply(x)
    assert seen.shape == ((1, 1, 3, 2) if view.transpose else (1, 1, 2, 3))
    assert torch.equal(view.undo(seen), x)
    others = [other.apply(x) for index, other in enumerate(VIEWS['d4']) if index != position]
    assert not any(torch.equal(seen, other) for other in others)
    # One of the rotations, mirrored or not, as torch makes them.
    symmetries = [torch.rot90(y, k, (2, 3)) for k in range(4) for y in (x, x.flip(3))]
    assert sum(torch.equal(seen, symmetry) for symmetry in symmetries) == 1


def test_views_by_name():
    x = torch.arange(6).view(1, 1, 2, 3)
    flips = [[[0, 1, 2], [3, 4, 5]], [[2, 1, 0], [5, 4, 3]], [[3, 4, 5], [0, 1, 2]]]
    assert [view.apply(x)[0, 0].tolist() for view in VIEWS['flips']] == flips
    assert [view.apply(x)[0, 0].tolist() for view in VIEWS['hflip']] == flips[:2]
    assert len(set(VIEWS['d4'])) == 8


@pytest.mark.parametrize('transposed', [True, False])
def test_views_keep_the_memory_format(transposed):
    x = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    for view in VIEWS['d4']:
        if view.transpose == transposed:
            assert view.apply(x).is_contiguous(memory_format=torch.channels_last)
            assert view.undo(view.apply(x)).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('mode', [SLIDE, dict(mode='whole')])
@pytest.mark.parametrize('channels', [1, 3])
def test_a_network_that_sees_pixels_alone_gives_the_same_under_all_views(mode, channels):
    """A 1x1 convolution; one window covers each pixel, as the mean of probabilities is not that of logits."""
    pointwise = torch.nn.Conv2d(3, channels, 1)
    found = []
    for views in VIEWS:
        head = dict(num_classes=max(2, channels), out_channels=channels, threshold=0.5)
        predict = predictor(head=head, **mode, views=views, keep_logits=True)
        predict.model.encode_decode = lambda inputs, metas: pointwise(inputs)
        found.append(predict(data((64, 96)))[0])
    for seen in found[1:]:
        assert torch.equal(found[0].pred_sem_seg.data, seen.pred_sem_seg.data)
        pair = [sample.seg_logits.data for sample in (found[0], seen)]
        torch.testing.assert_close(*([logits.softmax(0) for logits in pair] if channels > 1 else pair))


def places(inputs: torch.Tensor, metas: list[dict]) -> torch.Tensor:
    """Stands in for a network that depends on the place: class 0 gets the column, class 1 three times the row."""
    height, width = inputs.shape[2:]
    assert [tuple(meta['img_shape']) for meta in metas] == [(height, width)] * len(inputs)
    assert [tuple(meta['pad_shape']) for meta in metas] == [(height, width)] * len(inputs)
    rows, columns = torch.meshgrid(torch.arange(height) * 3.0, torch.arange(width) * 1.0, indexing='ij')
    return torch.stack([columns, rows])[None].repeat(len(inputs), 1, 1, 1)


def test_the_mean_over_eight_views_by_hand():
    """One window of 2x3 pixels, logits (column, 3 row) in the view's own coordinates.

    Pixel (row 0, column 2). Not transposed: its column is 2, or 0 mirrored; its row 0, or 1 upside down. Differences of
    the logits, column - 3 row: 2 - 0, 0 - 0, 2 - 3, 0 - 3. Transposed, row and column change places: its column is 0 or
    1, its row 2 or 0: 0 - 6, 1 - 6, 0 - 0, 1 - 0. The probability of class 0 is the sigmoid of the difference.
    """
    predict = predictor(head=dict(num_classes=2), views='d4', keep_logits=True)
    predict.model.encode_decode = places
    sample = predict(data((2, 3)))[0]
    expected = torch.tensor([2.0, 0, -1, -3, -6, -5, 0, 1]).sigmoid().mean()
    torch.testing.assert_close(sample.seg_logits.data.softmax(0)[0, 0, 2], expected)
    assert sample.pred_sem_seg.data[0, 0, 2] == int(expected < 0.5)


def test_flips_and_overlapping_windows_by_hand():
    """Two windows of 1x2 over three columns; the logit of the view is its column, one channel, threshold 0.6.

    With its mirror image left to right and upside down, each pixel of a window gets (s(c) + s(1 - c) + s(c)) / 3: the
    first (2 s(0) + s(1)) / 3, the second (2 s(1) + s(0)) / 3. The middle column is in both windows.
    """
    for keep_logits in (True, False):
        options = dict(mode='slide', crop_size=(1, 2), stride=(1, 1), views='flips', keep_logits=keep_logits)
        predict = predictor(head=dict(num_classes=2, out_channels=1, threshold=0.6), **options)
        predict.model.encode_decode = lambda inputs, metas: places(inputs, metas)[:, :1]
        sample = predict(data((1, 3)))[0]
        assert sample.pred_sem_seg.data[0, 0].tolist() == [0, 1, 1]  # 0.577, 0.616, 0.654
        if keep_logits:
            at_0, at_1 = torch.tensor([0.0, 1.0]).sigmoid()
            first, second = (2 * at_0 + at_1) / 3, (2 * at_1 + at_0) / 3
            expected = torch.stack([first, (first + second) / 2, second])
            torch.testing.assert_close(sample.seg_logits.data[0, 0], expected)


@torch.no_grad()
@pytest.mark.parametrize('align_corners', [False, True])
def test_scales_by_steps(align_corners):
    """Each scale of each view with plain operations, on a real network."""
    options = dict(scales=(0.5, 1.0, 1.5), views='flips', keep_logits=True)
    predict = predictor(head=dict(align_corners=align_corners), **options)
    found = predict(data((40, 64)))[0].seg_logits.data
    x = predict.model.data_preprocessor(data((40, 64)), False)['inputs']
    expected = []
    for size in ((20, 32), (40, 64), (60, 96)):
        y = F.interpolate(x, size=size, mode='bilinear', align_corners=False)
        for flips in ((), (3,), (2,)):
            meta = dict(img_shape=torch.Size(size))
            logits = predict.model.encode_decode(y.flip(flips), [meta]).flip(flips)
            logits = F.interpolate(logits, size=(40, 64), mode='bilinear', align_corners=align_corners)
            expected.append(logits.softmax(1))
    torch.testing.assert_close(found.softmax(0), torch.cat(expected).mean(0), rtol=1e-4, atol=1e-5)


def test_sure_predictions_stay_finite():
    predict = predictor(head=dict(num_classes=2), views='flips', keep_logits=True)
    predict.model.encode_decode = lambda inputs, metas: torch.tensor([500.0, -500]).view(1, 2, 1, 1) + 0 * inputs[:, :2]
    assert predict(data((32, 32)))[0].seg_logits.data.isfinite().all()


def test_tta_cfg_goes_over_test_cfg_and_averages_all_symmetries_by_default():
    cfg = Config(dict(model=dict(test_cfg=dict(mode='slide', views='none'))))
    apply_tta(cfg)
    assert cfg.model.test_cfg == dict(mode='slide', views='d4')
    cfg.tta_cfg = dict(views='hflip', scales=(0.5, 1.0))
    apply_tta(cfg)
    assert cfg.model.test_cfg == dict(mode='slide', views='hflip', scales=(0.5, 1.0))
    cfg.tta_cfg = dict(angles=4)
    with pytest.raises(ConfigError, match=r"tta_cfg: unknown key 'angles'; .*known keys: mode, crop_size"):
        apply_tta(cfg)
