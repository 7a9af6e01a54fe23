"""The made land-cover set: format, determinism, and that colour alone does not give the class."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from data_prep.core.tiles import decode_rgb
from data_prep.datasets.aras400k.parquet import ShardWriter
from data_prep.datasets.toy.layout import smooth_noise
from data_prep.make_toy import main, make_scene, make_toy

SCRIPT = Path(__file__).resolve().parents[2] / 'data_prep' / 'make_toy.py'


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.fixture(scope='module')
def scenes() -> list[tuple[np.ndarray, np.ndarray]]:
    return [make_scene(np.random.default_rng((7, index)), 192) for index in range(36)]


def test_scene_has_the_promised_types(scenes):
    image, labels = scenes[0]
    assert image.shape == (192, 192, 3)
    assert image.dtype == np.uint8
    assert labels.shape == (192, 192)
    assert labels.dtype == np.uint8
    assert labels.max() <= 6


def test_every_class_has_a_share_to_learn_from(scenes):
    labels = np.stack([labels for _, labels in scenes])
    shares = np.bincount(labels.ravel(), minlength=7) / labels.size
    assert shares.shape == (7,)
    assert shares.min() >= 0.03
    assert shares.max() <= 0.4


def test_areas_are_large_enough_to_be_learned(scenes):
    for _, labels in scenes:
        for label in np.unique(labels):
            _, _, stats, _ = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8), connectivity=4)
            # Only what took the place of a speck may be small.
            assert (stats[1:, cv2.CC_STAT_AREA] < 30).sum() <= 2


def test_colour_alone_does_not_give_the_class(scenes):
    """A classifier of single pixels (most frequent class of each colour, 16 levels a channel) stays below 45 % mIoU."""

    def color_bins(image: np.ndarray) -> np.ndarray:
        return (image >> 4).astype(int) @ np.array([256, 16, 1])

    train, test = scenes[:24], scenes[24:]
    counts = np.zeros((4096, 7))
    for image, labels in train:
        np.add.at(counts, (color_bins(image), labels), 1)
    predicted = np.concatenate([counts.argmax(1)[color_bins(image)].ravel() for image, _ in test])
    truth = np.concatenate([labels.ravel() for _, labels in test])
    matrix = np.bincount(truth * 7 + predicted, minlength=49).reshape(7, 7)
    iou = matrix.diagonal() / (matrix.sum(0) + matrix.sum(1) - matrix.diagonal())
    assert 0.1 < iou.mean() < 0.45


def test_texture_tells_classes_of_equal_colour_apart(scenes):
    """The typical local contrast of textured classes is far above that of the even ones."""
    window = np.ones((9, 9), np.uint8)
    found: dict[int, list[np.ndarray]] = {label: [] for label in range(7)}
    for image, labels in scenes:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        contrast = np.sqrt(np.maximum(cv2.blur(grey**2, (9, 9)) - cv2.blur(grey, (9, 9)) ** 2, 0))
        inner = cv2.dilate(labels, window) == cv2.erode(labels, window)
        for label in range(7):
            found[label].append(contrast[inner & (labels == label)])
    # Medians: borders between parcels and streets touch few pixels.
    tree, shrub, grass, crop, built_up, barren, water = (np.median(np.concatenate(found[label])) for label in range(7))
    assert min(tree, shrub, crop, barren) > 1.5 * max(grass, water)
    assert built_up > 3 * max(grass, water)


def test_noise_is_smooth_and_of_unit_variance():
    fields = np.stack([smooth_noise(np.random.default_rng(index), 64, 8) for index in range(40)])
    assert fields.std() == pytest.approx(1, abs=0.15)
    assert np.abs(np.diff(fields, axis=2)).mean() < 0.3


def test_folders_are_in_the_published_format(tmp_path, palette):
    made = make_toy(tmp_path / 'toy', dict(train=3, val=1, test=1, synth=2), size=64)
    stems = {part: sorted(path.stem for path in (tmp_path / 'toy' / part / 'images').iterdir()) for part in made}
    assert {part: len(names) for part, names in stems.items()} == dict(train=3, val=1, test=1, synth=2)
    assert stems['train'][0] == 'N36E026_000_000'
    assert len({stem for names in stems.values() for stem in names}) == 7
    total = np.zeros(7, np.int64)
    for stem in stems['train']:
        paths = [tmp_path / 'toy' / 'train' / kind / f'{stem}.png' for kind in ('images', 'masks')]
        image, mask = (decode_rgb(path.read_bytes(), str(path)) for path in paths)
        assert image.shape == mask.shape == (64, 64, 3)
        total += np.bincount(palette.decode(mask).ravel(), minlength=7)
    assert list(made['train']['pixels'].values()) == total.tolist()
    assert sum(made['train']['class_shares'].values()) == pytest.approx(100, abs=0.01)
    manifest = json.loads((tmp_path / 'toy' / 'manifest.json').read_text())
    assert manifest['parts']['train']['pixels'] == made['train']['pixels']


def test_same_seed_same_files_for_any_number_of_workers(tmp_path):
    make_toy(tmp_path / 'one', dict(train=4, test=1), size=48, seed=3, workers=1)
    make_toy(tmp_path / 'two', dict(train=4, test=1), size=48, seed=3, workers=2)
    make_toy(tmp_path / 'other', dict(train=4, test=1), size=48, seed=4, workers=1)
    one, two, other = (contents(tmp_path / name) for name in ('one', 'two', 'other'))
    assert one == two
    image = 'train/images/N36E026_000_002.png'
    assert one[image] != other[image]
    assert one[image] != one['train/images/N36E026_000_003.png']


def test_parquet_shards_hold_what_the_folders_hold(tmp_path):
    make_toy(tmp_path, dict(train=5), size=48, parquet=True, rows_per_shard=2)
    shards = sorted((tmp_path / 'data').iterdir())
    assert [shard.name for shard in shards] == [f'train-{index:05d}-of-00003.parquet' for index in range(3)]
    rows = [row for shard in shards for row in pq.read_table(shard).to_pylist()]
    assert len(rows) == 5
    for row in rows:
        name = row['image']['path']
        assert row['image']['bytes'] == (tmp_path / 'train' / 'images' / name).read_bytes()
        assert row['conditioning_image']['bytes'] == (tmp_path / 'train' / 'masks' / name).read_bytes()
    schema = pq.read_schema(shards[0])
    assert str(schema.field('image').type) == 'struct<bytes: binary, path: string>'


def test_row_groups_have_100_rows(tmp_path, make_pair):
    writer = ShardWriter([tmp_path / 'val-00000-of-00001.parquet'], 150, 500)
    for index in range(150):
        writer.add(f'{index}.png', *make_pair(index))
    file = pq.ParquetFile(tmp_path / 'val-00000-of-00001.parquet')
    assert [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)] == [100, 50]


def test_command_line(tmp_path, capsys):
    out = tmp_path / 'toy'
    assert main([str(out), '--train', '2', '--val', '0', '--test', '0', '--size', '48', '--workers', '1']) == 0
    assert 'built-up %' in capsys.readouterr().out
    assert len(list((out / 'train' / 'images').iterdir())) == 2


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ('--train -1', '--train: -1: expected 0 to 400000'),
        ('--size 8', '--size: 8: expected 32 to inf'),
        ('--seed -1', '--seed: -1'),
        ('--rows-per-shard 0', '--rows-per-shard: 0'),
    ],
)
def test_bad_options(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path / 'toy'), *options.split()])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_script_prints_one_line_for_bad_usage(tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, tmp_path / 'x', '--no-folders'], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == 'error: --no-folders: nothing to write without --parquet; add it\n'
