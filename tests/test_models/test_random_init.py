"""`tools/train.py --random-init`: no source of pretrained weights is left in the model's config."""

import argparse

import pytest
from mmengine.config import Config, ConfigDict

from data_prep.make_toy import make_toy
from lale_mmseg.metainfo.aras400k import CLASSES, COLORS
from tests.support import REPO, run_tool
from tests.test_docs import load_script


@pytest.fixture
def train(monkeypatch):
    monkeypatch.syspath_prepend(str(REPO / 'tools'))
    return load_script('tools/train.py')


@pytest.mark.parametrize(
    ('name', 'left_out'),
    [
        ('unet', {}),
        ('unet_r34', {'model.encoder_weights': 'imagenet'}),
        ('sam_unet', {'model.backbone.weights': 'sa1b'}),
    ],
)
def test_sources_of_the_bases(train, name, left_out):
    model = Config.fromfile(REPO / f'configs/_base_/models/{name}.py').model
    assert train.leave_out_pretrained(model) == left_out
    assert train.leave_out_pretrained(model) == {}
    assert (model.get('encoder_weights'), model.get('backbone', {}).get('weights')) == (None, None)


def test_init_cfg_keeps_what_is_no_file(train):
    normal, file = dict(type='Normal', std=0.01), dict(type='Pretrained', checkpoint='a.pth')
    model = ConfigDict(
        backbone=dict(type='X', init_cfg=file, pretrained='b.pth', weights=[1, 2]),
        heads=[dict(init_cfg=[normal, file]), dict(init_cfg=normal), dict(init_cfg=None)],
    )
    found = train.leave_out_pretrained(model)
    assert found == {
        'model.backbone.init_cfg': file,
        'model.backbone.pretrained': 'b.pth',
        'model.heads.0.init_cfg': [normal, file],
    }
    assert model.to_dict() == dict(
        backbone=dict(type='X', init_cfg=None, pretrained=None, weights=[1, 2]),
        heads=[dict(init_cfg=[normal]), dict(init_cfg=normal), dict(init_cfg=None)],
    )


def test_the_option_says_what_it_does(train, capsys):
    args = argparse.Namespace(amp=None, compile=False, seed=None, resume=None, random_init=True)
    cfg = Config.fromfile(REPO / 'configs/_base_/models/unet_r34.py')
    train.apply_options(cfg, args)
    assert cfg.model.encoder_weights is None
    assert capsys.readouterr().out == "--random-init: left out model.encoder_weights='imagenet'\n"
    train.apply_options(cfg, args)
    assert 'left out nothing: the config names no pretrained weights' in capsys.readouterr().out


@pytest.mark.parametrize('resume', [None, 'auto'])
def test_weights_to_start_from_are_left_out(train, capsys, resume):
    args = argparse.Namespace(amp=None, compile=False, seed=None, resume=resume, random_init=True)
    cfg = Config(dict(model=dict(), load_from='first.pth'))
    train.apply_options(cfg, args)
    assert cfg.load_from is None
    assert capsys.readouterr().out == "--random-init: left out load_from='first.pth'\n"


@pytest.mark.parametrize(
    ('resume', 'fields', 'due'),
    [
        ('epoch_3.pth', dict(load_from='first.pth'), 'epoch_3.pth'),
        ('epoch_3.pth', dict(), 'epoch_3.pth'),
        (None, dict(load_from='epoch_2.pth', resume=True), 'epoch_2.pth'),
    ],
)
def test_a_checkpoint_to_resume_stays(train, capsys, resume, fields, due):
    args = argparse.Namespace(amp=None, compile=False, seed=None, resume=resume, random_init=True)
    cfg = Config(dict(model=dict(), **fields))
    train.apply_options(cfg, args)
    assert (cfg.load_from, cfg.resume) == (due, True)
    assert 'load_from' not in capsys.readouterr().out


@pytest.mark.slow
def test_training_needs_weights_and_testing_does_not(tmp_path):
    make_toy(tmp_path / 'toy', dict(train=2, val=1, test=1, synth=1), size=64, workers=1)
    rows = [f'{i},{name},{r},{g},{b}' for i, (name, (r, g, b)) in enumerate(zip(CLASSES, COLORS, strict=True))]
    (tmp_path / 'toy/classes.csv').write_text('\n'.join(['index,name,r,g,b', *rows]) + '\n')
    bases = [
        str(REPO / 'configs/_base_' / name)
        for name in (
            'models/unet_r34.py',
            'datasets/palette.py',
            'default_runtime.py',
            'schedules/schedule_onecycle_400.py',
        )
    ]
    config = tmp_path / 'config.py'
    config.write_text(
        f'_base_ = {bases}\n'
        f'data_root = {str(tmp_path / "toy")!r}\n'
        "model = dict(encoder_name='resnet18', decode_head=dict(loss_decode=dict(_delete_=True, "
        "type='CrossEntropyLoss', avg_non_ignore=True)))\n"
        'train_cfg = dict(max_iters=2, val_interval=2)\n'
        'param_scheduler = []\n'
        'train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)\n'
        'val_dataloader = dict(num_workers=0, persistent_workers=False)\n'
        'test_dataloader = dict(num_workers=0)\n'
        'default_hooks = dict(checkpoint=dict(interval=2))\n'
    )
    env = dict(HF_HUB_OFFLINE='1', HF_HOME=str(tmp_path / 'hub'))
    command = ('python', 'tools/train.py', config, '--work-dir', tmp_path / 'run')
    refused = run_tool(*command, env=env, check=False)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("error: pretrained weights 'imagenet' of encoder resnet18 cannot")
    done = run_tool(*command, '--random-init', env=env)
    assert "--random-init: left out model.encoder_weights='imagenet'" in done.stdout
    run_tool('python', 'tools/test.py', config, tmp_path / 'run/iter_2.pth', '--work-dir', tmp_path / 'test', env=env)
