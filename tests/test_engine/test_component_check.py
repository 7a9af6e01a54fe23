from pathlib import Path

import mmseg
import pytest
from mmengine.config import Config

from lale_mmseg.engine.component_check import accepted_arguments, check_fields, check_overrides
from lale_mmseg.errors import ConfigError
from lale_mmseg.models.decode_heads import LALEHead
from tests.support import REPO

SHIPPED = Path(mmseg.__file__).parent / '.mim' / 'configs'
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
        ({'default_hooks.param_scheduler.when': 5}, "ParamSchedulerHook has no argument 'when'; it takes none"),
        ({'data_preprocessor.stdd': 1}, "data_preprocessor: ChannelsLastDataPreProcessor has no argument 'stdd'"),
        ({'visualizer.alfa': 0.5}, "visualizer: SegLocalVisualizer has no argument 'alfa'; did you mean 'alpha'"),
        ({'visualizer.vis_backends.0.typo': 1}, r"visualizer\.vis_backends\.0: LocalVisBackend has no argument 'typo'"),
        ({'visualizer.vis_backends.0.type': 'LocalVisBackendd'}, r"backends\.0\.type.*did you mean 'LocalVisBackend'"),
        ({'log_processor.by_epok': True}, "log_processor: LogProcessor has no argument 'by_epok'; .*'by_epoch'"),
        ({'randomness.sede': 3}, "randomness: unknown field 'sede'; did you mean 'seed'"),
    ],
)
def test_misspelt_fields_are_named_with_the_right_one(cfg, change, message):
    cfg.merge_from_dict(change)
    with pytest.raises(ConfigError, match=message):
        check_fields(cfg)


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        (
            'model.decode_head.loss_decode',
            dict(type='CrossEntropyLoss', loss_wieght=0.5),
            r"^model\.decode_head\.loss_decode: CrossEntropyLoss has no argument 'loss_wieght'; "
            r"did you mean 'loss_weight'\?$",
        ),
        (
            'model.decode_head.loss_decode',
            [dict(type='CrossEntropyLoss'), dict(type='DiceLos')],
            r"^model\.decode_head\.loss_decode\.1\.type: nothing is registered as 'DiceLos'; did you mean 'DiceLoss'",
        ),
        (
            'model.backbone.attn_cfg',
            dict(type='LRSA'),
            r"^model\.backbone\.attn_cfg\.type: .* as 'LRSA'; is its module in custom_imports\? Attentions of this "
            r'package are LowResolutionSelfAttention, MetaTokenAttention, MultiHeadAttention\.$',
        ),
        ('model.backbone.attn_cfg', dict(type='MultiHeadAtention'), "did you mean 'MultiHeadAttention'"),
        (
            'model.backbone.attn_cfg',
            [None, None, dict(type='LRSA'), None],
            r'^model\.backbone\.attn_cfg\.2\.type: .* Attentions of this package are LowResolution',
        ),
        (
            'model.backbone.attn_cfg',
            [None, dict(type='LowResolutionSelfAttention', qsize=8), None, None],
            r"^model\.backbone\.attn_cfg\.1: LowResolutionSelfAttention has no argument 'qsize'; did you mean 'q_size'",
        ),
        ('model.backbone.attn_cfg', dict(type='MetaTokenAtention'), "did you mean 'MetaTokenAttention'"),
        ('model.backbone.attn_cfg', dict(type='mmsg.MultiHeadAttention'), "did you mean 'mmseg.MultiHeadAttention'"),
        ('model.backbone.attn_cfg', dict(type='mmseg.MultiHeadAtention'), "did you mean 'mmseg.MultiHeadAttention'"),
        (
            'model.decode_head.norm_cfg',
            dict(type='SyncBN', epss=1),
            "decode_head.norm_cfg: SyncBN has no argument 'epss'",
        ),
        ('model.decode_head.act_cfg', dict(type='ReLU', in_place=True), 'ReLU .*did you mean .inplace'),
        ('model.backbone.init_cfg', dict(type='Pretrained', checkpont='x'), "did you mean 'checkpoint'"),
        ('train_cfg', dict(type='IterBasedTrainLoop', max_itres=5), "^train_cfg: IterBased.*did you mean 'max_iters'"),
        ('train_cfg', dict(type='IterBasedTrainLop', max_iters=5), r"^train_cfg\.type: .*'IterBasedTrainLoop'"),
        (
            'train_cfg',
            dict(by_epoch=True, max_epoch=5),
            "EpochBasedTrainLoop has no argument 'max_epoch'; .*'max_epochs'",
        ),
        (
            'train_cfg',
            dict(by_epoch=False, max_epochs=5),
            "^train_cfg: IterBasedTrainLoop has no argument 'max_epochs'",
        ),
        ('train_cfg', dict(type='IterBasedTrainLoop', by_epoch=False, max_iters=5), "has no argument 'by_epoch'"),
        ('val_cfg', dict(fp61=True), "^val_cfg: ValLoop has no argument 'fp61'; did you mean 'fp16'"),
        ('test_cfg', dict(type='TestLoop', fp61=True), "^test_cfg: TestLoop has no argument 'fp61'"),
        (
            'optim_wrapper',
            dict(constructor='LearningRateDecayOptimizerConstructor', optimizer=dict(type='AdamW', beta=(0.9, 0.99))),
            r"^optim_wrapper\.optimizer: AdamW has no argument 'beta'; did you mean 'betas'",
        ),
        ('optim_wrapper', dict(optimizer=dict(type='SGD', lr=1), clip_gard={}), "OptimWrapper .*'clip_grad'"),
    ],
)
def test_misspelt_parts_inside_parts_are_named(cfg, name, value, message):
    _put(cfg, name, value)
    with pytest.raises(ConfigError, match=message):
        check_fields(cfg)


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('model.decode_head.norm_cfg', dict(type='BN', requires_grad=True, momentum=0.01)),
        ('model.decode_head.act_cfg', dict(type='ReLU', inplace=True)),
        ('model.backbone.attn_cfg', [None, None, None, dict(type='mmseg.MultiHeadAttention')]),
        ('model.backbone.attn_cfg', dict(type='another_package.Attention', heads=3)),
        ('model.backbone.init_cfg', dict(type='Pretrained_Part', checkpoint='x.pth')),
        (
            'model.backbone.init_cfg',
            [dict(type='Normal', layer='Conv2d', std=1, override=dict(type='Xavier', name='x'))],
        ),
        ('train_cfg', dict(by_epoch=True, max_epochs=5, val_interval=1)),
        ('train_cfg', dict(by_epoch=False, max_iters=5)),
        ('val_cfg', None),
        ('val_cfg', {}),
        ('randomness', dict(seed=1, deterministic=True, diff_rank_seed=False)),
        ('log_processor', dict(by_epoch=False, window_size=5)),
        ('visualizer', dict(type='SegLocalVisualizer', vis_backends=[dict(type='WandbVisBackend', name='w')])),
        ('optim_wrapper', dict(constructor='OfMine', generator=dict(optimizer=dict(type='SGD')))),
        ('runner', dict(name='mine')),
        ('data', 'aerial'),
        ('data_root_2', 'x'),
        ('train_dataloader_real', {}),
        ('models', ['a', 'b']),
    ],
)
def test_what_the_builders_accept_passes(cfg, name, value):
    _put(cfg, name, value)
    check_fields(cfg)


