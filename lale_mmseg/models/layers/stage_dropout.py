"""Channel dropout between the stages of a decoder that has none of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn


def drop_behind(stages: Iterable[nn.Module], ratio: float) -> None:
    """Adds channel dropout to the output of each stage, in training; the names of weights stay the same.

    Args:
        stages: Modules that return a feature map (B, C, H, W).
        ratio: Probability to drop a channel; 0 adds nothing.
    """
    for stage in stages if ratio else ():
        # Some stages are subclasses of Sequential with a `forward` that ignores appended modules.
        if isinstance(stage, nn.Sequential) and type(stage).forward is nn.Sequential.forward:
            stage.append(nn.Dropout2d(ratio))
        else:
            stage.add_module('stage_dropout', nn.Dropout2d(ratio))
            stage.register_forward_hook(_drop)


def _drop(stage: nn.Module, _: Any, output: Tensor) -> Tensor:
    return stage.get_submodule('stage_dropout')(output)
