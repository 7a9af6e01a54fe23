"""Reads what a training run and its test left in a work dir: config, curves, scores."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from mmengine.config import Config

from lale_mmseg.engine.hooks.diagnostics import read_diagnostics
from lale_mmseg.engine.pretrained import leave_out_pretrained
from lale_mmseg.engine.provenance import config_hash
from lale_mmseg.errors import DataError
from lale_mmseg.evaluation.plots import read_curves
from lale_mmseg.inference import TestOptions

SCORES = ['mIoU', 'mF1', 'OA']
#: Shown where a run has them.
MORE_SCORES = ['mean_tile_IoU', 'mean_tile_F1', 'mBF1', 'mBIoU']
_LOSS = re.compile(r'(?:decode(?:_\d+)?\.)?(loss_\w+)')


@dataclass(frozen=True)
class Run:
    """A training run in a work dir.

    Attributes:
        label: Name in tables and pictures.
        folder: The work dir.
        config: Its config as plain data.
        monitor: Name of the validation score that selected its best checkpoint, 'mIoU' if it is not one of ours.
        key: What the seeds of one group have in common: hash of the config without seed, and initial weights.
        val: Validation scores, one row per validation, indexed by epoch or iteration.
        losses: Training losses by name, indexed by iteration.
        by_epoch: Whether `val` is indexed by epoch.
        metrics: Contents of metrics.json of 'val' and 'test', if they exist.
        row: Row of the table.
        notes: Remarks on the run.
    """

    label: str
    folder: Path
    config: dict[str, Any]
    monitor: str
    key: str
    val: pd.DataFrame
    losses: pd.DataFrame
    by_epoch: bool
    metrics: dict[str, dict[str, Any]]
    row: dict[str, Any]
    notes: list[str]


def read_run(folder: Path, label: str | None = None) -> Run:
    """Reads a work dir.

    Raises:
        DataError: The work dir has no log of a run, or no validation in it.
    """
    starts = _training_starts(folder)
    # A resumed run keeps the seed of its first start, and `load_from` may name the checkpoint it resumed from.
    config = {**starts[-1][1], **{key: starts[0][1].get(key) for key in ('randomness', 'load_from')}}
    curves = read_curves([path.with_name('scalars.json') for path, _ in starts])
    val = pd.DataFrame.from_dict(curves.val, orient='index')
    if 'mIoU' not in val:
        raise DataError(f'{folder}: no validation in its log; compare runs after their first validation')
    seed = (config.get('randomness') or {}).get('seed')
    without_seed = {**config, 'randomness': {**(config.get('randomness') or {}), 'seed': None}}
    monitor = ((config.get('default_hooks') or {}).get('checkpoint') or {}).get('save_best')
    monitor = monitor if monitor in [*SCORES, *MORE_SCORES] and monitor in val else 'mIoU'
    best = val.loc[val[monitor].idxmax()]
    row: dict[str, Any] = dict(run=label or folder.resolve().name, seed=seed, start=_initial_weights(config))
    row |= {f'val {name}': best[name] for name in [*SCORES, *MORE_SCORES, monitor] if name in best}
    row |= dict(best=int(best.name), trained=int(val.index[-1]), **_costs(folder))
    metrics = {
        split: json.loads(path.read_text(encoding='utf-8'))
        for split in ('val', 'test')
        if (path := folder / split / 'metrics.json').is_file()
    }
    notes: list[str] = []
    if 'test' in metrics:
        hashes = {config_hash(Config(start)) for _, start in starts}
        row |= _test_row(folder, metrics, hashes, row['best'], config, notes)
    return Run(
        label=row['run'],
        folder=folder,
        config=config,
        monitor=monitor,
        key=f'{config_hash(Config(without_seed))} {config.get("load_from")}',
        val=val,
        losses=_losses(curves.train),
        by_epoch=curves.val_by_epoch,
        metrics=metrics,
        row=row,
        notes=notes,
    )


def _training_starts(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Logged configs of the starts of the last run in a work dir, the oldest first."""
    starts: list[tuple[Path, dict[str, Any]]] = []
    for path in sorted(folder.glob('*/vis_data/config.py')):
        if read_curves([path.with_name('scalars.json')]).train:  # else the log of a test
            config = Config.fromfile(path, import_custom_modules=False).to_dict()
            starts = [*starts, (path, config)] if config.get('resume') else [(path, config)]
    if not starts:
        raise DataError(f'{folder}: no log of a training run (DATE_TIME/vis_data/scalars.json); is it a work dir?')
    return starts


