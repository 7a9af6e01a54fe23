"""Test-time augmentation of windows: views that are undone, and means worked out by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from lale_mmseg.models.segmentors import SlidingEncoderDecoder
from lale_mmseg.models.segmentors.views import VIEWS

SLIDE = dict(mode='slide', crop_size=(32, 48), stride=(20, 48))


def segmentor(test_cfg: dict, classes: int = 3, **head: object) -> SlidingEncoderDecoder:
    return MODELS.build(
        ConfigDict(
            type='SlidingEncoderDecoder',
            data_preprocessor=dict(type='ChannelsLastDataPreProcessor', mean=[120.0] * 3, std=[50.0] * 3),
            backbone=dict(type='LALE', arch='s1'),
            decode_head=dict(
                type='LALEHead', norm_cfg=dict(type='BN'), **{'num_classes': classes, 'align_corners': False, **head}
            ),
            test_cfg=test_cfg,
        )
    ).eval()


def data(height: int, width: int) -> dict:
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    size = (height, width)
    return dict(inputs=[image], data_samples=[SegDataSample(metainfo=dict(img_shape=size, ori_shape=size))])


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
    assert [view.apply(x).tolist() for view in VIEWS['none']] == [x.tolist()]
    assert [view.apply(x)[0, 0].tolist() for view in VIEWS['flips']] == [
        [[0, 1, 2], [3, 4, 5]],
        [[2, 1, 0], [5, 4, 3]],
        [[3, 4, 5], [0, 1, 2]],
    ]
    assert len(set(VIEWS['d4'])) == 8


@pytest.mark.parametrize('transposed', [True, False])
def test_views_keep_the_memory_format(transposed):
    x = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    for view in VIEWS['d4']:
        if view.transpose == transposed:
            assert view.apply(x).is_contiguous(memory_format=torch.channels_last)
            assert view.undo(view.apply(x)).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('mode', [SLIDE, dict(mode='whole')])
@pytest.mark.parametrize('views', ['flips', 'd4'])
@pytest.mark.parametrize('channels', [1, 3])
def test_a_network_that_sees_pixels_alone_gives_the_same_under_all_views(mode, views, channels):
    """A 1x1 convolution; one window covers each pixel, as the mean of probabilities is not that of logits."""
    found = []
    torch.manual_seed(3)
    pointwise = torch.nn.Conv2d(3, channels, 1)
    for options in ({}, dict(views=views)):
        test_cfg = {**mode, **options}
        if mode['mode'] == 'slide':
            test_cfg = {**test_cfg, 'stride': mode['crop_size'], 'keep_logits': True}
        model = segmentor(test_cfg, max(2, channels), out_channels=channels, threshold=0.5)
        model.encode_decode = lambda inputs, metas: pointwise(inputs)
        with torch.no_grad():
            found.append(model.test_step(data(64, 96))[0])
    plain, seen = found
    assert torch.equal(plain.pred_sem_seg.data, seen.pred_sem_seg.data)
    of_plain, of_seen = plain.seg_logits.data, seen.seg_logits.data
    if channels > 1:
        of_plain, of_seen = of_plain.softmax(0), of_seen.softmax(0)
    torch.testing.assert_close(of_plain, of_seen)


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
    model = segmentor(dict(mode='slide', crop_size=(2, 3), stride=(2, 3), views='d4', keep_logits=True), classes=2)
    model.encode_decode = places
    sample = model.test_step(data(2, 3))[0]
    expected = torch.tensor([2.0, 0, -1, -3, -6, -5, 0, 1]).sigmoid().mean()
    torch.testing.assert_close(sample.seg_logits.data.softmax(0)[0, 0, 2], expected)
    assert sample.pred_sem_seg.data[0, 0, 2] == int(expected < 0.5)


def test_flips_and_overlapping_windows_by_hand():
    """Two windows of 1x2 over three columns; the logit of the view is its column, one channel, threshold 0.6.

    With its mirror image left to right and upside down, each pixel of a window gets (s(c) + s(1 - c) + s(c)) / 3: the
    first (2 s(0) + s(1)) / 3, the second (2 s(1) + s(0)) / 3. The middle column is in both windows.
    """
    options = dict(mode='slide', crop_size=(1, 2), stride=(1, 1), views='flips', keep_logits=True)
    model = segmentor(options, classes=2, out_channels=1, threshold=0.6)
    model.encode_decode = lambda inputs, metas: places(inputs, metas)[:, :1]
    sample = model.test_step(data(1, 3))[0]
    at_0, at_1 = torch.tensor([0.0, 1.0]).sigmoid()
    first, second = (2 * at_0 + at_1) / 3, (2 * at_1 + at_0) / 3
    torch.testing.assert_close(sample.seg_logits.data[0, 0], torch.stack([first, (first + second) / 2, second]))
    assert sample.pred_sem_seg.data[0, 0].tolist() == [0, 1, 1]  # 0.577, 0.616, 0.654
    model.test_cfg.keep_logits = False
    assert model.test_step(data(1, 3))[0].pred_sem_seg.data[0, 0].tolist() == [0, 1, 1]


@torch.no_grad()
@pytest.mark.parametrize('align_corners', [False, True])
def test_scales_by_steps(align_corners):
    """Each scale of each view with plain operations, on a real network."""
    model = segmentor(dict(mode='whole', scales=(0.5, 1.0, 1.5), views='flips'), align_corners=align_corners)
    batch = data(40, 64)
    found = model.test_step(copy.deepcopy(batch))[0].seg_logits.data
    x = model.data_preprocessor(batch, False)['inputs']
    expected = []
    for size in ((20, 32), (40, 64), (60, 96)):
        y = F.interpolate(x, size=size, mode='bilinear', align_corners=False)
        for flips in ((), (3,), (2,)):
            meta = dict(img_shape=torch.Size(size))
            logits = model.encode_decode(y.flip(flips), [meta]).flip(flips)
            logits = F.interpolate(logits, size=(40, 64), mode='bilinear', align_corners=align_corners)
            expected.append(logits.softmax(1))
    torch.testing.assert_close(found.softmax(0), torch.cat(expected).mean(0), rtol=1e-4, atol=1e-5)
    # The same from one window that covers the image.
    model.test_cfg = dict(model.test_cfg, mode='slide', crop_size=(64, 64), stride=(64, 64), keep_logits=True)
    model.test_cfg = ConfigDict(model.test_cfg)
    torch.testing.assert_close(model.test_step(data(40, 64))[0].seg_logits.data, found, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_sure_predictions_stay_finite():
    for channels in (1, 2):
        model = segmentor(dict(mode='whole', views='flips'), classes=2, out_channels=channels, threshold=0.5)
        model.encode_decode = lambda inputs, metas, channels=channels: (
            torch.stack([500 * (2 * channel - 1) * torch.ones(inputs.shape[2:]) for channel in range(1, channels + 1)])[
                None
            ]
            * (1 if channels == 1 else torch.tensor([1.0, -1.0]).view(1, 2, 1, 1))
        )
        logits = model.inference(torch.zeros(1, 3, 32, 32), [dict(ori_shape=(32, 32), img_shape=(32, 32))])
        assert logits.isfinite().all()
