import pytest
from mmengine.config import Config

from lale_mmseg.engine.component_check import accepted_arguments, check_fields, check_overrides
from lale_mmseg.errors import ConfigError
from lale_mmseg.models.decode_heads import LALEHead
from tests.support import REPO

PATH = REPO / 'configs/lale/lale_s1_1xb8-onecycle-400_palette-256x256.py'


@pytest.fixture
def cfg():
    return Config.fromfile(PATH)


def test_a_config_of_ours_passes(cfg):
    check_fields(cfg)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'train_dataloadr': {}}, "unknown config field 'train_dataloadr'; did you mean 'train_dataloader'"),
        ({'optim_wraper': {}}, "did you mean 'optim_wrapper'"),
        ({'default_hooks.checkpont': {}}, "'default_hooks.checkpont'; did you mean 'checkpoint'"),
        ({'env_cfg.cudnn_benchmarks': True}, "env_cfg: unknown field 'cudnn_benchmarks'; did you mean 'cudnn_bench"),
        ({'model.test_cfg.strid': (1, 1)}, "model.test_cfg: unknown field 'strid'; did you mean 'stride'"),
        ({'model.backbone.archs': 's1'}, "model.backbone: LALE has no argument 'archs'; did you mean 'arch'"),
        (
            {'model.backbone.type': 'LALLE'},
            "model.backbone.type: nothing is registered as 'LALLE'; did you mean 'LALE'",
        ),
        ({'model.decode_head.num_class': 3}, "LALEHead has no argument 'num_class'; did you mean 'num_classes'"),
        ({'train_dataloader.batchsize': 3}, "train_dataloader: unknown field 'batchsize'; did you mean 'batch_size'"),
        ({'val_dataloader.dataset.splt': 'x'}, "val_dataloader.dataset: PaletteDataset has no argument 'splt'"),
        (
            {'train_dataloader.dataset.pipeline.2.crop_sizes': 1},
            r"pipeline\.2: RandomCrop has no argument 'crop_sizes'",
        ),
        ({'val_evaluator.ignore_indx': 0}, "val_evaluator: SegmentationMetric has no argument 'ignore_indx'"),
        ({'optim_wrapper.clip_gradd': {}}, "optim_wrapper: OptimWrapper has no argument 'clip_gradd'"),
        (
            {'optim_wrapper.optimizer.weight_decai': 0},
            "AdamW has no argument 'weight_decai'; did you mean 'weight_decay'",
        ),
        ({'param_scheduler.0.eta_maxx': 0}, "param_scheduler.0: OneCycleLR has no argument 'eta_maxx'"),
        ({'default_hooks.logger.intervall': 5}, "default_hooks.logger: LoggerHook has no argument 'intervall'"),
    ],
)
def test_misspelt_fields_are_named_with_the_right_one(cfg, change, message):
    cfg.merge_from_dict(change)
    with pytest.raises(ConfigError, match=message):
        check_fields(cfg)


def test_own_variables_and_parts_are_no_misspellings(cfg):
    cfg.merge_from_dict({'my_note': 'x', 'tile_size': 512, 'default_hooks.ema': dict(type='EMAHook')})
    cfg.custom_hooks = [dict(type='EarlyStoppingHook', monitor='mF1', priority='LOW')]
    check_fields(cfg)


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('data_rot', "unknown config field 'data_rot'; did you mean 'data_root'"),
        ('nonsense', "the config has no field 'nonsense'"),
        ('train_cfg.max_iter', "'train_cfg.max_iter'; did you mean 'max_iters'"),
        ('param_scheduler.3.begin', 'param_scheduler is a list of 1 entries'),
        ('crop_size.x', 'crop_size is a list of 2 entries'),
        ('log_level.x', "log_level is 'INFO' and has no field 'x'"),
    ],
)
def test_overrides_that_lead_nowhere_are_named(cfg, name, message):
    with pytest.raises(ConfigError, match=message):
        check_overrides(cfg, {name: 1})


def test_overrides_may_add_what_a_part_accepts(cfg):
    check_overrides(cfg, {'model.backbone.kernel_size': 7, 'load_from': 'x.pth', 'compile': True})


def test_arguments_are_followed_through_named_parents_but_not_through_catch_alls():
    names = accepted_arguments(LALEHead)
    assert {'in_channels', 'num_classes', 'loss_decode'} <= names
    assert 'kwargs' not in names

    class Anything:
        def __init__(self, **kwargs):
            self.kwargs = kwargs

    assert accepted_arguments(Anything) is None
