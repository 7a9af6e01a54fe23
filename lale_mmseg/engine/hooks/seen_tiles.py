"""Carries along which tiles a network was trained on, from one checkpoint to the next."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from mmseg.registry import HOOKS

from ..seen_tiles import (
    KEY,
    SeenTiles,
    merged,
    report_seen_before_training,
    report_seen_tiles,
    seen_by_checkpoint,
    tiles_of_dataset,
)


@HOOKS.register_module()
class SeenTilesHook(Hook):
    """Writes the tiles of all trainings that led to a checkpoint into its `meta`, as `seen_tiles`, by city.

    Those are the tiles of the present training set, and those of every checkpoint that weights came from. Training
    warns where a checkpoint that it starts from has seen tiles of its val or test set, and a test where it has seen
    those that are tested.
    """

    def __init__(self) -> None:
        self.seen: SeenTiles = {}

    def note(self, runner: Runner, seen: SeenTiles) -> None:
        """Takes tiles that weights of this run have seen, and warns where they are evaluated here."""
        self.seen = merged(self.seen, seen)
        if isinstance(runner._train_loop, BaseLoop):
            report_seen_before_training(seen, runner.cfg)
        elif isinstance(runner._test_loop, BaseLoop):
            report_seen_tiles(seen, tiles_of_dataset(runner._test_loop.dataloader.dataset))
        elif isinstance(runner._val_loop, BaseLoop):
            report_seen_tiles(seen, tiles_of_dataset(runner._val_loop.dataloader.dataset))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Reads those of a checkpoint."""
        self.note(runner, seen_by_checkpoint(checkpoint))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Writes them, with those of the training set."""
        checkpoint['meta'][KEY] = merged(self.seen, tiles_of_dataset(runner.train_dataloader.dataset))
