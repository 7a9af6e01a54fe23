"""Recipes of attempts: what compare_attempts calls different, what belongs to the network, and what it calls equal."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config

from tests.attempts import CONFIG, RECIPE, attempt, comparing  # noqa: F401
from tests.support import REPO


def start(folder: Path, name: str, trained: bool, extra: str = '', epoch: int = 1, **recipe) -> None:
    """What mmengine leaves of a start of a tool."""
    log = folder / name / 'vis_data'
    log.mkdir(parents=True)
    (log / 'config.py').write_text(CONFIG.format(**{**RECIPE, **recipe}) + extra)
    if trained:
        row = {'train/loss': 0.5, 'epoch': epoch, 'iter': 100, 'step': 100}
        (log / 'scalars.json').write_text(f'{json.dumps(row)}\n')


def test_recipes_that_differ_are_named(compare, tmp_path):
    first = attempt(tmp_path / 'a', [50.0, 51.0, 52.0])
    second = attempt(tmp_path / 'b', [60.0, 61.0, 62.0], lr=0.0001, augmentation='heavy', bce=1.0, samples=200)
    said, content = compare(first, second)
    assert 'recipes agree' not in said
    assert set(content['differences']) == {
        'class losses', 'augmentation and training pipeline', 'samples an epoch and batch', 'optimizer',
    }  # fmt: skip
    losses = content['differences']['class losses']
    assert losses == {'model.decode_head.loss_decode.0.loss_weight': {'1.0': ['b'], '0.5': ['a']}}
    assert 'optimizer: optim_wrapper.optimizer.lr: 0.0001 (b); 0.001 (a)' in said
    assert 'augmentation and training pipeline: augmentation: "heavy" (b); "medium" (a)' in said


@pytest.mark.parametrize(
    ('extra', 'group', 'path'),
    [
        ("load_from = 'coco.pth'", 'initial weights', 'load_from'),
        ("model.update(encoder_weights='imagenet')", 'initial weights', 'model.encoder_weights'),
        ("model.update(backbone=dict(weights='sa1b'))", 'initial weights', 'model.backbone.weights'),
        (
            "model.update(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='a.pth')))",
            'initial weights',
            'model.backbone.init_cfg.checkpoint',
        ),
        ("model.update(test_cfg=dict(mode='slide', crop_size=(256, 256)))", 'prediction', 'model.test_cfg.crop_size'),
        (
            "val_dataloader['dataset'].update(pipeline=[dict(type='Resize', scale=(512, 512))])",
            'validation and test pipelines',
            'val_pipeline.0.scale',
        ),
        (
            "test_dataloader = dict(dataset=dict(pipeline=[dict(type='Resize')]))",
            'validation and test pipelines',
            'test_pipeline.0.type',
        ),
        (
            'model.update(data_preprocessor=dict(mean=[0.0, 0.0, 0.0]))',
            'data preprocessor',
            'data_preprocessor.mean',
        ),
        ("model['decode_head'].update(dropout_ratio=0.3)", 'decoder dropout', 'highest rate'),
        ('model.update(decoder_dropout=0.1)', 'decoder dropout', 'highest rate'),
        ("train_cfg['max_epochs'] = 4", 'schedule', 'train_cfg.max_epochs'),
        ("param_scheduler = dict(type='PolyLR')", 'schedule', 'param_scheduler.type'),
        ("default_hooks['stop']['patience'] = 5", 'schedule', 'hooks.LALEEarlyStopping.patience'),
        ("custom_hooks = [dict(type='EMAHook')]", 'schedule', 'hooks.EMAHook.type'),
        ("optim_wrapper['optimizer']['weight_decay'] = 0.5", 'optimizer', 'optim_wrapper.optimizer.weight_decay'),
        (
            "train_dataloader['sampler']['samples_per_epoch'] = 100",
            'samples an epoch and batch',
            'train_dataloader.sampler.samples_per_epoch',
        ),
        ("train_dataloader['batch_size'] = 8", 'samples an epoch and batch', 'train_dataloader.batch_size'),
        ("data_root = 'other'", 'data, protocol and split', 'data_root'),
        ("binary_class = 'car'", 'data, protocol and split', 'binary_class'),
        ("val_dataloader['dataset']['split'] = 'test'", 'data, protocol and split', 'val_dataset.split'),
        ("val_evaluator['score_classes'] = [0]", 'scoring', 'val_evaluator.score_classes'),
        (
            "train_dataloader['dataset']['pipeline'] += [dict(type='SeedDraw')]",
            'augmentation and training pipeline',
            'train_pipeline.1.type',
        ),
    ],
)
def test_what_the_network_does_not_decide_is_compared(compare, tmp_path, extra, group, path):
    a, b = attempt(tmp_path / 'a', [50.0] * 3), attempt(tmp_path / 'b', [60.0] * 3, extra=extra)
    said, content = compare(a, b)
    assert 'recipes agree' not in said
    assert [*content['differences']] == [group]
    assert path in content['differences'][group]


def test_the_batch_is_that_of_all_processes(compare, tmp_path):
    a, b, c = (
        attempt(tmp_path / name, [50.0] * 3, processes=processes, extra=f"train_dataloader['batch_size'] = {size}")
        for name, processes, size in (('a', 4, 1), ('b', None, 4), ('c', 4, 4))
    )
    _, content = compare(a, b)
    assert content['differences'] == {}
    _, content = compare(a, c)
    assert content['differences'] == {
        'samples an epoch and batch': {'train_dataloader.batch_size': {'4': ['a'], '16': ['c']}}
    }


def test_starts_of_an_earlier_training_in_the_folder_are_not_of_this_one(compare, tmp_path):
    folder = attempt(tmp_path / 'a', [50.0] * 3)
    start(folder, '20200101_120000', trained=True, lr=0.5)
    start(folder, '20200102_120000', trained=True)
    assert compare(folder)[1]['attempts'][0]['notes'] == []
    start(folder, '20200103_120000', trained=True, extra='resume = True', samples=3)
    note = 'trained in 2 starts whose recipes differ in train_dataloader.sampler.samples_per_epoch'
    assert compare(folder)[1]['attempts'][0]['notes'] == [note]


def test_what_the_network_decides_is_no_difference(compare, tmp_path):
    """Where dropout stands, what its strides need as padding, edges for its losses, weights that were left out."""
    first = """
