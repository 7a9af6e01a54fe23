"""How runs go: runner, hooks, checkpoints, checks of configs."""

from . import hooks
from .runner import LaleRunner

__all__ = ['LaleRunner', 'hooks']
