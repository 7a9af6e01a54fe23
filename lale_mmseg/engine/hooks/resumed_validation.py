"""Runs the validation that a resumed run would miss."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmseg.registry import HOOKS

#: Entry of a checkpoint's `meta`: whether its epoch, or iteration, was validated before it was saved.
_KEY = 'validated'


@HOOKS.register_module()
class ResumedValidationHook(Hook):
    """Validates before a resumed run trains on, if its checkpoint was saved before the validation of its epoch.

    mmengine saves at the end of an epoch (or after an iteration), then validates. A run resumed from there would miss
    that score, which the best checkpoint, a schedule that watches for plateaus and early stopping all need.
    """

    # After the other hooks have prepared the training.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._validated = -1
        self._missed = False

    def before_val_epoch(self, runner: Runner) -> None:
        """Notes the epoch or iteration; not after the validation, because the best checkpoint is saved then."""
        unit = _unit(runner._train_loop)
        if unit is not None:
            self._validated = getattr(runner, unit)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Stores whether the epoch or iteration of the checkpoint was validated."""
        unit = _unit(runner._train_loop)
        if unit is not None:
            checkpoint['meta'][_KEY] = self._validated == checkpoint['meta'][unit]

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Reads it."""
        self._missed = bool(runner._resume) and (checkpoint.get('meta') or {}).get(_KEY) is False

    def before_train(self, runner: Runner) -> None:
        """Validates if the validation was missed; early stopping may then end the run."""
        loop, unit = runner.train_loop, _unit(runner.train_loop)
        if not self._missed or runner.val_loop is None or unit is None:
            return
        self._missed = False
        loop._decide_current_val_interval()
        done, last = getattr(loop, unit), getattr(loop, f'max_{unit}s')
        scheduled = done % loop.val_interval == 0 or done == last
        if done >= max(loop.val_begin, 1) and scheduled:
            runner.logger.info(f'the checkpoint of {unit} {done} was saved before its validation, which runs now')
            runner.val_loop.run()


def _unit(loop: Any) -> str | None:
    """What a loop counts, named as in the `meta` of checkpoints; None for other loops and for none."""
    if isinstance(loop, EpochBasedTrainLoop):
        return 'epoch'
    return 'iter' if isinstance(loop, IterBasedTrainLoop) else None
