"""Finds misspelt config fields before anything is built.

Python rejects an unknown argument when a part is built, but names neither the field nor what would be right, and fields
at the top level are never rejected at all: a misspelt `train_dataloader` is a variable that nobody reads.
"""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import mmengine.registry as root
import mmseg.registry as registries
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ..errors import ConfigError

#: Fields of a config that are read by `Runner.from_cfg`, by mmengine's config machinery or by this package's tools.
KNOWN_FIELDS = [
    *[f'{phase}_{part}' for phase in ('train', 'val', 'test') for part in ('dataloader', 'cfg')],
    *['model', 'data_preprocessor', 'tta_model', 'tta_pipeline', 'tta_cfg', 'val_evaluator'],
    *['test_evaluator', 'data_root'],
    *['optim_wrapper', 'param_scheduler', 'auto_scale_lr', 'default_hooks', 'custom_hooks', 'randomness'],
    *['visualizer', 'vis_backends', 'log_processor', 'log_level', 'work_dir', 'experiment_name'],
    *['load_from', 'resume', 'partial_load', 'trust_checkpoint', 'default_scope', 'custom_imports', 'runner_type'],
    *['launcher', 'env_cfg', 'model_wrapper_cfg', 'find_unused_parameters', 'sync_bn', 'compile'],
    *['augmentation', 'binary_class', 'allow_held_out'],
]
#: Variables that the configs of mmsegmentation and of this package use, beside the fields that are read.
_USUAL_VARIABLES = [
    *['train_pipeline', 'val_pipeline', 'test_pipeline', 'dataset_type', 'norm_cfg', 'act_cfg', 'crop_size', 'models'],
    *['img_ratios', 'num_classes', 'optimizer', 'checkpoint_file', 'metainfo'],
]
#: Fields of mmsegmentation 0.x that nobody reads any more, with what replaced them.
_REPLACED_FIELDS = {
    'resume_from': 'load_from plus resume=True',
    'lr_config': 'param_scheduler',
    'checkpoint_config': 'default_hooks.checkpoint',
    'evaluation': 'val_evaluator and train_cfg.val_interval',
    'optimizer_config': 'optim_wrapper',
    'log_config': 'default_hooks.logger and visualizer',
    'workflow': 'train_cfg.val_interval',
    'data': 'train_dataloader, val_dataloader and test_dataloader',
    'runner': 'train_cfg',
}
#: Names from that list that a config may use otherwise: they are of version 0.x where they hold one of these keys.
_TELLTALE_KEYS = {'data': {'samples_per_gpu'}, 'runner': {'max_iters', 'max_epochs'}}

_DEFAULT_HOOKS = ['runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint', 'visualization']
_ENV_FIELDS = ['cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit']
_TEST_FIELDS = ['mode', 'crop_size', 'stride']
_DATALOADER_FIELDS = {
    *inspect.signature(DataLoader.__init__).parameters,
    *['dataset', 'sampler', 'batch_sampler', 'collate_fn', 'worker_init_fn', 'num_batch_per_epoch'],
}
#: Constructors that build one wrapper of one optimizer.
_PLAIN_CONSTRUCTORS = (None, 'DefaultOptimWrapperConstructor', 'GroupedOptimWrapperConstructor')
#: Keys that a builder takes out before it calls the class.
_BUILDER_KEYS = {
    'optim_wrapper': {'type', 'constructor', 'paramwise_cfg'},
    'param_scheduler': {'type', 'convert_to_iter_based'},
    'hook': {'type', 'priority'},
    'vis_backend': {'type', 'name'},
    'plugin': {'type', 'postfix'},
    'norm_cfg': {'type', 'requires_grad'},
    'act_cfg': {'type', 'inplace'},
    'init_cfg': {'type', 'override'},
    'override': {'type', 'name'},
    'dcn': {'type', 'fallback_on_stride'},
    'part': {'type', '_scope_'},
}
#: Builders inside a model that a key, or the end of one such as `ffn_act_cfg`, stands for.
_NESTED_KINDS = ('norm_cfg', 'act_cfg', 'init_cfg', 'override', 'dcn')
#: Where a config chooses the attention of a backbone: one for all stages, or one a stage.
_ATTENTION_PATH = re.compile(r'(^|\.)attn_cfg(\.\d+)?$')
#: Module of the attentions that fit there; this package's models are read through the registry alone.
_ATTENTION_MODULE = 'lale_mmseg.models.attention.'
#: A `type` that networks of mmsegmentation (ViT, SAN) read themselves, so that no registry knows it.
_UNREGISTERED_TYPES = {'init_cfg': {'Pretrained_Part'}}


