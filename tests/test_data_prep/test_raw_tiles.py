"""Cutting raw Sentinel-2 and WorldCover tiles by the published rules, on rasters of a few pixels."""

import json
from collections import Counter

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from data_prep.aras400k import main
from data_prep.core.tiles import decode_rgb
from data_prep.datasets.aras400k.raw import Rules, codes_to_labels, count_left_out, from_raw, scale_to_bytes
from lale_mmseg.errors import ConfigError, DataError

STEP = 0.01
WINDOW = 4
RULES = Rules(window=WINDOW)


def write_tif(path, values, west=32.0, north=39.0, **options):
    """GeoTIFF of (bands, H, W) values in degrees, STEP a pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.asarray(values)
    profile = dict(driver='GTiff', count=len(values), height=values.shape[1], width=values.shape[2], dtype=values.dtype)
    profile |= dict(crs='EPSG:4326', transform=from_origin(west, north, STEP, STEP)) | options
    with rasterio.open(path, 'w', **profile) as file:
        file.write(values)


def composite(height=8, width=12):
    """(4, H, W) uint16 values, no two windows alike; the fourth band is larger than the others."""
    values = np.arange(4 * height * width, dtype=np.uint16).reshape(4, height, width) + 100
    values[3] += 5000
    return values


def codes(height=8, width=12):
    return np.full((1, height, width), 40, np.uint8)


def read(path):
    return decode_rgb(path.read_bytes(), str(path))


def stems(folder):
    images, masks = ([path.stem for path in sorted((folder / kind).iterdir())] for kind in ('images', 'masks'))
    assert images == masks
    return images


@pytest.fixture
def raw(tmp_path):
    return tmp_path / 'raw'


def test_windows_names_and_values(tmp_path, raw, palette):
    image, cover = composite(9, 14), codes(9, 14)
    cover[0, 0:4, 4:8] = 10
    cover[0, 1, 5] = 95
    write_tif(raw / 'ESA_N38E032_S2RGBNIR.tif', image)
    write_tif(raw / 'ESA_N38E032_Map.tif', cover)
    made = from_raw(raw, tmp_path / 'out', RULES, workers=1)
    # 9 x 14 pixels hold 2 rows of 3 whole windows.
    folder = tmp_path / 'out' / 'train'
    assert stems(folder) == [f'N38E032_{row:03d}_{column:03d}' for row in range(2) for column in range(3)]
    window = np.moveaxis(image[:3, 4:8, 8:12], 0, -1)
    expected = np.floor(window / window.max() * 255).astype(np.uint8)
    np.testing.assert_array_equal(read(folder / 'images' / 'N38E032_001_002.png'), expected)
    assert expected.max() == 255
    np.testing.assert_array_equal(palette.decode(read(folder / 'masks' / 'N38E032_000_001.png')), np.zeros((4, 4)))
    np.testing.assert_array_equal(palette.decode(read(folder / 'masks' / 'N38E032_001_002.png')), np.full((4, 4), 3))
    assert made['train']['pixels'] | {} == {**dict.fromkeys(palette.classes, 0), 'tree': 16, 'crop': 80}


@pytest.mark.parametrize(('shift', 'first'), [(0.3, 10), (-0.3, 10), (0.7, 11), (0.5001, 11), (0.0, 10)])
def test_map_of_a_neighbour_tile_is_looked_up_by_coordinates(tmp_path, raw, palette, shift, first):
    """The map begins 10 pixels and a fraction to the north-west; the pixel that holds a pixel's centre counts.

    The centre of image column i lies at i + 0.5 + 10 + shift in map columns, so its map column is floor of that.
    """
    rng = np.random.default_rng(0)
    cover = rng.choice(np.array([10, 20, 30, 40, 50, 60], np.uint8), (1, 30, 30))
    write_tif(raw / 'N38E032_S2RGBNIR.tif', composite(4, 8))
    offset = (10 + shift) * STEP
    write_tif(raw / 'N39E031_Map.tif', cover, west=32 - offset, north=39 + offset)
    from_raw(raw, tmp_path / 'out', RULES, workers=1)
    labels = palette.decode(read(tmp_path / 'out/train/masks/N38E032_000_001.png'))
    expected = codes_to_labels(cover[0, first : first + 4, first + 4 : first + 8], 'map')
    np.testing.assert_array_equal(labels, expected)


def test_two_maps_cover_one_composite(tmp_path, raw):
    write_tif(raw / 'N38E032_S2RGBNIR.tif', composite(4, 8))
    write_tif(raw / 'N38E032_Map.tif', codes(4, 4))
    write_tif(raw / 'N38E033_Map.tif', codes(4, 4), west=32 + 4 * STEP)
    from_raw(raw, tmp_path / 'out', RULES, workers=1)
    assert stems(tmp_path / 'out' / 'train') == ['N38E032_000_000', 'N38E032_000_001']


def test_leave_out_rules(tmp_path, raw):
    rules = Rules(window=10)
    image, cover = composite(10, 60), codes(10, 60)
    image[:3, :, 0:10] = 0  # no image (the near infrared does not count)
    cover[0, 3, 13] = 0  # one pixel without label
    cover[0, :, 20:30] = 80
    cover[0, 0, 20:29] = 40  # 91 % water: out
    cover[0, :, 30:40] = 80
    cover[0, 0, 30:40] = 40  # 90 % water is not more than 90 %
    image[:3, 1:, 40:50] = 0  # one row of image is enough
    write_tif(raw / 'N38E032_S2RGBNIR.tif', image)
    write_tif(raw / 'N38E032_Map.tif', cover)
    from_raw(raw, tmp_path / 'out', rules, workers=1)
    assert stems(tmp_path / 'out' / 'train') == ['N38E032_000_003', 'N38E032_000_004', 'N38E032_000_005']
    assert count_left_out(tmp_path / 'out') == {'no image': 1, 'no label': 1, 'water': 1}


def test_windows_beyond_the_map_have_no_label(tmp_path, raw):
    write_tif(raw / 'N38E032_S2RGBNIR.tif', composite(4, 12))
    write_tif(raw / 'N38E032_Map.tif', codes(4, 6))
    from_raw(raw, tmp_path / 'out', RULES, workers=1)
    assert stems(tmp_path / 'out' / 'train') == ['N38E032_000_000']
    assert count_left_out(tmp_path / 'out')['no label'] == 2


def test_scaling_cuts_fractions_off():
    values = np.array([[[0, 1, 2]], [[3, 500, 1000]]], np.uint16)
    # 500 / 1000 * 255 = 127.5; 3 / 1000 * 255 = 0.765
    np.testing.assert_array_equal(scale_to_bytes(values), [[[0, 0, 0]], [[0, 127, 255]]])


def test_every_worldcover_code_has_its_class():
    found = codes_to_labels(np.array([[10, 95, 20, 30, 90, 100, 40, 50, 60, 70, 80]], np.uint8), 'map')
    np.testing.assert_array_equal(found, [[0, 0, 1, 2, 2, 2, 3, 4, 5, 5, 6]])


def test_unknown_code_is_named(tmp_path, raw):
    cover = codes()
    cover[0, 5, 6] = 33
    write_tif(raw / 'N38E032_S2RGBNIR.tif', composite())
    write_tif(raw / 'N38E032_Map.tif', cover)
    with pytest.raises(DataError, match=r'N38E032_Map\.tif, window N38E032_001_001: code 33 at row 1, column 2'):
        from_raw(raw, tmp_path / 'out', RULES, workers=1)


def test_split_is_by_name_and_about_the_shares(tmp_path, raw):
    rules = Rules(window=2, split=(('train', 80), ('val', 10), ('test', 10)))
    write_tif(raw / 'N38E032_S2RGBNIR.tif', composite(20, 40))
    write_tif(raw / 'N38E032_Map.tif', codes(20, 40))
    made = from_raw(raw, tmp_path / 'out', rules, workers=1)
    pairs = {part: made[part]['pairs'] for part in ('train', 'val', 'test')}
    assert sum(pairs.values()) == 200
    assert 140 <= pairs['train'] <= 180
    assert min(pairs['val'], pairs['test']) >= 8
    for stem in stems(tmp_path / 'out' / 'val'):
        assert rules.part_of(stem) == 'val'
    counts = Counter(rules.part_of(f'N38E032_{index:03d}_{index:03d}') for index in range(1000))
    assert counts['train'] == pytest.approx(800, abs=60)


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('N38E034_Map.tif', r'no map \*_Map\.tif of tile N38E032 or within one degree'),
        ('Ankara_Map.tif', r'Ankara_Map\.tif: the file name contains no tile such as N38E032'),
    ],
)
def test_composite_without_a_map(tmp_path, raw, name, message):
    write_tif(raw / 'N38E032_S2RGBNIR.tif', composite())
    write_tif(raw / name, codes())
    with pytest.raises(DataError, match=message):
        from_raw(raw, tmp_path / 'out', RULES, workers=1)
    assert not (tmp_path / 'out').exists()


def test_rasters_that_cannot_be_used(tmp_path, raw):
    write_tif(raw / 'N38E032_Map.tif', codes())
    with pytest.raises(DataError, match=r'no file \*_S2RGBNIR\.tif found'):
        from_raw(raw, tmp_path / 'out')
    image = raw / 'N38E032_S2RGBNIR.tif'
    write_tif(image, composite()[:2])
    with pytest.raises(DataError, match=r'has 2 bands and .* expected red, green and blue'):
        from_raw(raw, tmp_path / 'out', RULES)
    image.write_bytes(b'no raster')
    with pytest.raises(DataError, match=r'N38E032_S2RGBNIR\.tif: cannot be read'):
        from_raw(raw, tmp_path / 'out', RULES)
    write_tif(image, composite() * 0)
    with pytest.raises(
        DataError, match=r"no window is left for part 'train'; left out: \{'no image': 6, 'no label': 0"
    ):
        from_raw(raw, tmp_path / 'out', RULES, workers=1)
    write_tif(image, composite())
    write_tif(raw / 'again' / image.name, composite())
    with pytest.raises(DataError, match='two composites of tile N38E032'):
        from_raw(raw, tmp_path / 'out', RULES)
    (raw / 'again' / image.name).unlink()
    write_tif(raw / 'N38E032_Map.tif', codes().astype(np.float32))
    with pytest.raises(DataError, match=r'N38E032_Map\.tif: has values of type float32'):
        from_raw(raw, tmp_path / 'out', RULES, workers=1)


@pytest.mark.parametrize('name', ['N38E032_S2RGBNIR.tif', 'N38E032_Map.tif'])
def test_truncated_raster_is_named(tmp_path, raw, name):
    write_tif(raw / 'N38E032_S2RGBNIR.tif', composite(64, 64))
    write_tif(raw / 'N38E032_Map.tif', codes(64, 64))
    path = raw / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=name.replace('.', r'\.')):
        from_raw(raw, tmp_path / 'out', Rules(window=32), workers=1)


def test_command_line(tmp_path, raw, capsys):
    write_tif(raw / 'N38E032_S2RGBNIR.tif', composite())
    write_tif(raw / 'N38E032_Map.tif', codes())
    common = ['raw', str(raw), '--window', '4', '--workers', '1']
    assert main([*common, str(tmp_path / 'a'), '--part', 'test']) == 0
    printed = capsys.readouterr().out
    assert 'windows left out: 0 (no image), 0 (no label), 0 (water)' in printed
    assert len(stems(tmp_path / 'a' / 'test')) == 6
    assert json.loads((tmp_path / 'a' / 'manifest.json').read_text())['parts']['test']['settings']['window'] == 4
    with pytest.raises(ConfigError, match='--split 0 0 0'):
        main([*common, str(tmp_path / 'b'), '--split', '0', '0', '0'])
    with pytest.raises(SystemExit):
        main(['raw', str(raw), str(tmp_path / 'b'), '--window', '0'])