model.update(decoder_dropout=0.3, encoder_weights=None, data_preprocessor=dict(mean=[1.0], size_divisor=32, size=None))
model['decode_head'].update(dropout_ratio=0.0, channels=16)
train_dataloader['dataset']['pipeline'] += [dict(type='LaplacianEdges'), dict(type='PackSegInputs')]
"""
    second = """
model.update(data_preprocessor=dict(mean=[1.0], test_cfg=dict(size_divisor=16)), backbone=dict(type='LALE'))
model['decode_head'].update(dropout_ratio=0.3)
train_dataloader['dataset']['pipeline'] += [dict(type='PackSegInputs')]
"""
    said, content = compare(
        attempt(tmp_path / 'a', [50.0] * 3, extra=first), attempt(tmp_path / 'b', [60.0] * 3, extra=second)
    )
    assert content['differences'] == {}
    assert 'data preprocessor' in said


def test_agreement_is_claimed_of_what_was_compared_alone(compare, tmp_path):
    """The configs here say nothing of dropout, pipelines of the test, preprocessor or prediction."""
    said, _ = compare(*(attempt(tmp_path / name, [50.0] * 3) for name in 'ab'))
    line = next(line for line in said.splitlines() if line.startswith('recipes agree'))
    assert line.removeprefix('recipes agree in: ').split('; ') == [
        'data, protocol and split', 'class losses', 'initial weights', 'augmentation and training pipeline',
        'samples an epoch and batch', 'optimizer', 'schedule', 'scoring', 'seed',
    ]  # fmt: skip


def test_the_recipe_is_that_of_the_training_not_of_a_later_test(compare, tmp_path):
    a, b = attempt(tmp_path / 'a', [50.0] * 3), attempt(tmp_path / 'b', [60.0] * 3, lr=0.5)
    (b / 'tta.py').write_text(CONFIG.format(**RECIPE))  # of a test with another config
    start(b, '20260101_000000', trained=True)
    start(b, '20260102_000000', trained=False, lr=0.5)
    said, _ = compare(a, b)
    assert 'recipes agree' in said
    start(b, '20260103_000000', trained=True, samples=200, extra='resume = True\n')
    said, content = compare(a, b)
    assert [*content['differences']] == ['samples an epoch and batch']
    assert 'b: trained in 2 starts whose recipes differ in train_dataloader.sampler.samples_per_epoch' in said


def test_a_start_that_resumed_has_the_initial_weights_of_the_first(compare, tmp_path):
    """A start that resumes names its checkpoint in load_from."""
    weights = "load_from = 'coco.pth'\n"
    a, b = (attempt(tmp_path / name, [50.0] * 3, extra=weights) for name in 'ab')
    start(b, '20260101_000000', trained=True, extra=weights)
    start(b, '20260102_000000', trained=True, extra="load_from = 'b/epoch_2.pth'\nresume = True\n")
    said, content = compare(a, b)
    assert content['differences'] == {}
    assert 'recipes agree' in said
    assert 'starts' not in said


def test_attempts_of_this_repository_differ_in_what_their_recipe_says(compare, tmp_path):
    """SAM's batch and learning rate, the frozen encoder's epochs, published weights; nothing else."""
    names = [
        'unet_c32_1xb4-plateau-60e',
        'unet_r34_1xb4-plateau-60e-freeze-20e',
        'deeplabv3plus_r34_1xb4-plateau-60e-freeze-20e',
        'sam-conv_b_1xb2-plateau-60e',
        'sam-unet_b_1xb2-plateau-60e',
        'lale_s1_1xb4-plateau-60e',
        'lale_s2_1xb4-plateau-60e',
        'lale_s1-lrsa_1xb4-plateau-60e',
        'ued-bes-sfm_x10_1xb4-plateau-60e',
    ]
    folders = []
    for number, name in enumerate(names, 1):
        folders.append(attempt(tmp_path / str(number), [50.0] * 60))
        Config.fromfile(REPO / f'configs/buildings/{name}_inria-few-shot-1024x1024.py').dump(folders[-1] / 'roofs.py')
    said, content = compare(*folders)
    everyone, frozen_first = {*'123456789'}, {*'23'}
    assert content['differences'] == {}
    assert 'RECIPES DIFFER' not in said
    assert 'part of the attempts, as configs/buildings defines them:' in said
    schedule = content['part_of_attempts'].pop('schedule')
    assert {'hooks.LALEEarlyStopping.begin', 'hooks.FreezeBackboneHook.epochs'} <= set(schedule)
    for leaves in schedule.values():
        assert {frozenset(labels) for labels in leaves.values()} == {
            frozenset(frozen_first),
            frozenset(everyone - frozen_first),
        }
    found = {path: leaves for group in content['part_of_attempts'].values() for path, leaves in group.items()}
    assert {path: {value: set(labels) for value, labels in leaves.items()} for path, leaves in found.items()} == {
        'model.encoder_weights': {'"imagenet"': {'2', '3'}, 'not set': everyone - {'2', '3'}},
        'model.backbone.weights': {'"sa1b"': {'4', '5'}, 'not set': everyone - {'4', '5'}},
        'train_dataloader.batch_size': {'2': {'4', '5'}, '4': everyone - {'4', '5'}},
        'optim_wrapper.optimizer.lr': {'0.0001': {'4', '5'}, '0.001': everyone - {'4', '5'}},
    }


@pytest.mark.parametrize(
    ('name', 'extra', 'path'),
    [
        ('sam-conv_b_1xb2-plateau-60e', "optim_wrapper['optimizer']['lr'] = 0.01", 'optim_wrapper.optimizer.lr'),
        ('sam-conv_b_1xb2-plateau-60e', "model['backbone']['weights'] = None", None),
        ('sam-conv_b_1xb2-plateau-60e', "model['backbone']['weights'] = 'a.pth'", 'model.backbone.weights'),
        (
            'unet_r34_1xb4-plateau-60e-freeze-20e',
            "default_hooks['frozen_backbone']['epochs'] = 5",
            'hooks.FreezeBackboneHook.epochs',
        ),
    ],
)
def test_other_values_than_those_of_the_attempts_differ(compare, tmp_path, name, extra, path):
    """One field is changed; what else belongs to the attempt stays part of it."""
    folders = []
    for place, config in enumerate((name, 'lale_s1_1xb4-plateau-60e')):
        folders.append(attempt(tmp_path / str(place), [50.0] * 60))
        copy = folders[-1] / 'roofs.py'
        Config.fromfile(REPO / f'configs/buildings/{config}_inria-few-shot-1024x1024.py').dump(copy)
    with (folders[0] / 'roofs.py').open('a') as file:
        file.write(f'\n{extra}\n')
    said, content = compare(*folders)
    assert [found for group in content['differences'].values() for found in group] == ([] if path is None else [path])
    assert ('RECIPES DIFFER' in said) == (path is not None)
    assert content['part_of_attempts']


def test_configs_of_this_repository_are_read(compare, tmp_path):
    """The copy that a training leaves: the whole config in one file."""
    folder = attempt(tmp_path / 'a', [50.0] * 3)
    source = 'configs/buildings/unet_c32_1xb4-plateau-60e_inria-few-shot-1024x1024.py'
    Config.fromfile(REPO / source).dump(folder / 'roofs.py')
    other = attempt(tmp_path / 'b', [60.0] * 3)
    Config.fromfile(REPO / source.replace('unet_c32', 'lale_s1')).dump(other / 'roofs.py')
    said, content = compare(folder, other)
    assert 'recipes agree' in said, content['differences']