def check_fields(cfg: Config) -> None:
    """Checks the fields of a config, from the top level down to the arguments of each part.

    Raises:
        ConfigError: A field is misspelt, of mmsegmentation 0.x, or an argument unknown; names its path and the right
            one.
    """
    for name, value in cfg.items():
        _reject_replaced(name, value)
        one_more = name.startswith(tuple(f'{field}_' for field in KNOWN_FIELDS))  # such as `data_root_2`
        if name not in [*KNOWN_FIELDS, *_USUAL_VARIABLES] and not one_more:
            _reject_near_miss('', name, KNOWN_FIELDS, cutoff=0.86)
    for name in cfg.get('default_hooks') or {}:
        if name not in _DEFAULT_HOOKS:
            _reject_near_miss('default_hooks', name, _DEFAULT_HOOKS, cutoff=0.8)
    _require_known('env_cfg', cfg.get('env_cfg') or {}, _ENV_FIELDS)
    seeding = [name for name in inspect.signature(Runner.set_randomness).parameters if name != 'self']
    _require_known('randomness', cfg.get('randomness') or {}, seeding)
    segmentor = segmentor_config(cfg)
    heads = segmentor.get('decode_head') or {}
    kinds = [str(head.get('type')).rpartition('.')[2] for head in ([heads] if isinstance(heads, Mapping) else heads)]
    # Other segmentors, and PointHead, read keys of their own.
    if segmentor.get('type') in ('EncoderDecoder', 'mmseg.EncoderDecoder') and 'PointHead' not in kinds:
        path = 'model.test_cfg' if segmentor is cfg.model else 'model.module.test_cfg'
        _require_known(path, segmentor.get('test_cfg') or {}, _TEST_FIELDS)
    for path, part, kind in _parts(cfg):
        _check_part(path, part, kind)


def segmentor_config(cfg: Config) -> Any:
    """The config of the segmentor, inside the wrapper of test-time augmentation where there is one."""
    return cfg.model.get('module') or cfg.model


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
                    if not path:
                        _reject_replaced(name, overrides[dotted])
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
    yield from _nested_parts('model', cfg.model, 'model')
    yield from _each('data_preprocessor', cfg.get('data_preprocessor'), 'part')
    yield from _each('tta_model', cfg.get('tta_model'), 'part')
    for phase in ('train', 'val', 'test'):
        loader = cfg.get(f'{phase}_dataloader')
        if isinstance(loader, Mapping):
            path = f'{phase}_dataloader'
            _require_known(path, loader, _DATALOADER_FIELDS)
            yield from _each(f'{path}.sampler', loader.get('sampler'), 'part')
            yield from _dataset_parts(f'{path}.dataset', loader.get('dataset'))
        yield from _each(f'{phase}_evaluator', cfg.get(f'{phase}_evaluator'), 'part')
        yield from _loop(f'{phase}_cfg', cfg.get(f'{phase}_cfg'))
    wrapper = cfg.get('optim_wrapper')
    if isinstance(wrapper, Mapping):
        # Any other constructor may take anything, such as several optimizers by name.
        if wrapper.get('constructor') in _PLAIN_CONSTRUCTORS:
            yield from _each('optim_wrapper', {'type': 'OptimWrapper', **wrapper}, 'optim_wrapper')
        yield from _each('optim_wrapper.optimizer', wrapper.get('optimizer'), 'part')
    visualizer = cfg.get('visualizer')
    if isinstance(visualizer, Mapping):
        yield from _each('visualizer', visualizer, 'part')
        yield from _each('visualizer.vis_backends', visualizer.get('vis_backends'), 'vis_backend')
    if isinstance(cfg.get('log_processor'), Mapping):
        yield from _each('log_processor', {'type': 'LogProcessor', **cfg.log_processor}, 'part')
    yield from _each('param_scheduler', cfg.get('param_scheduler'), 'param_scheduler')
    yield from _each('custom_hooks', cfg.get('custom_hooks'), 'hook')
    for name, hook in (cfg.get('default_hooks') or {}).items():
        yield from _each(f'default_hooks.{name}', hook, 'hook')


