"""Masks of Inria's hidden tiles: predicted as tools/test.py predicts, written atomically, continued, packed.

Tiles have 96x96 pixels here, and the network is a tiny one with random weights.
"""

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from rasterio.crs import CRS
from rasterio.transform import from_origin

from lale_mmseg.engine.checkpoint import DESCRIPTION_KEY, describe
from lale_mmseg.errors import CheckpointError, ConfigError, DataError
from lale_mmseg.files import save_png
from lale_mmseg.metainfo import inria
from tests.runs import run_in_process
from tests.support import REPO

TOOL = 'tools/analysis/inria_submission.py'
TILES = ('bellingham1', 'bellingham2', 'sfo36')
CONFIG = """
_base_ = '{repo}/configs/_base_/default_runtime.py'
data_root = '{root}'
norm_cfg = dict(type='BN')
pipeline = [dict(type='LoadBands'), dict(type='LoadPaletteMask'), dict(type='PackSegInputs')]
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[100.0, 110.0, 120.0], std=[50.0, 55.0, 60.0], bgr_to_rgb=True, pad_val=0
    ),
    backbone=dict(
        type='UNet', base_channels=4, num_stages=2, strides=(1, 1), enc_num_convs=(1, 1), dec_num_convs=(1,),
        downsamples=(True,), enc_dilations=(1, 1), dec_dilations=(1,), norm_cfg=norm_cfg,
    ),
    decode_head=dict(
        type='FCNHead', in_channels=4, in_index=1, channels=4, num_convs=0, concat_input=False, num_classes=2,
        norm_cfg=norm_cfg, align_corners=False, dropout_ratio=0.0,
    ),
    test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(40, 40)),
)
test_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='PaletteDataset', split='test', pipeline=pipeline, test_mode=True),
)
test_evaluator = dict(type='SegmentationMetric', score_classes=[1])
test_cfg = dict(type='TestLoop')
"""


def write_tile(path: Path, side: int, seed: int) -> None:
    """Blocks of random colours, with a place on the ground."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (3, -(-side // 8), -(-side // 8)))
    image = np.kron(blocks, np.ones((8, 8)))[:, :side, :side].astype(np.uint8)
    place = dict(crs=CRS.from_epsg(26910), transform=from_origin(540000 + seed, 5400000, 0.3, 0.3))
    with rasterio.open(path, 'w', 'GTiff', side, side, 3, dtype='uint8', **place) as dataset:
        dataset.write(image)


def write_checkpoint(root: Path, seed: int = 0, classes=inria.CLASSES) -> None:
    """Random weights, with batch statistics unlike those of a new network."""
    torch.manual_seed(seed)
    cfg = Config.fromfile(root / 'config.py')
    model = MODELS.build(cfg.model)
    for name, value in model.state_dict().items():
        if name.endswith(('weight', 'running_mean')):
            value.normal_(0, 0.5)
    description = describe(cfg, dict(classes=classes, palette=inria.COLORS))
    torch.save({'state_dict': model.state_dict(), 'meta': {}, DESCRIPTION_KEY: description}, root / 'weights.pth')


def make(root: Path, side: int) -> Path:
    """Hidden tiles, the first of them with labels as well, config and checkpoint."""
    for seed, name in enumerate(TILES):
        write_tile(root / 'images' / f'{name}.tif', side, seed)
    labelled = root / 'labelled'
    write_tile(labelled / 'images' / f'{TILES[0]}.tif', side, 0)
    mask = np.zeros((side, side, 3), np.uint8)
    mask[: side // 2] = (255, 0, 0)
    save_png(labelled / 'masks' / f'{TILES[0]}.png', mask)
    (labelled / 'classes.csv').write_text('index,name,r,g,b\n0,background,0,0,0\n1,building,255,0,0\n')
    (labelled / 'test.txt').write_text(f'{TILES[0]}\n')
    (root / 'config.py').write_text(CONFIG.format(repo=REPO, root=labelled))
    write_checkpoint(root)
    return root


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Three tiles of 96x96 pixels."""
    monkeypatch.setattr(inria, 'TILE_SIZE', 96)
    return make(tmp_path, 96)


@pytest.fixture
def submit(small, monkeypatch, capsys):
    """Runs the tool in this process; returns the exit status and what was printed."""

    def run(*options):
        words = [small / 'weights.pth', '--images', small / 'images', '--out', small / 'out', '--device', 'cpu']
        return run_in_process(TOOL, monkeypatch, *words, *options), capsys.readouterr()

    return run


