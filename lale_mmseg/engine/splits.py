"""Checks of datasets that state their scenes and protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmseg.registry import DATASETS

from ..errors import ConfigError, DataError
from ..metainfo.protocols import find_protocol
from .config import PHASES, built_lazily, leaf_datasets
from .fields import accepts


def check_splits(cfg: Config) -> None:
    """Compares the scenes of the three dataloaders.

    Selecting the best checkpoint on scenes that are also tested is reported, not refused: some published protocols do
    so.

    Raises:
        ConfigError: A scene is used in training and in validation or testing.
    """
    scenes = {phase: scenes_of(cfg, phase) for phase in PHASES}
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
        # The clean variant of a protocol has validation tiles of its own; where test labels are hidden there is none.
        has_clean = all(accepts(dataset, 'clean') for _, dataset in leaf_datasets(cfg, 'test'))
        advice = 'set the top-level clean=True to validate on training tiles, or ' if has_clean else ''
        MMLogger.get_current_instance().warning(
            f'the best checkpoint is selected by {chosen_by} on {len(shared)} tiles that are also tested, so its test '
            f'scores are optimistic; {advice}set default_hooks.checkpoint.save_best=None to select none'
        )


def check_scoring(cfg: Config, phases: Sequence[str]) -> None:
    """Checks that datasets are scored under the protocol that they are read under.

    The metric checks the same at the first image, which in a training may be hours later.

    Args:
        cfg: Config of a run, completed.
        phases: Those of 'val' and 'test' that the run has.

    Raises:
        ConfigError: A dataset is read under another protocol than it is scored under.
    """
    for phase in phases:
        found = cfg.get(f'{phase}_evaluator') or []
        evaluators = [found] if isinstance(found, Mapping) else found
        protocols = [find_protocol(each['protocol']) for each in evaluators if each.get('protocol') is not None]
        for path, dataset in leaf_datasets(cfg, phase):
            if protocols and _states_scenes(dataset):
                source = built_lazily(dataset).metainfo['source']
                for protocol in protocols:
                    protocol.check_source(source, path)


def scenes_of(cfg: Config, phase: str) -> frozenset[str]:
    """Scenes of a phase, such as 'inria/austin1', without reading images.

    Datasets that cannot be built state none, as a run need not have the data of all phases.
    """
    found: frozenset[str] = frozenset()
    for _, dataset in leaf_datasets(cfg, phase):
        if _states_scenes(dataset):
            with suppress(DataError):
                found |= built_lazily(dataset).source_tiles
    return found


def _states_scenes(dataset: Mapping[str, Any]) -> bool:
    """Whether the class has `source_tiles`; others may look for their folders when built, so they are not built."""
    kind = dataset['type']
    return hasattr(DATASETS.get(kind) if isinstance(kind, str) else kind, 'source_tiles')
