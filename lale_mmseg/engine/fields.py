"""Names of config fields: misspelt ones are found before a run, or located when a part cannot be built.

mmengine reads the fields of a config that it knows and ignores the rest, so a misspelt `train_dataloader` is a variable
that nobody reads. Inside a part Python rejects unknown arguments, but names neither the field nor the nearest name.
"""

from __future__ import annotations

import difflib
import inspect
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mmseg.registry as registries
from mmengine.config import Config
from mmengine.registry import Registry

from ..errors import ConfigError, InputError
from .default_hooks import DEFAULT_HOOKS, MMENGINE_HOOKS

#: Fields that are read by `Runner.from_cfg`, by mmengine's config machinery or by this package's tools.
KNOWN_FIELDS = [
    *[f'{phase}_{part}' for phase in ('train', 'val', 'test') for part in ('dataloader', 'cfg')],
    *['model', 'data_preprocessor', 'val_evaluator', 'test_evaluator', 'tta_cfg', 'data_root'],
    *['optim_wrapper', 'param_scheduler', 'auto_scale_lr', 'default_hooks', 'custom_hooks', 'randomness'],
    *['visualizer', 'vis_backends', 'log_processor', 'log_level', 'work_dir', 'experiment_name'],
    *['load_from', 'resume', 'partial_load', 'trust_checkpoint', 'default_scope', 'custom_imports', 'runner_type'],
    *['launcher', 'env_cfg', 'model_wrapper_cfg', 'find_unused_parameters', 'sync_bn', 'compile'],
    *['augmentation', 'binary_class', 'class_map', 'clean', 'allow_held_out', 'untrainable', 'overwrite'],
]
#: Variables that configs commonly use, and that only look like misspelt fields.
_USUAL_VARIABLES = [
    *['train_pipeline', 'val_pipeline', 'test_pipeline', 'tta_model', 'tta_pipeline', 'dataset_type', 'norm_cfg'],
    *['act_cfg', 'crop_size', 'models', 'img_ratios', 'num_classes', 'optimizer', 'checkpoint_file', 'metainfo'],
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
}
#: Python's message about an unknown argument, and mmengine's about an unknown type.
_UNEXPECTED = re.compile(r"got an unexpected keyword argument '(\w+)'")
#: Functions of mmengine that build parts, and the names of their arguments.
_BUILDERS = {'build_from_cfg': 'cfg', 'build_dataloader': 'dataloader'}
_COMPLETERS = ('complete_config', 'check_config')
_UNREGISTERED = re.compile(r'(\S+) is not in the \S+ registry')


def check_fields(cfg: Config) -> None:
    """Checks the names at the top level of a config, and those of its default hooks.

    Raises:
        ConfigError: A name looks like a misspelt field, or belongs to mmsegmentation 0.x.
    """
    for name in cfg:
        if name in _REPLACED_FIELDS:
            raise ConfigError(
                f'config field {name!r} belongs to mmsegmentation 0.x and is no longer read; use '
                f'{_REPLACED_FIELDS[name]}'
            )
        variant = name.startswith(tuple(f'{field}_' for field in KNOWN_FIELDS))  # such as `data_root_2`
        if name not in [*KNOWN_FIELDS, *_USUAL_VARIABLES] and not variant:
            _reject_near_miss(name, name, KNOWN_FIELDS, cutoff=0.86)
    hooks = [*MMENGINE_HOOKS, 'visualization', *DEFAULT_HOOKS]
    for name in cfg.get('default_hooks') or {}:
        if name not in hooks:
            _reject_near_miss(f'default_hooks.{name}', name, hooks, cutoff=0.8)


def check_overrides(cfg: Config, overrides: Mapping[str, Any]) -> None:
    """Checks the dotted names of `--cfg-options` against the config that they change.

    Raises:
        ConfigError: A name leads nowhere, or looks like a misspelling of a field of the config.
    """
    for dotted in overrides:
        node: Any = cfg
        path: list[str] = []
        for name in dotted.split('.'):
            where = '.'.join(path)
            if isinstance(node, Sequence) and not isinstance(node, str):
                if not name.isdigit() or int(name) >= len(node):
                    raise ConfigError(f'--cfg-options {dotted}: {where} is a list of {len(node)} entries')
                node = node[int(name)]
            elif not isinstance(node, Mapping | Config):
                raise ConfigError(f'--cfg-options {dotted}: {where} is {node!r} and has no field {name!r}')
            elif name in node:
                node = node[name]
            else:
                known = [*node, *(() if path else KNOWN_FIELDS)]
                if name not in known and not accepts(node, name):
                    _reject_near_miss('.'.join([*path, name]), name, known, cutoff=0.8)
                    if not path:
                        raise ConfigError(f'--cfg-options {dotted}: the config has no field {name!r}')
                break
            path.append(name)


