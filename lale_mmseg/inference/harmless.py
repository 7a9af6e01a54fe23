"""What a network description in a checkpoint may ask for: plain networks, no files, no code from elsewhere."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from mmengine.runner import checkpoint as mmengine_checkpoint

from ..engine.fields import registered as find_registered
from ..errors import CheckpointError

#: Where the classes of a description may come from. Other registered classes read files named by their arguments.
_TRUSTED_MODULES = (
    'lale_mmseg.models.',
    'mmcv.cnn.',
    'mmdet.models.dense_heads.mask',
    'mmdet.models.layers.',
    'mmdet.models.losses.',
    'mmdet.models.task_modules.',
    'mmengine.model.',
    'mmengine.utils.dl_utils.',
    'mmseg.models.',
    'torch.nn.',
)
#: Arguments by which parts of mmsegmentation and mmdetection load files or modules while they are built.
_LOADING_ARGUMENTS = ('pretrained', 'checkpoint', 'checkpoint_path', 'teacher_ckpt', 'teacher_config', '_scope_')


def require_harmless(model_cfg: Any, source: str | Path) -> None:
    """Refuses a description that could do more than build a network; drops `init_cfg`, as all weights follow.

    A registry resolves a dotted name by importing it, and some registered classes unpickle files in their constructor,
    so an unchecked description could run any code.

    Args:
        model_cfg: The model's config; `init_cfg` entries are removed in place.
        source: Name of the checkpoint, for errors.

    Raises:
        CheckpointError: A type is not registered or not of a trusted module, or an argument names a file to load.
    """
    for where, node in _dicts(model_cfg, 'model'):
        node.pop('init_cfg', None)
        for name in _LOADING_ARGUMENTS:
            if node.get(name):
                raise CheckpointError(
                    f'{source}: {where}.{name} is {node[name]!r}; a checkpoint may not load files or modules'
                )
        if 'type' in node and not _is_trusted(node['type']):
            raise CheckpointError(
                f'{source}: {where}.type is {node["type"]!r}, which is not registered or not a part that checkpoints '
                'may name; if it is a part of your own, test with its config (tools/test.py)'
            )


@contextmanager
def refuse_unsafe_loading() -> Iterator[None]:
    """While it is open, mmengine reads no checkpoint file: none is needed to build a network."""

    def refuse(filename: Any, *_: Any, **__: Any) -> Any:
        raise CheckpointError(f'{filename}: a network description asks to load this file while it is built')

    with (
        mock.patch.object(mmengine_checkpoint, '_load_checkpoint', refuse),
        mock.patch.object(mmengine_checkpoint.CheckpointLoader, 'load_checkpoint', refuse),
    ):
        yield


def _is_trusted(kind: Any) -> bool:
    if not isinstance(kind, str):
        return False
    found = find_registered(kind)
    return bool(found) and all(
        inspect.isclass(part) and f'{part.__module__}.'.startswith(_TRUSTED_MODULES) for part in found
    )


def _dicts(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    """(path, dict) of a nested config, outer ones first."""
    if isinstance(node, Mapping):
        yield where, node
        for name, value in list(node.items()):
            yield from _dicts(value, f'{where}.{name}')
    elif isinstance(node, (list, tuple)):
        for position, value in enumerate(node):
            yield from _dicts(value, f'{where}.{position}')
