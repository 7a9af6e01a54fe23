"""Every config loads, passes the checks, and its network and parts can be built."""

import re

import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import MODELS, TRANSFORMS

from lale_mmseg.engine.component_check import check_fields
from lale_mmseg.engine.config import decode_heads
from tests.support import REPO

CONFIGS = sorted(path for path in (REPO / 'configs').rglob('*.py') if '_base_' not in path.parts)
NAME = re.compile(r'[a-z0-9+-]+(_[a-z0-9+-]+)?_\d+xb\d+-[a-z0-9-]+_[a-z0-9-]+-\d+x\d+')


def test_there_are_configs_of_every_promised_kind():
    names = ' '.join(path.stem for path in CONFIGS)
    for size in ('s1', 's2', 's3', 's4'):
        assert f'lale_{size}_1xb64-plateau-20e_aras400k-256x256' in names
        assert f'lale_{size}_1xb64-plateau-20e_aras400k-real-synth-256x256' in names
    assert 'lale_s1-k7_' in names
    assert 'palette' in names


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config(path):
    assert NAME.fullmatch(path.stem), f'{path.stem}: names are MODEL_SIZE_GPUSxbBATCH-SCHEDULE_DATASET-CROP'
    cfg = Config.fromfile(path)
    check_fields(cfg)
    assert cfg.runner_type == 'LaleRunner'
    assert 'lale_mmseg.register' in cfg.custom_imports['imports']
    for _, head in decode_heads(cfg):
        head.num_classes = head.num_classes or 7
    model = MODELS.build(cfg.model)
    batch = re.search(r'_\d+xb(\d+)-', path.stem).group(1)
    assert cfg.train_dataloader.batch_size == int(batch)
    for phase in ('train', 'val', 'test'):
        for step in cfg[f'{phase}_dataloader'].dataset.pipeline:
            TRANSFORMS.build(step)
    wrapper = Runner.build_optim_wrapper(_Bare(model), cfg.optim_wrapper)
    assert len(wrapper.optimizer.param_groups[0]['params']) > 0
    if cfg.train_cfg.type == 'IterBasedTrainLoop':
        ends = [s.get('end', s.get('total_steps')) for s in cfg.param_scheduler]
        assert max(ends) == cfg.train_cfg.max_iters


class _Bare:
    """As much of a runner as building an optimizer needs."""

    def __init__(self, model):
        self.model = model


@pytest.mark.parametrize('path', sorted((REPO / 'configs/_base_/schedules').glob('*.py')), ids=lambda p: p.stem)
def test_schedules_fit_their_names(path):
    cfg = Config.fromfile(path)
    number = int(re.search(r'_(\d+)', path.stem).group(1)) * (1000 if path.stem.endswith('k') else 1)
    assert number in (cfg.train_cfg.get('max_iters'), cfg.train_cfg.get('max_epochs'))
    assert cfg.default_hooks.checkpoint.save_best == 'mF1'
    assert cfg.default_hooks.checkpoint.max_keep_ckpts >= 2


def test_families_have_a_read_me_and_a_metafile():
    for folder in {path.parent for path in CONFIGS}:
        assert (folder / 'README.md').is_file(), folder
        assert (folder / 'metafile.yaml').is_file(), folder