def _nested_parts(path: str, value: Any, name: str) -> Iterator[tuple[str, Mapping, str]]:
    """Every dict with a `type` inside a model, whatever the key that holds it."""
    if isinstance(value, Mapping):
        ends = (end for end in _NESTED_KINDS if name == end or name.endswith(f'_{end}'))
        yield from _each(path, value, 'plugin' if name == 'cfg' else next(ends, 'part'))
        for key, inner in value.items():
            yield from _nested_parts(f'{path}.{key}', inner, key)
    elif isinstance(value, (list, tuple)):
        for position, item in enumerate(value):
            yield from _nested_parts(f'{path}.{position}', item, name)


def _loop(path: str, loop: Any) -> Iterator[tuple[str, Mapping, str]]:
    """A loop, with the type that mmengine gives to one without."""
    if not isinstance(loop, Mapping):
        return
    if 'type' in loop:
        yield from _each(path, loop, 'part')
        return
    default = {'val_cfg': 'ValLoop', 'test_cfg': 'TestLoop'}.get(path)
    if default is None:
        default = 'EpochBasedTrainLoop' if loop.get('by_epoch', 'max_epochs' in loop) else 'IterBasedTrainLoop'
        loop = {name: value for name, value in loop.items() if name != 'by_epoch'}
    yield path, {'type': default, **loop}, 'part'


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
    if part['type'] in _UNREGISTERED_TYPES.get(kind, ()):
        return
    candidates = find_registered(part['type'])
    if not candidates:
        _reject_unregistered(path, part['type'])
        return
    accepted: set[str] = set()
    for candidate in candidates:
        taken = accepted_arguments(candidate)
        if taken is None:
            return
        accepted |= taken
    for name in part:
        if name not in accepted and name not in _BUILDER_KEYS[kind] | _BUILDER_KEYS['part']:
            near = difflib.get_close_matches(name, accepted, n=1)
            hint = f'did you mean {near[0]!r}?' if near else f'it takes {", ".join(sorted(accepted)) or "none"}'
            raise ConfigError(f'{path}: {part["type"]} has no argument {name!r}; {hint}')


def _reject_unregistered(path: str, kind: str) -> None:
    """Raises the error for a `type` that is not registered, unless it is of a package that is not loaded."""
    scope, _, short = kind.rpartition('.')
    entries = _registries()
    scopes = {registry.scope for registry in entries}.union(*(registry.children for registry in entries))
    if scope and scope not in scopes:
        near = difflib.get_close_matches(scope, sorted(scopes), n=1, cutoff=0.8)
        if not near:  # a package that its builder imports, or names as missing
            return
        hint = f'; did you mean {f"{near[0]}.{short}"!r}?'
    else:
        own = [_in_scope(registry, scope) for registry in entries]
        names = sorted({name for registry in own if registry is not None for name in registry.module_dict})
        attentions = _attentions() if _ATTENTION_PATH.search(path) else []
        near = difflib.get_close_matches(short, attentions, n=1)
        near = near or difflib.get_close_matches(short, names, n=1, cutoff=0.8 if attentions else 0.6)
        hint = f'; did you mean {f"{scope}.{near[0]}".lstrip(".")!r}?' if near else '; is its module in custom_imports?'
        hint += f' Attentions of this package are {", ".join(attentions)}.' if attentions else ''
    raise ConfigError(f'{path}.type: nothing is registered as {kind!r}{hint}')


