"""Checks that training and evaluation share no scene, across the datasets of a config."""

from __future__ import annotations

from mmengine.config import Config
from mmengine.logging import MMLogger

from ..errors import ConfigError
from .config import PHASES, built_lazily, leaf_datasets

#: What a dataset states where its files are cut from larger scenes: names of those of its split.
_ATTRIBUTE = 'source_tiles'


def check_splits(cfg: Config) -> None:
    """Compares the scenes of the three dataloaders, for datasets that state theirs.

    A checkpoint that is chosen by the scores of validation scenes that are also tested is reported, not refused: some
    published protocols do so.

    Raises:
        ConfigError: A scene is in training and in validation or testing.
    """
    scenes = {phase: _scenes(cfg, phase) for phase in PHASES}
    for phase in ('val', 'test'):
        shared = scenes['train'] & scenes[phase]
        if shared:
            raise ConfigError(
                f'train_dataloader and {phase}_dataloader share {len(shared)} tiles: {", ".join(sorted(shared)[:5])}'
                f'{" ..." if len(shared) > 5 else ""}; give their datasets the same protocol and the same `clean`'
            )
    chosen_by = ((cfg.get('default_hooks') or {}).get('checkpoint') or {}).get('save_best')
    shared = scenes['val'] & scenes['test']
    if chosen_by and shared:
        MMLogger.get_current_instance().warning(
            f'the best checkpoint is chosen by {chosen_by} on {len(shared)} tiles that are also tested, so its test '
            'scores are optimistic; `clean=True` in the three datasets takes validation tiles from the training '
            'tiles, and default_hooks.checkpoint.save_best=None chooses nothing'
        )


def _scenes(cfg: Config, phase: str) -> frozenset[str]:
    found: frozenset[str] = frozenset()
    for _, dataset in leaf_datasets(cfg, phase):
        found |= getattr(built_lazily(dataset), _ATTRIBUTE, frozenset())
    return found
