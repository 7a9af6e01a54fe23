import cv2
import numpy as np
import pytest
import rasterio
from mmseg.registry import TRANSFORMS
from PIL import Image

from lale_mmseg.datasets.image_io import decode_label_image, read_size
from lale_mmseg.errors import DataError

D4 = [dict(type='HorizontalFlip', p=0.5), dict(type='VerticalFlip', p=0.5), dict(type='RandomRotate90', p=0.75)]


def load(path, **options):
    return TRANSFORMS.build(dict(type='LoadBands', **options))(dict(img_path=str(path)))


@pytest.fixture
def geotiff(tmp_path):
    """Function (array of (bands, H, W)) -> path of a GeoTIFF of it."""

    def write(bands):
        path = tmp_path / 'scene.tif'
        profile = dict(driver='GTiff', count=bands.shape[0], height=bands.shape[1], width=bands.shape[2])
        transform = rasterio.transform.from_origin(30, 40, 10, 10)
        with rasterio.open(path, 'w', dtype=bands.dtype, crs='EPSG:32636', transform=transform, **profile) as dataset:
            dataset.write(bands)
        return path

    return write


def test_three_bands_are_returned_as_bgr_from_png_and_geotiff_alike(tmp_path, geotiff):
    rgb = np.random.default_rng(0).integers(0, 255, (5, 7, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), rgb[..., ::-1])
    from_png = load(tmp_path / 'a.png')
    from_tif = load(geotiff(rgb.transpose(2, 0, 1)))
    assert np.array_equal(from_png['img'], rgb[..., ::-1])
    assert np.array_equal(from_tif['img'], rgb[..., ::-1])
    assert from_png['img_shape'] == from_png['ori_shape'] == (5, 7)


def test_many_bands_of_16_bits_keep_their_order_and_values(geotiff):
    bands = np.random.default_rng(0).integers(0, 60000, (5, 6, 4)).astype(np.uint16)
    image = load(geotiff(bands))['img']
    assert image.dtype == np.float32
    assert np.array_equal(image, bands.transpose(1, 2, 0).astype(np.float32))


def test_chosen_bands_are_returned_in_the_requested_order(tmp_path, geotiff):
    bands = np.random.default_rng(0).integers(0, 255, (4, 6, 4)).astype(np.uint8)
    path = geotiff(bands)
    assert np.array_equal(load(path, bands=[4, 1])['img'], bands[[3, 0]].transpose(1, 2, 0))
    rgb = bands[:3].transpose(1, 2, 0)
    cv2.imwrite(str(tmp_path / 'a.png'), rgb[..., ::-1])
    assert np.array_equal(load(tmp_path / 'a.png', bands=[1, 3])['img'], rgb[..., [0, 2]])
    with pytest.raises(DataError, match=r'scene\.tif: bands \[5\] requested, but the file has bands 1 to 4'):
        load(path, bands=[5])


def test_png_of_16_bits_needs_its_bands_named(tmp_path):
    values = np.random.default_rng(0).integers(0, 60000, (4, 5, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / 'a.png'), values[..., ::-1])
    with pytest.raises(DataError, match=r'a\.png: 3 band\(s\) of uint16.*LoadBands with bands'):
        load(tmp_path / 'a.png')
    assert np.array_equal(load(tmp_path / 'a.png', bands=[1, 2, 3])['img'], values.astype(np.float32))
    # A TIFF of three bands is RGB and comes as BGR at any depth, as the data preprocessors of the configs expect.
    cv2.imwrite(str(tmp_path / 'a.tif'), values[..., ::-1])
    assert np.array_equal(load(tmp_path / 'a.tif')['img'], values[..., ::-1].astype(np.float32))


