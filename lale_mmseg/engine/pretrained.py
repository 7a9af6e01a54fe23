"""Pretrained weights that a network names: loads those of `init_cfg`, or leaves all of them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.logging import MMLogger
from torch import nn

from ..errors import CheckpointError
from .checkpoint import load_weights, read_checkpoint, rename_weights
from .provenance import tiles_seen

#: Model fields that name pretrained weights: of this package, older parts of mmsegmentation, smp and timm.
PRETRAINED_FIELDS = ('encoder_weights', 'weights', 'pretrained', 'checkpoint_path')


@dataclass(frozen=True)
class PretrainedPart:
    """A part of a network whose weights come from a file: its name, the module, and its `init_cfg`."""

    name: str
    part: nn.Module
    init_cfg: Mapping[str, Any]


def take_pretrained_parts(model: nn.Module) -> list[PretrainedPart]:
    """Removes `init_cfg=dict(type='Pretrained', ...)` from every part that has one, for `load_pretrained_parts`.

    Names of mmengine's model zoos (`torchvision://...`, `open-mmlab://...`) are left to mmengine.

    Args:
        model: The network; other entries of a list in `init_cfg` are kept.

    Returns:
        The parts, outer ones first.
    """
    found = []
    for name, part in model.named_modules():
        init_cfg = getattr(part, 'init_cfg', None)
        entries = [init_cfg] if isinstance(init_cfg, Mapping) else list(init_cfg or ())
        ours = [entry for entry in entries if _is_ours(entry)]
        if ours:
            found += [PretrainedPart(name, part, entry) for entry in ours]
            rest = [entry for entry in entries if not _is_ours(entry)]
            part.init_cfg = rest or None
    return found


def load_pretrained_parts(parts: Sequence[PretrainedPart], trust: bool = False) -> frozenset[str]:
    """Loads the weights of parts, or raises.

    mmengine would run code from such a file, and train from random weights if no name matches. Here the file is read
    like any checkpoint of this package. Entries that the part lacks (such as a classifier) are ignored and logged.

    Args:
        parts: From `take_pretrained_parts`.
        trust: See `read_checkpoint`.

    Returns:
        Tiles that the weights were trained on, as the files record them.

    Raises:
        CheckpointError: A file cannot be read, or lacks weights of the part.
    """
    logger = MMLogger.get_current_instance()
    seen: frozenset[str] = frozenset()
    for name, part, init_cfg in ((entry.name, entry.part, entry.init_cfg) for entry in parts):
        source = str(init_cfg['checkpoint'])
        prefix = str(init_cfg.get('prefix') or '').rstrip('.')
        try:
            checkpoint = read_checkpoint(source, trust=trust)
            state_dict = rename_weights(checkpoint['state_dict'], [(r'^module\.', '')])
            if prefix:
                state_dict = {
                    key[len(prefix) + 1 :]: value for key, value in state_dict.items() if key.startswith(f'{prefix}.')
                }
            own = part.state_dict()
            extra = [key for key in state_dict if key not in own]
            weights = {key: value for key, value in state_dict.items() if key in own}
            load_weights(part, weights, source, advice=_advice(state_dict, own))
        except CheckpointError as error:
            raise CheckpointError(f'{name}.init_cfg: {error}') from None
        logger.info(f'{name}.init_cfg: loaded {len(weights)} of {len(own)} entries of {name} from {source}')
        if extra:
            logger.info(f'{source}: {len(extra)} entries ignored, which {name} does not have: {extra[:5]}')
        seen |= tiles_seen(checkpoint)
    return seen


def leave_out_pretrained(node: Any, path: str = 'model') -> dict[str, Any]:
    """Sets all sources of pretrained weights in a model config to None or False, in place.

    Args:
        node: The config or a part of it.
        path: Its dotted path.

    Returns:
        The removed values by dotted path.
    """
    found: dict[str, Any] = {}
    if isinstance(node, list | tuple):
        for position, item in enumerate(node):
            found |= leave_out_pretrained(item, f'{path}.{position}')
    if not isinstance(node, dict):
        return found
    for name, value in node.items():
        if name in PRETRAINED_FIELDS and value and isinstance(value, str | bool):
            found[f'{path}.{name}'] = value
            node[name] = False if value is True else None
        elif name == 'init_cfg':
            entries = list(value) if isinstance(value, list | tuple) else [value]
            kept = [entry for entry in entries if not (entry and entry.get('type') == 'Pretrained')]
            if len(kept) < len(entries):
                found[f'{path}.init_cfg'] = value
                node[name] = kept or None
        else:
            found |= leave_out_pretrained(value, f'{path}.{name}')
    return found


def _is_ours(entry: Mapping[str, Any]) -> bool:
    if entry.get('type') != 'Pretrained':
        return False
    source = str(entry['checkpoint'])
    return '://' not in source or source.startswith(('http://', 'https://'))


def _advice(found: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """Advice for a file that has the weights of the part under other names."""
    for key in found:
        prefix, _, name = key.partition('.')
        if name in own and key not in own:
            return f'the weights of this part have the prefix {prefix!r}: set prefix={f"{prefix}."!r} in init_cfg'
    if not set(found) & set(own):
        return 'convert published weights of LRFormer and LeMeViT first (docs/pretrained_weights.md)'
    return ''
