"""Checks that the heads of a network fit its backbone, before a run starts."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import ConfigError
from .unwrap import unwrapped


def check_heads(model: Any) -> None:
    """Compares the widths of a backbone's feature maps with those that the heads expect.

    Backbones without an attribute `out_channels`, as those of mmsegmentation, are not checked.

    Args:
        model: A segmentor.

    Raises:
        ConfigError: They differ; names the field and its value.
    """
    model = unwrapped(model)
    widths = getattr(getattr(model, 'backbone', None), 'out_channels', None)
    if not isinstance(widths, tuple) or getattr(model, 'with_neck', False):
        return
    for field in ('decode_head', 'auxiliary_head'):
        part: Any = getattr(model, field, None)
        for head in part if isinstance(part, nn.ModuleList) else [part]:
            if isinstance(getattr(head, 'in_channels', None), int | list | tuple):
                _check_head(f'model.{field}', head, widths)


def _check_head(field: str, head: Any, widths: tuple[int, ...]) -> None:
    single = isinstance(head.in_channels, int)
    index = getattr(head, 'in_index', list(range(len(widths))))
    indices = [index] if isinstance(index, int) else list(index)
    if any(not -len(widths) <= position < len(widths) for position in indices):
        raise ConfigError(f'{field}.in_index={index}: model.backbone has {len(widths)} feature maps, counted from 0')
    expected = [widths[position] for position in indices]
    # A head that concatenates its inputs has stored the sum.
    fits = head.in_channels == sum(expected) if single else list(head.in_channels) == expected
    if not fits:
        raise ConfigError(
            f'{field}.in_channels={head.in_channels}: feature maps {indices} of model.backbone have {expected} channels'
        )
