"""Does the validation that a resumed run would miss."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmseg.registry import HOOKS

#: Entry of a checkpoint's `meta`: whether its epoch was validated before it was saved.
_KEY = 'validated'


@HOOKS.register_module()
class ResumedValidationHook(Hook):
    """Validates before a resumed run by epochs trains on, if its checkpoint is of before the validation of its epoch.

    mmengine saves at the end of an epoch, then validates. A run that is resumed from there misses that score: for the
    best checkpoint, for a learning rate that falls on plateaus, and for early stopping, so it would go on otherwise
    than a straight run. Checkpoints that do not say whether they were validated are taken as they are.
    """

    # After the other hooks have prepared the training.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._validated = -1
        self._missed = False

    def before_val_epoch(self, runner: Runner) -> None:
        """Notes the epoch; not after the validation, as the best checkpoint is saved then."""
        if isinstance(runner._train_loop, EpochBasedTrainLoop):
            self._validated = runner.epoch

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Writes whether the epoch was validated."""
        if isinstance(runner._train_loop, EpochBasedTrainLoop):
            checkpoint['meta'][_KEY] = self._validated == checkpoint['meta']['epoch']

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Reads it."""
        self._missed = bool(runner._resume) and (checkpoint.get('meta') or {}).get(_KEY) is False

    def before_train(self, runner: Runner) -> None:
        """Validates; early stopping may end the run by it."""
        loop = runner.train_loop
        if not self._missed or runner.val_loop is None or not isinstance(loop, EpochBasedTrainLoop):
            return
        self._missed = False
        due = loop.epoch % loop.val_interval == 0 or loop.epoch == loop.max_epochs
        if loop.epoch >= loop.val_begin and due:
            runner.logger.info(f'epoch {loop.epoch} was saved before its validation, which is done now')
            runner.val_loop.run()
