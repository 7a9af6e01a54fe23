"""The predictor against mmsegmentation: the same logits, from work that has the size of a window."""

import copy

import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.registry import MODELS

from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.inference import Predictor
from tests.test_inference.segmentors import data, predictor, segmentor

SLIDE = dict(mode='slide', crop_size=(64, 64), stride=(43, 43))


@torch.no_grad()
def check_equal(model, test_cfg: dict, batch: dict, exact: bool = True) -> None:
    """Compares logits and classes with those of mmsegmentation's own `test_step` of the same model."""
    expected = model.test_step(copy.deepcopy(batch))
    model.test_cfg = ConfigDict(test_cfg, keep_logits=True)
    kept = Predictor(model)(copy.deepcopy(batch))
    model.test_cfg = ConfigDict(test_cfg, batch_size=3)
    for of_mmseg, of_ours, classes_only in zip(expected, kept, Predictor(model)(batch), strict=True):
        logits = of_ours.seg_logits.data
        tolerance = dict(rtol=0, atol=0) if exact else dict(rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(logits, of_mmseg.seg_logits.data, **tolerance)
        pred = of_ours.pred_sem_seg.data
        assert pred.dtype == torch.uint8
        assert (pred != of_mmseg.pred_sem_seg.data).float().mean() <= (0 if exact else 1e-3)
        assert (pred != classes_only.pred_sem_seg.data).float().mean() < 1e-3
        assert 'seg_logits' not in classes_only


@pytest.mark.parametrize(
    ('size', 'crop_size', 'stride', 'padding'),
    [
        ((100, 150), (64, 64), (43, 43), None),
        ((97, 131), (64, 48), (64, 48), None),  # stride = window, sizes that it does not divide
        ((90, 65), (64, 64), (13, 33), None),  # more than two windows over a row
        ((40, 150), (64, 64), (43, 43), None),  # lower than a window
        ((40, 50), (64, 64), (43, 43), None),  # one window of the image's own size
        ((40, 50), (64, 64), (43, 43), dict(size=(64, 64))),  # padded to the window, and cut back
        ((40, 150), (64, 64), (43, 43), dict(size=(64, 64))),
        ((100, 150), (64, 64), (43, 43), dict(size_divisor=32)),
    ],
)
def test_logits_of_windows_are_those_of_mmsegmentation(size, crop_size, stride, padding):
    test_cfg = dict(mode='slide', crop_size=crop_size, stride=stride)
    check_equal(segmentor(test_cfg, padding), test_cfg, data(size))


def test_logits_of_whole_images_are_those_of_mmsegmentation():
    check_equal(segmentor(dict(mode='whole')), dict(mode='whole'), data((64, 96), (64, 96)))


def test_heads_with_one_channel_are_cut_at_their_threshold():
    model = segmentor(SLIDE, num_classes=2, out_channels=1, threshold=0.52)
    check_equal(model, SLIDE, data((100, 90)))


@pytest.mark.parametrize('direction', [None, 'horizontal', 'vertical'])
def test_images_that_the_pipeline_resized_and_flipped_come_back(direction):
    batch = data((100, 90), ori_shape=(151, 137), flip=direction is not None, flip_direction=direction)
    # Bilinear resizing of flipped logits rounds otherwise where their memory format differs.
    check_equal(segmentor(SLIDE, dict(size_divisor=32)), SLIDE, batch, exact=direction is None)


def test_flipped_images_of_their_own_size_come_back():
    batch = data((100, 90), flip=True, flip_direction='horizontal')
    check_equal(segmentor(SLIDE, dict(size_divisor=32)), SLIDE, batch)


def test_mask2former_scores_windows_at_their_own_size():
    from tests.test_models.test_mask2former_head import config as mask2former

    model = MODELS.build(mask2former().model).eval()
    test_cfg = dict(mode='slide', crop_size=(64, 64), stride=(48, 48))
    model.test_cfg = ConfigDict(test_cfg)
    check_equal(model, test_cfg, data((80, 112)), exact=False)


@pytest.mark.parametrize('options', [SLIDE, dict(mode='whole', max_pixels=5000, crop_size=(64, 64), stride=(43, 43))])
def test_batches_may_hold_images_of_different_sizes(options):
    predict = predictor(**options, keep_logits=True)
    sizes = [(100, 90), (30, 40), (64, 64), (100, 90)]
    together = predict(data(*sizes))
    for size, image, sample in zip(sizes, data(*sizes)['inputs'], together, strict=True):
        alone = predict(dict(inputs=[image], data_samples=data(size)['data_samples']))[0]
        torch.testing.assert_close(sample.seg_logits.data, alone.seg_logits.data, rtol=1e-5, atol=1e-5)


def test_large_whole_images_go_through_windows():
    """100x90 has 9000 pixels: one more than max_pixels allows."""
    slide = predictor(**SLIDE)(data((100, 90)))[0].pred_sem_seg.data
    windows = dict(crop_size=(64, 64), stride=(43, 43))
    found = {pixels: predictor(**windows, max_pixels=pixels)(data((100, 90)))[0] for pixels in (8999, 9000)}
    assert torch.equal(found[8999].pred_sem_seg.data, slide)
    assert not torch.equal(found[9000].pred_sem_seg.data, slide)
    defaults = predictor()
    assert len(defaults.grid((2000, 2000))) == 1
    assert [(w.top, w.left) for w in defaults.grid((2001, 2000))] == [
        (t, x) for t in (0, 896, 977) for x in (0, 896, 976)
    ]


def test_small_images_pass_through_the_network_together_and_windows_by_batch_size():
    predict = predictor(**SLIDE, batch_size=4)
    sizes = []
    encode_decode = predict.model.encode_decode
    predict.model.encode_decode = lambda inputs, metas: sizes.append(len(inputs)) or encode_decode(inputs, metas)
    counts = []
    predict(data((64, 64), (64, 64), (40, 64), (100, 110)), counts.append)
    assert sizes == counts == [2, 1, 4, 2]  # two of a size; one; 2 x 3 windows


def test_labels_stay_in_the_samples_and_results_may_be_changed():
    for keep_logits in (True, False):
        predict = predictor(**SLIDE, keep_logits=keep_logits)
        batch = data((100, 90))
        batch['data_samples'][0].set_data(dict(gt_sem_seg=copy.deepcopy(predict(batch)[0].pred_sem_seg)))
        sample = predict(batch)[0]
        assert sample.gt_sem_seg.data.shape == (1, 100, 90)
        sample.pred_sem_seg.data[0, 0, 0] = 4
        assert 'pred_sem_seg' not in batch['data_samples'][0]


def test_a_wrong_band_count_names_the_file():
    batch = data((100, 90), img_path='tile.tif')
    batch['inputs'] = [torch.zeros(4, 100, 90, dtype=torch.uint8)]
    with pytest.raises(DataError, match=r'tile\.tif: 4 bands, but data_preprocessor\.mean has 3 values'):
        predictor(**SLIDE)(batch)


@torch.no_grad()
@pytest.mark.parametrize('blend', ['mean', 'hann'])
def test_no_array_of_all_pixels_and_classes_is_made_without_kept_logits(blend):
    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        pixels = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor) and made.is_floating_point():
                self.pixels = max(self.pixels, made.untyped_storage().nbytes() // made.element_size())
            return made

    predict, batch = predictor(**SLIDE, blend=blend, batch_size=3), data((3000, 70))
    predict.model.encode_decode = lambda inputs, metas: inputs.new_zeros(len(inputs), 5, *inputs.shape[2:])
    with Largest() as largest:
        predict(batch)
    assert 0 < largest.pixels <= 3 * 5 * 64 * 64  # logits of three windows; the image has 3000 x 70 pixels of 3 bands


@pytest.mark.parametrize(
    ('test_cfg', 'message'),
    [
        (dict(mode='slid'), r"\.mode is 'slid'; expected one of whole, slide"),
        (dict(crop_size=64), r'\.crop_size is 64; expected \(height, width\) in pixels'),
        (dict(crop_size=(64, 64), stride=(64, 65)), r'\.stride is \(64, 65\); .* at most crop_size=\(64, 64\)'),
        (dict(stride=(0, 32)), r'\.stride is \(0, 32\)'),
        (dict(batch_size=0), r'\.batch_size is 0; expected an integer of at least 1'),
        (dict(keep_logits='yes'), r"\.keep_logits is 'yes'; expected True or False"),
        (dict(views='d8'), r"\.views is 'd8'; expected one of none, hflip, flips, d4"),
        (dict(scales=1.0), r'\.scales is 1\.0; expected different numbers above 0'),
        (dict(scales=(0.0, 1.0)), r'\.scales is \(0\.0, 1\.0\)'),
        (dict(scales=(1.0, 1.0)), r'\.scales is \(1\.0, 1\.0\)'),
        (dict(max_pixels=0), r'\.max_pixels is 0'),
        (dict(blend='max'), r"\.blend is 'max'; expected one of mean, hann"),
        (dict(view='d4'), r": unknown key 'view'; did you mean 'views'\? known keys: mode, crop_size"),
    ],
)
def test_unusable_options_are_named(test_cfg, message):
    with pytest.raises(ConfigError, match=rf'model\.test_cfg{message}'):
        predictor(**test_cfg)
