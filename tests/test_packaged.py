"""The package where it is installed: configs of packages as bases, console scripts, modules that few need."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.hub import get_config

from tests.support import REPO, run_tool

LALE = "_base_ = 'lale_mmseg::lale/lale_s1_1xb8-onecycle-400_palette-256x256.py'\n"
#: The rest of a config for a model of mmsegmentation.
BASES = """_base_ = [
    {model}
    'lale_mmseg::_base_/datasets/palette.py',
    'lale_mmseg::_base_/schedules/schedule_onecycle_400.py',
    'lale_mmseg::_base_/default_runtime.py',
]
"""
SEGFORMER = f"""{BASES.format(model="'mmseg::_base_/models/segformer_mit-b0.py',")}
model = dict(decode_head=dict(num_classes=None))
"""
#: PIDNet also learns the edges of the labels.
EDGES = """
train_pipeline = [
    dict(type='LoadBands'),
    dict(type='LoadPaletteMask'),
    dict(type='RandomCrop', crop_size=(64, 64)),
    dict(type='GenerateEdge', edge_width=4),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
"""


def pidnet() -> str:
    """A config with a model of mmsegmentation whose branches only fit for sizes divisible by 8."""
    model = get_config('mmseg::pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py').model
    model.data_preprocessor.size = model.decode_head.num_classes = None
    for loss in model.decode_head.loss_decode:
        loss.pop('class_weight', None)
    return f'{BASES.format(model="")}model = {model}\n{EDGES}'


def write_data(root: Path) -> list[str]:
    """Made-up images of three classes, one of another size; returns overrides for a run of seconds."""
    rng = np.random.default_rng(0)
    for name in ('images', 'masks'):
        (root / name).mkdir(parents=True)
    for number, size in enumerate([(64, 64), (64, 64), (67, 93)]):
        colors = np.eye(3)[rng.integers(0, 3, size)] * 255
        cv2.imwrite(str(root / f'images/{number}.png'), rng.integers(0, 256, (*size, 3)).astype(np.uint8))
        cv2.imwrite(str(root / f'masks/{number}.png'), colors.astype(np.uint8))
    (root / 'classes.csv').write_text('index,name,r,g,b\n0,a,0,0,255\n1,b,0,255,0\n2,c,255,0,0\n')
    for split, names in dict(train='0\n1\n', val='2\n', test='2\n').items():
        (root / f'{split}.txt').write_text(names)
    steps = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'param_scheduler.0.total_steps=2']
    workers = [f'{phase}_dataloader.num_workers=0' for phase in ('train', 'val', 'test')]
    workers += [f'{phase}_dataloader.persistent_workers=False' for phase in ('train', 'val')]
    crop = 'train_dataloader.dataset.pipeline.2.crop_size=(64,64)'
    return [f'data_root={root}', 'default_hooks.checkpoint.interval=2', crop, *steps, *workers]


def test_bases_of_packages(tmp_path):
    """mmsegmentation's are marked with its scope; ours are not, since their parts are in its registries."""
    (tmp_path / 'lale.py').write_text(LALE)
    (tmp_path / 'segformer.py').write_text(SEGFORMER)
    assert '_scope_' not in str(Config.fromfile(tmp_path / 'lale.py'))
    cfg = Config.fromfile(tmp_path / 'segformer.py')
    assert (cfg.model.backbone.type, cfg.model._scope_) == ('MixVisionTransformer', 'mmseg')
    assert '_scope_' not in cfg.train_dataloader.dataset


@pytest.mark.slow
@pytest.mark.parametrize('config', [lambda: LALE, lambda: SEGFORMER, pidnet], ids=['lale', 'segformer', 'pidnet'])
def test_a_config_of_packages_trains_tests_and_predicts(tmp_path, config):
    overrides = ['--cfg-options', *write_data(tmp_path / 'data')]
    path, checkpoint = tmp_path / 'config.py', tmp_path / 'work' / 'iter_2.pth'
    path.write_text(config())
    run_tool('python', 'tools/train.py', path, '--random-init', '--work-dir', tmp_path / 'work', *overrides)
    run_tool(
        'python', 'tools/test.py', path, checkpoint, '--work-dir', tmp_path / 'work',
        '--out', tmp_path / 'tested', *overrides,
    )  # fmt: skip
    run_tool('python', 'tools/predict.py', checkpoint, tmp_path / 'data/images/2.png', '--out-dir', tmp_path / 'out')
    tested, predicted = (cv2.imread(str(tmp_path / folder / '2.png'), -1) for folder in ('tested', 'out'))
    assert predicted.shape == (67, 93)
    assert np.array_equal(tested, predicted)


@pytest.mark.slow
def test_configs_travel_with_the_package(tmp_path):
    """In the files that a wheel is made of; the package is imported from these alone."""
    folder = tmp_path / 'installed'
    build = ['setup.py', '-q', 'build', '--build-base', tmp_path / 'build', '--build-lib', folder]
    subprocess.run([sys.executable, *map(str, build)], cwd=REPO, check=True)
    installed = folder / 'lale_mmseg' / '.mim'
    assert (installed / 'model-index.yml').is_file()
    for pattern in ('*.py', 'metafile.yaml'):
        names = {path.relative_to(REPO) for path in (REPO / 'configs').rglob(pattern)}
        assert {path.relative_to(installed) for path in (installed / 'configs').rglob(pattern)} == names
    (tmp_path / 'config.py').write_text(LALE)
    code = """
import lale_mmseg.register
from mmengine.config import Config
print(lale_mmseg.__file__, Config.fromfile('config.py').model.backbone.type)
"""
    run = dict(cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(folder)}, capture_output=True, text=True, check=True)
    done = subprocess.run([sys.executable, '-c', code], **run)
    assert done.stdout.split() == [str(folder / 'lale_mmseg' / '__init__.py'), 'LALE']


def test_console_scripts_exist():
    scripts = re.findall(r"'lale-(\w+) = ([\w.]+):(\w+)'", (REPO / 'setup.py').read_text())
    assert [name for name, *_ in scripts] == ['train', 'test', 'predict']
    assert all(callable(getattr(importlib.import_module(module), function)) for _, module, function in scripts)


@pytest.mark.slow
def test_training_on_png_needs_neither_pyarrow_nor_rasterio(tmp_path):
    options = [*write_data(tmp_path / 'data'), 'default_hooks.logger.interval=1']
    (tmp_path / 'config.py').write_text(LALE)
    code = """
import sys
sys.modules['pyarrow'] = sys.modules['rasterio'] = None  # as if they were not installed
from lale_mmseg.cli.train import command
command()
"""
    words = [sys.executable, '-c', code, 'config.py', '--work-dir', 'work', '--cfg-options', *options]
    done = subprocess.run(words, cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(REPO)}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    assert (tmp_path / 'work' / 'iter_2.pth').is_file()
