"""What the network description in a checkpoint may contain: plain networks, no files, no code from elsewhere."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mmengine.registry as root
import mmseg.registry as own

from ..errors import CheckpointError

#: Modules whose registered classes a description may name. Those of other modules may read files in their constructor.
ALLOWED_MODULES = (
    'lale_mmseg.models.',
    'mmcv.cnn.bricks.',
    'mmdet.models.dense_heads.mask',
    'mmdet.models.layers.',
    'mmdet.models.losses.',
    'mmdet.models.task_modules.assigners.',
    'mmdet.models.task_modules.samplers.',
    'mmengine.model.',
    'mmengine.utils.dl_utils.parrots_wrapper.',
    'mmseg.models.',
    'torch.nn.',
)
#: Arguments that make a constructor in these modules read a file or import a module.
REFUSED_ARGUMENTS = (
    *('pretrained', 'checkpoint', 'checkpoint_path', 'class_embed_path', 'diffusion_cfg'),
    *('teacher_ckpt', 'teacher_config'),
)
#: Allowed values of `_scope_`, with which mmengine marks the parts of a `_base_` such as `mmseg::...`. A builder would
#: import and search any other scope; in these it finds what is checked here.
ALLOWED_SCOPES = ('mmseg', 'mmengine')


def require_harmless(node: Any, source: str | Path, where: str = 'model') -> None:
    """Refuses a description that could do more than build a network; removes pretrained weights, as all are loaded.

    A registry resolves an unknown name by importing it, and some registered classes unpickle files in their
    constructor, so building an unchecked description could run any code.

    Args:
        node: The model's config, or a part of it; `init_cfg` entries are removed in place.
        source: Name of the checkpoint, for errors.
        where: Dotted name of the part, for errors.

    Raises:
        CheckpointError: A type is not registered or not from an allowed module, or an argument names a file to load.
    """
    if isinstance(node, (list, tuple)):
        for position, item in enumerate(node):
            require_harmless(item, source, f'{where}.{position}')
    if not isinstance(node, Mapping):
        return
    node.pop('init_cfg', None)  # type: ignore[attr-defined]
    for name, value in node.items():
        # Losses of mmsegmentation read class weights from a file, which may be a pickle; timm reads `hf-hub:NAME` and
        # `local-dir:NAME` from a hub or a folder.
        reads = name in REFUSED_ARGUMENTS or (name == 'class_weight' and isinstance(value, str))
        reads = reads or (name == 'model_name' and ':' in str(value))
        reads = reads or (name == '_scope_' and value not in ALLOWED_SCOPES)
        if reads and value:
            raise CheckpointError(f'{source}: {where}.{name} is {value!r}; a checkpoint may not load files or modules')
        require_harmless(value, source, f'{where}.{name}')
    if 'type' in node and not _is_allowed(node['type']):
        raise CheckpointError(
            f'{source}: {where}.type is {node["type"]!r}, which is not registered or not a part that a checkpoint may '
            'name; test a network with parts of your own with its config (tools/test.py)'
        )


def _is_allowed(name: Any) -> bool:
    found = list(_registered(name)) if isinstance(name, str) else []
    return bool(found) and all(
        inspect.isclass(part) and f'{part.__module__}.'.startswith(ALLOWED_MODULES) for part in found
    )


def _registered(name: str) -> Iterator[Any]:
    """Everything that a builder can find under a name.

    Looked up here and not by `Registry.get`, which imports a name that it does not know.
    """
    scope, _, short = name.rpartition('.')
    if scope == 'mmdet' and importlib.util.find_spec('mmdet'):
        registries = [importlib.import_module('mmdet.registry')]
    else:
        registries = {'': [own, root], 'mmseg': [own], 'mmengine': [root]}.get(scope, [])
    for module in registries:
        for registry in (module.MODELS, module.TASK_UTILS):
            registry.import_from_location()  # its own package, fixed where the registry is made
            if short in registry.module_dict:
                yield registry.module_dict[short]
