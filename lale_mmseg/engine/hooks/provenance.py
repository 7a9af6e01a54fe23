"""Stores in checkpoints what their weights were trained with and on."""

from __future__ import annotations

from collections.abc import Collection

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from mmseg.registry import HOOKS

from ..provenance import config_hash, tiles_seen, warn_of_seen_tiles
from ..splits import scenes_of


@HOOKS.register_module()
class ProvenanceHook(Hook):
    """Writes `meta.config_hash` and `meta.seen_tiles` of checkpoints.

    `config_hash` is that of the training config, command line overrides included; a resumed training keeps the hash of
    its first start. `seen_tiles` are the tiles of all trainings that led to the weights: the present training set, and
    those of every checkpoint that weights were loaded from. A run that evaluates such tiles warns.
    """

    def __init__(self) -> None:
        self._hash: str | None = None
        self._seen: frozenset[str] = frozenset()

    def after_load_pretrained(self, runner: Runner, seen: Collection[str]) -> None:
        """Takes the tiles seen by pretrained parts; called by `LaleRunner`."""
        self._seen |= frozenset(seen)
        phases = ('train', 'val', 'test')
        running = [phase for phase in phases if isinstance(getattr(runner, f'_{phase}_loop'), BaseLoop)]
        # A training also warns of its test set, which is tested later.
        warn_of_seen_tiles(seen, runner.cfg, ('val', 'test') if 'train' in running else running)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Takes the tiles that a checkpoint has seen, and the hash of a training that is resumed."""
        self.after_load_pretrained(runner, tiles_seen(checkpoint))
        if runner._resume:
            self._hash = (checkpoint.get('meta') or {}).get('config_hash')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Writes both entries."""
        self._hash = self._hash or config_hash(runner.cfg)
        self._seen |= scenes_of(runner.cfg, 'train')
        checkpoint['meta'].update(config_hash=self._hash, seen_tiles=sorted(self._seen))
