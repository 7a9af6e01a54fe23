"""Checks of what is trained and what is scored, for datasets that say which scenes and which protocol they are of."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmseg.registry import DATASETS

from ..datasets.inria import FEW_SHOT, prepared_for
from ..errors import ConfigError, DataError
from ..metainfo.protocols import find_protocol
from .config import PHASES, built_lazily, leaf_datasets
from .fields import accepts as takes

#: What a dataset states where its files are cut from larger scenes: names of those of its split.
_ATTRIBUTE = 'source_tiles'


def check_splits(cfg: Config) -> None:
    """Compares the scenes of the three dataloaders, for datasets that state theirs.

    A checkpoint that is chosen by the scores of validation scenes that are also tested is reported, not refused: some
    published protocols do so.

    Raises:
        ConfigError: A scene is in training and in validation or testing.
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
        # A protocol whose test labels are hidden has nothing else to score.
        has_clean = all(takes(dataset, 'clean') for _, dataset in leaf_datasets(cfg, 'test'))
        instead = 'top-level `clean=True` takes validation tiles from the training tiles, and '
        MMLogger.get_current_instance().warning(
            f'the best checkpoint is chosen by {chosen_by} on {len(shared)} tiles that are also tested, so its test '
            f'scores are {"optimistic" if has_clean else "validation scores, and optimistic"}; '
            f'{instead if has_clean else ""}default_hooks.checkpoint.save_best=None chooses nothing'
        )


def check_scoring(cfg: Config, phases: Sequence[str]) -> None:
    """Compares the protocols of datasets and evaluators, and reports what makes a test less than it seems.

    Args:
        cfg: Config of a run, completed.
        phases: Those of 'val' and 'test' that the run has.

    Raises:
        ConfigError: A dataset is read under another protocol than it is scored under.
    """
    for phase in phases:
        for path, dataset in leaf_datasets(cfg, phase):
            if not _states_scenes(dataset):
                continue
            built = built_lazily(dataset)
            source = built.metainfo['source']
            for where, evaluator in _evaluators(cfg, phase):
                if evaluator.get('protocol') is not None:
                    find_protocol(evaluator['protocol']).check_source(source, f'{path} ({where}.protocol)')
    shared = scenes_of(cfg, 'train') & scenes_of(cfg, 'test') if 'test' in phases else frozenset()
    if shared:
        MMLogger.get_current_instance().warning(
            f'{len(shared)} tested tiles are training tiles of this config: {", ".join(sorted(shared)[:5])}'
        )


def scenes_of(cfg: Config, phase: str) -> frozenset[str]:
    """Scenes of a phase, such as 'inria/austin1', known without reading files.

    A data set that cannot be read states none, as a run need not have the data of all phases.
    """
    found: frozenset[str] = frozenset()
    for _, dataset in leaf_datasets(cfg, phase):
        if _states_scenes(dataset):
            with suppress(DataError):
                found |= getattr(built_lazily(dataset), _ATTRIBUTE)
    return found


def refuse_held_out(cfg: Config, phases: Sequence[str]) -> None:
    """Checks that nothing is trained on or chosen by a held-out split, and that none is read without being noted.

    Raises:
        ConfigError: A dataset of training or validation is held out, or one of any phase knows of no such split and
            reads a folder that has one; names its field.
    """
    for phase in phases:
        for path, dataset in leaf_datasets(cfg, phase):
            split = held_out_split(dataset)
            if split is not None and phase != 'test':
                raise ConfigError(
                    f'{path} ({dataset["type"]}) is {split}, which is held out: only tools/test.py reads it, as '
                    'test_dataloader, once, after all tuning; train on split train and choose by split val'
                )
            folder = _held_out_folder(dataset)
            if folder is not None:
                raise ConfigError(
                    f'{path} ({dataset["type"]}) reads {folder}, which was prepared for {FEW_SHOT!r} and holds '
                    f'held-out tiles; InriaDataset with protocol={FEW_SHOT!r} reads its splits train, val and test'
                )


def held_out_splits(cfg: Config) -> list[str]:
    """The held-out splits that a test of the config reads, such as 'inria test (few-shot)'."""
    found = (held_out_split(dataset) for _, dataset in leaf_datasets(cfg, 'test'))
    return [split for split in found if split is not None]


def held_out_roots(cfg: Config) -> list[str]:
    """Data folders of the held-out splits that a test of the config reads."""
    datasets = [dataset for _, dataset in leaf_datasets(cfg, 'test') if held_out_split(dataset) is not None]
    return [str(dataset['data_root']) for dataset in datasets if dataset.get('data_root')]


def held_out_split(dataset: Mapping[str, Any]) -> str | None:
    """Name of a dataset's split if it is held out, without reading its files; else None."""
    built = built_lazily(dataset)
    if not getattr(built, 'held_out', False):
        return None
    source = built.metainfo.get('source') or {}
    protocol = f' ({source["protocol"]})' if 'protocol' in source else ''
    return f'{source.get("city", dataset["type"])} {source.get("split", getattr(built, "split", "test"))}{protocol}'


def _held_out_folder(dataset: Mapping[str, Any]) -> Path | None:
    """Folder with held-out tiles that has the images of a dataset whose class knows of no held-out split."""
    built = built_lazily(dataset)
    if hasattr(built, 'held_out'):
        return None
    root, prefix = getattr(built, 'data_root', None), getattr(built, 'data_prefix', None) or {}
    images = (root, prefix.get('img_path'), os.path.join(root or '', getattr(built, 'image_dir', None) or ''))
    with suppress(DataError):  # a manifest that is no JSON is of other data
        for folder, protocols in prepared_for(*(Path(image) for image in images if image)).items():
            if FEW_SHOT in protocols:
                return folder
    return None


def _evaluators(cfg: Config, phase: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    evaluators = cfg.get(f'{phase}_evaluator') or []
    single = isinstance(evaluators, Mapping)
    for position, evaluator in enumerate([evaluators] if single else evaluators):
        yield f'{phase}_evaluator' if single else f'{phase}_evaluator.{position}', evaluator


def _states_scenes(dataset: Mapping[str, Any]) -> bool:
    """Whether the class does; those of others, which may look for their folders at once, are not built for it."""
    kind = dataset['type']
    return hasattr(DATASETS.get(kind) if isinstance(kind, str) else kind, _ATTRIBUTE)
