"""tools/analysis/attention_map.py on untrained networks and made-up images of 64x64 pixels."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from rasterio.transform import from_origin

from lale_mmseg.engine.checkpoint import DESCRIPTION_KEY, describe
from lale_mmseg.errors import InputError
from tests.support import REPO, run_tool
from tests.test_docs import load_script

TOOL = 'tools/analysis/attention_map.py'
NETWORKS = {
    'lale-meta': dict(type='LALE', attn_cfg=dict(type='MetaTokenAttention', num_meta_tokens=5)),
    'lale-lrsa': dict(type='LALE', attn_cfg=dict(type='LowResolutionSelfAttention')),
    'lale-plain': dict(type='LALE'),
    'lale-none': dict(type='LALE', attn_cfg=[None] * 4),
    'lale-four-bands': dict(type='LALE', in_channels=4, attn_cfg=dict(type='MetaTokenAttention')),
    'lrformer-t': dict(type='LRFormer', arch='t'),
    'lemevit-tiny': dict(type='LeMeViT', arch='tiny'),
}
HEADS = {
    'lrformer-t': dict(type='LRHead', channels=32),
    'lemevit-tiny': dict(type='LALEHead', in_channels=[64, 128, 192, 320]),
}


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Writes the checkpoint of an untrained network, once for each."""
    root = tmp_path_factory.mktemp('networks')

    def write(name: str) -> Path:
        path = root / name / 'iter_0.pth'
        if not path.is_file():
            path.parent.mkdir()
            torch.manual_seed(0)
            bands = NETWORKS[name].get('in_channels', 3)
            preprocessor = dict(type='ChannelsLastDataPreProcessor', mean=[100.0] * bands, std=[50.0] * bands)
            loss = dict(type='CrossEntropyLoss', avg_non_ignore=True)
            head = dict(
                num_classes=3, loss_decode=loss, norm_cfg=dict(type='SyncBN'), **HEADS.get(name, dict(type='LALEHead'))
            )
            model = dict(
                type='EncoderDecoder',
                data_preprocessor=preprocessor,
                backbone=NETWORKS[name],
                decode_head=head,
                train_cfg=dict(),
                test_cfg=dict(mode='slide', crop_size=(32, 32), stride=(32, 32)),
            )
            step = dict(type='LoadBands', bands=[4, 3, 2, 1]) if bands == 4 else dict(type='LoadBands')
            cfg = Config(dict(model=model, test_dataloader=dict(dataset=dict(pipeline=[step]))))
            text = describe(cfg, dict(classes=('a', 'b', 'c'), palette=[[9, 0, 0], [0, 9, 0], [0, 0, 9]]))
            torch.save({'state_dict': MODELS.build(cfg.model).state_dict(), DESCRIPTION_KEY: text}, path)
        return path

    return write


@pytest.fixture
def image(toy_root) -> Path:
    return sorted((toy_root / 'test' / 'images').iterdir())[0]


@pytest.fixture
def tool(monkeypatch):
    """Runs the tool's main in this process."""
    monkeypatch.syspath_prepend(str(REPO / 'tools'))
    module = load_script(TOOL)

    def call(*words: object) -> None:
        monkeypatch.setattr(sys, 'argv', [TOOL, *map(str, words)])
        module.main()

    return call


def check_folder(folder: Path, pictures: set[str]) -> list[dict]:
    """Checks that a folder contains nothing but attention.json and coloured pictures; returns its maps."""
    assert {path.name for path in folder.iterdir()} == {'attention.json', *pictures}
    for name in pictures:
        drawn = cv2.imread(str(folder / name))
        assert min(drawn.shape[:2]) > 250
        assert (drawn.max(axis=2).astype(int) - drawn.min(axis=2)).max() > 100
    maps = json.loads((folder / 'attention.json').read_text())['maps']
    assert [each['file'] for each in maps] == sorted(pictures, key=[each['file'] for each in maps].index)
    for each in maps:
        assert np.isfinite(np.asarray(each['entropy'])).all()
    return maps


def test_meta_tokens_of_lale(checkpoint, image, tmp_path):
    # From another folder: the default folder for the pictures is counted from there.
    done = run_tool('python', REPO / TOOL, checkpoint('lale-meta'), image, cwd=tmp_path)
    folder = tmp_path / 'work_dirs' / 'attention' / 'lale-meta' / f'iter_0_{image.stem}'
    names = {f'stage{stage}_block1_{role}.png' for stage in (3, 4) for role in ('gather', 'give')}
    maps = check_folder(folder, names)
    assert [each['weights'] for each in maps] == [[5, 16], [16, 5], [5, 4], [4, 5]]
    assert [each['stride'] for each in maps] == [16, 16, 32, 32]
    assert maps[0]['module'] == 'backbone.stages.2.0.attention'
    assert sum(maps[1]['listening']) == pytest.approx(1)
    assert all(name in done.stdout for name in names)
    assert 'MetaTokenAttention' in done.stdout


