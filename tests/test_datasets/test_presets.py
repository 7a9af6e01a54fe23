import warnings

import cv2
import numpy as np
import pytest
from mmseg.registry import TRANSFORMS

from lale_mmseg.datasets.samplers import Draw
from lale_mmseg.datasets.transforms.presets import PRESETS
from lale_mmseg.errors import ConfigError

SEEDS = range(25)
SIZE = 64

each_preset = pytest.mark.parametrize('name', PRESETS)


def build(transforms):
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # albumentations warns about unknown arguments
        return TRANSFORMS.build(dict(type='SeededAlbu', transforms=transforms))


def apply(step, seed, image, mask, **maps):
    results = dict(
        sample_idx=Draw(0, seed), img=image, gt_seg_map=mask, seg_fields=['gt_seg_map', *maps], img_path='x', **maps
    )
    return step(TRANSFORMS.build(dict(type='SeedDraw'))(results))


def one_of(name, kind, **changes):
    """A transform of a preset alone, always applied."""
    (cfg,) = (cfg for cfg in PRESETS[name] if cfg['type'] == kind)
    return build([{**cfg, 'p': 1.0, **changes}])


@pytest.fixture
def image():
    """Smooth colours with a grid, like roofs."""
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (6, 6, 3)).astype(np.uint8), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    image[::8] //= 2
    return image


@pytest.fixture
def stripes():
    """Labels 0, 1 and 255 in stripes, so that every crop has all of them."""
    return np.array([0, 1, 255, 1], np.uint8).repeat(6)[np.add.outer(np.arange(SIZE), np.arange(SIZE)) % 24]


def test_each_preset_is_the_one_before_and_more():
    assert list(PRESETS) == ['light', 'medium', 'heavy', 'extreme']
    added = [
        ['D4'],
        ['Affine', 'RandomBrightnessContrast', 'HueSaturationValue'],
        ['RandomShadow', 'RandomGamma', 'CLAHE', 'ImageCompression'],
        ['ElasticTransform', 'CoarseDropout', 'PlasmaBrightnessContrast'],
    ]
    before = ()
    for transforms, own in zip(PRESETS.values(), added, strict=True):
        assert transforms[: len(before)] == before
        assert [cfg['type'] for cfg in transforms[len(before) :]] == own
        before = transforms


def test_the_published_values_of_medium():
    _, affine, light, colour = build('medium').aug.transforms
    assert affine.translate_percent == dict(x=(-0.2, 0.2), y=(-0.2, 0.2))
    assert affine.scale == dict(x=(0.7, 1.3), y=(0.7, 1.3))
    assert affine.rotate == (-0.4, 0.4)
    assert (affine.border_mode, affine.mask_interpolation, affine.p) == (cv2.BORDER_REFLECT, cv2.INTER_NEAREST, 0.7)
    assert (light.brightness_limit, light.contrast_limit, light.p) == ((-0.2, 0.2), (-0.3, 0.3), 0.5)
    limits = colour.hue_shift_limit, colour.sat_shift_limit, colour.val_shift_limit
    assert (limits, colour.p) == (((-10, 10), (-15, 15), (-15, 15)), 0.3)


def test_the_eight_symmetries_of_light_are_equally_likely():
    mask = np.arange(9, dtype=np.uint8).reshape(3, 3)
    image = mask[..., None].repeat(3, axis=2)
    step, counts = build('light'), {}
    for seed in range(400):
        found = apply(step, seed, image, mask)['gt_seg_map'].tobytes()
        counts[found] = counts.get(found, 0) + 1
    square = [np.rot90(turned, k) for turned in (mask, mask.T) for k in range(4)]
    assert set(counts) == {way.tobytes() for way in square}
    assert all(abs(count - 50) < 26 for count in counts.values())  # four standard deviations of 6.6


@each_preset
def test_labels_are_neither_mixed_nor_invented_and_other_maps_move_along(name, image, stripes):
    step = build(name)
    moved = 0
    for seed in SEEDS:
        results = apply(step, seed, image, stripes, gt_edge_map=255 - stripes)
        assert np.unique(results['gt_seg_map']).tolist() == [0, 1, 255]
        assert np.array_equal(results['gt_edge_map'], 255 - results['gt_seg_map'])
        moved += not np.array_equal(results['gt_seg_map'], stripes)
        for field, before in dict(img=image, gt_seg_map=stripes, gt_edge_map=stripes).items():
            assert (results[field].shape, results[field].dtype) == (before.shape, np.uint8)
        assert results['img_shape'] == (SIZE, SIZE)
    assert moved >= 0.8 * len(SEEDS)


