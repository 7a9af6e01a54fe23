"""Weights that a part of the network names in its own `init_cfg`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import MMLogger
from torch import nn

from ..errors import CheckpointError
from .checkpoint import load_weights, read_checkpoint, rename_weights


def load_pretrained_parts(model: nn.Module, trust: bool = False) -> None:
    """Loads `init_cfg=dict(type='Pretrained', checkpoint=..., prefix=...)` of every part, or raises.

    mmengine runs code that such a file holds, and trains from random weights when no name matches. Here files are read
    as any checkpoint of this package. Entries beside the part's own (a classifier, say) are left out and logged. Names
    that mmengine resolves to its model zoos (`torchvision://...`, `open-mmlab://...`) stay with it.

    Args:
        model: The network; the `init_cfg` of each part that was loaded is removed.
        trust: As of `read_checkpoint`.

    Raises:
        CheckpointError: A file cannot be read, or lacks weights of its part.
    """
    for name, part in model.named_modules():
        init_cfg = getattr(part, 'init_cfg', None)
        if not isinstance(init_cfg, Mapping) or init_cfg.get('type') != 'Pretrained':
            continue
        source = str(init_cfg['checkpoint'])
        if '://' in source and not source.startswith(('http://', 'https://')):
            continue
        prefix = str(init_cfg.get('prefix') or '').rstrip('.')
        state_dict = rename_weights(read_checkpoint(source, trust=trust)['state_dict'], [(r'^module\.', '')])
        if prefix:
            state_dict = {
                key[len(prefix) + 1 :]: value for key, value in state_dict.items() if key.startswith(f'{prefix}.')
            }
        own = part.state_dict()
        extra = [key for key in state_dict if key not in own]
        if extra:
            MMLogger.get_current_instance().info(f'{source}: {len(extra)} entries are not of {name}: {extra[:5]}')
        try:
            load_weights(
                part,
                {key: value for key, value in state_dict.items() if key in own},
                source,
                advice=_advice(extra, own),
            )
        except CheckpointError as error:
            raise CheckpointError(f'{name}.init_cfg: {error}') from None
        # Done: mmengine would load it once more, its own way.
        part.init_cfg = None


def _advice(extra: Sequence[str], own: Mapping[str, Any]) -> str:
    """Where the part's weights are in a file that has them below a prefix, as those of whole networks do."""
    for key in extra:
        prefix, _, name = key.partition('.')
        if name in own:
            return f'weights of this part are below {prefix!r}: set prefix={f"{prefix}."!r} in init_cfg'
    return ''