def test_grey_and_rgba_images_have_three_bands(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    cv2.imwrite(str(tmp_path / 'grey.png'), grey)
    assert np.array_equal(load(tmp_path / 'grey.png')['img'], np.repeat(grey[..., None], 3, axis=2))
    bgra = np.dstack([grey, grey + 20, grey + 40, np.full_like(grey, 99)])
    cv2.imwrite(str(tmp_path / 'rgba.png'), bgra)
    assert np.array_equal(load(tmp_path / 'rgba.png')['img'], bgra[..., :3])


def test_headers_of_scenes_that_pillow_refuses_can_be_read(tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((40, 30, 3), np.uint8))
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    assert read_size(tmp_path / 'a.png') == (40, 30)


def test_values_that_are_not_finite_are_named(geotiff):
    bands = np.zeros((2, 4, 4), np.float32)
    bands[1, 2, 3] = np.nan
    with pytest.raises(DataError, match=r'value nan in band 2 at row 2, column 3'):
        load(geotiff(bands))


def test_orientation_tags_do_not_turn_images_away_from_their_masks(tmp_path):
    image = Image.fromarray(np.zeros((4, 9, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6  # turn by 90 degrees
    image.save(tmp_path / 'a.jpg', exif=exif)
    assert load(tmp_path / 'a.jpg')['img_shape'] == (4, 9) == read_size(tmp_path / 'a.jpg')


def test_masks_as_palette_png_rgba_and_tiff_are_rgb(tmp_path, geotiff):
    rgb = np.random.default_rng(0).integers(0, 2, (5, 6, 3)).astype(np.uint8) * 255
    Image.fromarray(rgb).quantize(8, dither=Image.Dither.NONE).save(tmp_path / 'p.png')
    Image.fromarray(np.dstack([rgb, np.full((5, 6), 255, np.uint8)])).save(tmp_path / 'rgba.png')
    for path in (tmp_path / 'p.png', tmp_path / 'rgba.png', geotiff(rgb.transpose(2, 0, 1))):
        assert np.array_equal(decode_label_image(path.read_bytes(), str(path)), rgb), path


def augment(seed, image, mask, transforms=D4):
    np.random.seed(seed)  # noqa: NPY002
    transform = TRANSFORMS.build(dict(type='SeededAlbu', transforms=transforms))
    return transform(dict(img=image, gt_seg_map=mask, img_shape=image.shape[:2], img_path='x', seg_fields=[]))


@pytest.mark.parametrize('bands', [3, 5])
def test_image_and_mask_turn_alike_and_all_eight_symmetries_occur(bands):
    mask = np.arange(12, dtype=np.uint8).reshape(3, 4)
    image = np.repeat(mask[..., None], bands, axis=2) + np.arange(bands, dtype=np.uint8) * 20
    copies, seen = (image.copy(), mask.copy()), set()
    for seed in range(60):
        result = augment(seed, image, mask)
        assert np.array_equal(result['img'][..., 0], result['gt_seg_map'])
        assert np.array_equal(result['img'][..., 1], result['gt_seg_map'] + 20)
        assert result['img_shape'] == result['gt_seg_map'].shape
        seen.add((result['gt_seg_map'].shape, result['gt_seg_map'].tobytes()))
    assert len(seen) == 8
    assert np.array_equal(image, copies[0])
    assert np.array_equal(mask, copies[1])


def test_maps_are_moved_without_mixing_their_values():
    """Rotations by other angles take the nearest value of a mask; bilinear interpolation is for images."""
    labels = np.kron(np.random.default_rng(0).integers(0, 2, (6, 6)), np.full((5, 5), 200)).astype(np.uint8)
    np.random.seed(0)  # noqa: NPY002
    rotate = dict(type='Rotate', limit=[30, 30], p=1.0)
    transform = TRANSFORMS.build(dict(type='SeededAlbu', transforms=[rotate]))
    maps = dict(gt_seg_map=labels, gt_edge_map=labels.copy(), gt_other_map=labels[::-1].copy())
    results = transform(dict(img=np.repeat(labels[..., None], 3, axis=2), seg_fields=[*maps], **maps))
    assert set(np.unique(results['img'])) > {0, 200}
    for field in maps:
        assert set(np.unique(results[field])) == {0, 200}
        assert not np.array_equal(results[field], maps[field])
    assert np.array_equal(results['gt_edge_map'], results['gt_seg_map'])
    assert not np.array_equal(results['gt_other_map'], results['gt_seg_map'])


def test_colour_transforms_refuse_values_that_they_would_clip():
    image = np.full((4, 4, 5), 3000, np.float32)
    transforms = [*D4, dict(type='OneOf', transforms=[dict(type='RandomBrightnessContrast', p=1.0)], p=0.5)]
    with pytest.raises(DataError, match='x: values of float32, but RandomBrightnessContrast works on 8-bit'):
        augment(0, image, np.zeros((4, 4), np.uint8), transforms)
    assert augment(0, image, np.zeros((4, 4), np.uint8))['img'].max() == 3000


def test_colour_transforms_see_rgb():
    image = np.zeros((4, 4, 3), np.uint8)
    image[..., 2] = 200  # red, in BGR
    only_red = [dict(type='ChannelDropout', channel_drop_range=[2, 2], fill=0, p=1.0)]
    kept = {tuple(augment(seed, image, image[..., 0], only_red)['img'][0, 0].tolist()) for seed in range(20)}
    assert kept == {(0, 0, 200), (0, 0, 0)}
    to_grey = [dict(type='ToGray', p=1.0)]
    # Luminance of red 200 is 0.299 * 200 = 59.8; taken as blue it would be 22.8.
    assert augment(0, image, image[..., 0], to_grey)['img'][0, 0].tolist() == [60, 60, 60]
