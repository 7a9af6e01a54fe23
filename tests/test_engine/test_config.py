"""What a config leaves open is filled in; what would end a run after hours is found before it."""

import pytest
from mmengine.config import Config
from mmseg.registry import TRANSFORMS

from lale_mmseg.datasets.image_io import read_bytes
from lale_mmseg.engine.config import check_config, complete_config, dataset_classes
from lale_mmseg.errors import ConfigError, DataError
from tests.support import REPO
from tests.test_engine.tiny_run import TinyRoofs, tiny_config

PALETTE = REPO / 'configs/lale/lale_s1_1xb8-onecycle-400_palette-256x256.py'
TOY = REPO / 'configs/lale/lale_s1_1xb8-onecycle-400_aras400k-toy-256x256.py'


@pytest.fixture
def cfg(toy_root):
    cfg = Config.fromfile(TOY)
    cfg.data_root = str(toy_root)
    return cfg


@pytest.fixture
def palette_cfg(tmp_path):
    """A config for a dataset of three classes, whose augmentation is open."""
    (tmp_path / 'classes.csv').write_text('index,name,r,g,b\n0,road,255,0,0\n1,roof,0,255,0\n2,tree,0,0,255\n')
    cfg = Config.fromfile(PALETTE)
    cfg.data_root = str(tmp_path)
    del cfg.train_dataloader.dataset.pipeline[3]['transforms']
    cfg.augmentation = 'light'
    return cfg


def test_data_root_and_class_count_are_filled_in_inside_wrappers_too(cfg, toy_root):
    cfg.val_dataloader.dataset.data_root = '/own'
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=cfg.train_dataloader.dataset)
    done = complete_config(cfg)
    assert done.train_dataloader.dataset.dataset.data_root == str(toy_root)
    assert done.val_dataloader.dataset.data_root == '/own'
    assert done.model.decode_head.num_classes == 7
    assert 'data_root' not in cfg.train_dataloader.dataset.dataset  # the given config is not changed


def test_hooks_that_every_run_needs_are_merged_under_those_of_the_config(cfg):
    cfg.default_hooks.epoch_seed = None
    cfg.default_hooks.plain_checkpoint = dict(type='PlainCheckpointHook', priority=99)
    hooks = complete_config(cfg).default_hooks
    assert hooks.epoch_seed is None
    assert hooks.plain_checkpoint.priority == 99
    assert hooks.resumed_validation.type == 'ResumedValidationHook'
    assert hooks.report.type == 'ReportHook'


def test_loops_predict_unless_another_type_is_named(cfg):
    cfg.val_cfg, cfg.test_cfg = dict(), dict(type='TestLoop', fp16=True)
    done = complete_config(cfg)
    assert (done.val_cfg, done.test_cfg) == (dict(type='PredictionValLoop'), dict(type='PredictionTestLoop', fp16=True))
    cfg.val_cfg.type = 'mmengine.ValLoop'
    assert complete_config(cfg).val_cfg.type == 'mmengine.ValLoop'


@pytest.mark.parametrize(
    ('backbone', 'own', 'expected'),
    [
        ('MixVisionTransformer', dict(), dict(size_divisor=1)),
        ('PIDNet', dict(), dict(size_divisor=8, test_cfg=dict(size_divisor=8))),
        ('mmseg.UNet', dict(size=(64, 64)), dict(size=(64, 64), test_cfg=dict(size_divisor=16))),
        ('UNet', dict(size_divisor=32, test_cfg=dict(size_divisor=32)), None),
    ],
)
def test_padding_is_filled_in_for_networks_of_mmsegmentation(cfg, backbone, own, expected):
    cfg.model.backbone.type = backbone
    cfg.model.data_preprocessor = dict(type='SegDataPreProcessor', **own)
    assert complete_config(cfg).model.data_preprocessor == dict(type='SegDataPreProcessor', **(expected or own))


@pytest.mark.parametrize('value', ['heavy', [dict(type='D4', p=1.0)], []])
def test_the_augmentation_is_filled_in_where_it_is_open(palette_cfg, value):
    own = dict(type='SeededAlbu', transforms='light')
    palette_cfg.train_dataloader.dataset.pipeline.append(dict(type='RandomApply', transforms=[own]))
    palette_cfg.augmentation = value
    done = complete_config(palette_cfg)
    pipeline = done.train_dataloader.dataset.pipeline
    assert pipeline[3].transforms == value
    assert pipeline[-1].transforms[0].transforms == 'light'
    assert complete_config(done).to_dict() == done.to_dict()  # like the config of a finished run


@pytest.mark.parametrize(
    ('transforms', 'message'),
    [
        (None, "transforms=None; set it, or the config's top-level augmentation, to 'light', "),
        ('hevy', "transforms='hevy'; .* 'light', 'medium', 'heavy', 'extreme' or a list of albumentations"),
        ([dict(type='D4', prob=1)], "D4 has no argument 'prob'"),
    ],
)
def test_augmentations_that_cannot_be_built(transforms, message):
    with pytest.raises(ConfigError, match=f'SeededAlbu: {message}'):
        TRANSFORMS.build(dict(type='SeededAlbu', transforms=transforms))