@pytest.mark.parametrize(
    ('name', 'value', 'instead'),
    [
        ('resume_from', None, 'load_from plus resume=True'),
        ('lr_config', dict(policy='poly'), 'param_scheduler'),
        ('checkpoint_config', dict(interval=1), r'default_hooks\.checkpoint'),
        ('evaluation', dict(interval=1), r'val_evaluator and train_cfg\.val_interval'),
        ('optimizer_config', {}, 'optim_wrapper'),
        ('log_config', dict(interval=50), r'default_hooks\.logger and visualizer'),
        ('data', dict(samples_per_gpu=2), 'train_dataloader'),
        ('workflow', [('train', 1)], r'train_cfg\.val_interval'),
        ('runner', dict(type='IterBasedRunner', max_iters=5), 'train_cfg'),
        ('runner', dict(max_epochs=5), 'train_cfg'),
    ],
)
def test_fields_of_old_configs_are_named_with_what_replaced_them(cfg, name, value, instead):
    cfg[name] = value
    with pytest.raises(ConfigError, match=f"^config field '{name}' is of mmsegmentation 0.x .*; use {instead}"):
        check_fields(cfg)


def test_configs_of_mmsegmentation_are_accepted():
    every = sorted(path for path in SHIPPED.rglob('*.py') if '_base_' not in path.parts)
    families = [path for path in every if path.parent.name in ('maskformer', 'point_rend', 'bisenetv2')]
    assert len([path for path in families if path.parent.name == 'maskformer']) == 4
    checked = 0
    for path in sorted({*every[::20], *families}):
        try:
            shipped = Config.fromfile(path)
        except ImportError:  # needs a package that is not installed
            assert path not in families
            continue
        if 'runner' not in shipped:  # those are refused, see the next test
            check_fields(shipped)
            checked += 1
    assert checked >= 40


def test_a_shipped_config_with_a_schedule_that_is_not_read_is_refused():
    shipped = Config.fromfile(SHIPPED / 'mobilenet_v3/mobilenet-v3-d8_lraspp_4xb4-320k_cityscapes-512x1024.py')
    assert shipped.runner.max_iters != shipped.train_cfg.max_iters
    with pytest.raises(ConfigError, match=r"^config field 'runner'"):
        check_fields(shipped)


def _put(cfg, name, value):
    path, _, last = name.rpartition('.')
    node = cfg
    for part in filter(None, path.split('.')):
        node = node[part]
    node[last] = value


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
        ('resume_from', "'resume_from' is of mmsegmentation 0.x and no longer read; use load_from plus resume=True"),
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

    class Swallows:
        def __init__(self, *args, **kwargs):
            pass

    class Parent:
        def __init__(self, width=1):
            self.width = width

    class PassesOn(Parent):
        def __init__(self, depth=1, **kwargs):
            super().__init__(**kwargs)

    class PassesAllOn(Parent):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

    class UsesItself(Parent):
        def __init__(self, depth=1, **kwargs):
            super().__init__()
            self.options = dict(**kwargs)

    assert accepted_arguments(Swallows) is None
    assert accepted_arguments(PassesOn) == {'depth', 'width'}
    assert accepted_arguments(PassesAllOn) == {'width'}
    assert accepted_arguments(UsesItself) is None
