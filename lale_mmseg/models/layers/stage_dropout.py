"""Channel dropout between the stages of a decoder that knows none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from ...errors import ConfigError


def check_dropout(name: str, ratio: float) -> None:
    """Raises ConfigError for what is no probability from 0 to below 1."""
    if not isinstance(ratio, int | float) or isinstance(ratio, bool) or not 0 <= ratio < 1:
        raise ConfigError(f'{name}={ratio!r}: a probability from 0 to below 1 is due')


def drop_behind(stages: Iterable[nn.Module], ratio: float) -> None:
    """Drops channels of what each stage returns, in training; names of weights stay as they are.

    The dropout is a part of its stage. It has no weights, so checkpoints with and without it are the same.

    Args:
        stages: Modules that return a map (B, C, H, W).
        ratio: Probability to drop a channel; 0 adds nothing.
    """
    for stage in stages if ratio else ():
        if type(stage).forward is nn.Sequential.forward and isinstance(stage, nn.Sequential):
            stage.append(nn.Dropout2d(ratio))
        else:
            stage.add_module('stage_dropout', nn.Dropout2d(ratio))
            stage.register_forward_hook(_drop)


def _drop(stage: nn.Module, _: Any, output: Tensor) -> Tensor:
    return stage.get_submodule('stage_dropout')(output)
