"""A name by which a training and what came of it know each other."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

#: Entry of a checkpoint's `meta`, and of the message hub.
KEY = 'training'


@HOOKS.register_module()
class TrainingNameHook(Hook):
    """Writes the name of a training into its checkpoints (`meta.training`) and the message hub.

    It is the name that mmengine gives to the first start, of config and date; a resumed training keeps it. So the test
    of a checkpoint can be told from that of an earlier training in the same work dir, whatever the dates of files.
    """

    def __init__(self) -> None:
        self.name: str | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Takes the name of a training that is resumed."""
        if runner._resume:
            meta = checkpoint.get('meta') or {}
            self.name = meta.get(KEY) or meta.get('experiment_name')

    def before_train(self, runner: Runner) -> None:
        """Settles the name."""
        self.name = self.name or runner.experiment_name
        runner.message_hub.update_info(KEY, self.name)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Writes it."""
        checkpoint['meta'][KEY] = self.name
