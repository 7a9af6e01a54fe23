"""The recipes of attempts: what a fair comparison keeps equal, and where they differ."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from _runs import differing, flatten, short
from train import leave_out_pretrained

#: What recipes are compared in, in the order of the output. The network itself is no part of it.
GROUPS = (
    'data, protocol and split',
    'class losses',
    'decoder dropout',
    'initial weights',
    'augmentation and training pipeline',
    'validation and test pipelines',
    'data preprocessor',
    'samples an epoch and batch',
    'optimizer',
    'schedule',
    'prediction',
    'scoring',
    'seed',
)
#: Fields that attempts of configs/buildings set for themselves, by kind of network; other kinds have `_USUAL` there.
_OWN = {
    'sam': {
        'model.backbone.weights': 'sa1b',
        'train_dataloader.batch_size': 2,
        'optim_wrapper.optimizer.lr': 1e-4,
    },
    'smp': {
        'model.encoder_weights': 'imagenet',
        'hooks.FreezeBackboneHook.type': 'FreezeBackboneHook',
        'hooks.FreezeBackboneHook.epochs': 20,
        'hooks.LALEEarlyStopping.begin': 20,
        'param_scheduler.0.begin': 21,
        'param_scheduler.0.end': 10**9,  # for ever
    },
}
_USUAL = {'train_dataloader.batch_size': 4, 'optim_wrapper.optimizer.lr': 1e-3}
_KINDS = {'SAMViT': 'sam', 'SMPSegmentor': 'smp'}
#: Nothing set here means that the network starts from random weights, which is something to agree in.
_INITIAL = 'initial weights'
#: Hooks that change what is trained.
_TRAINING_HOOKS = ('EarlyStopping', 'Freeze', 'EMAHook')
#: Steps that make from the labels what the losses of a network of body and edge ask for.
_TARGET_STEPS = ('LaplacianEdges', 'GenerateEdge')
#: Padding to what the strides of a network can divide.
_PADDING = ('size_divisor', 'test_cfg.size_divisor')
_SHOWN = 5


def hooks_of(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Default and custom hooks of a config."""
    hooks = [*(config.get('default_hooks') or {}).values(), *(config.get('custom_hooks') or [])]
    return [hook for hook in hooks if isinstance(hook, Mapping)]


