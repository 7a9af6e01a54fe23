"""Finds misspelt config fields before anything is built.

Python rejects an unknown argument when a part is built, but names neither the field nor what would be right, and fields
at the top level are never rejected at all: a misspelt `train_dataloader` is a variable that nobody reads.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import mmengine.registry as root
import mmseg.registry as registries
from mmengine.config import Config
from mmengine.registry import Registry
from torch.utils.data import DataLoader

from ..errors import ConfigError

#: Fields of a config that are read by `Runner.from_cfg`, by mmengine's config machinery or by this package's tools.
KNOWN_FIELDS = [
    'model',
    'work_dir',
    'train_dataloader',
    'val_dataloader',
    'test_dataloader',
    'train_cfg',
    'val_cfg',
    'test_cfg',
    'auto_scale_lr',
    'optim_wrapper',
    'param_scheduler',
    'val_evaluator',
    'test_evaluator',
    'default_hooks',
    'custom_hooks',
    'data_preprocessor',
    'load_from',
    'resume',
    'launcher',
    'env_cfg',
    'log_processor',
    'log_level',
    'visualizer',
    'default_scope',
    'randomness',
    'experiment_name',
    'custom_imports',
    'runner_type',
    'compile',
    'sync_bn',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'tta_model',
    'tta_pipeline',
    'vis_backends',
    'data_root',
    'partial_load',
    'trust_checkpoint',
]
#: Variables that the configs of mmsegmentation and of this package use, beside the fields that are read.
_USUAL_VARIABLES = [
    'train_pipeline',
    'val_pipeline',
    'test_pipeline',
    'dataset_type',
    'norm_cfg',
    'act_cfg',
    'crop_size',
    'img_ratios',
    'num_classes',
    'optimizer',
    'checkpoint_file',
    'metainfo',
]

_DEFAULT_HOOKS = ['runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint', 'visualization']
_ENV_FIELDS = ['cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit']
_TEST_FIELDS = ['mode', 'crop_size', 'stride']
_DATALOADER_FIELDS = {
    *inspect.signature(DataLoader.__init__).parameters,
    *['dataset', 'sampler', 'batch_sampler', 'collate_fn', 'worker_init_fn', 'num_batch_per_epoch'],
}
#: Keys that a builder takes out before it calls the class.
_BUILDER_KEYS = {
    'optim_wrapper': {'type', 'constructor', 'paramwise_cfg'},
    'param_scheduler': {'type', 'convert_to_iter_based'},
    'hook': {'type', 'priority'},
    'part': {'type', '_scope_'},
}


def check_fields(cfg: Config) -> None:
    """Checks the fields of a config, from the top level down to the arguments of each part.

    Raises:
        ConfigError: A field is misspelt or an argument unknown; names its path and the nearest right one.
    """
    for name in cfg:
        if name not in [*KNOWN_FIELDS, *_USUAL_VARIABLES]:
            _reject_near_miss('', name, KNOWN_FIELDS, cutoff=0.86)
    for name in cfg.get('default_hooks') or {}:
        if name not in _DEFAULT_HOOKS:
            _reject_near_miss('default_hooks', name, _DEFAULT_HOOKS, cutoff=0.8)
    _require_known('env_cfg', cfg.get('env_cfg') or {}, _ENV_FIELDS)
    _require_known('model.test_cfg', cfg.model.get('test_cfg') or {}, _TEST_FIELDS)
    for path, part, kind in _parts(cfg):
        _check_part(path, part, kind)


def check_overrides(cfg: Config, overrides: Mapping[str, Any]) -> None:
    """Checks the dotted names of `--cfg-options` against the config that they change.

    Raises:
        ConfigError: A name leads nowhere, or looks like a misspelling of a field that is there.
    """
    for dotted in overrides:
        node: Any = cfg
        path: list[str] = []
        for name in dotted.split('.'):
            if isinstance(node, Sequence) and not isinstance(node, str):
                if not name.isdigit() or int(name) >= len(node):
                    raise ConfigError(f'--cfg-options {dotted}: {".".join(path)} is a list of {len(node)} entries')
                node = node[int(name)]
            elif isinstance(node, Mapping | Config):
                if name not in node:
                    known = [*node, *(KNOWN_FIELDS if not path else ())]
                    if name not in known:
                        _reject_near_miss('.'.join(path), name, known, cutoff=0.8)
                    if not path and name not in KNOWN_FIELDS:
                        raise ConfigError(f'--cfg-options {dotted}: the config has no field {name!r}')
                    break
                node = node[name]
            else:
                raise ConfigError(f'--cfg-options {dotted}: {".".join(path)} is {node!r} and has no field {name!r}')
            path.append(name)


def _parts(cfg: Config) -> Iterator[tuple[str, Mapping, str]]:
    """Every dict with a `type` that is built with exactly its own keys: (path, dict, kind of builder)."""
    yield 'model', cfg.model, 'part'
    names = ('backbone', 'neck', 'decode_head', 'auxiliary_head', 'data_preprocessor')
    for name in names:
        yield from _each(f'model.{name}', cfg.model.get(name), 'part')
    for phase in ('train', 'val', 'test'):
        loader = cfg.get(f'{phase}_dataloader')
        if isinstance(loader, Mapping):
            path = f'{phase}_dataloader'
            _require_known(path, loader, _DATALOADER_FIELDS)
            yield from _each(f'{path}.sampler', loader.get('sampler'), 'part')
            yield from _dataset_parts(f'{path}.dataset', loader.get('dataset'))
        yield from _each(f'{phase}_evaluator', cfg.get(f'{phase}_evaluator'), 'part')
    wrapper = cfg.get('optim_wrapper')
    if isinstance(wrapper, Mapping) and 'constructor' not in wrapper:
        yield 'optim_wrapper', wrapper, 'optim_wrapper'
        yield from _each('optim_wrapper.optimizer', wrapper.get('optimizer'), 'part')
    yield from _each('param_scheduler', cfg.get('param_scheduler'), 'param_scheduler')
    yield from _each('custom_hooks', cfg.get('custom_hooks'), 'hook')
    for name, hook in (cfg.get('default_hooks') or {}).items():
        yield from _each(f'default_hooks.{name}', hook, 'hook')


def _dataset_parts(path: str, dataset: Any) -> Iterator[tuple[str, Mapping, str]]:
    yield from _each(path, dataset, 'part')
    if isinstance(dataset, Mapping):
        yield from _each(f'{path}.pipeline', dataset.get('pipeline'), 'part')
        if 'dataset' in dataset:
            yield from _dataset_parts(f'{path}.dataset', dataset['dataset'])
        for position, inner in enumerate(dataset.get('datasets') or ()):
            yield from _dataset_parts(f'{path}.datasets.{position}', inner)


def _each(path: str, value: Any, kind: str) -> Iterator[tuple[str, Mapping, str]]:
    if isinstance(value, Mapping) and isinstance(value.get('type'), str):
        yield path, value, kind
    elif isinstance(value, (list, tuple)):
        for position, item in enumerate(value):
            yield from _each(f'{path}.{position}', item, kind)


def _check_part(path: str, part: Mapping, kind: str) -> None:
    candidates = find_registered(str(part['type']))
    if not candidates:
        names = sorted({name for registry in _registries() for name in registry.module_dict})
        near = difflib.get_close_matches(str(part['type']), names, n=1)
        hint = f'; did you mean {near[0]!r}?' if near else '; is its module in custom_imports?'
        raise ConfigError(f'{path}.type: nothing is registered as {part["type"]!r}{hint}')
    accepted: set[str] = set()
    for candidate in candidates:
        taken = accepted_arguments(candidate)
        if taken is None:
            return
        accepted |= taken
    for name in part:
        if name not in accepted and name not in _BUILDER_KEYS[kind] | _BUILDER_KEYS['part']:
            near = difflib.get_close_matches(name, accepted, n=1)
            hint = f'did you mean {near[0]!r}?' if near else f'it takes {", ".join(sorted(accepted))}'
            raise ConfigError(f'{path}: {part["type"]} has no argument {name!r}; {hint}')


def find_registered(name: str) -> list[Any]:
    """Everything registered under a name, with or without scope, in any registry of mmsegmentation and mmengine."""
    scope, _, short = name.rpartition('.')
    if scope and '.' in scope:
        return []
    found = []
    for registry in _registries():
        if scope and scope not in (registry.scope, 'mmseg', 'mmengine'):
            other = registry.children.get(scope)
            registry = other if other is not None else registry
            if other is None:
                continue
        entry = registry.module_dict.get(short)
        if entry is not None:
            found.append(entry)
    return found


def _registries() -> list[Registry]:
    modules = (registries, root)
    entries = [value for module in modules for value in vars(module).values() if isinstance(value, Registry)]
    for registry in entries:
        registry.import_from_location()
    return entries


def accepted_arguments(part: Any) -> set[str] | None:
    """Names of the arguments of a class or function; None where it takes any.

    A class that passes `**kwargs` to its parent takes the parent's arguments, too.
    """
    if not inspect.isclass(part):
        own = inspect.signature(part).parameters.values()
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in own)
        return None if takes_any else {parameter.name for parameter in own}
    names: set[str] = set()
    for base in part.__mro__:
        if '__init__' not in vars(base) or base is object:
            continue
        parameters = list(inspect.signature(vars(base)['__init__']).parameters.values())[1:]
        names |= {parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD}
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return names
    return None


def _require_known(path: str, fields: Iterable[str], known: Iterable[str]) -> None:
    for name in fields:
        if name not in set(known):
            near = difflib.get_close_matches(name, list(known), n=1)
            hint = f'did you mean {near[0]!r}?' if near else f'known are {", ".join(sorted(known))}'
            raise ConfigError(f'{path}: unknown field {name!r}; {hint}')


def _reject_near_miss(path: str, name: str, known: Iterable[str], cutoff: float) -> None:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    if near:
        raise ConfigError(f'unknown config field {f"{path}.{name}".lstrip(".")!r}; did you mean {near[0]!r}?')
