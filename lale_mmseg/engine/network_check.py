"""Checks that a network of the config can be built and that its heads fit its backbone, before a run starts."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from ..errors import ConfigError
from .config import decode_heads


def check_network(cfg: Config) -> None:
    """Builds the backbone without memory, and compares its maps with what the heads take.

    Backbones that do not state their `out_channels`, as those of mmsegmentation, are left to the first step.

    Args:
        cfg: Config of a run, completed.

    Raises:
        ConfigError: An argument of the backbone is wrong, or a head takes maps of other widths; names the field.
    """
    segmentor = cfg.model
    config = segmentor.get('backbone')
    if not isinstance(config, Mapping) or not _states_its_widths(config):
        return
    config = {key: value for key, value in copy.deepcopy(dict(config)).items() if key != 'init_cfg'}
    try:
        with torch.device('meta'):
            widths = MODELS.build(config).out_channels
    except ConfigError as error:
        raise ConfigError(f'model.backbone ({config["type"]}): {error}') from None
    if segmentor.get('neck') is None:
        for path, head in decode_heads(cfg):
            _check_head(path, head, config, widths)


def _states_its_widths(config: Mapping[str, Any]) -> bool:
    kind = config.get('type')
    part = MODELS.get(kind) if isinstance(kind, str) else kind
    return hasattr(part, 'out_channels')


def _check_head(path: str, head: Mapping[str, Any], backbone: Mapping[str, Any], widths: Sequence[int]) -> None:
    """Compares `in_channels` of a head with the widths of the maps that its `in_index` chooses."""
    channels = _argument(head, 'in_channels')
    if channels is None:
        return
    single = isinstance(channels, int)
    wanted = [channels] if single else list(channels)
    index = _argument(head, 'in_index')
    if index is None or (isinstance(index, int) and not single):
        chosen = list(range(len(wanted)))
    else:
        chosen = [index] if isinstance(index, int) else list(index)
    if any(not -len(widths) <= position < len(widths) for position in chosen):
        raise ConfigError(
            f'{path}.in_index is {index}, but model.backbone ({backbone["type"]}) gives {len(widths)} maps, counted '
            'from 0'
        )
    found = [widths[position] for position in chosen]
    if found != wanted:
        due = found[0] if single and len(found) == 1 else found
        arch = f' with arch={backbone["arch"]!r}' if isinstance(backbone.get('arch'), str) else ''
        raise ConfigError(
            f'{path}.in_channels is {channels}, but maps {chosen} of model.backbone ({backbone["type"]}{arch}) have '
            f'{due} channels; set in_channels={due}'
        )


def _argument(head: Mapping[str, Any], name: str) -> Any:
    """What a head gets for an argument: from its config, or the default of its class."""
    if name in head:
        return head[name]
    part = MODELS.get(head['type']) if isinstance(head.get('type'), str) else head.get('type')
    for base in inspect.getmro(part) if inspect.isclass(part) else ():
        parameter = inspect.signature(vars(base).get('__init__', object.__init__)).parameters.get(name)
        if parameter is not None and parameter.default is not inspect.Parameter.empty:
            return parameter.default
    return None
