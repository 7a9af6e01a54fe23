"""Overlays and panels: colours at known places, for images of any size, type and number of bands."""

import numpy as np
import pytest

from lale_mmseg.evaluation.overlay import MAX_SIDE, overlay, panel, to_display

PALETTE = ((255, 0, 0), (0, 200, 0), (0, 0, 250))
CLASSES = ('red', 'green', 'blue')
# Half of it over grey of 100; halves are rounded to even numbers.
RED, GREEN, BLUE = [178, 50, 50], [50, 150, 50], [50, 50, 175]
GAP, TOP = 12, 58  # left of the first picture, above all pictures


def image_of(height, width, value=100):
    return np.full((height, width, 3), value, np.uint8)


def test_overlay_by_hand():
    labels = np.array([[0, 1], [2, 255]])
    painted = overlay(image_of(2, 2), labels, PALETTE, alpha=0.25)
    # 0.25 * colour + 0.75 * 100
    assert painted[0, 0].tolist() == [139, 75, 75]  # 138.75 rounded
    assert painted[0, 1].tolist() == [75, 125, 75]
    assert painted[1, 0].tolist() == [75, 75, 138]  # 137.5, halves go to even
    assert painted[1, 1].tolist() == [100, 100, 100]


@pytest.mark.parametrize('dtype', [np.uint8, np.int32, np.int64])
def test_overlay_of_any_label_type(dtype):
    image = image_of(1, 4)
    labels = np.array([[2, 0, 200, 255]], dtype)
    painted = overlay(image, labels, PALETTE, alpha=1.0)
    assert painted.tolist() == [[[0, 0, 250], [255, 0, 0], [100] * 3, [100] * 3]]
    assert (image == 100).all()


def test_panel_shows_each_pixel_in_its_place():
    label = np.zeros((300, 280), np.int64)
    label[120, 200] = 2
    label[0, 0] = 255
    pred = np.zeros((300, 280), np.int64)
    pred[299, 279] = 1
    image = image_of(300, 280)
    image[50, 60] = (1, 2, 3)
    drawn = panel('a', image, dict(truth=label, found=pred), CLASSES, PALETTE)
    first, truth, prediction = (drawn[TOP:, GAP + i * (280 + GAP) :][:300, :280] for i in range(3))
    assert np.array_equal(first, image)
    assert truth[120, 200].tolist() == BLUE
    assert truth[0, 0].tolist() == [100, 100, 100]
    assert truth[119, 200].tolist() == RED
    assert prediction[299, 279].tolist() == GREEN
    assert (prediction.reshape(-1, 3) == RED).all(axis=1).sum() == 300 * 280 - 2
    legend = drawn[TOP + 300 :].reshape(-1, 3).tolist()
    assert all(list(color) in legend for color in PALETTE)


def test_panel_enlarges_tiny_images_by_a_whole_factor():
    pred = np.zeros((32, 20), np.uint8)
    pred[31, 19] = 1
    drawn = panel('a', image_of(32, 20), dict(found=pred), CLASSES, PALETTE)
    picture = drawn[TOP : TOP + 256, GAP + 160 + GAP :][:, :160]
    assert (picture[-8:, -8:] == GREEN).all()
    assert (picture[-9] == RED).all()


def test_panel_shrinks_big_images():
    drawn = panel('a', image_of(500, 4000), dict(found=np.full((500, 4000), 2)), CLASSES, PALETTE)
    assert drawn.shape[1] == 3 * GAP + 2 * MAX_SIDE
    assert (drawn[TOP : TOP + 128, -GAP - MAX_SIDE : -GAP] == BLUE).all()


def test_legend_of_many_classes_names_those_in_the_picture():
    palette = [(i, 255 - i, 7) for i in range(150)]
    names = [f'class {i}' for i in range(150)]
    drawn = panel('a', image_of(256, 256), dict(found=np.full((256, 256), 140)), names, palette)
    legend = drawn[TOP + 256 :].reshape(-1, 3).tolist()
    assert [140, 115, 7] in legend
    assert [20, 235, 7] not in legend


def test_a_white_class_has_a_frame_in_the_legend_and_the_name_is_above():
    image = image_of(256, 256)
    drawn = [panel(name, image, dict(found=image[..., 0] * 0), ['white'], [(255, 255, 255)]) for name in ('a', 'bb')]
    swatch = drawn[0][TOP + 256 + GAP :][:16, GAP : GAP + 16]
    assert (swatch[1:-1, 1:-1] == 255).all()
    assert (swatch[0] < 200).all()
    assert np.array_equal(drawn[0][30:], drawn[1][30:])
    assert not np.array_equal(drawn[0][:30], drawn[1][:30])


def test_to_display_leaves_8_bit_pictures_alone():
    rgb = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    assert np.array_equal(to_display(rgb), rgb)
    for grey in (rgb[..., 0], rgb[..., :1]):
        assert np.array_equal(to_display(grey), np.repeat(rgb[..., :1], 3, axis=2))


@pytest.mark.parametrize('bands', [1, 2, 3, 4, 13])
def test_to_display_stretches_first_bands(bands):
    # 0 .. 1000 along the rows: percentiles 2 and 98 are 20 and 980.
    ramp = np.linspace(0, 1000, 1001, dtype=np.float32)[:, None].repeat(3, axis=1)
    image = np.stack([ramp * (band + 1) for band in range(bands)], axis=-1)
    image[..., 3:] = 0
    shown = to_display(image)
    assert shown.shape == (1001, 3, 3)
    assert shown[0, 0].tolist() == [0] * 3
    assert shown[20, 0].tolist() == [0] * 3
    assert shown[500, 0].tolist() == [128] * 3  # (500 - 20) / 960 * 255 = 127.5
    assert shown[980, 0].tolist() == [255] * 3
    assert shown[1000, 0].tolist() == [255] * 3


def test_to_display_of_gaps_and_flat_bands():
    image = np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)
    image[0, 5], image[9, 9] = np.nan, np.inf
    shown = to_display(image)
    assert shown[0, 5].tolist() == shown[9, 9].tolist() == [0] * 3
    assert shown[9, 8].tolist() == [255] * 3
    assert (to_display(np.full((4, 4), 7, np.uint16)) == 0).all()
    assert (to_display(np.full((4, 4), np.nan, np.float32)) == 0).all()
