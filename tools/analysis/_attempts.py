"""What the work dirs of attempts hold, and how their recipes differ."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _runs import DIAGNOSTICS, best_of, differing, flatten, read_diagnostics, score_of
from mmengine.config import Config

from lale_mmseg.engine.ledger import LEDGER_NAME, read_ledger
from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.evaluation.plots import read_curves

SCORES = ('mIoU', 'mF1', 'OA')
#: The five attempts of the few-shot roofs protocol as published: name, val IoU, test IoU, test F1, in percent.
PUBLISHED = (
    ('U-Net from scratch', 73.5, 75.7, 86.1),
    ('U-Net, ResNet-34 (ImageNet)', 76.5, 79.6, 88.6),
    ('DeepLabV3+, ResNet-34 (ImageNet)', 77.2, 80.2, 89.0),
    ('frozen SAM ViT-B, conv decoder', 69.0, 64.6, 78.3),
    ('frozen SAM ViT-B, U-Net decoder', 74.0, 75.8, 86.2),
)
#: Fields of a recipe by what they are about; hooks are found by their type.
_FIELDS = {
    'losses': ('model.decode_head.loss_decode', 'model.auxiliary_head'),
    'augmentation': ('augmentation', 'train_pipeline'),
    'samples an epoch and batch': ('train_dataloader.sampler', 'train_dataloader.batch_size'),
    'learning rate, weight decay': ('optim_wrapper',),
    'schedule': ('param_scheduler', 'train_cfg', 'hooks'),
    'data, protocol and split': ('train_dataset', 'val_dataset', 'data_root', 'binary_class'),
    'scoring': ('val_evaluator',),
    'seed': ('randomness.seed',),
}
#: Hooks that change what is trained.
_TRAINING_HOOKS = ('EarlyStopping', 'Freeze', 'EMAHook')
_SHOWN = 5


@dataclass(frozen=True)
class Attempt:
    """One work dir.

    Attributes:
        label: Name in tables and pictures.
        folder: The work dir.
        config: The config of its last training start, as plain data.
        rows: Rows of its diagnostics by epoch.
        best: The row of the best validation IoU.
        test: Scores of its test in percent, or None.
        reads: How often its held-out test split was read; None where no ledger was kept.
        notes: What is to be said of it.
    """

    label: str
    folder: Path
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    best: Mapping[str, Any]
    test: dict[str, float] | None
    reads: int | None
    notes: list[str]

    @property
    def val_iou(self) -> float:
        """Validation IoU of the best epoch, in percent."""
        return score_of(self.best) or 0.0

    def to_dict(self) -> dict[str, Any]:
        """The row of the table as plain data."""
        last = self.rows[-1]
        times = [row['epoch_time_s'] for row in self.rows if row.get('epoch_time_s') is not None]
        memory = [row['memory_mb'] for row in self.rows if row.get('memory_mb') is not None]
        worst = self.best.get('worst_tile') or {}
        return dict(
            label=self.label,
            work_dir=str(self.folder),
            val={name: score_of(self.best, name) for name in SCORES},
            val_worst_tile=worst or None,
            test=self.test,
            test_reads=self.reads,
            parameters=last.get('parameters'),
            trainable_parameters=last.get('trainable_parameters'),
            epochs=int(last['epoch']),
            best_epoch=int(self.best['epoch']),
            epoch_time_s=statistics.median(times) if times else None,
            memory_mb=max(memory) if memory else None,
            notes=self.notes,
        )


def read_attempt(folder: Path, label: str) -> Attempt:
    """Reads a work dir.

    Raises:
        DataError: It, its config copy, its diagnostics or a validation is missing, or a file is damaged; names the
            file.
    """
    if not folder.is_dir():
        raise DataError(f'{folder}: no such work dir')
    configs = read_configs(folder)
    config = configs[-1]
    rows = read_diagnostics(folder)
    if not rows:
        raise DataError(f'{folder / DIAGNOSTICS}: has no epoch yet; the training has not come that far')
    best = best_of(rows)
    if best is None:
        raise DataError(f'{folder / DIAGNOSTICS}: none of its {len(rows)} epochs was validated (no val.mIoU)')
    notes: list[str] = []
    max_epochs = (config.get('train_cfg') or {}).get('max_epochs')
    done = int(rows[-1]['epoch'])
    if max_epochs and done < max_epochs and done - int(best['epoch']) < (_patience(config) or max_epochs):
        notes.append(f'unfinished: {done} of {max_epochs} epochs, and it was not due to stop early')
    changed = _changes(configs)
    if changed:
        notes.append(f'trained in {len(configs)} starts whose recipes differ in {", ".join(changed[:_SHOWN])}')
    test = _test_scores(folder, notes)
    return Attempt(label, folder, config, rows, best, test, _reads(folder), notes)


def read_configs(folder: Path) -> list[dict[str, Any]]:
    """The configs that a work dir was trained with, by start, as plain data; one if it was started once.

    Each start of a training leaves a copy beside its log. That in the work dir itself is of the last start of any tool,
    so a test with other overrides replaces it; it is taken where there is no log.

    Raises:
        DataError: There is none, several without a log that says which was trained, or one that cannot be read.
    """
    logged = [
        path
        for path in sorted(folder.glob('*/vis_data/config.py'))
        if read_curves([path.with_name('scalars.json')]).train
    ]
    if logged:
        return [_load(path) for path in logged]
    files = sorted(folder.glob('*.py'))
    if not files:
        raise DataError(f'{folder}/*.py: no copy of the config; tools/train.py leaves one when a training starts')
    if len(files) > 1:
        raise DataError(
            f'{folder}: {len(files)} configs ({", ".join(file.name for file in files)}) and no log of a training '
            '(DATE_TIME/vis_data) that says which was trained'
        )
    return [_load(files[0])]


def _load(path: Path) -> dict[str, Any]:
    try:
        return Config.fromfile(path, import_custom_modules=False).to_dict()
    except Exception as error:  # a config is Python, so anything may come of a damaged one
        raise DataError(f'{path}: not a usable config ({type(error).__name__}: {error})') from None


def _test_scores(folder: Path, notes: list[str]) -> dict[str, float] | None:
    path = folder / 'test' / 'metrics.json'
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        scores = {name: float(content['summary'][name]) for name in SCORES}
        source = content.get('source') or {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f'{path}: not the scores of a test ({type(error).__name__}: {error})') from None
    if source.get('split') not in (None, 'test'):
        notes.append(f'test/metrics.json is of split {source["split"]!r}, so it is no test')
        return None
    if source.get('missing_tiles'):
        notes.append(f'tested without the tiles {", ".join(source["missing_tiles"])}')
    return scores


def _reads(folder: Path) -> int | None:
    path = folder / LEDGER_NAME
    if not path.is_file():
        return None
    entries, damaged = read_ledger(path)
    # The number in a line counts reads from other work dirs, too, and a damaged line was a read.
    numbers = [entry['read'] for entry in entries if isinstance(entry.get('read'), int)]
    return max([len(entries) + damaged, *numbers])


def _patience(config: Mapping[str, Any]) -> int | None:
    for hook in _hooks(config):
        if 'EarlyStopping' in str(hook.get('type')):
            return int(hook.get('patience', 5))
    return None


def _hooks(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    hooks = [*(config.get('default_hooks') or {}).values(), *(config.get('custom_hooks') or [])]
    return [hook for hook in hooks if isinstance(hook, Mapping)]


def labels_of(folders: Sequence[Path], given: Sequence[str] | None) -> list[str]:
    """Names of the attempts: those given, or the names of the folders.

    Raises:
        ConfigError: They are too few, too many or not unique.
    """
    if given is not None and len(given) != len(folders):
        raise ConfigError(f'--labels: {len(given)} labels for {len(folders)} work dirs')
    labels = list(given) if given is not None else [folder.resolve().name for folder in folders]
    twice = [label for label in labels if labels.count(label) > 1]
    if twice:
        raise ConfigError(f'two attempts are called {twice[0]!r}; name them with --labels')
    return labels


def recipe_of(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a fair comparison keeps equal: leaves of the config by group."""
    loader = config.get('train_dataloader') or {}
    dataset = loader.get('dataset') or {}
    hooks = [hook for hook in _hooks(config) if any(name in str(hook.get('type')) for name in _TRAINING_HOOKS)]
    seen = {
        **config,
        'train_pipeline': dataset.get('pipeline'),
        'train_dataset': _without_pipeline(dataset),
        'val_dataset': _without_pipeline((config.get('val_dataloader') or {}).get('dataset') or {}),
        'hooks': {str(hook['type']): hook for hook in hooks},
    }
    groups: dict[str, dict[str, Any]] = {}
    for group, paths in _FIELDS.items():
        groups[group] = {}
        for path in paths:
            node: Any = seen
            for key in path.split('.'):
                node = node.get(key) if isinstance(node, Mapping) else None
            if path == 'model.auxiliary_head':
                heads = node if isinstance(node, (list, tuple)) else [node] if node else []
                node = [head.get('loss_decode') for head in heads] or None
            if node is not None:
                groups[group].update(flatten(node, path))
    return groups


