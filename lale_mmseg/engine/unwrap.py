"""The segmentor inside its wrapper."""

from __future__ import annotations

from typing import Any

from mmengine.model import is_model_wrapper
from torch import nn


def unwrapped(model: nn.Module) -> Any:
    """The segmentor inside a wrapper of distributed training."""
    while is_model_wrapper(model):
        model = model.module
    return model
