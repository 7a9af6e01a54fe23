"""Keeps checkpoints free of anything but plain data."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from ..checkpoint import DESCRIPTION_KEY, describe, restore_histories, to_plain


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Adds the description of the network to a checkpoint and turns all of it into plain data; undoes that on load."""

    # After the other hooks have added their entries.
    priority = 'LOWEST'

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Changes the checkpoint that is about to be written."""
        checkpoint[DESCRIPTION_KEY] = describe(runner.cfg, checkpoint['meta'].get('dataset_meta'))
        for key in [*checkpoint]:
            checkpoint[key] = to_plain(checkpoint[key], key)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Changes a checkpoint that was just read."""
        restore_histories(checkpoint.get('message_hub', {}))
