"""Keeps the buffers of all ranks equal where it matters."""

from __future__ import annotations

from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS


@HOOKS.register_module()
class BroadcastBuffersHook(Hook):
    """Gives every rank the buffers of rank 0 before an evaluation.

    Plain BatchNorm keeps running statistics of its own on each rank, and a checkpoint holds those of rank 0. Without
    this, validation in training scores other networks than the one that is saved.

    `EMAHook(update_buffers=True)` puts its own averages in for the evaluation, which are of each rank, too. This hook
    comes after it, so those averages are the ones that become equal; the running statistics that go on being trained
    stay as they are then, and only those of rank 0 are ever saved.
    """

    # After all hooks that change the network for an evaluation.
    priority = 'LOWEST'

    def before_val_epoch(self, runner: Runner) -> None:
        """Broadcasts before validation."""
        self._broadcast(runner)

    def before_test_epoch(self, runner: Runner) -> None:
        """Broadcasts before a test that follows training."""
        self._broadcast(runner)

    def _broadcast(self, runner: Runner) -> None:
        for buffer in runner.model.buffers():
            broadcast(buffer, src=0)