def _initial_weights(config: Mapping[str, Any]) -> str:
    """What a run started from: 'random', or the names of published weights or files."""
    if config.get('load_from'):
        return Path(str(config['load_from'])).name
    names = []
    for path, value in leave_out_pretrained(copy.deepcopy(config.get('model') or {})).items():
        value = path if value is True else value
        for entry in value if isinstance(value, list | tuple) else [value]:
            names.append(Path(str(entry.get('checkpoint', entry) if isinstance(entry, Mapping) else entry)).name)
    return ', '.join(dict.fromkeys(names)) or 'random'


def _costs(folder: Path) -> dict[str, Any]:
    """Size, time and memory from the table of EpochDiagnosticsHook, if the run has one."""
    table = read_diagnostics(folder)
    if table.empty:
        return {}
    return {
        'trained M': table['trainable_parameters'].iloc[-1] / 1e6,
        's/epoch': table['epoch_time_s'].median(),
        'memory MB': table['memory_mb'].max(),
    }


def _losses(train: Mapping[int, Mapping[str, Any]]) -> pd.DataFrame:
    """Losses of the decode heads by the last part of their names, and the total `loss`, by iteration."""
    table = pd.DataFrame.from_dict(train, orient='index')
    names = {column: match[1] for column in table if (match := _LOSS.fullmatch(column))}
    return table[[*names]].T.groupby(names).sum().T.assign(loss=table['loss'])


def prediction_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the predictor that a run validated with, as JSON has them."""
    return json.loads(json.dumps(asdict(TestOptions.parse(config['model'].get('test_cfg')))))


def _test_row(
    folder: Path,
    metrics: dict[str, dict[str, Any]],
    hashes: set[str],
    best: int,
    config: Mapping[str, Any],
    notes: list[str],
) -> dict[str, Any]:
    """Cells of the test; removes a test of another run from `metrics`, and notes what is unusual about it."""
    path = folder / 'test' / 'run.json'
    run = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}
    if run.get('config_hash') not in hashes or run.get('split') not in ('test', None):
        notes.append(f'its test is left out: test/run.json is missing, of another run or of split {run.get("split")!r}')
        del metrics['test']
        return {}
    if best not in (run['epoch'], run['iter']):
        notes.append(f'tested at epoch {run["epoch"]} (iteration {run["iter"]}), best validation at {best}')
    validated = prediction_of(config)
    changed = [f'{name}={value}' for name, value in run['prediction'].items() if validated.get(name) != value]
    if changed:
        notes.append(f'tested with {", ".join(changed)}, unlike its validation')
    if (run['test_read'] or 0) > 1:
        notes.append(f'its held-out test was read {run["test_read"]} times: test scores are optimistic')
    content = metrics['test']
    scores = {**content['summary'], **{name: content[name] for name in MORE_SCORES if name in content}}
    row = {f'test {name}': scores[name] for name in SCORES + MORE_SCORES if name in scores}
    row |= {f'test IoU/{name}': entry['IoU'] for name, entry in content['per_class'].items()}
    default = prediction_of(dict(model={}))
    special = [f'{name}={value}' for name, value in run['prediction'].items() if default.get(name) != value]
    prediction = ', '.join(special) or 'whole images'
    return row | {'test reads': run['test_read'], 'prediction': prediction}


def data_of(run: Run, split: str) -> dict[str, Any]:
    """What the scores of a split were computed on, from metrics.json."""
    content = run.metrics.get(split)
    if content is None:
        return {'metrics.json': None}
    source = content.get('source') or {}
    return {
        'dataset': source.get('dataset'),
        'protocol': (content.get('protocol') or {}).get('name', source.get('protocol')),
        'averaged classes': content['score_classes'],
        'images': content['num_images'],
        'missing tiles': source.get('missing_tiles'),
        'boundary tolerance': (content.get('boundary') or {}).get('tolerance'),
        # Equal labels have equal pixel counts.
        'label pixels': {name: entry['label_pixels'] for name, entry in content['per_class'].items()},
    }