def _changes(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Fields of the recipe that are not the same in all starts of a training."""
    recipes = [
        {path: leaf for group in recipe_of(config).values() for path, leaf in group.items()} for config in configs
    ]
    return list(dict.fromkeys(path for recipe in recipes for path in differing(recipes[-1], recipe)))


def _without_pipeline(dataset: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in dataset.items() if key != 'pipeline'}


def differences(attempts: Sequence[Attempt]) -> dict[str, dict[str, dict[str, list[str]]]]:
    """Fields of the recipes that are not the same in all attempts.

    Returns:
        By group and field: the labels of the attempts by the value that they have.
    """
    recipes = {attempt.label: recipe_of(attempt.config) for attempt in attempts}
    found: dict[str, dict[str, dict[str, list[str]]]] = {}
    for group in _FIELDS:
        paths = dict.fromkeys(path for recipe in recipes.values() for path in recipe[group])
        for path in paths:
            by_value: dict[str, list[str]] = {}
            for label, recipe in recipes.items():
                value = json.dumps(recipe[group][path], default=str) if path in recipe[group] else 'not set'
                by_value.setdefault(value, []).append(label)
            if len(by_value) > 1:
                found.setdefault(group, {})[path] = by_value
    return found


def difference_lines(found: Mapping[str, Mapping[str, Mapping[str, Sequence[str]]]]) -> list[str]:
    """Differences in words, the first few of each group."""
    lines = []
    for group, paths in found.items():
        for path, by_value in [*paths.items()][:_SHOWN]:
            values = '; '.join(f'{_short(value)} ({", ".join(labels)})' for value, labels in by_value.items())
            lines.append(f'{group}: {path}: {values}')
        if len(paths) > _SHOWN:
            lines.append(f'{group}: {len(paths) - _SHOWN} more fields, all in attempts.json')
    return lines


def _short(value: str) -> str:
    return value if len(value) <= 60 else f'{value[:57]}...'
