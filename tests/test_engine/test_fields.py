"""Misspelt config fields: found at the top level, located with the nearest name where a part cannot be built."""

from pathlib import Path

import mmseg
import pytest
from mmengine.config import Config

from lale_mmseg.engine.fields import accepts, check_fields, check_overrides
from lale_mmseg.errors import ConfigError
from tests.support import REPO
from tests.test_engine.tiny_run import build, tiny_config

SHIPPED = Path(mmseg.__file__).parent / '.mim' / 'configs'
PATH = REPO / 'configs/lale/lale_s1_1xb8-onecycle-400_palette-256x256.py'


@pytest.fixture
def cfg():
    return Config.fromfile(PATH)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'train_dataloadr': {}}, "unknown config field 'train_dataloadr'; did you mean 'train_dataloader'"),
        ({'optim_wraper': {}}, "did you mean 'optim_wrapper'"),
        ({'default_hooks.checkpont': {}}, "'default_hooks.checkpont'; did you mean 'checkpoint'"),
        ({'default_hooks.epoch_sed': None}, "did you mean 'epoch_seed'"),
        ({'lr_config': {}}, "'lr_config' belongs to mmsegmentation 0.x .*; use param_scheduler"),
    ],
)
def test_misspelt_fields_are_reported_with_the_right_one(cfg, change, message):
    check_fields(cfg)
    cfg.merge_from_dict(change)
    with pytest.raises(ConfigError, match=message):
        check_fields(cfg)


@pytest.mark.parametrize('name', ['data_root_2', 'train_dataloader_real', 'models', 'my_widths'])
def test_variables_of_configs_pass(cfg, name):
    cfg[name] = {}
    check_fields(cfg)


def test_configs_of_mmsegmentation_pass():
    for path in sorted(SHIPPED.glob('*/*.py'))[::40]:
        check_fields(Config.fromfile(path))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            {'model.decode_head.num_convolutions': 3},
            "^model.decode_head: FCNHead has no argument 'num_convolutions'; did you mean 'num_convs'",
        ),
        # An argument of the parent class, passed on as **kwargs.
        ({'model.decode_head.num_class': 3}, "model.decode_head: FCNHead .* 'num_class'; did you mean 'num_classes'"),
        ({'model.backbone.type': 'TinyBackbon'}, "^model.backbone.type: 'TinyBackbon' is not .* 'TinyBackbone'"),
        (
            {'model.decode_head.loss_decode': [dict(type='CrossEntropyLoss', loss_wieght=0.5)]},
            r"^model\.decode_head\.loss_decode\.0: CrossEntropyLoss .* did you mean 'loss_weight'",
        ),
        (
            {'train_dataloader.dataset.splt': 'x'},
            "^train_dataloader.dataset: TinyRoofs .* 'splt'; did you mean 'split'",
        ),
        ({'train_dataloader.sampler.shufle': True}, "^train_dataloader.sampler: DefaultSampler .*'shuffle'"),
        ({'optim_wrapper.optimizer.weight_decai': 0}, "^optim_wrapper.optimizer: AdamW .*'weight_decay'"),
        ({'default_hooks.logger.intervall': 5}, "^default_hooks.logger: LoggerHook .*'interval'"),
        ({'param_scheduler.0.factr': 5}, "^param_scheduler.0: ReduceOnPlateauLR .*'factor'"),
        (
            {'optim_wrapper.optimizer.lr': '1e-3'},
            '^optim_wrapper.optimizer: AdamW cannot be built: .*; lr is the string .1e-3.',
        ),
        (
            {'train_dataloader.batch_size': '8'},
            '^train_dataloader: DataLoader cannot be built: .*; batch_size is the string .8.',
        ),
        (
            {'param_scheduler': [dict(type='PolyLR', begin=5, end=2)]},
            '^param_scheduler.0: PolyLR cannot be built: .*end',
        ),
    ],
)
def test_parts_that_cannot_be_built_are_located(tmp_path, change, message):
    cfg = tiny_config(tmp_path)
    cfg.merge_from_dict(change)
    with pytest.raises(ConfigError, match=message):
        build(cfg).train()


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('data_rot', "unknown config field 'data_rot'; did you mean 'data_root'"),
        ('nonsense', "the config has no field 'nonsense'"),
        ('train_dataloader.batchsize', "'train_dataloader.batchsize'; did you mean 'batch_size'"),
        ('param_scheduler.7.eta_max', 'param_scheduler is a list of 1 entries'),
        ('data_root.x', "data_root is 'data/palette' and has no field 'x'"),
    ],
)
def test_overrides_that_lead_nowhere(cfg, name, message):
    with pytest.raises(ConfigError, match=message):
        check_overrides(cfg, {name: 1})


def test_good_overrides_pass(cfg):
    new = ('train_dataloader.drop_last', 'partial_load', 'model.backbone.new_argument')
    # Arguments of the class at that place, although the config has others that look alike.
    new += ('model.decode_head.loss_decode.0.class_weight', 'model.decode_head.out_channels')
    check_overrides(cfg, dict.fromkeys(('data_root', 'param_scheduler.0.eta_max', *new), 1))


def test_arguments_of_parents_count():
    assert accepts(dict(type='FCNHead'), 'num_convs')
    assert accepts(dict(type='FCNHead'), 'num_classes')
    assert not accepts(dict(type='FCNHead'), 'binary_class')
