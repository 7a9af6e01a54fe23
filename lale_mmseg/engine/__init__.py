"""How runs go: runner, hooks, checkpoints, optimizer settings, checks of configs."""

from . import hooks
from .optim_constructor import GroupedOptimWrapperConstructor
from .runner import LALERunner

__all__ = ['GroupedOptimWrapperConstructor', 'LALERunner', 'hooks']