def test_image_and_mask_move_alike():
    """The image shows its mask; pixels where they differ after moving are close to a boundary of the mask.

    At the frame, where elastic deformation reflects slivers, nearest neighbours may lose a sliver of the mask.
    """
    step = build(
        [{**cfg, 'p': 1.0} for cfg in PRESETS['extreme'] if cfg['type'] in ('D4', 'Affine', 'ElasticTransform')]
    )
    blocks = np.random.default_rng(1).integers(0, 2, (8, 8)).astype(np.uint8)
    mask = np.kron(blocks, np.ones((SIZE // 4, SIZE // 4), np.uint8))
    for seed in range(10):
        results = apply(step, seed, (mask * 160 + 40)[..., None].repeat(3, axis=2), mask)
        moved, shown = results['gt_seg_map'], results['img'][..., 0] > 120
        kernel = np.ones((5, 5), np.uint8)
        inside = cv2.dilate(moved, kernel) == cv2.erode(moved, kernel)
        assert 0.3 < inside.mean() < 1
        inside[:8] = inside[-8:] = inside[:, :8] = inside[:, -8:] = False
        assert np.array_equal(moved[inside] == 1, shown[inside])


@each_preset
def test_a_draw_determines_the_augmentation(name, image, stripes):
    step, fresh = build(name), build(name)
    first = {seed: apply(step, seed, image, stripes) for seed in SEEDS}
    for seed in reversed(SEEDS):
        again = apply(fresh, seed, image, stripes)
        assert np.array_equal(first[seed]['img'], again['img'])
        assert np.array_equal(first[seed]['gt_seg_map'], again['gt_seg_map'])
    assert len({results['img'].tobytes() for results in first.values()}) >= (8 if name == 'light' else 25)


def test_fog_neither_blurs_nor_adds_noise():
    fog, side = one_of('extreme', 'PlasmaBrightnessContrast'), 256
    inner = np.s_[2:-2, 2:-2]  # the pattern of albumentations is odd in its outermost pixels
    flat = np.full((side, side, 3), 90, np.uint8)
    board = flat + 60 * (np.indices((side, side)).sum(0) % 2)[..., None].astype(np.uint8)
    for seed in range(10):
        fogged = apply(fog, seed, flat, flat[..., 0])['img'].astype(int)[inner]
        assert fogged.min() >= 90
        assert 90 + 15 < fogged.max() <= 90 + 51  # 0.2 of 255
        change = np.abs(np.diff(fogged, axis=0))
        assert np.percentile(change, 99) <= 2
        assert change.max() <= 6
        steps = np.abs(np.diff(apply(fog, seed, board, flat[..., 0])['img'].astype(int)[inner], axis=0))
        assert steps.min() >= 0.5 * 60 - 6


def test_dropout_hides_the_image_and_leaves_the_labels(image, stripes):
    results = apply(one_of('extreme', 'CoarseDropout'), 0, image, stripes)
    hidden = np.any(results['img'] != image, axis=2)
    assert np.all(results['img'][hidden] == 114)
    assert 0 < hidden.mean() <= 6 * 0.08**2
    assert np.array_equal(results['gt_seg_map'], stripes)


@pytest.mark.parametrize(
    ('transforms', 'message'),
    [
        (None, "transforms=None; set it, or the config's top-level augmentation, to 'light', 'medium', 'heavy', "),
        ('hevy', "transforms='hevy'; set it, .* to 'light', 'medium', 'heavy', 'extreme' or a list"),
        ([dict(type='HorizontalFlipp')], "HorizontalFlipp: .*has no attribute 'HorizontalFlipp'"),
        ([dict(type='OneOf', transforms=[dict(type='D4', q=1)], p=1.0)], "D4 has no argument 'q'"),
        ([dict(type='OneOf', transforms=[dict(type='D4')], q=1.0)], "OneOf: .*unexpected keyword argument 'q'"),
        ([dict(type='RandomGamma', gamma_limit='wide')], 'RandomGamma: .*gamma_limit'),
    ],
)
def test_unknown_transforms_and_arguments_are_errors(transforms, message):
    with pytest.raises(ConfigError, match=f'SeededAlbu: {message}'):
        TRANSFORMS.build(dict(type='SeededAlbu', transforms=transforms))
