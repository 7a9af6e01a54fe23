import pytest
from mmengine.config import Config

from lale_mmseg.engine.config import _check_schedules, check_config, complete_config
from lale_mmseg.errors import ConfigError, DataError
from tests.support import REPO

TOY = REPO / 'configs/lale/lale_s1_1xb8-onecycle-400_aras400k-toy-256x256.py'


@pytest.fixture
def cfg(toy_root):
    cfg = Config.fromfile(TOY)
    cfg.data_root = str(toy_root)
    return cfg


def test_data_root_and_class_count_are_filled_in_where_they_are_open(cfg, toy_root):
    cfg.val_dataloader.dataset.data_root = '/own'
    done = complete_config(cfg)
    assert done.train_dataloader.dataset.data_root == str(toy_root)
    assert done.val_dataloader.dataset.data_root == '/own'
    assert done.model.decode_head.num_classes == 7
    assert 'data_root' not in cfg.train_dataloader.dataset  # the given config stays as it is


def test_datasets_inside_wrappers_are_reached(cfg, toy_root):
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=inner)
    done = complete_config(cfg)
    assert done.train_dataloader.dataset.dataset.data_root == str(toy_root)
    assert done.model.decode_head.num_classes == 7


def test_class_counts_that_differ_are_named(cfg):
    cfg.model.decode_head.num_classes = 6
    with pytest.raises(
        ConfigError, match=r'model\.decode_head\.num_classes is 6, but train_dataloader\.dataset .* has 7'
    ):
        check_config(complete_config(cfg), ('train',))


def test_band_counts_that_differ_are_named(cfg):
    cfg.model.backbone.in_channels = 4
    with pytest.raises(ConfigError, match=r'mean has 3 values, model\.backbone\.in_channels is 4'):
        check_config(complete_config(cfg), ('train',))


def test_epochs_that_never_end_are_named(cfg):
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
    with pytest.raises(ConfigError, match='InfiniteSampler, with which an epoch never ends'):
        check_config(complete_config(cfg), ('train',))


def test_missing_data_are_reported_with_the_command_that_makes_them(cfg):
    cfg.data_root = '/nowhere'
    with pytest.raises(DataError, match=r"'/nowhere' does not exist: make it with .*data_prep/aras400k\.py"):
        check_config(complete_config(cfg), ('train',))


def test_the_segmentor_inside_test_time_augmentation_is_completed_and_checked(cfg):
    cfg.tta_model.module = cfg.model
    cfg.model = cfg.tta_model
    done = complete_config(cfg)
    assert done.model.module.decode_head.num_classes == 7
    done.model.module.decode_head.num_classes = 5
    with pytest.raises(ConfigError, match='num_classes is 5, but test_dataloader'):
        check_config(done, ('test',))


def test_a_training_longer_than_its_schedule_is_named(cfg):
    cfg.train_cfg.max_iters = 800
    with pytest.raises(ConfigError, match=r'param_scheduler\.0\.total_steps is 400, but train_cfg\.max_iters is 800'):
        check_config(complete_config(cfg), ('train',))


def test_a_learning_rate_that_one_cycle_would_override_is_named(cfg):
    cfg.optim_wrapper.paramwise_cfg = dict(custom_keys={'backbone': dict(lr_mult=0.1)})
    with pytest.raises(
        ConfigError, match=r'custom_keys\.backbone\.lr_mult is 0\.1, but param_scheduler\.0 is OneCycle'
    ):
        check_config(complete_config(cfg), ('train',))
    cfg.optim_wrapper.paramwise_cfg.custom_keys.backbone = dict(decay_mult=0.0)
    check_config(complete_config(cfg), ('train',))


@pytest.mark.parametrize(('steps', 'pct_start', 'good'), [(10, 0.1, False), (11, 0.1, True), (4, 0.1, True)])
def test_one_cycle_needs_a_step_to_rise(steps, pct_start, good):
    cfg = Config(
        dict(
            train_cfg=dict(max_iters=steps),
            param_scheduler=[
                dict(type='OneCycleLR', eta_max=1e-3, total_steps=steps, pct_start=pct_start, by_epoch=False)
            ],
        )
    )
    if good:
        _check_schedules(cfg)
    else:
        with pytest.raises(ConfigError, match=rf'param_scheduler.0: total_steps {steps} with pct_start {pct_start}'):
            _check_schedules(cfg)
