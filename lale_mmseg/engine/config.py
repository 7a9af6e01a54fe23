"""Completing a config from its data, and checking that its parts agree, before a run starts."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, TRANSFORMS

from ..errors import ConfigError, DataError
from .component_check import accepted_arguments, check_fields, find_registered, segmentor_config

PHASES = ('train', 'val', 'test')


def complete_config(cfg: Config) -> Config:
    """A copy of a config in which what was left open is filled from the one place that knows it.

    * Datasets without `data_root` get the config's top-level `data_root`, so a child config changes one line.
    * Datasets that have a `binary_class` or `clean` argument and leave it open get the top-level one. `clean=False`
      also sets `save_best=None` of the checkpoint hook: validation is then on the test tiles, which must not choose.
    * `SeededAlbu` steps without `transforms` get the top-level `augmentation`.
    * Evaluators `LogitsLossMetric` without `losses` get those of the decode head.
    * Heads with `num_classes=None` get the number of classes of the first dataset that can be read.

    Raises:
        ConfigError: A field is misspelt, the number of classes is open and no dataset tells it, `binary_class` or
            `augmentation` is unknown, missing, or taken by nothing, or an evaluator cannot take the head's losses.
    """
    cfg = copy.deepcopy(cfg)
    if 'model' not in cfg:
        raise ConfigError('the config has no field model')
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    check_fields(cfg)
    data_root = cfg.get('data_root')
    if data_root is not None:
        for phase in PHASES:
            for _, dataset in leaf_datasets(cfg, phase):
                dataset.setdefault('data_root', data_root)
    _hand_on(cfg, 'binary_class')
    _hand_on(cfg, 'clean')
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint')
    if cfg.get('clean') is False and checkpoint:
        checkpoint['save_best'] = None
    _fill_augmentation(cfg)
    _fill_losses(cfg)
    heads = [(path, head) for path, head in decode_heads(cfg) if 'num_classes' in head]
    if any(head['num_classes'] is None for _, head in heads):
        num_classes = _num_classes_of_data(cfg)
        for _, head in heads:
            head['num_classes'] = num_classes if head['num_classes'] is None else head['num_classes']
    return cfg


def check_config(cfg: Config, phases: Sequence[str]) -> None:
    """Checks that data and network agree in what a run is about to use.

    Raises:
        ConfigError: Class or band counts differ, or epochs would never end; names fields and values.
        DataError: A dataset is missing.
    """
    if 'model' not in cfg:
        return  # a runner that was built from parts
    segmentor = segmentor_config(cfg)
    # A segmentor that makes its backbone itself takes the number of bands.
    bands_field = 'model.backbone.in_channels' if segmentor.get('backbone') else 'model.in_channels'
    bands = (segmentor.get('backbone') or segmentor).get('in_channels')
    mean = (segmentor.get('data_preprocessor') or cfg.get('data_preprocessor') or {}).get('mean')
    if bands is not None and mean is not None and len(mean) != bands:
        raise ConfigError(
            f'model.data_preprocessor.mean has {len(mean)} values, {bands_field} is {bands}; they must be equal'
        )
    if 'train' in phases and (cfg.get('train_cfg') or {}).get('type') == 'EpochBasedTrainLoop':
        sampler = cfg.train_dataloader.get('sampler', {})
        if sampler.get('type') == 'InfiniteSampler':
            raise ConfigError(
                'train_dataloader.sampler is InfiniteSampler, with which an epoch never ends, but train_cfg.type is '
                "EpochBasedTrainLoop; use sampler=dict(type='DefaultSampler', shuffle=True)"
            )
    if 'train' in phases:
        _check_schedules(cfg)
        _check_draws(cfg)
    for phase in phases:
        for path, dataset in leaf_datasets(cfg, phase):
            classes = dataset_classes(dataset)
            if classes is None:
                continue
            for head_path, head in decode_heads(cfg):
                found = head.get('num_classes', len(classes))
                if found != len(classes):
                    raise ConfigError(
                        f'{head_path}.num_classes is {found}, but {path} ({dataset["type"]}) has {len(classes)} '
                        f'classes: {", ".join(classes)}'
                    )


def _hand_on(cfg: Config, field: str) -> None:
    """Hands a top-level field to the datasets that have an argument of that name and leave it open."""
    value = cfg.get(field)
    if value is None:
        return
    datasets = [dataset for phase in PHASES for _, dataset in leaf_datasets(cfg, phase)]
    takers = [dataset for dataset in datasets if takes(dataset, field)]
    for dataset in takers:
        dataset.setdefault(field, value)
    # Not "was open": the config of a finished run already has the value in its datasets.
    if not any(dataset[field] == value for dataset in takers):
        kinds = ', '.join(sorted({str(dataset.get('type')) for dataset in datasets})) or 'none'
        why = f'each dataset sets its own {field}' if takers else f'no dataset has a {field} argument'
        raise ConfigError(f'{field} is {value!r}, but {why} (datasets: {kinds}); remove the top-level {field}')


def _fill_augmentation(cfg: Config) -> None:
    """Hands the top-level `augmentation` to the SeededAlbu steps without `transforms`, and tries whether all build."""
    augmentation = cfg.get('augmentation')
    steps = [
        found
        for phase in PHASES
        for found in _steps(f'{phase}_dataloader', cfg.get(f'{phase}_dataloader'), 'SeededAlbu')
    ]
    if augmentation is not None:
        for _, step in steps:
            if step.get('transforms') is None:
                step['transforms'] = copy.deepcopy(augmentation)
        if not any(step['transforms'] == augmentation for _, step in steps):
            raise ConfigError(
                f'augmentation is {augmentation!r}, but no pipeline has a SeededAlbu that leaves its transforms to it'
            )
    for path, step in steps:
        try:
            TRANSFORMS.build(step)
        except ConfigError as error:
            raise ConfigError(f'{path}: {error}') from None


def _fill_losses(cfg: Config) -> None:
    """Hands the losses of the decode head to the evaluators that compute losses and name none."""
    for phase in ('val', 'test'):
        found = cfg.get(f'{phase}_evaluator') or []
        evaluators: list[Any] = [found] if isinstance(found, Mapping) else list(found)
        for evaluator in evaluators:
            if evaluator.get('type') != 'LogitsLossMetric' or evaluator.get('losses') is not None:
                continue
            head = segmentor_config(cfg).get('decode_head')
            losses = head.get('loss_decode') if isinstance(head, Mapping) else None
            losses = [losses] if isinstance(losses, Mapping) else list(losses or ())
            if not losses or any(loss.get('class_weight') == 'data' for loss in losses):
                raise ConfigError(
                    f'{phase}_evaluator: LogitsLossMetric has no losses, and model.decode_head.loss_decode is '
                    f'{losses or "not one of a single head"}; write out its losses, with weights of classes as numbers'
                )
            evaluator['losses'] = copy.deepcopy(losses)


def takes(part: Mapping[str, Any], argument: str) -> bool:
    """Whether every class registered under the `type` of a part has an argument of that name."""
    taken = [accepted_arguments(candidate) for candidate in find_registered(str(part.get('type')))]
    return bool(taken) and all(names is not None and argument in names for names in taken)


def _steps(path: str, node: Any, kind: str) -> Iterator[tuple[str, Any]]:
    """(path, config) of every part of a type, however deep it lies."""
    if isinstance(node, Mapping):
        if _short_type(node) == kind:
            yield path, node
            return
        for name, value in node.items():
            yield from _steps(f'{path}.{name}', value, kind)
    elif isinstance(node, (list, tuple)):
        for position, value in enumerate(node):
            yield from _steps(f'{path}.{position}', value, kind)


def _short_type(part: Mapping[str, Any]) -> str:
    """The `type` of a part without its scope."""
    return str(part.get('type')).rpartition('.')[2]


def _check_draws(cfg: Config) -> None:
    """Draws whose augmentation is a function of their seed need both the sampler that gives it and a seed of the run.

    Without the latter mmengine draws one, and a resumed run gets its draws from another one.
    """
    loader = cfg.get('train_dataloader')
    if not isinstance(loader, Mapping):
        return
    sampler = loader.get('sampler') or {}
    replaces = _short_type(sampler) == 'ReplacementSampler'
    for path, _ in _steps('train_dataloader.dataset', loader.get('dataset'), 'SeedDraw'):
        if not replaces:
            raise ConfigError(
                f'{path} is SeedDraw, but train_dataloader.sampler is {sampler.get("type")}, whose draws have no seed; '
                "use sampler=dict(type='ReplacementSampler'), or take SeedDraw out"
            )
    randomness = cfg.get('randomness') or {}
    unseeded = randomness.get('seed') is None or randomness.get('diff_rank_seed')
    if replaces and sampler.get('seed') is None and unseeded:
        raise ConfigError(
            'train_dataloader.sampler is ReplacementSampler, but randomness gives it no seed, so that a resumed run '
            'would draw other samples; set randomness=dict(seed=0), or a seed of the sampler'
        )


def _check_schedules(cfg: Config) -> None:
    """A one-cycle schedule cannot go on after its last step; mmengine finds that out when it gets there.

    It also gives every group of parameters the same learning rate, whatever the optimizer was built with.
    """
    max_iters = (cfg.get('train_cfg') or {}).get('max_iters')
    schedulers = cfg.get('param_scheduler') or []
    for position, scheduler in enumerate(schedulers if isinstance(schedulers, (list, tuple)) else [schedulers]):
        if str(scheduler.get('type')).endswith('OneCycleLR') and isinstance(scheduler.get('eta_max'), int | float):
            _check_no_multiplied_rate(cfg, position)
        steps = scheduler.get('total_steps')
        start = scheduler.get('pct_start', 0.3)
        # mmengine divides by the length of the rise, pct_start * total_steps - 1.
        if str(scheduler.get('type')).endswith('OneCycleLR') and steps and math.isclose(start * steps, 1):
            raise ConfigError(
                f'param_scheduler.{position}: total_steps {steps} with pct_start {start} leaves no step for the '
                f'learning rate to rise; set param_scheduler.{position}.pct_start=0.3, or other total_steps'
            )
        if max_iters and steps and not scheduler.get('by_epoch', True) and steps < max_iters:
            raise ConfigError(
                f'param_scheduler.{position}.total_steps is {steps}, but train_cfg.max_iters is {max_iters}; '
                'set both to the length of the training'
            )


def _check_no_multiplied_rate(cfg: Config, position: int) -> None:
    """OneCycleLR takes all groups to its `eta_max`, so multipliers of the learning rate would be lost in silence."""
    keys = ((cfg.get('optim_wrapper') or {}).get('paramwise_cfg') or {}).get('custom_keys') or {}
    for key, multipliers in keys.items():
        if multipliers.get('lr_mult', 1) != 1:
            raise ConfigError(
                f'optim_wrapper.paramwise_cfg.custom_keys.{key}.lr_mult is {multipliers["lr_mult"]}, but '
                f'param_scheduler.{position} is OneCycleLR, which takes every parameter to its eta_max; leave lr_mult '
                'out, or use another schedule (LinearLR, then PolyLR)'
            )


def dataset_classes(dataset: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Class names of a dataset, without reading its files; None where it names none."""
    classes = built_lazily(dataset).metainfo.get('classes')
    return None if classes is None else tuple(classes)


