"""`tools/train.py --random-init` removes all sources of pretrained weights from the model's config."""

import argparse

import pytest
from mmengine.config import Config, ConfigDict

from lale_mmseg.cli import train
from lale_mmseg.engine.pretrained import leave_out_pretrained
from tests.support import REPO, run_tool


@pytest.mark.parametrize(
    ('name', 'left_out'),
    [
        ('unet', {}),
        ('unet_r34', {'model.encoder_weights': 'imagenet'}),
        ('sam_unet', {'model.backbone.weights': 'sa1b'}),
    ],
)
def test_sources_of_the_bases(name, left_out):
    model = Config.fromfile(REPO / f'configs/_base_/models/{name}.py').model
    assert leave_out_pretrained(model) == left_out
    assert leave_out_pretrained(model) == {}
    assert (model.get('encoder_weights'), model.get('backbone', {}).get('weights')) == (None, None)


def test_init_cfg_keeps_what_is_no_file():
    normal, file = dict(type='Normal', std=0.01), dict(type='Pretrained', checkpoint='a.pth')
    model = ConfigDict(
        backbone=dict(type='X', init_cfg=file, pretrained='b.pth', weights=[1, 2]),
        neck=dict(pretrained=True),
        heads=[dict(init_cfg=[normal, file]), dict(init_cfg=normal), dict(init_cfg=None)],
    )
    found = leave_out_pretrained(model)
    assert found == {
        'model.backbone.init_cfg': file,
        'model.backbone.pretrained': 'b.pth',
        'model.heads.0.init_cfg': [normal, file],
        'model.neck.pretrained': True,
    }
    assert model.to_dict() == dict(
        backbone=dict(type='X', init_cfg=None, pretrained=None, weights=[1, 2]),
        neck=dict(pretrained=False),
        heads=[dict(init_cfg=[normal]), dict(init_cfg=normal), dict(init_cfg=None)],
    )


def apply(cfg: Config, resume: str | None = None) -> None:
    train.apply_options(
        cfg, argparse.Namespace(amp=None, compile=False, seed=None, resume=resume, random_init=True, overwrite=False)
    )


def test_the_option_prints_what_it_leaves_out(capsys):
    cfg = Config.fromfile(REPO / 'configs/_base_/models/unet_r34.py')
    apply(cfg)
    assert capsys.readouterr().out == "--random-init: left out model.encoder_weights='imagenet'\n"
    apply(cfg)
    assert 'left out nothing: the config names no pretrained weights' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('resume', 'fields', 'load_from'),
    [
        (None, dict(load_from='first.pth'), None),
        ('auto', dict(load_from='first.pth'), None),
        ('epoch_3.pth', dict(load_from='first.pth'), 'epoch_3.pth'),
        (None, dict(load_from='epoch_2.pth', resume=True), 'epoch_2.pth'),
    ],
)
def test_load_from_stays_only_as_a_checkpoint_to_resume(capsys, resume, fields, load_from):
    cfg = Config(dict(model=dict(), **fields))
    apply(cfg, resume)
    assert cfg.load_from == load_from
    assert ("left out load_from='first.pth'" in capsys.readouterr().out) == (load_from is None)


@pytest.mark.slow
def test_training_without_its_pretrained_weights_is_one_error(chips_root, tmp_path):
    bases = ['models/unet_r34.py', 'datasets/palette.py', 'default_runtime.py', 'schedules/schedule_onecycle_400.py']
    config = tmp_path / 'config.py'
    config.write_text(
        f'_base_ = {[str(REPO / "configs/_base_" / name) for name in bases]}\n'
        f'data_root = {str(chips_root)!r}\n'
        "model = dict(encoder_name='resnet18', decode_head=dict(loss_decode=[dict(type='CrossEntropyLoss')]))\n"
    )
    env = dict(HF_HUB_OFFLINE='1', HF_HOME=str(tmp_path / 'hub'))
    done = run_tool('python', 'tools/train.py', config, '--work-dir', tmp_path / 'run', env=env, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: pretrained weights 'imagenet' of encoder resnet18 cannot")