def test_low_resolution_attention_of_lale(checkpoint, image, tmp_path, tool):
    tool(checkpoint('lale-lrsa'), image, '--out-dir', tmp_path, '--stage', 3, '--pixel', 63, 0)
    (only,) = check_folder(tmp_path, {'stage3_block1_pooled.png'})
    assert only['pyramid'] == [[11, 11], [8, 8], [6, 6], [4, 4]]
    assert only['query_map'] == [16, 16]
    assert only['weights'] == [256, 237]
    assert only['attention'] == 'LowResolutionSelfAttention'
    assert sum(only['pyramid_shares']) == pytest.approx(1)


def test_lrformer_and_its_head(checkpoint, image, tmp_path, tool):
    tool(checkpoint('lrformer-t'), image, '--out-dir', tmp_path)
    blocks = {'stage1': 2, 'stage2': 2, 'stage3': 6, 'stage4': 3, 'decode_head': 2}
    maps = check_folder(tmp_path, {f'{stage}_block{block}_pooled.png' for stage, block in blocks.items()})
    assert {each['attention'] for each in maps} == {'PooledAttention'}
    assert [each['map'] for each in maps] == [[16, 16], [8, 8], [4, 4], [2, 2], [8, 8]]


def test_lemevit(checkpoint, image, tmp_path, tool, capsys):
    tool(checkpoint('lemevit-tiny'), image, '--out-dir', tmp_path)
    names = {f'stage{where}.png' for where in ('1_block1_gather', '2_block2_gather', '2_block2_give')}
    maps = check_folder(tmp_path, names | {'stage3_block1_gather.png', 'stage3_block2_give.png'})
    assert maps[0]['weights'] == [16, 256]
    assert 'not shown: self-attention of stage 4' in capsys.readouterr().out


def test_a_pixel_of_self_attention_and_a_window_of_a_large_image(checkpoint, image, tmp_path, tool, capsys):
    tool(checkpoint('lale-plain'), image, '--out-dir', tmp_path, '--pixel', 60, 10, '--max-size', 32, '--stage', 3)
    (only,) = check_folder(tmp_path, {'stage3_block1_self.png'})
    assert only['weights'] == [1, 4]
    assert json.loads((tmp_path / 'attention.json').read_text())['pixel'] == [28, 10]
    assert 'rows 32 to 63 and columns 0 to 31' in capsys.readouterr().err


def test_bands_of_the_checkpoint_and_a_size_that_nothing_divides(checkpoint, tmp_path, tool):
    values = np.random.default_rng(0).normal(size=(4, 45, 70)).astype(np.float32)
    profile = dict(driver='GTiff', dtype='float32', count=4, height=45, width=70, transform=from_origin(9, 9, 1, 1))
    with rasterio.open(tmp_path / 'x.tif', 'w', **profile) as file:
        file.write(values)
    tool(checkpoint('lale-four-bands'), tmp_path / 'x.tif', '--out-dir', tmp_path / 'out', '--stage', 3, '--block', 1)
    maps = check_folder(tmp_path / 'out', {'stage3_block1_gather.png', 'stage3_block1_give.png'})
    assert [each['map'] for each in maps] == [[3, 5], [3, 5]]


@pytest.mark.parametrize(
    ('network', 'options', 'message'),
    [
        ('lale-none', [], r'iter_0\.pth: the network has no attention'),
        ('lale-plain', [], r'iter_0\.pth: self-attention over all pixels is too large.*--pixel Y X'),
        ('lale-meta', ['--stage', 3, 2], r'stage=2: .* one of 3, 4$'),
        ('lale-meta', ['--pixel', 64, 0], r'--pixel 64 0: outside of .* has 64 rows, 64 columns'),
        ('lale-meta', ['--alpha', 2], r'--alpha 2\.0: expected a number from 0 to 1'),
    ],
)
def test_maps_that_cannot_be_shown(network, options, message, checkpoint, image, tmp_path, tool):
    with pytest.raises(InputError, match=message):
        tool(checkpoint(network), image, '--out-dir', tmp_path / 'out', *options)
    assert not (tmp_path / 'out').exists()