def built_lazily(dataset: Mapping[str, Any]) -> Any:
    """The dataset before it reads its files."""
    try:
        return DATASETS.build({**dataset, 'lazy_init': True, 'pipeline': []})
    except (AssertionError, OSError) as error:  # how mmsegmentation's own datasets report a missing folder
        root = dataset.get('data_root')
        raise DataError(
            f'{dataset["type"]} with data_root {root!r} cannot be built: {str(error) or "a folder is missing"}'
        ) from None


def check_folders(cfg: Config, phases: Sequence[str]) -> None:
    """Checks that the folders which mmsegmentation's own datasets list are there; others have checks of their own.

    Those datasets look for them only after the network was built, and say nothing of `data_root`.

    Raises:
        DataError: A folder is missing; names it and the field.
    """
    for phase in phases:
        for path, dataset in leaf_datasets(cfg, phase):
            lazy: Any = None if dataset.get('backend_args') else built_lazily(dataset)  # with them: not on this disk
            if getattr(type(lazy), 'load_data_list', None) is not BaseSegDataset.load_data_list:
                continue
            for folder in (lazy.data_prefix.get('img_path'), lazy.data_prefix.get('seg_map_path')):
                if folder and not Path(folder).is_dir():
                    raise DataError(
                        f'{path} ({dataset["type"]}): no folder {folder}; data_root is {dataset.get("data_root")!r}, '
                        'is that where the data are?'
                    )


