"""Completing a config from its data, and checking that its parts agree, before a run starts."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from ..compat import SIZE_DIVISORS
from ..errors import ConfigError, DataError
from .class_weights import frequency_weights
from .default_hooks import DEFAULT_HOOKS
from .fields import accepts, check_fields

PHASES = ('train', 'val', 'test')
#: Top-level fields that datasets take as arguments of the same name, unless they set their own.
DATASET_FIELDS = ('data_root', 'class_map', 'binary_class', 'clean')


def complete_config(cfg: Config) -> Config:
    """A copy of a config with every open field filled in, from the one place that knows its value.

    * `default_hooks`: the hooks of `DEFAULT_HOOKS` that the config does not name.
    * `val_cfg` and `test_cfg` without a type, or with mmengine's loop: the loop that predicts with a `Predictor`.
    * Datasets: the top-level `data_root`, `class_map`, `binary_class` and `clean`. `clean=False` also sets
      `save_best=None` of the checkpoint hook: validation then uses the test tiles, which must not choose a checkpoint.
    * `SeededAlbu` transforms without `transforms`: the top-level `augmentation`.
    * Data preprocessors without `size` and `size_divisor`: batches are padded to their largest image. Backbones in
      `SIZE_DIVISORS` get sizes that they can divide, also in tests unless there is a `test_cfg`.
    * `LogitsLossMetric`: the losses of the decode head, unless it names its own, and `model.test_cfg.keep_logits`.
    * Heads with `num_classes=None`: the number of classes of the first dataset that names its classes.
    * Losses with `class_weight='data'`: weights from the pixel counts of the training set. Where those are missing, the
      weights are None, and `untrainable` says what is missing: the config can test and not train.

    Raises:
        ConfigError: A field is misspelt, a top-level field is used by nothing, or a value cannot be found.
        DataError: The dataset with the classes cannot be read.
    """
    cfg = copy.deepcopy(cfg)
    if 'model' not in cfg:
        raise ConfigError('the config has no field model')
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    check_fields(cfg)
    # Behind the config's own: among hooks of one priority, those of every run come last.
    own = cfg.get('default_hooks') or {}
    missing = {name: hook for name, hook in DEFAULT_HOOKS.items() if name not in own}
    cfg.default_hooks = {**own, **copy.deepcopy(missing)}
    if cfg.get('clean') is False and cfg.default_hooks.get('checkpoint'):
        cfg.default_hooks['checkpoint']['save_best'] = None
    for phase in ('Val', 'Test'):
        loop = cfg.get(f'{phase.lower()}_cfg')
        if loop is not None and loop.get('type') in (None, f'{phase}Loop'):
            loop['type'] = f'Prediction{phase}Loop'
    _complete_datasets(cfg)
    _complete_padding(cfg)
    _complete_losses(cfg)
    return cfg


def _complete_datasets(cfg: Config) -> None:
    datasets = [dataset for phase in PHASES for _, dataset in leaf_datasets(cfg, phase)]
    for field in DATASET_FIELDS:
        value = cfg.get(field)
        takers = [dataset for dataset in datasets if value is not None and accepts(dataset, field)]
        for dataset in takers:
            dataset.setdefault(field, value)
        if value is not None and field != 'data_root' and all(dataset[field] != value for dataset in takers):
            raise ConfigError(
                f'{field} is {value!r}, but no dataset of the config uses it: '
                f'{", ".join(sorted({str(dataset.get("type")) for dataset in datasets}))}'
            )
    augmentation = cfg.get('augmentation')
    steps = list(_parts_of_type(cfg.get('train_dataloader'), 'SeededAlbu'))
    for step in steps:
        step['transforms'] = augmentation if step.get('transforms') is None else step['transforms']
    if augmentation is not None and all(step['transforms'] != augmentation for step in steps):
        raise ConfigError(f'augmentation is {augmentation!r}, but no SeededAlbu of the training pipeline uses it')


def _complete_padding(cfg: Config) -> None:
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor')
    if not preprocessor or not accepts(preprocessor, 'size_divisor'):
        return
    divisor = SIZE_DIVISORS.get(str((cfg.model.get('backbone') or {}).get('type')).rpartition('.')[2], 1)
    if preprocessor.get('size') is None and preprocessor.get('size_divisor') is None:
        preprocessor['size_divisor'] = divisor
    if divisor > 1 and preprocessor.get('test_cfg') is None:
        preprocessor['test_cfg'] = dict(size_divisor=divisor)


def _complete_losses(cfg: Config) -> None:
    heads = [head for _, head in decode_heads(cfg) if head.get('num_classes', 0) is None]
    if heads:
        num_classes = _num_classes_of_data(cfg)
        for head in heads:
            head['num_classes'] = num_classes

    weighted = [loss for _, loss in weighted_losses('model', cfg.model) if loss['class_weight'] == 'data']
    if weighted:
        try:
            weights = _weights_of_data(cfg)
        except DataError as error:  # a machine with the test tiles alone can test
            weights, cfg.untrainable = None, str(error)
        for loss in weighted:
            loss['class_weight'] = weights

    for evaluator in _parts_of_type([cfg.get('val_evaluator'), cfg.get('test_evaluator')], 'LogitsLossMetric'):
        if evaluator.get('losses') is None:
            losses = cfg.model.decode_head.get('loss_decode') or []
            evaluator['losses'] = copy.deepcopy([losses] if isinstance(losses, Mapping) else losses)
        cfg.model.setdefault('test_cfg', {})['keep_logits'] = True


def check_config(cfg: Config, phases: Sequence[str]) -> None:
    """Checks what would otherwise end a run after hours, or go wrong silently.

    Raises:
        ConfigError: Class counts or the number of class weights differ, epochs would never end, the schedule is shorter
            than the training, or learning rate multipliers would be lost; names fields and values.
        DataError: A dataset is missing.
    """
    if 'train' in phases:
        _check_training(cfg)
    for head_path, head in decode_heads(cfg):
        outputs = head.get('out_channels') or head.get('num_classes')
        for path, loss in weighted_losses(head_path, head):
            weights = loss['class_weight']
            if path.endswith('.loss_cls'):  # of Mask2Former, which has one more output, "no object"
                continue
            if isinstance(weights, int | float):
                raise ConfigError(f"{path}.class_weight is {weights}; set one number per class, 'data' or None")
            if outputs and not isinstance(weights, str) and len(weights) != outputs:
                raise ConfigError(
                    f'{path}.class_weight has {len(weights)} numbers, but {head_path} has {outputs} classes; set one '
                    "number per class, 'data' or None"
                )
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


def _check_training(cfg: Config) -> None:
    if cfg.get('untrainable'):
        raise DataError(cfg.untrainable)
    train_cfg, sampler = cfg.get('train_cfg') or {}, cfg.train_dataloader.get('sampler') or {}
    if train_cfg.get('type') == 'EpochBasedTrainLoop' and sampler.get('type') == 'InfiniteSampler':
        raise ConfigError(
            'train_dataloader.sampler is InfiniteSampler, with which an epoch never ends, but train_cfg.type is '
            "EpochBasedTrainLoop; use sampler=dict(type='DefaultSampler', shuffle=True)"
        )
    randomness = cfg.get('randomness') or {}
    unseeded = randomness.get('seed') is None or randomness.get('diff_rank_seed')
    if sampler.get('type') == 'ReplacementSampler' and sampler.get('seed') is None and unseeded:
        raise ConfigError(
            'train_dataloader.sampler is ReplacementSampler without a seed, so a resumed run would draw other samples; '
            'set randomness=dict(seed=0), or a seed of the sampler'
        )
    schedulers = cfg.get('param_scheduler') or []
    for position, scheduler in enumerate(schedulers if isinstance(schedulers, (list, tuple)) else [schedulers]):
        if not str(scheduler.get('type')).endswith('OneCycleLR'):
            continue
        steps, max_iters = scheduler.get('total_steps'), train_cfg.get('max_iters')
        # mmengine finds out when it gets there, hours later.
        if max_iters and steps and not scheduler.get('by_epoch', True) and steps < max_iters:
            raise ConfigError(
                f'param_scheduler.{position}.total_steps is {steps}, but train_cfg.max_iters is {max_iters}; '
                'set both to the length of the training'
            )
        # OneCycleLR raises every group to one `eta_max`, so multipliers of the learning rate are lost silently.
        keys = ((cfg.get('optim_wrapper') or {}).get('paramwise_cfg') or {}).get('custom_keys') or {}
        for key, multipliers in keys.items():
            if multipliers.get('lr_mult', 1) != 1 and isinstance(scheduler.get('eta_max'), int | float):
                raise ConfigError(
                    f'optim_wrapper.paramwise_cfg.custom_keys.{key}.lr_mult is {multipliers["lr_mult"]}, but '
                    f'param_scheduler.{position} is OneCycleLR, which raises every parameter to its eta_max; remove '
                    'lr_mult, or use another schedule (LinearLR, then PolyLR)'
                )


def weighted_losses(path: str, node: Any) -> Iterator[tuple[str, Any]]:
    """(path, config) of every loss with class weights in a part of a config."""
    if isinstance(node, Mapping):
        if node.get('class_weight') is not None:
            yield path, node
        for name, value in node.items():
            yield from weighted_losses(f'{path}.{name}', value)
    elif isinstance(node, (list, tuple)):
        for position, value in enumerate(node):
            yield from weighted_losses(f'{path}.{position}', value)


def _weights_of_data(cfg: Config) -> list[float]:
    datasets = [dataset for _, dataset in leaf_datasets(cfg, 'train')]
    counts = getattr(built_lazily(datasets[0]), 'class_pixels', None) if len(datasets) == 1 else None
    if counts is None:
        raise ConfigError(
            "class_weight='data' needs one training dataset that counts its classes, got "
            f'{", ".join(str(dataset.get("type")) for dataset in datasets) or "none"}; set None or a list of numbers'
        )
    return frequency_weights(counts())


def dataset_classes(dataset: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Class names of a dataset, without listing its files; None if it names none."""
    classes = built_lazily(dataset).metainfo.get('classes')
    return None if classes is None else tuple(classes)


