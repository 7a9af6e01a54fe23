"""Sliding windows: the same averaged logits as mmsegmentation's slide mode, from tile-sized work."""

import copy
import logging

import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn

from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.models.segmentors import progress
from lale_mmseg.models.segmentors.window_mean import Window, WindowGrid, WindowMean

MEAN, STD = [120.0, 110.0, 100.0], [50.0, 60.0, 55.0]


def config(kind: str, test_cfg: dict, padding: dict | None = None, **head: object) -> ConfigDict:
    return ConfigDict(
        type=kind,
        data_preprocessor=dict(
            type='ChannelsLastDataPreProcessor', mean=MEAN, std=STD, bgr_to_rgb=True, pad_val=3, test_cfg=padding
        ),
        backbone=dict(type='LALE', arch='s1'),
        decode_head=dict(type='LALEHead', norm_cfg=dict(type='BN'), align_corners=False, **{'num_classes': 5, **head}),
        test_cfg=test_cfg,
    )


def pair(test_cfg: dict, padding: dict | None = None, **head: object) -> tuple[nn.Module, nn.Module]:
    """mmsegmentation's segmentor and ours with the same weights; ours keeps logits."""
    theirs = MODELS.build(config('EncoderDecoder', test_cfg, padding, **head)).eval()
    ours = MODELS.build(
        config('SlidingEncoderDecoder', {**test_cfg, 'batch_size': 3, 'keep_logits': True}, padding, **head)
    ).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def data(*sizes: tuple[int, int], ori_shape: tuple[int, int] | None = None, **meta: object) -> dict:
    generator = torch.Generator().manual_seed(1)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    samples = [
        SegDataSample(metainfo=dict(img_shape=size, ori_shape=ori_shape or size, pad_shape=size, **meta))
        for size in sizes
    ]
    return dict(inputs=images, data_samples=samples)