def accepts(part: Mapping[str, Any], argument: str) -> bool:
    """Whether the class registered under the `type` of a part has an argument of that name."""
    kind = part.get('type')
    if kind is None:
        return False
    return any(argument in arguments_of(found) for found in (registered(kind) if isinstance(kind, str) else [kind]))


@contextmanager
def located_errors(cfg: Config) -> Iterator[None]:
    """Turns errors of parts that cannot be built into a ConfigError with the path of the field and the nearest name."""
    try:
        yield
    except (TypeError, ValueError, KeyError, AssertionError, AttributeError) as error:
        message = None if isinstance(error, InputError) else _located(cfg, error)
        if message is None:
            raise
        raise ConfigError(message) from error


def _located(cfg: Config, error: Exception) -> str | None:
    """The message for an error in mmengine's builder or in what it builds; None for other errors."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    built = [frame.f_locals[name] for frame in frames if (name := _BUILDERS.get(frame.f_code.co_name)) is not None]
    if not built:
        if not any(frame.f_code.co_name in _COMPLETERS for frame in frames):
            return None
        # The type of a field is wrong: a dict was read from a name, or a number compared with a string.
        return f'the config cannot be completed: {type(error).__name__}: {error}{_numerals(cfg)} ({_place(error)})'
    part = built[-1]
    path, kind = _path_of(cfg, part), part.get('type', 'DataLoader')
    if path is None:
        return None
    if _UNREGISTERED.search(str(error)):
        names = [name for registry in _registries() for name in registry.module_dict]
        return f'{path}.type: {kind!r} is not registered{_hint(str(kind), names)}; is its module in custom_imports?'
    unexpected = _UNEXPECTED.search(str(error))
    if unexpected and unexpected[1] in part:
        known = [name for found in registered(str(kind)) for name in arguments_of(found)]
        return f'{path}: {kind} has no argument {unexpected[1]!r}{_hint(unexpected[1], known)}'
    return f'{path}: {kind} cannot be built: {type(error).__name__}: {error}{_numerals(part)} ({_place(error)})'


def _place(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f'{Path(last.filename).name}:{last.lineno}, {last.name}'


def _path_of(cfg: Config, part: Any) -> str | None:
    """Path of the part of a config that a builder was given, which may have set more arguments."""
    parts = [*_parts(cfg.to_dict(), ''), *((name, cfg[name]) for name in cfg if name.endswith('_dataloader'))]
    same = [(path, found) for path, found in parts if found and found.get('type') == part.get('type')]
    equal = [path for path, found in same if all(part.get(name) == value for name, value in found.items())]
    return next(iter([*equal, *(path for path, _ in same)]), None)


def _numerals(part: Any, path: str = '') -> str:
    """Says which values of a part of a config are numbers in quotes."""
    found = ''
    for name, value in part.items() if isinstance(part, Mapping | Config) else enumerate(part):
        if _is_numeral(value):
            found += f'; {path}{name} is the string {value!r}'
        elif isinstance(value, Mapping | list | tuple):
            found += _numerals(value, f'{path}{name}.')
    return found


def _is_numeral(value: Any) -> bool:
    try:
        return isinstance(value, str) and isinstance(float(value), float)
    except ValueError:
        return False


def _parts(node: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(path, dict) of every dict with a `type` in a config."""
    if isinstance(node, Mapping):
        if 'type' in node:
            yield path, node
        for name, value in node.items():
            yield from _parts(value, f'{path}.{name}' if path else str(name))
    elif isinstance(node, (list, tuple)):
        for position, value in enumerate(node):
            yield from _parts(value, f'{path}.{position}')


def registered(name: str) -> list[Any]:
    """Everything registered under a name, with or without scope, in any registry that mmsegmentation uses."""
    short = name.rpartition('.')[2]
    return [registry.module_dict[short] for registry in _registries() if short in registry.module_dict]


def arguments_of(part: Any) -> list[str]:
    """Names of the arguments of a function, or of a class and the parents that it passes `**kwargs` to."""
    functions = (
        [vars(base)['__init__'] for base in inspect.getmro(part) if '__init__' in vars(base)]
        if inspect.isclass(part)
        else [part]
    )
    names: list[str] = []
    for function in functions:
        parameters = inspect.signature(function).parameters.values()
        names += [
            p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != 'self'
        ]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names


def _registries() -> list[Registry]:
    """The registries of mmsegmentation and their parents in mmengine."""
    own = [value for value in vars(registries).values() if isinstance(value, Registry)]
    for registry in own:
        registry.import_from_location()  # mmsegmentation registers its parts at the first look-up
    return [*own, *(registry.parent for registry in own if registry.parent is not None)]


def _reject_near_miss(path: str, name: str, known: Iterable[str], cutoff: float) -> None:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    if near:
        raise ConfigError(f'unknown config field {path!r}; did you mean {near[0]!r}?')


def _hint(name: str, known: Iterable[str]) -> str:
    known = sorted(set(known))
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f'; did you mean {near[0]!r}?'
    return f'; its arguments are {", ".join(known)}' if len(known) < 30 else ''