def read(path: Path):
    with rasterio.open(path) as dataset:
        return dataset.read(), dataset.crs, dataset.transform, dataset.compression


@pytest.mark.parametrize('tta', [(), ('--tta',)], ids=['plain', 'tta'])
def test_masks_are_those_of_the_test(small, submit, monkeypatch, tta):
    status, printed = submit(*tta)
    assert status == 0
    assert '3 of 180 masks finished; missing: bellingham3' in printed.out
    pixels, crs, transform, compression = read(small / 'out' / 'bellingham1.tif')
    assert (pixels.shape, pixels.dtype, set(np.unique(pixels))) == ((1, 96, 96), np.uint8, {0, 255})
    assert (crs, transform) == read(small / 'images' / 'bellingham1.tif')[1:3]
    assert compression.name == 'lzw'
    words = [small / 'config.py', small / 'weights.pth', '--work-dir', small / 'work', '--out', small / 'tested', *tta]
    run_in_process('tools/test.py', monkeypatch, *words)
    tested = cv2.imread(str(small / 'tested' / 'bellingham1.png'), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(pixels[0], tested * 255)
    summary = json.loads((small / 'out' / 'summary.json').read_text())
    assert summary['tiles']['bellingham1'] == pytest.approx(100 * tested.mean(), abs=1e-4)
    assert summary['cities']['sfo']['count'] == 1


def test_finished_masks_are_kept_and_missing_ones_predicted(small, submit):
    submit('--cities', 'bellingham', '--limit', 1)
    masks = small / 'out'
    assert [path.name for path in sorted(masks.glob('*.tif'))] == ['bellingham1.tif']
    before = (masks / 'bellingham1.tif').stat().st_mtime_ns
    submit()
    assert (masks / 'bellingham1.tif').stat().st_mtime_ns == before
    (masks / 'sfo36.tif').unlink()
    submit('--cfg-options', 'model.test_cfg.batch_size=2')  # changes no mask
    assert len([*masks.glob('*.tif')]) == 3


def test_masks_of_other_settings_are_not_mixed(small, submit):
    submit('--limit', 1)
    with pytest.raises(ConfigError, match=r'bellingham1\.tif: made with another checkpoint or other settings'):
        submit('--tta')
    before = read(small / 'out' / 'bellingham1.tif')[0]
    write_checkpoint(small, seed=1)
    with pytest.raises(ConfigError, match='pass --overwrite'):
        submit()
    submit('--overwrite')
    assert (read(small / 'out' / 'bellingham1.tif')[0] != before).any()


def test_bad_input_is_named(small, submit):
    with pytest.raises(ConfigError, match='is the folder of the images'):
        submit('--out', small / 'images')
    with pytest.raises(DataError, match=r'contains none of the 180 tiles, such as bellingham1\.tif'):
        submit('--images', small)
    (small / 'out').mkdir()
    save_png(small / 'out' / 'mine.png', np.zeros((96, 96), np.uint8))
    (small / 'out' / 'mine.png').rename(small / 'out' / 'sfo36.tif')
    with pytest.raises(DataError, match=r'sfo36\.tif: not a mask written by this tool'):
        submit()
    write_checkpoint(small, classes=('building', 'background'))
    with pytest.raises(CheckpointError, match='its classes are building, background; a submission needs background'):
        submit()


def test_an_unreadable_or_wrong_tile_does_not_stop_the_others(small, submit):
    (small / 'images' / 'bellingham1.tif').write_bytes(b'II*\x00' + bytes(100))
    write_tile(small / 'images' / 'bellingham2.tif', 88, 0)
    status, printed = submit()
    assert status == 1
    assert 'bellingham1.tif' in printed.err
    assert 'bellingham2.tif: expected 96 x 96 x 3 pixels, got (88, 88, 3)' in printed.err
    assert (small / 'out' / 'sfo36.tif').is_file()


def test_the_archive_holds_all_masks_or_is_not_written(small, submit):
    with pytest.raises(ConfigError, match='needs the masks of all 180 tiles; 177 have no image or are not chosen'):
        submit('--zip', small / 'a.zip')
    assert not (small / 'out').exists()  # before anything is predicted
    submit()
    for tile in inria.HIDDEN_TILES:
        if tile not in TILES:
            (small / 'out' / f'{tile}.tif').write_bytes((small / 'out' / 'sfo36.tif').read_bytes())
    assert submit('--zip', small / 'a.zip')[0] == 0
    with zipfile.ZipFile(small / 'a.zip') as archive:
        assert sorted(archive.namelist()) == sorted(f'{tile}.tif' for tile in inria.HIDDEN_TILES)