def test_top_level_fields_that_nothing_uses_are_errors(cfg):
    cfg.augmentation = 'heavy'
    with pytest.raises(ConfigError, match="augmentation is 'heavy', but no SeededAlbu of the training pipeline uses"):
        complete_config(cfg)
    cfg.augmentation = None
    cfg.binary_class = 'tree'
    with pytest.raises(ConfigError, match="binary_class is 'tree', but no dataset of the config uses it: ARAS400k"):
        complete_config(cfg)


def test_one_class_against_everything_else_in_all_phases(palette_cfg):
    palette_cfg.binary_class = 'roof'
    palette_cfg.test_dataloader.dataset.binary_class = 'tree'
    done = complete_config(palette_cfg)
    found = [done[f'{phase}_dataloader'].dataset.binary_class for phase in ('train', 'val', 'test')]
    assert found == ['roof', 'roof', 'tree']
    assert done.model.decode_head.num_classes == 2
    assert dataset_classes(done.val_dataloader.dataset) == ('background', 'roof')
    check_config(done, ('train', 'val', 'test'))


def test_losses_of_a_validation_are_those_of_the_head(tmp_path):
    cfg = tiny_config(tmp_path)
    own = [dict(type='SoftDiceLoss', loss_name='loss_own')]
    cfg.val_evaluator = [dict(type='LogitsLossMetric'), dict(type='LogitsLossMetric', losses=own, prefix='own')]
    done = complete_config(cfg)
    assert done.val_evaluator[0].losses == cfg.model.decode_head.loss_decode
    assert done.val_evaluator[1].losses == own
    assert done.model.test_cfg.keep_logits is True


def test_class_weights_of_the_wrong_length_are_found(palette_cfg):
    palette_cfg.model.decode_head.loss_decode.class_weight = [1.0, 1.0]
    message = r'model\.decode_head\.loss_decode\.class_weight has 2 numbers, but model\.decode_head has 3 classes'
    with pytest.raises(ConfigError, match=message):
        check_config(complete_config(palette_cfg), ('val',))
    palette_cfg.model.decode_head.loss_decode.class_weight = [1.0, 1.0, 4.0]
    check_config(complete_config(palette_cfg), ('val',))


def test_class_weights_come_from_the_training_set(tmp_path, monkeypatch):
    cfg = tiny_config(tmp_path)
    cfg.model.decode_head.loss_decode[0].class_weight = 'data'
    # 100 pixels of background, 10 of building
    done = complete_config(cfg)
    assert done.model.decode_head.loss_decode[0].class_weight == pytest.approx([1.090909, 1.909091])
    cfg.val_evaluator = [dict(type='LogitsLossMetric')]
    done = complete_config(cfg)
    assert done.val_evaluator[0].losses == done.model.decode_head.loss_decode
    # Without the training tiles the config can be tested, not trained.
    monkeypatch.setattr(TinyRoofs, 'class_pixels', lambda self: read_bytes(tmp_path / 'statistics.json'))
    done = complete_config(cfg)
    assert done.model.decode_head.loss_decode[0].class_weight is None
    check_config(done, ['test'])
    with pytest.raises(DataError, match=r'statistics\.json: cannot be read'):
        check_config(done, ['train'])
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=dict(type='BaseSegDataset'))
    with pytest.raises(ConfigError, match="'data' needs one training dataset that counts its classes, got BaseSeg"):
        complete_config(cfg)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {'model.decode_head.num_classes': 6},
            r'decode_head\.num_classes is 6, but train_dataloader\.dataset .* has 7',
        ),
        ({'train_cfg': dict(type='EpochBasedTrainLoop', max_epochs=1)}, 'with which an epoch never ends'),
        ({'train_cfg.max_iters': 800}, r'param_scheduler\.0\.total_steps is 400, but train_cfg\.max_iters is 800'),
        (
            {'optim_wrapper.paramwise_cfg': dict(custom_keys={'backbone': dict(lr_mult=0.1)})},
            r'custom_keys\.backbone\.lr_mult is 0\.1, but param_scheduler\.0 is OneCycleLR',
        ),
        (
            {'train_dataloader.sampler': dict(type='ReplacementSampler'), 'randomness': dict(seed=None)},
            'ReplacementSampler without a seed',
        ),
    ],
)
def test_contradictions_are_found_before_training(cfg, changes, message):
    check_config(complete_config(cfg), ('train',))
    for name, value in changes.items():
        *parents, last = name.split('.')
        node = cfg
        for parent in parents:
            node = node[parent]
        node[last] = value
    with pytest.raises(ConfigError, match=message):
        check_config(complete_config(cfg), ('train',))


def test_missing_data_are_reported_with_the_command_that_makes_them(cfg):
    cfg.data_root = '/nowhere'
    with pytest.raises(DataError, match=r"'/nowhere' does not exist: make it with .*data_prep/aras400k\.py"):
        check_config(complete_config(cfg), ('train',))