def without_logits(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    model.test_cfg.keep_logits = False
    return model


@torch.no_grad()
def check_equal(theirs: nn.Module, ours: nn.Module, batch: dict) -> None:
    expected = theirs.test_step(copy.deepcopy(batch))
    found = ours.test_step(copy.deepcopy(batch))
    bands = without_logits(ours).test_step(copy.deepcopy(batch))
    prepared = ours.data_preprocessor(copy.deepcopy(batch), False)
    normalized = ours.predict(**prepared)
    for of_theirs, of_ours, of_bands, of_normalized in zip(expected, found, bands, normalized, strict=True):
        logits = of_ours.seg_logits.data
        torch.testing.assert_close(logits, of_theirs.seg_logits.data, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(of_normalized.seg_logits.data, of_theirs.seg_logits.data, rtol=1e-5, atol=1e-5)
        pred = of_ours.pred_sem_seg.data
        assert pred.dtype == torch.uint8
        assert pred.shape == of_theirs.pred_sem_seg.data.shape
        if len(logits) > 1:
            assert torch.equal(pred.long(), logits.argmax(0, keepdim=True))
        assert torch.equal(of_bands.pred_sem_seg.data, pred)
        assert (pred != of_theirs.pred_sem_seg.data).float().mean() < 1e-3


CASES = [
    ((100, 150), (64, 64), (43, 43), None),
    ((97, 131), (64, 48), (64, 48), None),  # stride = window, sizes that it does not divide
    ((128, 128), (64, 64), (32, 32), None),
    ((90, 65), (64, 64), (13, 33), None),  # more than two windows over a row
    ((40, 150), (64, 64), (43, 43), None),  # lower than a window
    ((40, 50), (64, 64), (43, 43), None),  # one window of the image's own size
    ((40, 50), (64, 64), (43, 43), dict(size=(64, 64))),  # padded to the window, and cut back
    ((40, 150), (64, 64), (43, 43), dict(size=(64, 64))),
    ((100, 150), (64, 64), (43, 43), dict(size_divisor=32)),
]


@pytest.mark.parametrize(('size', 'crop_size', 'stride', 'padding'), CASES)
def test_logits_are_those_of_mmsegmentation(size, crop_size, stride, padding):
    theirs, ours = pair(dict(mode='slide', crop_size=crop_size, stride=stride), padding)
    check_equal(theirs, ours, data(size, size))


def test_heads_with_one_channel_are_cut_at_their_threshold():
    theirs, ours = pair(
        dict(mode='slide', crop_size=(64, 64), stride=(43, 43)), num_classes=2, out_channels=1, threshold=0.52
    )
    check_equal(theirs, ours, data((100, 90)))


def test_images_that_the_pipeline_resized_come_back_to_their_own_size():
    theirs, ours = pair(dict(mode='slide', crop_size=(64, 64), stride=(43, 43)), dict(size_divisor=32))
    batch = data((100, 90), ori_shape=(151, 137))
    check_equal(theirs, ours, batch)
    # The classes of resized logits, kept or not.
    assert without_logits(ours).test_step(batch)[0].pred_sem_seg.data.shape == (1, 151, 137)


@pytest.mark.parametrize('direction', ['horizontal', 'vertical'])
def test_flipped_images_come_back_and_keep_the_logits_that_the_wrapper_averages(direction):
    theirs, ours = pair(dict(mode='slide', crop_size=(64, 64), stride=(43, 43)), dict(size_divisor=32))
    batch = data((100, 90), flip=True, flip_direction=direction)
    check_equal(theirs, ours, batch)
    assert 'seg_logits' in without_logits(ours).test_step(batch)[0]


@torch.no_grad()
def test_the_wrapper_of_mmsegmentation_averages_the_same():
    theirs, ours = pair(dict(mode='slide', crop_size=(64, 64), stride=(43, 43)))
    views = [data((80, 90), img_path='x', flip=bool(d), flip_direction=d) for d in (None, 'horizontal', 'vertical')]
    batch = dict(inputs=[view['inputs'] for view in views], data_samples=[view['data_samples'] for view in views])
    found = [
        MODELS.build(dict(type='SegTTAModel', module=model)).test_step(copy.deepcopy(batch))[0].pred_sem_seg.data
        for model in (theirs, without_logits(ours))
    ]
    assert (found[0].squeeze() != found[1].squeeze()).float().mean() < 1e-3


@torch.no_grad()
def test_whole_mode_is_that_of_mmsegmentation():
    theirs, ours = pair(dict(mode='whole'))
    batch = data((64, 96), (64, 96))
    for one, other in zip(theirs.test_step(copy.deepcopy(batch)), ours.test_step(batch), strict=True):
        assert torch.equal(one.seg_logits.data, other.seg_logits.data)
        assert torch.equal(one.pred_sem_seg.data, other.pred_sem_seg.data)
    assert MODELS.build(config('SlidingEncoderDecoder', None)).test_cfg.mode == 'whole'


def test_batches_may_hold_images_of_different_sizes():
    _, ours = pair(dict(mode='slide', crop_size=(64, 64), stride=(43, 43)))
    sizes = [(100, 90), (30, 40), (64, 64), (100, 90)]
    together = ours.val_step(data(*sizes))
    for size, image, sample in zip(sizes, data(*sizes)['inputs'], together, strict=True):
        alone = ours.val_step(dict(inputs=[image], data_samples=data(size)['data_samples']))[0]
        torch.testing.assert_close(sample.seg_logits.data, alone.seg_logits.data, rtol=1e-5, atol=1e-5)


def test_labels_stay_in_the_samples_and_results_may_be_changed():
    _, ours = pair(dict(mode='slide', crop_size=(64, 64), stride=(43, 43)))
    batch = data((100, 90))
    batch['data_samples'][0].set_data(dict(gt_sem_seg=copy.deepcopy(ours.test_step(batch)[0].pred_sem_seg)))
    for model in (ours, without_logits(ours)):
        sample = model.test_step(batch)[0]
        assert sample.gt_sem_seg.data.shape == (1, 100, 90)
        sample.pred_sem_seg.data[0, 0, 0] = 4
    assert 'pred_sem_seg' not in batch['data_samples'][0]


def test_a_wrong_band_count_names_the_file():
    _, ours = pair(dict(mode='slide', crop_size=(64, 64), stride=(43, 43)))
    batch = data((100, 90), img_path='tile.tif')
    batch['inputs'] = [torch.zeros(4, 100, 90, dtype=torch.uint8)]
    with pytest.raises(DataError, match=r'tile\.tif: 4 bands, but data_preprocessor\.mean has 3 values'):
        ours.test_step(batch)


def test_mask2former_scores_windows_at_their_own_size():
    from tests.test_models.test_mask2former_head import config as mask2former

    cfg = mask2former().model
    cfg.test_cfg = ConfigDict(mode='slide', crop_size=(64, 64), stride=(48, 48))
    theirs = MODELS.build(copy.deepcopy(cfg)).eval()
    ours = MODELS.build({**cfg, 'type': 'SlidingEncoderDecoder', 'test_cfg': dict(cfg.test_cfg, keep_logits=True)})
    ours.load_state_dict(theirs.state_dict())
    check_equal(theirs, ours.eval(), data((80, 112)))


@torch.no_grad()
def test_no_array_of_all_pixels_and_classes_is_made_without_kept_logits(monkeypatch):
    _, ours = pair(dict(mode='slide', crop_size=(64, 64), stride=(43, 43)))
    ours.encode_decode = lambda inputs, metas: inputs.new_zeros(len(inputs), 5, *inputs.shape[2:])
    shapes = []
    allocate = WindowMean._empty_sums
    monkeypatch.setattr(
        WindowMean,
        '_empty_sums',
        lambda self, scores: shapes.append(allocate(self, scores).shape) or allocate(self, scores),
    )
    for model, height in ((ours, 3000), (without_logits(ours), 64)):
        model.test_step(data((3000, 70)))
        assert tuple(shapes.pop()) == (5, height, 70)

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        pixels = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor) and made.is_floating_point():
                self.pixels = max(self.pixels, made.untyped_storage().nbytes() // made.element_size())
            return made

    model, batch = without_logits(ours), data((3000, 70))
    with Largest() as largest:
        model.test_step(batch)
    assert 0 < largest.pixels <= 3 * 5 * 64 * 64  # logits of three windows; the image has 3000 x 70 pixels of 3 bands


def test_windows_lie_where_mmsegmentation_puts_them():
    grid = WindowGrid((10, 7), (4, 4), (3, 2))
    assert [(w.top, w.left) for w in grid] == [(t, x) for t in (0, 3, 6) for x in (0, 2, 3)]
    rows, columns = grid.cover(torch.device('cpu'))
    assert rows[:, 0].tolist() == [1, 1, 1, 2, 1, 1, 2, 1, 1, 1]
    assert columns.tolist() == [1, 1, 2, 3, 2, 2, 1]
    assert len(grid) == 9
    assert [(w.top, w.left, w.height, w.width) for w in WindowGrid((3, 5), (4, 4), (4, 4))] == [
        (0, 0, 3, 4),
        (0, 1, 3, 4),
    ]


@pytest.mark.parametrize('keep', [True, False])
def test_the_mean_of_overlapping_windows_by_hand(keep):
    """Windows of 2 rows every row over 3 rows; the n-th adds n: rows get 1, (1 + 2) / 2, 2."""
    grid = WindowGrid((3, 1), (2, 1), (1, 1))
    seen = []
    mean = WindowMean(grid, lambda scores: seen.append(scores.clone()) or scores[0].to(torch.uint8), keep)
    for number, window in enumerate(grid, start=1):
        assert window == Window(number - 1, 0, 2, 1)
        mean.add(window, torch.full((1, 2, 1), float(number)))
    if keep:
        assert mean.scores[0, :, 0].tolist() == [1, 1.5, 2]
        assert mean.classes is None
    else:
        assert torch.cat(seen, dim=1)[0, :, 0].tolist() == [1, 1.5, 2]
        assert [len(rows[0]) for rows in seen] == [1, 2]  # as soon as they are complete
        assert mean.scores is None


@torch.no_grad()
def test_long_images_say_how_long_they_will_take(monkeypatch):
    _, ours = pair(dict(mode='slide', crop_size=(32, 32), stride=(32, 32)))
    clock = iter(range(0, 10_000, 20))
    monkeypatch.setattr(progress.time, 'monotonic', lambda: next(clock))
    lines = []
    monkeypatch.setattr(progress, 'print_log', lambda text, logger, level=logging.INFO: lines.append(text))
    ours.test_step(data((32, 256), img_path='/somewhere/tile.tif'))  # 8 windows, 3 at once: 20 s for each batch
    assert lines == ['tile.tif: 6 of 8 windows, about 0:13 min left']


BAD = [
    (dict(mode='slid'), r"mode is 'slid': one of whole, slide is due"),
    (dict(mode='slide', stride=(32, 32)), r'crop_size is None: \(height, width\) in pixels is due'),
    (dict(mode='slide', crop_size=(64, 64)), r'stride is None: \(rows, columns\) in pixels is due'),
    (dict(mode='slide', crop_size=64, stride=(32, 32)), r'crop_size is 64'),
    (dict(mode='slide', crop_size=(64, 64), stride=(64, 65)), r'stride is \(64, 65\): at most crop_size=\(64, 64\)'),
    (dict(mode='slide', crop_size=(64, 64), stride=(0, 32)), r'stride is \(0, 32\)'),
    (dict(batch_size=0), r'batch_size is 0: a whole number from 1'),
    (dict(keep_logits='yes'), r"keep_logits is 'yes': True or False"),
    (dict(views='d8'), r"views is 'd8': one of none, flips, d4 is due"),
    (dict(scales=1.0), r'scales is 1.0: one or more numbers above 0'),
    (dict(scales=(0.0, 1.0)), r'scales is \(0.0, 1.0\): one or more numbers above 0'),
    (dict(scales=(1.0, 1.0)), r'scales is \(1.0, 1.0\): each number once'),
    (dict(view='d4'), r"unknown field 'view'; did you mean 'views'\? known are mode, crop_size, stride, batch_size"),
]


@pytest.mark.parametrize(('test_cfg', 'message'), BAD)
def test_bad_options_are_named(test_cfg, message):
    with pytest.raises(ConfigError, match=rf'model\.test_cfg[.:] ?{message}'):
        MODELS.build(config('SlidingEncoderDecoder', test_cfg))