def built_lazily(dataset: Mapping[str, Any]) -> Any:
    """The dataset before it lists its files."""
    if not accepts(dataset, 'lazy_init'):
        raise ConfigError(
            f'{dataset.get("type")} has no argument lazy_init; datasets derive from mmseg.datasets.BaseSegDataset or '
            'mmengine.dataset.BaseDataset'
        )
    try:
        return DATASETS.build({**dataset, 'lazy_init': True, 'pipeline': []})
    except (AssertionError, OSError) as error:  # how mmsegmentation's own datasets report a missing folder
        raise DataError(
            f'{dataset["type"]} with data_root {dataset.get("data_root")!r} cannot be built: '
            f'{str(error) or "a folder is missing"}'
        ) from None


def leaf_datasets(cfg: Config, phase: str) -> Iterator[tuple[str, Any]]:
    """(path, config) of each dataset of a phase, including those inside wrappers."""
    loader = cfg.get(f'{phase}_dataloader')
    if isinstance(loader, Mapping) and loader.get('dataset') is not None:
        yield from _leaves(f'{phase}_dataloader.dataset', loader['dataset'])


def decode_heads(cfg: Config) -> Iterator[tuple[str, Any]]:
    """(path, config) of each decode and auxiliary head of the model."""
    for name in ('decode_head', 'auxiliary_head'):
        head = cfg.model.get(name)
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


def _parts_of_type(node: Any, kind: str) -> Iterator[Any]:
    """Every part of a type in a config, at any depth; the scope of its type does not matter."""
    if isinstance(node, Mapping):
        if str(node.get('type')).rpartition('.')[2] == kind:
            yield node
        else:
            for value in node.values():
                yield from _parts_of_type(value, kind)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _parts_of_type(value, kind)


def _num_classes_of_data(cfg: Config) -> int:
    errors = []
    for phase in PHASES:
        for _, dataset in leaf_datasets(cfg, phase):
            try:
                classes = dataset_classes(dataset)
            except DataError as error:  # training may have no test data, and the other way round
                errors.append(error)
                continue
            if classes is not None:
                return len(classes)
    if errors:
        raise errors[0]
    raise ConfigError('num_classes of a head is None, and no dataset of the config names its classes')