def recipe_of(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a fair comparison keeps equal: leaves of the config by group."""
    model = _segmentor(config)
    heads = {name: _heads(model.get(name)) for name in ('decode_head', 'auxiliary_head')}
    loader = config.get('train_dataloader') or {}
    data = {phase: (config.get(f'{phase}_dataloader') or {}).get('dataset') or {} for phase in ('train', 'val', 'test')}
    hooks = [hook for hook in hooks_of(config) if any(name in str(hook.get('type')) for name in _TRAINING_HOOKS)]
    preprocessor = flatten(model.get('data_preprocessor') or config.get('data_preprocessor') or {})
    groups: dict[str, dict[str, Any]] = {
        'class losses': {f'model.{name}.loss_decode': _losses(heads[name]) for name in heads},
        'decoder dropout': {'highest rate': _dropout(model, heads['decode_head'])},
        _INITIAL: {**_pretrained(config), 'load_from': config.get('load_from')},
        'augmentation and training pipeline': {
            'augmentation': config.get('augmentation'),
            **_pipelines(data['train'], 'train_pipeline'),
        },
        'validation and test pipelines': {
            **_pipelines(data['val'], 'val_pipeline'),
            **_pipelines(data['test'], 'test_pipeline'),
        },
        'data preprocessor': {
            f'data_preprocessor.{path}': leaf for path, leaf in preprocessor.items() if path and path not in _PADDING
        },
        'samples an epoch and batch': {
            'train_dataloader.sampler': loader.get('sampler'),
            'train_dataloader.batch_size': _batch(config, loader),
        },
        'optimizer': {'optim_wrapper': config.get('optim_wrapper')},
        'schedule': {
            'param_scheduler': config.get('param_scheduler'),
            'train_cfg': config.get('train_cfg'),
            'hooks': {str(hook['type']): hook for hook in hooks} or None,
        },
        'data, protocol and split': {
            **{f'{phase}_dataset': _without_pipelines(dataset) or None for phase, dataset in data.items()},
            **{name: config.get(name) for name in ('data_root', 'binary_class')},
        },
        'prediction': {'model.test_cfg': model.get('test_cfg')},
        'scoring': {'val_evaluator': config.get('val_evaluator')},
        'seed': {'randomness.seed': (config.get('randomness') or {}).get('seed')},
    }
    return {group: _leaves(groups[group]) for group in GROUPS}


def _leaves(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves by path; what is None is as good as not set."""
    found: dict[str, Any] = {}
    for path, node in fields.items():
        if node is not None:
            found.update(flatten(node, path))
    return {path: leaf for path, leaf in found.items() if leaf is not None}


def _segmentor(config: Mapping[str, Any]) -> Mapping[str, Any]:
    model = config.get('model') or {}
    return model.get('module') or model


def _heads(node: Any) -> list[Mapping[str, Any]]:
    return [node] if isinstance(node, Mapping) else [*(node or ())]


def _batch(config: Mapping[str, Any], loader: Mapping[str, Any]) -> int | None:
    """Samples of a step on all processes together; `processes` is noted beside a config that was trained on several."""
    size = loader.get('batch_size')
    return None if size is None else size * config.get('processes', 1)


def _losses(heads: Sequence[Mapping[str, Any]]) -> Any:
    """Losses of one head as they are, of several by head."""
    losses = [head.get('loss_decode') for head in heads]
    return losses[0] if len(losses) == 1 else losses or None


def _dropout(model: Mapping[str, Any], heads: Sequence[Mapping[str, Any]]) -> float | None:
    """The highest rate of the decoder's dropout: networks name it, and have stages to drop, as they are built."""
    parts = (model, model.get('backbone') or {}, *heads)
    rates = [part.get('decoder_dropout') for part in parts] + [head.get('dropout_ratio') for head in heads]
    return max((rate for rate in rates if rate is not None), default=None)


def _pretrained(config: Mapping[str, Any]) -> dict[str, Any]:
    """Sources of pretrained weights by path: what --random-init of tools/train.py would leave out."""
    return leave_out_pretrained(copy.deepcopy(config.get('model') or {}))


def _pipelines(dataset: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Pipelines of a dataset and of those that it wraps, the outer ones first."""
    found = {}
    for place, pipeline in enumerate(_nested_pipelines(dataset)):
        kept = [step for step in pipeline if step.get('type') not in _TARGET_STEPS]
        found[f'{name}.inner{place}' if place else name] = kept
    return found


def _nested_pipelines(dataset: Mapping[str, Any]) -> Iterator[Sequence[Mapping[str, Any]]]:
    if dataset.get('pipeline') is not None:
        yield dataset['pipeline']
    for inner in [dataset.get('dataset'), *(dataset.get('datasets') or ())]:
        if isinstance(inner, Mapping):
            yield from _nested_pipelines(inner)


def _without_pipelines(node: Any) -> Any:
    """A dataset without its pipelines and those of the datasets that it wraps."""
    if isinstance(node, Mapping):
        return {key: _without_pipelines(value) for key, value in node.items() if key != 'pipeline'}
    if isinstance(node, (list, tuple)):
        return [_without_pipelines(item) for item in node]
    return node


def changes(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Fields of the recipe that are not the same in all starts of a training."""
    recipes = [
        {path: leaf for group in recipe_of(config).values() for path, leaf in group.items()} for config in configs
    ]
    return list(dict.fromkeys(path for recipe in recipes for path in differing(recipes[-1], recipe)))


def differences(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, dict[str, list[str]]]]:
    """Fields of the recipes that are not the same in all attempts.

    Args:
        configs: By label.

    Returns:
        By group and field: the labels of the attempts by the value that they have.
    """
    recipes = {label: recipe_of(config) for label, config in configs.items()}
    found: dict[str, dict[str, dict[str, list[str]]]] = {}
    for group in GROUPS:
        paths = dict.fromkeys(path for recipe in recipes.values() for path in recipe[group])
        for path in paths:
            by_value: dict[str, list[str]] = {}
            for label, recipe in recipes.items():
                value = json.dumps(recipe[group][path], default=str) if path in recipe[group] else 'not set'
                by_value.setdefault(value, []).append(label)
            if len(by_value) > 1:
                found.setdefault(group, {})[path] = by_value
    return found


def own_to_attempts(
    configs: Mapping[str, Mapping[str, Any]], found: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Differences of recipes, and those that are exactly what the attempts of configs/buildings are defined by.

    Args:
        configs: By label.
        found: Of `differences`.
    """
    recipes = {label: recipe_of(config) for label, config in configs.items()}
    kinds = {label: _kind(config) for label, config in configs.items()}
    others: dict[str, dict[str, Any]] = {}
    own: dict[str, dict[str, Any]] = {}
    for group, paths in found.items():
        for path, by_value in paths.items():
            named = any(path in fields for fields in _OWN.values())
            as_due = all(
                recipes[label][group].get(path) == _OWN.get(kinds[label], {}).get(path, _USUAL.get(path))
                for label in configs
            )
            (own if named and as_due else others).setdefault(group, {})[path] = by_value
    return others, own


def _kind(config: Mapping[str, Any]) -> str:
    model = _segmentor(config)
    names = (model.get('type'), (model.get('backbone') or {}).get('type'))
    return next((kind for name, kind in _KINDS.items() if name in names), '')


def start_of(config: Mapping[str, Any]) -> str:
    """What the weights of a training started from: 'random', or the published weights or files by name."""
    if config.get('load_from'):
        return f'load_from {Path(str(config["load_from"])).name}'
    names = []
    for value in _pretrained(config).values():
        for entry in value if isinstance(value, list | tuple) else [value]:
            text = entry.get('checkpoint') if isinstance(entry, Mapping) else entry
            if text:
                names.append(f'file {Path(str(text)).name}' if '/' in str(text) or '.' in str(text) else str(text))
    return ', '.join(dict.fromkeys(names)) or 'random'


def compared(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Groups in which the configs say anything, and so were compared."""
    recipes = [recipe_of(config) for config in configs]
    return [group for group in GROUPS if group == _INITIAL or any(recipe[group] for recipe in recipes)]


def difference_lines(found: Mapping[str, Mapping[str, Mapping[str, Sequence[str]]]]) -> list[str]:
    """Differences in words, the first few of each group."""
    lines = []
    for group, paths in found.items():
        for path, by_value in [*paths.items()][:_SHOWN]:
            values = '; '.join(f'{short(value)} ({", ".join(labels)})' for value, labels in by_value.items())
            lines.append(f'{group}: {path}: {values}')
        if len(paths) > _SHOWN:
            lines.append(f'{group}: {len(paths) - _SHOWN} more fields, all in attempts.json')
    return lines
