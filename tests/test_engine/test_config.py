import pytest
from mmengine.config import Config

from lale_mmseg.engine.config import _check_schedules, check_config, complete_config, dataset_classes
from lale_mmseg.errors import ConfigError, DataError
from tests.support import REPO

PALETTE = REPO / 'configs/lale/lale_s1_1xb8-onecycle-400_palette-256x256.py'
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


@pytest.fixture
def palette_cfg(tmp_path):
    """A config of a data set of three classes, whose augmentation is open."""
    (tmp_path / 'classes.csv').write_text('index,name,r,g,b\n0,road,255,0,0\n1,roof,0,255,0\n2,tree,0,0,255\n')
    cfg = Config.fromfile(PALETTE)
    cfg.data_root = str(tmp_path)
    step = cfg.train_dataloader.dataset.pipeline[3]
    assert step.type == 'SeededAlbu'
    del step['transforms']
    return cfg


def augmentation_of(cfg):
    return cfg.train_dataloader.dataset.pipeline[3].get('transforms')


@pytest.mark.parametrize('value', ['heavy', [dict(type='D4', p=1.0)], []])
def test_the_augmentation_is_filled_in_where_it_is_open(palette_cfg, value):
    palette_cfg.augmentation = value
    done = complete_config(palette_cfg)
    assert augmentation_of(done) == value
    assert augmentation_of(palette_cfg) is None
    assert complete_config(done).to_dict() == done.to_dict()  # as the config of a finished run


def test_steps_with_an_augmentation_of_their_own_keep_it(palette_cfg):
    own = dict(type='SeededAlbu', transforms='light')
    inner = palette_cfg.train_dataloader.dataset
    # Inside a wrapper of data sets, and of transforms.
    inner.pipeline.append(dict(type='RandomApply', transforms=[own, dict(type='mmseg.SeededAlbu')]))
    palette_cfg.train_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[dict(type='RepeatDataset', times=2, dataset=inner)]
    )
    palette_cfg.augmentation = 'medium'
    done = complete_config(palette_cfg)
    pipeline = done.train_dataloader.dataset.datasets[0].dataset.pipeline
    assert pipeline[3].transforms == 'medium'
    assert [step.transforms for step in pipeline[-1].transforms] == ['light', 'medium']


def test_augmentations_that_cannot_be_are_named(palette_cfg):
    where = r'train_dataloader\.dataset\.pipeline\.3: SeededAlbu: '
    with pytest.raises(ConfigError, match=where + "transforms is not set; .* top-level augmentation, to 'light', "):
        complete_config(palette_cfg)
    palette_cfg.augmentation = 'hevy'
    with pytest.raises(ConfigError, match=where + "no augmentation preset is called 'hevy'; known are 'light', "):
        complete_config(palette_cfg)
    palette_cfg.augmentation = [dict(type='D4', prob=1)]
    with pytest.raises(ConfigError, match=where + "D4 has no argument 'prob'"):
        complete_config(palette_cfg)


def test_an_augmentation_that_nothing_takes_is_an_error():
    cfg = Config.fromfile(PALETTE)
    cfg.augmentation = 'heavy'
    with pytest.raises(ConfigError, match="augmentation is 'heavy', but no pipeline has a SeededAlbu that leaves"):
        complete_config(cfg)


def test_one_class_is_told_from_everything_else_in_all_phases(palette_cfg):
    palette_cfg.augmentation = 'light'
    palette_cfg.binary_class = 'roof'
    palette_cfg.test_dataloader.dataset.binary_class = 'tree'
    done = complete_config(palette_cfg)
    found = [done[f'{phase}_dataloader'].dataset.binary_class for phase in ('train', 'val', 'test')]
    assert found == ['roof', 'roof', 'tree']
    assert done.model.decode_head.num_classes == 2
    assert complete_config(done).to_dict() == done.to_dict()
    assert dataset_classes(done.val_dataloader.dataset) == ('background', 'roof')
    check_config(done, ('train', 'val', 'test'))
    palette_cfg.binary_class = 'rof'
    with pytest.raises(ConfigError, match="binary_class='rof': no class is called so; known are 'road', 'roof'"):
        complete_config(palette_cfg)


def test_one_class_that_no_data_set_takes_is_an_error(cfg, palette_cfg):
    cfg.binary_class = 'tree'
    with pytest.raises(ConfigError, match=r"binary_class is 'tree', but no dataset has a binary_class argument"):
        complete_config(cfg)
    palette_cfg.update(binary_class='tree', augmentation='light')
    for phase in ('train', 'val', 'test'):
        palette_cfg[f'{phase}_dataloader'].dataset.binary_class = 'roof'
    with pytest.raises(ConfigError, match='each dataset sets its own binary_class'):
        complete_config(palette_cfg)


def test_seeds_of_draws_need_their_sampler_and_a_seed_of_the_run(cfg):
    cfg.train_dataloader.dataset.pipeline.insert(0, dict(type='SeedDraw'))
    done = complete_config(cfg)
    where = r'train_dataloader\.dataset\.pipeline\.0 is SeedDraw, but train_dataloader\.sampler is InfiniteSampler'
    with pytest.raises(ConfigError, match=where):
        check_config(done, ('train',))
    check_config(done, ('val',))
    done.train_dataloader.sampler = dict(type='ReplacementSampler', samples_per_epoch=8)
    check_config(done, ('train',))
    for randomness in (dict(seed=None), dict(seed=0, diff_rank_seed=True)):
        done.randomness = randomness
        with pytest.raises(ConfigError, match='ReplacementSampler, but randomness gives it no seed'):
            check_config(done, ('train',))
    done.train_dataloader.sampler.seed = 0
    check_config(done, ('train',))


def with_losses(of_head, **evaluator):
    head = dict(type='FCNHead', in_channels=8, channels=8, num_classes=2, loss_decode=of_head)
    model = dict(type='EncoderDecoder', backbone=dict(type='LALE'), decode_head=head)
    return Config(dict(model=model, val_evaluator=[dict(type='LogitsLossMetric', **evaluator)]))


def test_losses_of_a_validation_are_those_of_the_head():
    losses = [dict(type='CrossEntropyLoss', loss_weight=0.3), dict(type='SoftDiceLoss', loss_weight=0.7)]
    completed = complete_config(with_losses(losses))
    assert completed.val_evaluator[0].losses == losses
    assert complete_config(completed).val_evaluator[0].losses == losses
    assert complete_config(with_losses(losses[0])).val_evaluator[0].losses == losses[:1]
    assert complete_config(with_losses(losses, losses=losses[1:])).val_evaluator[0].losses == losses[1:]


def test_losses_whose_weights_come_from_the_data_are_written_out():
    with pytest.raises(ConfigError, match='val_evaluator: LogitsLossMetric has no losses'):
        complete_config(with_losses(dict(type='CrossEntropyLoss', class_weight='data')))