def leaf_datasets(cfg: Config, phase: str) -> Iterator[tuple[str, Any]]:
    """(path, config) of each dataset of a phase, those inside wrappers included."""
    loader = cfg.get(f'{phase}_dataloader')
    if isinstance(loader, Mapping) and loader.get('dataset') is not None:
        yield from _leaves(f'{phase}_dataloader.dataset', loader['dataset'])


def decode_heads(cfg: Config) -> Iterator[tuple[str, Any]]:
    """(path, config) of each decode and auxiliary head of the model."""
    for name in ('decode_head', 'auxiliary_head'):
        head = segmentor_config(cfg).get(name)
        if isinstance(head, Mapping):
            yield f'model.{name}', head
        else:
            for position, item in enumerate(head or ()):
                yield f'model.{name}.{position}', item


def _leaves(path: str, dataset: Any) -> Iterator[tuple[str, Any]]:
    if 'dataset' in dataset:
        yield from _leaves(f'{path}.dataset', dataset['dataset'])
    elif 'datasets' in dataset:
        for position, inner in enumerate(dataset['datasets']):
            yield from _leaves(f'{path}.datasets.{position}', inner)
    else:
        yield path, dataset


def _num_classes_of_data(cfg: Config) -> int:
    first_error: DataError | None = None
    for phase in PHASES:
        for _, dataset in leaf_datasets(cfg, phase):
            try:
                classes = dataset_classes(dataset)
            except DataError as error:
                first_error = first_error or error
            else:
                if classes is not None:
                    return len(classes)
    if first_error is not None:
        raise first_error
    raise ConfigError('num_classes of a head is None, and no dataset of the config names its classes')
