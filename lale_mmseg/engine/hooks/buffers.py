"""Keeps the buffers of all ranks equal during evaluation."""

from __future__ import annotations

from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS


@HOOKS.register_module()
class BroadcastBuffersHook(Hook):
    """Gives every rank the buffers of rank 0 before an evaluation; does nothing in a single process.

    Plain BatchNorm keeps running statistics on each rank, and a checkpoint holds those of rank 0. Without this hook,
    validation during training scores other networks than the one that is saved.
    """

    # After EMAHook(update_buffers=True), which swaps in its averages, also one per rank, for the evaluation.
    priority = 'LOWEST'

    def before_val_epoch(self, runner: Runner) -> None:
        """Broadcasts before a validation."""
        for buffer in runner.model.buffers():
            broadcast(buffer, src=0)

    def before_test_epoch(self, runner: Runner) -> None:
        """Broadcasts before a test that follows training."""
        self.before_val_epoch(runner)
