"""Carries along of which attempt a checkpoint is."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from ..ledger import config_hash

#: Entry of a checkpoint's `meta`.
KEY = 'attempt'


@HOOKS.register_module()
class AttemptHook(Hook):
    """Writes the `config_hash` of a training into its checkpoints (`meta.attempt`).

    It is of the config that was trained with, seed and overrides of the command line included, which a test does not
    know. A resumed training keeps that of its first start.
    """

    def __init__(self) -> None:
        self._hash: str | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Takes that of a training that is resumed."""
        if runner._resume:
            self._hash = (checkpoint.get('meta') or {}).get(KEY)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Writes it."""
        self._hash = self._hash or config_hash(runner.cfg)
        checkpoint['meta'][KEY] = self._hash