def _attentions() -> list[str]:
    """Names of the attentions of this package that a config may choose."""
    parts = registries.MODELS.module_dict.items()
    return sorted(name for name, part in parts if part.__module__.startswith(_ATTENTION_MODULE))


def find_registered(name: str) -> list[Any]:
    """Everything registered under a name, with or without scope, in any registry of mmsegmentation and mmengine."""
    scope, _, short = name.rpartition('.')
    if scope and '.' in scope:
        return []
    owners = [owner for registry in _registries() if (owner := _in_scope(registry, scope)) is not None]
    if not any(short in owner.module_dict for owner in owners):
        for owner in owners:  # another package registers its parts only when asked for one
            owner.import_from_location()
    return [owner.module_dict[short] for owner in owners if short in owner.module_dict]


def _in_scope(registry: Registry, scope: str) -> Registry | None:
    """The registry that a scope means: this one for its own and mmsegmentation's, a child for another package's."""
    if not scope or scope in (registry.scope, 'mmseg', 'mmengine'):
        return registry
    return registry.children.get(scope)


def _registries() -> list[Registry]:
    modules = (registries, root)
    entries = [value for module in modules for value in vars(module).values() if isinstance(value, Registry)]
    for registry in entries:
        registry.import_from_location()
    return entries


def accepted_arguments(part: Any) -> set[str] | None:
    """Names of the arguments of a class or function; None where it takes any.

    A class that passes `**kwargs` to its parent takes the parent's arguments, too. One that uses `**kwargs` itself, or
    takes `*args` as well and passes neither on, takes any.
    """
    if not inspect.isclass(part):
        own = inspect.signature(part).parameters.values()
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in own)
        return None if takes_any else {parameter.name for parameter in own}
    if part.__init__ is object.__init__ and part.__new__ is object.__new__:
        return set()
    names: set[str] = set()
    for base in part.__mro__:
        if '__init__' not in vars(base) or base is object:
            continue
        init = vars(base)['__init__']
        parameters = list(inspect.signature(init).parameters.values())[1:]
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        names |= {parameter.name for parameter in parameters if parameter.kind in named}
        kinds = {parameter.kind: parameter.name for parameter in parameters}
        keywords = kinds.get(inspect.Parameter.VAR_KEYWORD)
        if keywords is None:
            return names
        if _takes_any(init, keywords, inspect.Parameter.VAR_POSITIONAL in kinds):
            return None
    return None


@functools.cache
def _takes_any(init: Callable, keywords: str, positional: bool) -> bool:
    """Whether an `__init__` does anything but hand its `**keywords` to its parent's `__init__`.

    One that never looks at them hides misspellings, unless it takes `*args` as well, as a part that ignores all does.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(init)))
    except (OSError, TypeError, SyntaxError):  # made at run time, or compiled
        return positional
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    passed = {
        id(word.value) for call in calls if getattr(call.func, 'attr', '') == '__init__' for word in call.keywords
    }
    uses = {id(node) for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == keywords}
    return not uses <= passed or (positional and not uses)


def _reject_replaced(name: str, value: Any) -> None:
    telltale = _TELLTALE_KEYS.get(name)
    if name in _REPLACED_FIELDS and (telltale is None or (isinstance(value, Mapping) and telltale & set(value))):
        raise ConfigError(
            f'config field {name!r} is of mmsegmentation 0.x and no longer read; use {_REPLACED_FIELDS[name]}'
        )


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
